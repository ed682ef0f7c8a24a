"""Parameters and multiply-adds are the published ones."""

from pathlib import Path

import pytest
import torch

from mutual3d.config import load_config
from mutual3d.cost.flops import count_costs
from mutual3d.models import build_model
from mutual3d.sampling import Configuration

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# The backbone under AVA's head: res5 keeps the resolution and looks twice as far.
AVA = (
    "MODEL.NUM_CLASSES", 80, "RESNET.SPATIAL_STRIDES", [[1], [2], [2], [1]],
    "RESNET.SPATIAL_DILATIONS", [[1], [1], [1], [2]],
)  # fmt: skip

# (config, overrides, crop, parameters, GFLOPs of one view at full width).
PUBLISHED = [
    ("Kinetics/SLOW_8x8_R50.yaml", (), 224, 32_454_096, 41.74),
    ("Kinetics/SLOW_8x8_R50.yaml", (), 256, 32_454_096, 54.52),
    ("Kinetics/SLOW_8x8_R50.yaml", ("MODEL.NUM_CLASSES", 157), 224, 31_956_189, 41.74),
    ("Kinetics/SLOW_8x8_R50.yaml", AVA, 224, 31_798_416, 63.6),
    ("Kinetics/SLOWFAST_4x16_R50.yaml", (), 224, 34_480_216, 27.64),
    ("Kinetics/SLOWFAST_4x16_R50.yaml", (), 256, 34_480_216, 36.10),
    ("Kinetics/SLOWFAST_8x8_R50.yaml", (), 256, 34_566_488, 65.71),
    ("Kinetics/X3D_XS.yaml", (), 160, 3_794_322, 0.604),
    ("Kinetics/X3D_S.yaml", (), 160, 3_794_322, 1.962),
    ("Kinetics/X3D_M.yaml", (), 224, 3_794_322, 4.732),
    ("Kinetics/X3D_M.yaml", (), 256, 3_794_322, 6.18),
    ("Kinetics/X3D_L.yaml", (), 312, 6_153_432, 18.37),
]

# Config: {frames: {size: GFLOPs at full width}}.
GRIDS = {
    "Kinetics/MUTUAL_SLOW_8x8_R50.yaml": {
        3: {142: 6.731, 178: 11.037, 224: 15.653},
        5: {142: 11.217, 178: 18.394, 224: 26.088},
        8: {142: 17.947, 178: 29.430, 224: 41.741},
    },
    "Kinetics/MUTUAL_X3D_M.yaml": {
        6: {142: 0.769, 160: 0.907, 192: 1.305, 224: 1.776},
        9: {142: 1.153, 160: 1.360, 192: 1.957, 224: 2.663},
        12: {142: 1.537, 160: 1.812, 192: 2.609, 224: 3.550},
        16: {142: 2.048, 160: 2.415, 192: 3.477, 224: 4.733},
    },
}


def build(name, overrides=()):
    with torch.device("meta"):
        return build_model(load_config(CONFIGS / name, overrides))


@pytest.mark.parametrize("name, overrides, crop, parameters, gflops", PUBLISHED)
def test_full_width_costs_what_is_published(name, overrides, crop, parameters, gflops):
    model = build(name, overrides)
    cost = count_costs(model, [model.space.largest], crop)[model.space.largest]
    assert cost.parameters == sum(p.numel() for p in model.parameters()) == parameters
    # The published figures of X3D-XS and S lack about a million multiply-adds, as many as the classifier has.
    assert cost.gflops == pytest.approx(gflops, rel=1e-3, abs=1.5e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_every_size_and_frame_count_costs_what_is_published(name):
    model = build(name)
    published = {Configuration(1.0, s, t): gflops for t, row in GRIDS[name].items() for s, gflops in row.items()}
    costs = count_costs(model, list(published), model.space.spatial_sizes[-1])
    assert {c: cost.gflops for c, cost in costs.items()} == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize("name", ["MUTUAL_X3D_M", "MUTUAL_SLOW_8x8_R50", "MUTUAL_SLOWFAST_4x16_R50"])
def test_cost_rises_with_the_signature(name):
    model = build(f"Kinetics/{name}.yaml")
    widths = sorted({model.signature(w): w for w in model.space.widths(0.1)}.values())
    least = model.space.smallest
    costs = list(count_costs(model, [Configuration(w, least.spatial, least.temporal) for w in widths], 224).values())
    assert len(costs) > 3
    assert all(a.gflops < b.gflops and a.parameters < b.parameters for a, b in zip(costs, costs[1:]))


@pytest.mark.parametrize("name", ["MUTUAL_SLOW_8x8_R50", "MUTUAL_SLOWFAST_4x16_R50"])
def test_a_slow_pathway_has_179_signatures(name):
    model = build(f"Kinetics/{name}.yaml")
    assert len({model.signature(0.63 + 0.37 * i / 5000) for i in range(5001)}) == 179
