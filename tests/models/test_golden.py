"""Full-width networks are the same functions as PySlowFast's, under the same names: its checkpoints load."""

import json
from pathlib import Path

import pytest
import torch
from networks import fill_by_rule

from mutual3d.config import load_config
from mutual3d.models import build_model

ROOT = Path(__file__).resolve().parents[2]
GOLDEN_FILES = ROOT / "tests/data/golden"

# Recorded output: config, file of keys.
GOLDEN = {
    "X3D_M@224": ("Kinetics/X3D_M.yaml", "keys_X3D_M.txt"),
    "X3D_XS@160": ("Kinetics/X3D_XS.yaml", "keys_X3D_M.txt"),
    "SLOW_8x8_R50@224": ("Kinetics/SLOW_8x8_R50.yaml", "keys_SLOW_8x8_R50.txt"),
    "SLOWFAST_4x16_R50@224": ("Kinetics/SLOWFAST_4x16_R50.yaml", "keys_SLOWFAST_4x16_R50.txt"),
}


def build(name):
    return build_model(load_config(ROOT / "configs" / GOLDEN[name][0]))


def golden_inputs(model):
    """The recorded network's pathways; those of SlowFast come from one clip at the Fast rate."""
    side = model.space.largest.spatial
    clip = torch.randn((1, 3, model.clip_frames, side, side), generator=torch.Generator().manual_seed(100))
    return model.fit_clip(clip)


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_shapes_and_kinds_are_pyslowfasts(name):
    model = build(name)
    parameters = dict(model.named_parameters())
    ours = [(k, str(tuple(v.shape)), "param" if k in parameters else "buffer") for k, v in model.state_dict().items()]
    lines = (GOLDEN_FILES / GOLDEN[name][1]).read_text().splitlines()
    # In any order: a checkpoint is read by name.
    assert sorted(ours) == sorted(tuple(line.split("\t")) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_pyslowfasts(name):
    golden = json.loads((GOLDEN_FILES / "golden.json").read_text())[name]
    model = fill_by_rule(build(name)).eval()
    with torch.no_grad():
        (logits,) = model(golden_inputs(model))
    assert logits[:8].tolist() == pytest.approx(golden["logits_first8"], abs=1e-4)
    assert logits.mean().item() == pytest.approx(golden["logits_mean"], abs=1e-4)
    assert logits.std().item() == pytest.approx(golden["logits_std"], abs=1e-4)
    assert logits.argmax().item() == golden["argmax"]
