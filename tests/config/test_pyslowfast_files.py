"""Files as PySlowFast's users have them, keys that mean nothing here included, build the static networks unchanged."""

import json
import logging
from pathlib import Path

import pytest
import torch

from mutual3d.models import build_model
from mutual3d.pipeline import load_config

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


SETTINGS = Path(__file__).resolve().parents[3] / "shared" / "interop" / "pyslowfast_settings.json"


@pytest.mark.skipif(not SETTINGS.is_file(), reason="the settings of PySlowFast's own files are not there")
def test_pyslowfasts_own_kinetics_files_load_but_for_what_is_not_here(tmp_path):
    refused = {}
    for name, settings in json.loads(SETTINGS.read_text()).items():
        path = tmp_path / "run.yaml"
        groups = {}
        for key, value in settings.items():
            *group, own = key.split(".")
            (groups.setdefault(group[0], {}) if group else groups)[own] = value
        path.write_text(json.dumps(groups))
        try:
            load_config(path)
        except ValueError as error:
            refused[name] = str(error)
    ours = [n for n in json.loads(SETTINGS.read_text()) if n.startswith(("Kinetics/SLOW", "Kinetics/X3D"))]
    assert len(ours) >= 10
    assert [name for name in ours if name in refused] == ["Kinetics/SLOWFAST_8x8_R50_stepwise_multigrid.yaml"]
    assert "MULTIGRID.LONG_CYCLE" in refused["Kinetics/SLOWFAST_8x8_R50_stepwise_multigrid.yaml"]
