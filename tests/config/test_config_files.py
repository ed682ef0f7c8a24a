from pathlib import Path

import pytest

from mutual3d.config import load_config
from mutual3d.models.build import model_arguments
from mutual3d.sampling import RULES, Configuration, SearchSpace

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_every_config_loads_and_describes_its_network(name):
    cfg = load_config(CONFIGS / name)
    arguments = model_arguments(cfg)
    space = SearchSpace(**arguments["space"])
    assert space.largest == Configuration(1.0, cfg.DATA.TRAIN_CROP_SIZE, space.temporal_sizes[-1])
    assert arguments["num_classes"] == cfg.MODEL.NUM_CLASSES
    assert set(cfg.MUTUAL.SUBNETS) <= set(RULES)


@pytest.mark.parametrize("name", [name for name in FILES if Path(name).name.startswith("MUTUAL_")])
def test_a_mutual_config_trains_more_than_one_configuration(name):
    cfg = load_config(CONFIGS / name)
    assert cfg.MUTUAL.ENABLE
    assert len(SearchSpace(**model_arguments(cfg)["space"]).corners()) == 8


def test_x3d_m_has_the_sizes_of_the_paper():
    space = SearchSpace(**model_arguments(load_config(CONFIGS / "Kinetics/MUTUAL_X3D_M.yaml"))["space"])
    assert space == SearchSpace([0.63, 1.0], [142, 160, 192, 224], [6, 9, 12, 16], 8)
