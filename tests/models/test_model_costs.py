"""Parameters and multiply-adds are the published ones."""

from pathlib import Path

import pytest
import torch

from mutual3d.config import load_config
from mutual3d.evaluation.grid import count_costs
from mutual3d.models import build_model
from mutual3d.sampling import Configuration

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# (config, crop, parameters, GFLOPs of one view at full width).
PUBLISHED = [
    ("Kinetics/X3D_XS.yaml", 160, 3_794_322, 0.604),
    ("Kinetics/X3D_S.yaml", 160, 3_794_322, 1.962),
    ("Kinetics/X3D_M.yaml", 224, 3_794_322, 4.732),
    ("Kinetics/X3D_M.yaml", 256, 3_794_322, 6.18),
    ("Kinetics/X3D_L.yaml", 312, 6_153_432, 18.37),
]

# Config: {frames: {size: GFLOPs at full width}}.
GRIDS = {
    "Kinetics/MUTUAL_X3D_M.yaml": {
        6: {142: 0.769, 160: 0.907, 192: 1.305, 224: 1.776},
        9: {142: 1.153, 160: 1.360, 192: 1.957, 224: 2.663},
        12: {142: 1.537, 160: 1.812, 192: 2.609, 224: 3.550},
        16: {142: 2.048, 160: 2.415, 192: 3.477, 224: 4.733},
    },
}


def build(name):
    with torch.device("meta"):
        return build_model(load_config(CONFIGS / name))


@pytest.mark.parametrize("name, crop, parameters, gflops", PUBLISHED)
def test_full_width_costs_what_is_published(name, crop, parameters, gflops):
    model = build(name)
    cost = count_costs(model, [model.space.largest], crop)[model.space.largest]
    assert cost.parameters == sum(p.numel() for p in model.parameters()) == parameters
    # The published figures of XS and S lack about a million multiply-adds, as many as the classifier has.
    assert cost.gflops == pytest.approx(gflops, rel=1e-3, abs=1.5e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_every_size_and_frame_count_costs_what_is_published(name):
    model = build(name)
    published = {Configuration(1.0, s, t): gflops for t, row in GRIDS[name].items() for s, gflops in row.items()}
    costs = count_costs(model, list(published), model.space.spatial_sizes[-1])
    assert {c: cost.gflops for c, cost in costs.items()} == pytest.approx(published, rel=1e-3)


def test_cost_rises_with_the_signature():
    model = build("Kinetics/MUTUAL_X3D_M.yaml")
    widths = sorted({model.signature(w): w for w in model.space.widths(0.1)}.values())
    costs = list(count_costs(model, [Configuration(w, 142, 6) for w in widths], 224).values())
    assert len(costs) > 3
    assert all(a.gflops < b.gflops and a.parameters < b.parameters for a, b in zip(costs, costs[1:]))
