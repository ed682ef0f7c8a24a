"""Files as PySlowFast's users have them, keys that mean nothing here included, build the static networks unchanged."""

import json
import logging
from pathlib import Path

import pytest
import torch

from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.training.build import build_optimizer, build_step

SHARED = """
NUM_GPUS: 8
NUM_SHARDS: 1
RNG_SEED: 0
OUTPUT_DIR: .
DATA_LOADER: {NUM_WORKERS: 8, PIN_MEMORY: True}
SOLVER: {BASE_LR: 0.1, LR_POLICY: cosine, MAX_EPOCH: 196, MOMENTUM: 0.9, WEIGHT_DECAY: 1e-4, WARMUP_EPOCHS: 34,
  WARMUP_START_LR: 0.01, OPTIMIZING_METHOD: sgd}
TRAIN: {ENABLE: True, DATASET: kinetics, BATCH_SIZE: 64, EVAL_PERIOD: 10, CHECKPOINT_PERIOD: 1, AUTO_RESUME: True}
TEST: {ENABLE: True, DATASET: kinetics, BATCH_SIZE: 64}
"""
SLOW = """
MODEL: {MODEL_NAME: ResNet, ARCH: slow, NUM_CLASSES: 400, LOSS_FUNC: cross_entropy, DROPOUT_RATE: 0.5}
DATA: {NUM_FRAMES: 8, SAMPLING_RATE: 8, INPUT_CHANNEL_NUM: [3], TRAIN_JITTER_SCALES: [256, 320], TRAIN_CROP_SIZE: 224,
  TEST_CROP_SIZE: 256}
RESNET: {DEPTH: 50, WIDTH_PER_GROUP: 64, NUM_GROUPS: 1, ZERO_INIT_FINAL_BN: True, TRANS_FUNC: bottleneck_transform,
  STRIDE_1X1: False, NUM_BLOCK_TEMP_KERNEL: [[3], [4], [6], [3]]}
NONLOCAL: {LOCATION: [[[]], [[]], [[]], [[]]], GROUP: [[1], [1], [1], [1]], INSTANTIATION: dot_product}
BN: {USE_PRECISE_STATS: True, NUM_BATCHES_PRECISE: 200}
"""
# Nothing says MODEL.MODEL_NAME: SlowFast is the default.
SLOWFAST = """
MODEL: {ARCH: slowfast, NUM_CLASSES: 400, LOSS_FUNC: cross_entropy, DROPOUT_RATE: 0.5}
DATA: {NUM_FRAMES: 32, SAMPLING_RATE: 2, INPUT_CHANNEL_NUM: [3, 3], TRAIN_JITTER_SCALES: [256, 320],
  TRAIN_CROP_SIZE: 224, TEST_CROP_SIZE: 256}
SLOWFAST: {ALPHA: 8, BETA_INV: 8, FUSION_CONV_CHANNEL_RATIO: 2, FUSION_KERNEL_SZ: 5}
RESNET: {DEPTH: 50, WIDTH_PER_GROUP: 64, NUM_GROUPS: 1, ZERO_INIT_FINAL_BN: True, TRANS_FUNC: bottleneck_transform,
  STRIDE_1X1: False, NUM_BLOCK_TEMP_KERNEL: [[3, 3], [4, 4], [6, 6], [3, 3]],
  SPATIAL_STRIDES: [[1, 1], [2, 2], [2, 2], [2, 2]], SPATIAL_DILATIONS: [[1, 1], [1, 1], [1, 1], [1, 1]]}
NONLOCAL: {LOCATION: [[[], []], [[], []], [[], []], [[], []]], GROUP: [[1, 1], [1, 1], [1, 1], [1, 1]],
  INSTANTIATION: dot_product}
BN: {USE_PRECISE_STATS: True, NUM_BATCHES_PRECISE: 200, MOMENTUM: 0.1, WEIGHT_DECAY: 0.0}
"""
FILES = {"SLOW_8x8_R50": SLOW, "SLOWFAST_4x16_R50": SLOWFAST}


@pytest.fixture
def load(tmp_path):
    """The config of a file, with overrides."""

    def load(name, *overrides):
        (tmp_path / f"{name}.yaml").write_text(SHARED + FILES[name])
        return load_config(tmp_path / f"{name}.yaml", list(overrides))

    return load


@pytest.mark.parametrize("name", FILES)
def test_a_pyslowfast_file_loads_as_it_is(name, load, caplog):
    with caplog.at_level(logging.WARNING):
        cfg = load(name)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.BATCH_SIZE, cfg.OUTPUT_DIR) == (1e-4, 196, 64, ".")
    assert type(cfg.SOLVER.WARMUP_EPOCHS) is float and cfg.SOLVER.WARMUP_EPOCHS == 34
    assert not cfg.MUTUAL.ENABLE
    (told,) = caplog.messages
    assert told.endswith("nothing here: PySlowFast's NONLOCAL.GROUP, NONLOCAL.INSTANTIATION, BN.NUM_BATCHES_PRECISE")
    assert cfg.BN.USE_PRECISE_STATS


@pytest.mark.parametrize(
    "name, parameters, largest, shapes",
    [
        ("SLOW_8x8_R50", 32_454_096, "1-224-8", [(8, 64)]),
        ("SLOWFAST_4x16_R50", 34_480_216, "1-224-4", [(4, 64), (32, 64)]),
    ],
)
def test_a_pyslowfast_file_builds_the_static_network(name, parameters, largest, shapes, load):
    with torch.device("meta"):
        model = build_model(load(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert [str(configuration) for configuration in model.space.corners()] == [largest]
    frames = max(frames for frames, _ in shapes)
    pathways = model.fit_clip(torch.empty(1, 3, frames, 64, 64, device="meta"))
    assert [(x.shape[2], x.shape[3]) for x in pathways] == shapes
    assert model.eval()(pathways).shape == (1, 400)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("SLOWFAST.ALPHA", "5", r"DATA.NUM_FRAMES 32 does not divide by SLOWFAST.ALPHA 5"),
        ("SLOWFAST.FUSION_KERNEL_SZ", "4", r"the fusion kernel is 4 \(SLOWFAST.FUSION_KERNEL_SZ\): it must be odd"),
        ("SLOWFAST.BETA_INV", "0", r"SLOWFAST.BETA_INV is 0: it must be above 0"),
        ("RESNET.DEPTH", "34", r"RESNET.DEPTH is 34: choose among 50, 101"),
        ("MODEL.MODEL_NAME", "MViT", r"MODEL.MODEL_NAME is 'MViT': mutual3d has "),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_key(key, value, message, load):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build_model(load("SLOWFAST_4x16_R50", key, value))


@pytest.mark.parametrize(
    "key, instead",
    [
        ("AUG.ENABLE", "DATA.COLOR_JITTER"),
        ("AUG", "DATA.COLOR_JITTER"),
        ("MIXUP.ENABLE", "nothing of the kind"),
        ("MULTIGRID.LONG_CYCLE", "MUTUAL.ENABLE True"),
        ("MULTIGRID.SHORT_CYCLE", "MUTUAL.ENABLE True"),
        ("DEMO.ENABLE", "mutual3d predict"),
        ("TENSORBOARD.MODEL_VIS.ENABLE", "report.html"),
        ("TENSORBOARD.CONFUSION_MATRIX.ENABLE", "report.html"),
        ("AVA.BGR", "convert"),
        ("AVA.TEST_FORCE_FLIP", "False"),
        ("SHARD_ID", "torchrun"),
        ("VIS_MASK.ENABLE", "report.html"),
    ],
)
def test_what_would_change_the_result_or_is_an_output_is_refused(key, instead, load):
    with pytest.raises(ValueError, match=f"{key} .override. is .*: mutual3d supports .*{instead}"):
        load("SLOW_8x8_R50", key, "2" if key == "SHARD_ID" else "True")
    load("SLOW_8x8_R50", key, "0" if key == "SHARD_ID" else "False")


def test_what_a_switch_that_is_off_would_read_changes_nothing(load, caplog):
    load("SLOW_8x8_R50", "AUG.RE_PROB", "0.5", "MIXUP.ALPHA", "0.3", "DEMO.LABEL_FILE_PATH", "names.json", "MVIT.DEPTH", "3")
    assert "(override), since they change nothing here: PySlowFast's AUG.RE_PROB, MIXUP.ALPHA, DEMO.LABEL_" in caplog.text


SETTINGS = json.loads((Path(__file__).resolve().parents[1] / "data/pyslowfast/settings.json").read_text())
# What is not here, in a sentence each.
REFUSED = {
    "Kinetics/SLOWFAST_8x8_R50_stepwise_multigrid.yaml": "MULTIGRID.LONG_CYCLE .* MUTUAL.ENABLE True trains several sizes",
    "AVA/c2/SLOWFAST_32x2_R101_50_50.yaml": "NONLOCAL.LOCATION .* mutual3d has no non-local blocks",
    "AVA/c2/SLOWFAST_32x2_R101_50_50_v2.1.yaml": "NONLOCAL.LOCATION .* mutual3d has no non-local blocks",
    "Charades/SLOWFAST_16x8_R50.yaml": "BN.NORM_TYPE is 'sync_batchnorm': mutual3d supports 'batchnorm'",
    "SSv2/SLOWFAST_16x8_R50.yaml": "BN.NORM_TYPE is 'sync_batchnorm': mutual3d supports 'batchnorm'",
}
NARROW = (
    "NUM_GPUS", "0", "RESNET.WIDTH_PER_GROUP", "8", "SLOWFAST.BETA_INV", "4", "X3D.DIM_C5", "16", "X3D.WIDTH_FACTOR", "1.0",
    "X3D.DEPTH_FACTOR", "0.5", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32",
)  # fmt: skip
# One file of each family is trained for a step.
STEPS = {
    "Kinetics/C2D_8x8_R50_IN1K.yaml": "4", "Kinetics/c2/C2D_NOPOOL_8x8_R50.yaml": "4", "Kinetics/I3D_8x8_R50.yaml": "4",
    "Kinetics/c2/SLOW_4x16_R50.yaml": "4", "Kinetics/c2/SLOWFAST_8x8_R101_50_101.yaml": "8", "Kinetics/X3D_XS.yaml": "4",
    "Kinetics/pytorchvideo/SLOWFAST_16x8_R101_50_50.yaml": "8", "Charades/pytorchvideo/SLOW_8x8_R50.yaml": "4",
    "AVA/c2/SLOW_8x8_R50.yaml": "4",
}  # fmt: skip


def write_back(settings, path):
    """Flat `KEY: value` pairs as the YAML file that they were."""
    groups = {}
    for key, value in settings.items():
        *group, own = key.split(".")
        (groups.setdefault(group[0], {}) if group else groups)[own] = value
    path.write_text(json.dumps(groups))
    return path


@pytest.mark.parametrize("name", SETTINGS)
def test_each_of_pyslowfasts_own_files_loads_and_builds_or_says_what_is_missing(name, tmp_path):
    path = write_back(SETTINGS[name], tmp_path / "run.yaml")
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"(?s){REFUSED[name]}"):
            load_config(path)
        return
    cfg = load_config(path)
    with torch.device("meta"):
        model = build_model(cfg)
        logits_shape = len(model.fit_clip(torch.empty(1, 3, model.clip_frames, 64, 64)))
    assert model.clip_frames == SETTINGS[name]["DATA.NUM_FRAMES"]
    assert logits_shape == len(SETTINGS[name]["DATA.INPUT_CHANNEL_NUM"])
    blocks = sum(key.startswith("s4.pathway0") and key.endswith("branch2.a.weight") for key in model.state_dict())
    if SETTINGS[name]["MODEL.ARCH"] != "x3d":
        assert blocks == {50: 6, 101: 23}[SETTINGS[name]["RESNET.DEPTH"]]


@pytest.mark.parametrize("name", STEPS)
def test_one_file_of_each_family_trains_a_step(name, tmp_path):
    path = write_back(SETTINGS[name], tmp_path / "run.yaml")
    cfg = load_config(path, [*NARROW, "DATA.NUM_FRAMES", STEPS[name]])
    model = build_model(cfg)
    clips = torch.randint(0, 256, (2, 3, model.clip_frames, 32, 32), dtype=torch.uint8)
    boxes = torch.tensor([[0, 0.1, 0.1, 0.9, 0.9], [1, 0.2, 0.1, 0.7, 0.9]]) if cfg.DETECTION.ENABLE else None
    labels = torch.tensor([0, 1])
    if cfg.MODEL.LOSS_FUNC != "cross_entropy":
        labels = torch.nn.functional.one_hot(labels, cfg.MODEL.NUM_CLASSES).float()
    step = build_step(cfg, model, torch.device("cpu"))
    optimizer = build_optimizer(cfg, model)
    (loss,) = step(clips, labels, 0, boxes).losses
    before = model.head.projection.weight.clone()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert 0 < loss < 1000 and not torch.equal(before, model.head.projection.weight)
