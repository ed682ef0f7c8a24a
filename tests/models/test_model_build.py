import pytest

from mutual3d.config import get_cfg
from mutual3d.models import NETWORKS, build_model, create_model


def test_an_unknown_network_lists_the_legal_ones():
    with pytest.raises(ValueError, match="no network 'x4d': choose among .*x3d"):
        create_model("x4d", space={"width_range": [1, 1], "spatial_sizes": [32], "temporal_sizes": [4]})


def test_an_unknown_model_name_of_a_config_lists_the_legal_ones():
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = "X4D"
    with pytest.raises(ValueError, match="MODEL.MODEL_NAME is 'X4D': mutual3d has ") as error:
        build_model(cfg)
    assert all(word in str(error.value) for facts in NETWORKS.values() for word in facts.words)


def test_a_space_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="width range"):
        create_model("x3d", space={"width_range": [0, 1], "spatial_sizes": [32], "temporal_sizes": [4]}, num_classes=2)


def test_building_checks_the_whole_config():
    """As the command lines do: a notebook's config is not read by `load_config`."""
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.X3D.BN_LIN5 = "X3D", True
    with pytest.raises(ValueError, match="X3D.BN_LIN5 is True: mutual3d supports False"):
        build_model(cfg)
