"""Files as PySlowFast's users have them, keys that mean nothing here included, build the static networks unchanged."""

import json
import logging
import re

import pytest
import torch
from tiny import ROOT

from mutual3d.data.build import gives_bgr
from mutual3d.data.clips.augment import ClipAugmentation, RandAugmentation, RandomErasing
from mutual3d.data.sources.facts import clip_augmentation
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.pipeline.build import tell_of_devices
from mutual3d.sampling import prepare_clip
from mutual3d.training import Mixing
from mutual3d.training.build import build_optimizer, build_step, build_transforms

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
    assert told.endswith("nothing here: PySlowFast's NONLOCAL.GROUP, NONLOCAL.INSTANTIATION")
    assert cfg.BN.USE_PRECISE_STATS and cfg.BN.NUM_BATCHES_PRECISE == 200


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
        ("AUG.NUM_SAMPLE", "TRAIN.BATCH_SIZE"),
        ("MULTIGRID.LONG_CYCLE", "multigrid training, .* is missing .MUTUAL.ENABLE True"),
        ("MULTIGRID.SHORT_CYCLE", "MUTUAL.ENABLE True"),
        ("DEMO.ENABLE", "mutual3d predict"),
        ("TENSORBOARD.MODEL_VIS.ENABLE", "report.html"),
        ("TENSORBOARD.CONFUSION_MATRIX.ENABLE", "report.html"),
        ("AVA.BGR", "DATA.REVERSE_INPUT_CHANNEL True"),
        ("AVA.TEST_FORCE_FLIP", "False"),
        ("SHARD_ID", "torchrun"),
        ("VIS_MASK.ENABLE", "report.html"),
    ],
)
def test_what_would_change_the_result_or_is_an_output_is_refused(key, instead, load):
    with pytest.raises(ValueError, match=f"{key} (.override. )?is .*: mutual3d supports .*{instead}"):
        load("SLOW_8x8_R50", key, {"SHARD_ID": "2", "AUG.NUM_SAMPLE": "2"}.get(key, "True"))
    load("SLOW_8x8_R50", key, {"SHARD_ID": "0", "AUG.NUM_SAMPLE": "1"}.get(key, "False"))


def test_what_a_switch_that_is_off_would_read_changes_nothing(load, caplog):
    load("SLOW_8x8_R50", "AUG.INTERPOLATION", "bicubic", "DEMO.LABEL_FILE_PATH", "names.json", "MVIT.DEPTH", "3")
    assert "(override), since they change nothing here: PySlowFast's AUG.INTERPOLATION, DEMO.LABEL_" in caplog.text


def test_augmentation_and_mixing_do_what_its_files_say(load, caplog):
    """The keys of its recipes of transformers, on a network that is here: nothing of them is skipped or refused but the
    kernel of RandAugment's resampling and the strength of a jitter that its videos do not have either."""
    words = {
        "AUG.ENABLE": True, "AUG.NUM_SAMPLE": 1, "AUG.COLOR_JITTER": 0.4, "AUG.AA_TYPE": "rand-m7-n4-mstd0.5-inc1", "AUG.INTERPOLATION": "bicubic",
        "AUG.RE_PROB": 0.25, "AUG.RE_MODE": "pixel", "AUG.RE_COUNT": 1, "AUG.RE_SPLIT": False, "MIXUP.ENABLE": True, "MIXUP.ALPHA": 0.8,
        "MIXUP.CUTMIX_ALPHA": 1.0, "MIXUP.PROB": 1.0, "MIXUP.SWITCH_PROB": 0.5, "MIXUP.LABEL_SMOOTH_VALUE": 0.1,
        "MODEL.LOSS_FUNC": "soft_cross_entropy",
    }  # fmt: skip
    cfg = load("SLOW_8x8_R50", *[str(word) for pair in words.items() for word in pair], *NARROW, "DATA.NUM_FRAMES", "4")
    assert "nothing here: PySlowFast's AUG.COLOR_JITTER, AUG.INTERPOLATION, AUG.RE_SPLIT" in caplog.text
    assert clip_augmentation(cfg) == ClipAugmentation(RandAugmentation(4, 7.0, 0.5, 0.5), RandomErasing(0.25, "pixel"))
    (mixing,) = build_transforms(cfg)
    assert mixing == Mixing(400, 0.8, 1.0, 1.0, 0.5, 0.1)
    model = build_model(cfg)
    clips, soft = mixing(*batch(cfg, 4)[:2])
    (loss,) = build_step(cfg, model, torch.device("cpu"))(clips, soft, 0).losses
    assert 0 < loss < 1000


SETTINGS = json.loads((ROOT / "tests/data/pyslowfast/settings.json").read_text())
PAGE = (ROOT / "docs/pyslowfast.md").read_text()
# What is not here: how the page says it, and the sentence that refuses the file.
MISSING = {
    "multigrid training": r"MULTIGRID.LONG_CYCLE .*: mutual3d supports False; multigrid training, .*, is missing",
    "non-local blocks": r"NONLOCAL.LOCATION .* mutual3d has no non-local blocks",
}
REFUSED = {
    "Kinetics/SLOWFAST_8x8_R50_stepwise_multigrid.yaml": "multigrid training",
    "AVA/c2/SLOWFAST_32x2_R101_50_50.yaml": "non-local blocks",
    "AVA/c2/SLOWFAST_32x2_R101_50_50_v2.1.yaml": "non-local blocks",
}
NARROW = (
    "NUM_GPUS", "0", "RESNET.WIDTH_PER_GROUP", "8", "SLOWFAST.BETA_INV", "4", "X3D.DIM_C5", "16", "X3D.WIDTH_FACTOR", "1.0",
    "X3D.DEPTH_FACTOR", "0.5", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32",
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """With tensors so small a second one would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_back(settings, path):
    """Flat `KEY: value` pairs as the YAML file that they were."""
    groups = {}
    for key, value in settings.items():
        *group, own = key.split(".")
        (groups.setdefault(group[0], {}) if group else groups)[own] = value
    path.write_text(json.dumps(groups))
    return path


def row_of(name, network, state):
    """A file's row in the page's table."""
    settings = SETTINGS[name]
    clip = f"{settings['DATA.NUM_FRAMES']} x {settings['DATA.SAMPLING_RATE']}"
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return f"| `{name.removesuffix('.yaml')}` | {settings['MODEL.ARCH']} | {clip} | {settings['TRAIN.DATASET']} | {parameters:.2f} M | {state} |"


def batch(cfg, frames):
    """Two generated clips as the config's data set gives them: clips, labels, and boxes or None."""
    clips = torch.randint(0, 256, (2, 3, frames, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    if cfg.MODEL.LOSS_FUNC != "cross_entropy":
        labels = torch.nn.functional.one_hot(labels, cfg.MODEL.NUM_CLASSES).float()
    boxes = torch.tensor([[0, 0.1, 0.1, 0.9, 0.9], [1, 0.2, 0.1, 0.7, 0.9]]) if cfg.DETECTION.ENABLE else None
    return clips, labels, boxes


@pytest.mark.parametrize("name", SETTINGS)
def test_each_of_pyslowfasts_own_files_loads_builds_and_trains_a_step_or_says_what_is_missing(name, tmp_path):
    path, settings = write_back(SETTINGS[name], tmp_path / "run.yaml"), SETTINGS[name]
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"(?s){MISSING[REFUSED[name]]}"):
            load_config(path)
        left = {key: value for key, value in settings.items() if not key.startswith(("MULTIGRID.", "NONLOCAL."))}
        with torch.device("meta"):
            whole = build_model(load_config(write_back(left, path)))
        assert row_of(name, whole, f"missing: {REFUSED[name]}") in PAGE
        return
    with torch.device("meta"):
        whole = build_model(load_config(path))
        pathways = whole.fit_clip(torch.empty(1, 3, whole.clip_frames, 64, 64))
    assert whole.clip_frames == settings["DATA.NUM_FRAMES"] and len(pathways) == len(settings["DATA.INPUT_CHANNEL_NUM"])
    blocks = sum(key.startswith("s4.pathway0") and key.endswith("branch2.a.weight") for key in whole.state_dict())
    assert settings["MODEL.ARCH"] == "x3d" or blocks == {50: 6, 101: 23}[settings["RESNET.DEPTH"]]

    cfg = load_config(path, [*NARROW, "DATA.NUM_FRAMES", str(len(pathways) * 4)])
    model = build_model(cfg)
    clips, labels, boxes = batch(cfg, model.clip_frames)
    step = build_step(cfg, model, torch.device("cpu"), reverse_channels=gives_bgr(cfg))
    optimizer = build_optimizer(cfg, model)
    (loss,) = step(clips, labels, 0, boxes).losses
    before = model.head.projection.weight.clone()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert 0 < loss < 1000 and not torch.equal(before, model.head.projection.weight)
    # Its frames, of Charades and Something-Something v2, PySlowFast reads as BGR and turns into RGB by this very key.
    assert settings.get("DATA.REVERSE_INPUT_CHANNEL", False) == (cfg.TRAIN.DATASET.removeprefix("ptv") in ("charades", "ssv2"))
    assert torch.equal(step.prepare(clips), prepare_clip(clips, torch.device("cpu"), cfg.DATA.MEAN, cfg.DATA.STD))
    assert row_of(name, whole, "loads and trains") in PAGE


def test_the_page_has_a_row_for_these_files_alone_and_names_what_is_missing():
    rows = re.findall(r"^\| `(\w+(?:/\w+)+(?:\.\d)?)` \|", PAGE, re.MULTILINE)
    assert [f"{row}.yaml" for row in rows] == list(SETTINGS)
    assert f"{len(SETTINGS) - len(REFUSED)} of the {len(SETTINGS)}" in PAGE
    missing = PAGE.partition("## What is missing")[2].partition("\n## ")[0]
    for name in (*MISSING, "MViT", "CSN", "R(2+1)D", "self-supervised"):
        assert name in missing, name


@pytest.mark.parametrize(
    "name, words",
    [
        ("MViT", "no vision transformers"), ("PTVMViT", "no vision transformers"), ("MaskMViT", "no masked vision transformers"),
        ("PTVCSN", r"no channel-separated networks \(CSN\)"), ("PTVR2plus1D", r"no R\(2\+1\)D"),
        ("ContrastiveModel", "no self-supervised training"),
    ],
)  # fmt: skip
def test_a_network_that_is_not_here_is_named_as_missing(name, words, load):
    with pytest.raises(ValueError, match=f"MODEL.MODEL_NAME is '{name}': mutual3d has {words}; it has "):
        load("SLOW_8x8_R50", "MODEL.MODEL_NAME", name)


def test_machines_are_torchruns_and_a_line_says_so(load, caplog):
    with caplog.at_level(logging.INFO):
        tell_of_devices(load("SLOW_8x8_R50", "NUM_SHARDS", "4", "NUM_GPUS", "0"))
    assert caplog.messages[-1] == "NUM_SHARDS 4: torchrun starts the processes, on each machine (--nnodes 4); their number is 1"
