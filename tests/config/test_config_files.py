from pathlib import Path

import pytest
import torch

from mutual3d.models.build import build_model, model_arguments
from mutual3d.pipeline import load_config
from mutual3d.sampling import RULES, Configuration, SearchSpace

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
# On Charades and AVA the paper fine-tunes the largest configuration of a mutual network, and no other (6.5.2).
ADAPTIVE = [
    name for name in FILES
    if "/MUTUAL_" in name and (name.endswith("_ADAPTIVE.yaml") or not name.startswith(("AVA/", "Charades/")))
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_config_loads_and_describes_its_network(name):
    cfg = load_config(CONFIGS / name)
    arguments = model_arguments(cfg)
    space = SearchSpace(**arguments["space"])
    greatest_width = cfg.MUTUAL.WIDTH_RANGE[1] if cfg.MUTUAL.ENABLE else 1.0
    assert space.largest == Configuration(greatest_width, cfg.DATA.TRAIN_CROP_SIZE, space.temporal_sizes[-1])
    assert arguments["num_classes"] == cfg.MODEL.NUM_CLASSES
    assert set(cfg.MUTUAL.SUBNETS) <= set(RULES)


@pytest.mark.parametrize("name", FILES)
def test_every_config_builds_its_network(name):
    cfg = load_config(CONFIGS / name)
    with torch.device("meta"):
        network = build_model(cfg)
    if network.gives == "classes":
        *_, projection = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
        assert projection.out_features == cfg.MODEL.NUM_CLASSES
    assert network.activate(network.space.smallest).active == network.space.smallest


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_mutual_config_trains_more_than_one_configuration(name):
    cfg = load_config(CONFIGS / name)
    assert cfg.MUTUAL.ENABLE
    assert len(SearchSpace(**model_arguments(cfg)["space"]).corners()) == (4 if cfg.DATA.NUM_FRAMES == 1 else 8)


def test_x3d_m_has_the_sizes_of_the_paper():
    space = SearchSpace(**model_arguments(load_config(CONFIGS / "Kinetics/MUTUAL_X3D_M.yaml"))["space"])
    assert space == SearchSpace([0.63, 1.0], [142, 160, 192, 224], [6, 9, 12, 16], 8)
