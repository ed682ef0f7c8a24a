"""Training with quantised weights and activations: runs to a bundle, resumed to the bit, and processes that keep one basis."""

import shutil

import pytest
import torch
import torch.distributed as dist
from tiny import overrides, same, write_set

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.training.build import build_optimizer, build_step
from mutual3d.utils.files import load_tensors

from test_distributed import run_two  # isort: skip
from test_step import batch  # isort: skip

IMAGES = {
    "TRAIN.DATASET": "digits", "TEST.DATASET": "digits", "MODEL.MODEL_NAME": "ImageResNet", "MODEL.NUM_CLASSES": 10,
    "MODEL.SMALL_IMAGES": True, "RESNET.DEPTH": 18, "RESNET.WIDTH_PER_GROUP": 8, "DATA.NUM_FRAMES": 1,
    "DATA.TRAIN_JITTER_SCALES": [16, 16], "DATA.TRAIN_CROP_SIZE": 16, "DATA.TEST_CROP_SIZE": 16, "DATA.CROP_PADDING": 2,
    "MUTUAL.SPATIAL_SIZES": [12, 16], "MUTUAL.TEMPORAL_SIZES": [1], "MUTUAL.WIDTH_RANGE": [1.0, 1.0], "MUTUAL.SUBNETS": ["each_size"],
    "MUTUAL.LARGEST": False, "MUTUAL.OBJECTIVE": "ensemble_distillation", "MUTUAL.BATCHNORM": "private_size",
    "TRAIN.BATCH_SIZE": 256, "TEST.BATCH_SIZE": 400, "CALIBRATION.ENABLE": False, "GRID.INTERPOLATED_SIZES": [14],
    "GRID.COSTS": ["gflops", "weights_mb"], "GRID.CASCADES": 0, "TEST.ENABLE": False, "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1,
}  # fmt: skip
VIDEOS = {"GRID.WIDTH_STEP": 0.5, "GRID.CASCADES": 0, "GRID.COSTS": ["gflops", "weights_mb"], "TEST.ENABLE": False}
BITS = {"MODEL.QUANTIZE.WEIGHT_BITS": 2, "MODEL.QUANTIZE.ACTIVATION_BITS": 2}
LAST = "checkpoints/checkpoint_epoch_00002.pyth"


def run(folder, output, data="", **changes):
    path = folder / "tiny.yaml"
    path.write_text("RNG_SEED: 3\n")
    run_net.main(["--cfg", str(path), *overrides(data, folder / output, **{**BITS, **changes})])
    return folder / output


@pytest.fixture(scope="module", params=["images", "videos"])
def case(request, tmp_path_factory):
    """(folder, settings, data) of a finished run `whole`: RS-Net on images, and a mutual X3D with averaged weights."""
    folder = tmp_path_factory.mktemp(request.param)
    is_images = request.param == "images"
    changes, data = (IMAGES, "") if is_images else ({**VIDEOS, "MODEL.EMA": True, "MODEL.EMA_DECAY": 0.5}, write_set(folder / "set", num_videos=8))
    run(folder, "whole", data, **changes)
    return folder, changes, data


def test_a_run_ends_in_a_bundle_of_all_configurations(case):
    folder, _, _ = case
    model = mutual3d.load(folder / "whole/adaptive.pyth")
    assert model.network.arguments["weight_bits"] == model.network.arguments["activation_bits"] == 2
    rows = {str(row.configuration): row for row in model.table.rows}
    assert len(rows) > 2
    shape = (2, 3, 16, 16) if model.network.takes == "images" else (2, 3, 4, 24, 24)
    clip = torch.randint(0, 256, shape, dtype=torch.uint8)
    for text, row in rows.items():
        assert torch.allclose(model(clip, configuration=text).sum(1), torch.ones(2), atol=1e-5)
        assert row.costs["weights_mb"] < 4e-6 * row.parameters


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(case):
    folder, changes, data = case
    (folder / "resumed/checkpoints").mkdir(parents=True)
    shutil.copy(folder / "whole/checkpoints/checkpoint_epoch_00001.pyth", folder / "resumed/checkpoints")
    resumed = run(folder, "resumed", data, **changes)
    first, second = (load_tensors(directory / LAST) for directory in (folder / "whole", resumed))
    bases = [key for key in first["model_state"] if key.endswith(("basis", "negative_share"))]
    before = load_tensors(folder / "whole/checkpoints/checkpoint_epoch_00001.pyth")["model_state"]
    assert bases and any(not torch.equal(before[key], first["model_state"][key]) for key in bases)
    for part in ("model_state", "optimizer_state", "average_state", "objective_state"):
        assert same(first[part], second[part]), part
    assert same(*(load_tensors(directory / "adaptive.pyth")["model_state"] for directory in (folder / "whole", resumed)))


def test_other_bits_in_the_same_directory_are_refused(case):
    folder, changes, data = case
    with pytest.raises(ValueError, match="MODEL.QUANTIZE.ACTIVATION_BITS"):
        run(folder, "whole", data, **{**changes, "MODEL.QUANTIZE.ACTIVATION_BITS": 32, "SOLVER.MAX_EPOCH": 3})


def test_other_bits_of_a_config_are_refused_with_the_legal_ones(tmp_path):
    with pytest.raises(ValueError, match="MODEL.QUANTIZE.WEIGHT_BITS is 8: mutual3d supports 2 or 3 or 4 or 32"):
        run(tmp_path, "out", **{"MODEL.QUANTIZE.WEIGHT_BITS": 8})


# ---- Processes ---------------------------------------------------------------------------------------------------------


def _two_steps(clips, labels):
    """The state after two steps of X3D whose norms share their statistics, so that two processes compute what one does."""
    changes = {**BITS, "BN.NORM_TYPE": "sync_batchnorm", "BN.GLOBAL_SYNC": True, "MODEL.DROPOUT_RATE": 0.0}
    cfg = load_config(None, overrides("data", "out", **changes))
    torch.manual_seed(0)
    model = build_model(cfg).train()
    step, optimizer = build_step(cfg, model, torch.device("cpu")), build_optimizer(cfg, model)
    for number in range(2):
        optimizer.zero_grad(set_to_none=True)
        step(clips, labels, step=number)
        for group in optimizer.param_groups:
            group["lr"] = 1e-4
        optimizer.step()
    return model.state_dict()


def _process(rank, port, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    clips, labels = batch(8)
    own = slice(4 * rank, 4 * rank + 4)
    torch.save(_two_steps(clips[own], labels[own]), f"{path}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes_keep_one_basis_which_is_that_of_one_with_twice_the_batch(tmp_path):
    run_two(_process, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    alone = _two_steps(*batch(8))
    bases = [key for key in alone if key.endswith(("basis", "negative_share"))]
    assert len(bases) > 50
    for key in bases:
        assert torch.equal(first[key], second[key]), key
        # A value at a threshold may take another level where a sum was computed in two parts.
        torch.testing.assert_close(first[key], alone[key], rtol=2e-2, atol=2e-3, msg=key)
