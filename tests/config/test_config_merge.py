import logging

import pytest

from mutual3d.config import get_cfg, load_config
from mutual3d.models.build import build_model, model_arguments

PYSLOWFAST_X3D_M = """
TRAIN:
  ENABLE: True
  DATASET: kinetics
  BATCH_SIZE: 16
  EVAL_PERIOD: 10
  CHECKPOINT_PERIOD: 1
  AUTO_RESUME: True
X3D:
  WIDTH_FACTOR: 2.0
  DEPTH_FACTOR: 2.2
  BOTTLENECK_FACTOR: 2.25
  DIM_C5: 2048
  DIM_C1: 12
TEST:
  ENABLE: True
  DATASET: kinetics
  BATCH_SIZE: 64
  NUM_SPATIAL_CROPS: 1
DATA:
  NUM_FRAMES: 16
  SAMPLING_RATE: 5
  TRAIN_JITTER_SCALES: [256, 320]
  TRAIN_CROP_SIZE: 224
  TEST_CROP_SIZE: 224
  INPUT_CHANNEL_NUM: [3]
  DECODING_BACKEND: torchvision
RESNET:
  ZERO_INIT_FINAL_BN: True
  TRANS_FUNC: x3d_transform
  STRIDE_1X1: False
BN:
  USE_PRECISE_STATS: True
  NUM_BATCHES_PRECISE: 200
  WEIGHT_DECAY: 0.0
SOLVER:
  BASE_LR: 0.1
  BASE_LR_SCALE_NUM_SHARDS: True
  LR_POLICY: cosine
  MAX_EPOCH: 300
  WEIGHT_DECAY: 5e-5
  WARMUP_EPOCHS: 35.0
  WARMUP_START_LR: 0.01
  OPTIMIZING_METHOD: sgd
MODEL:
  NUM_CLASSES: 400
  ARCH: x3d
  MODEL_NAME: X3D
  LOSS_FUNC: cross_entropy
  DROPOUT_RATE: 0.5
DATA_LOADER:
  NUM_WORKERS: 8
  PIN_MEMORY: True
NUM_GPUS: 8
NUM_SHARDS: 1
RNG_SEED: 0
OUTPUT_DIR: .
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_are_valid_and_fresh_each_time():
    cfg = load_config(None)
    assert not cfg.MUTUAL.ENABLE
    changed = get_cfg()
    changed.SOLVER.BASE_LR = 5.0
    changed.MUTUAL.SUBNETS.append("random")
    assert get_cfg() == cfg


def test_a_pyslowfast_file_loads_as_it_is(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        cfg = load_config(write(tmp_path / "X3D_M.yaml", PYSLOWFAST_X3D_M))
    assert cfg.SOLVER.WEIGHT_DECAY == 5e-5
    assert cfg.DATA.TRAIN_JITTER_SCALES == [256, 320]
    assert (cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.MAX_EPOCH, cfg.OUTPUT_DIR) == (16, 300, ".")
    assert not caplog.messages
    assert cfg.BN.USE_PRECISE_STATS and cfg.BN.NUM_BATCHES_PRECISE == 200


def test_a_pyslowfast_file_builds_the_static_x3d_m(tmp_path):
    model = build_model(load_config(write(tmp_path / "X3D_M.yaml", PYSLOWFAST_X3D_M)))
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_794_322
    assert model.space.corners() == [model.space.largest]
    assert str(model.space.largest) == "1-224-16"


def test_base_files_are_read_first_and_relative_to_their_reader(tmp_path):
    write(tmp_path / "shared" / "base.yaml", "SOLVER: {BASE_LR: 0.5, MAX_EPOCH: 7}\nDATA: {NUM_FRAMES: 4}\n")
    write(tmp_path / "shared" / "middle.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_EPOCH: 8}\nRNG_SEED: 3\n")
    path = write(tmp_path / "run" / "top.yaml", "_BASE_: ../shared/middle.yaml\nRNG_SEED: 4\n")
    cfg = load_config(path, ["DATA.NUM_FRAMES", "5"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.RNG_SEED, cfg.DATA.NUM_FRAMES) == (0.5, 8, 4, 5)


@pytest.mark.parametrize("opts", [[], ["--opts"]])
def test_overrides_come_bare_or_after_opts(tmp_path, opts):
    path = write(tmp_path / "run.yaml", "SOLVER: {BASE_LR: 0.5}\n")
    words = ["SOLVER.BASE_LR", "0.2", "DATA.PATH_TO_DATA_DIR", "/data/k400", "MUTUAL.SPATIAL_SIZES", "[112, 224]"]
    cfg = load_config(path, opts + words)
    assert cfg.SOLVER.BASE_LR == 0.2
    assert cfg.DATA.PATH_TO_DATA_DIR == "/data/k400"
    assert cfg.MUTUAL.SPATIAL_SIZES == [112, 224]


@pytest.mark.parametrize(
    "key, word, value",
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", 1, 1.0),
        ("SOLVER.WEIGHT_DECAY", "5e-5", 5e-5),
        ("DATA.MEAN", "(0.1, 0.2, 0.3)", [0.1, 0.2, 0.3]),
        ("OUTPUT_DIR", "2024", "2024"),
        ("SOLVER.CLIP_GRAD_L2NORM", "5.0", 5.0),
        ("TRAIN.ENABLE", "False", False),
    ],
)
def test_values_are_taken_as_they_are_meant(key, word, value):
    node, name = key.split(".") if "." in key else (None, key)
    cfg = load_config(None, [key, word])
    merged = (cfg[node] if node else cfg)[name]
    assert merged == value
    assert type(merged) is type(value)


@pytest.mark.parametrize(
    "key, word, message",
    [
        ("LOG_PERIOD", "2.5", "is 2.5, of type float: it must be of type int"),
        ("LOG_PERIOD", "True", "is True, of type bool: it must be of type int"),
        ("SOLVER.BASE_LR", "True", "is True, of type bool: it must be of type float"),
        ("SOLVER.BASE_LR", "fast", "is 'fast', of type str: it must be of type float"),
        ("TRAIN.ENABLE", "1", "is 1, of type int: it must be of type bool"),
        ("DATA.MEAN", "0.45", "is 0.45, of type float: it must be of type list"),
        ("TRAIN", "1", "is a group of keys and cannot be set to 1: set one of ENABLE, DATASET"),
    ],
)
def test_a_value_of_the_wrong_type_names_key_and_types(key, word, message):
    with pytest.raises(ValueError, match=rf"{key} \(override\) {message}"):
        get_cfg().merge_from_list([key, word])


@pytest.mark.parametrize(
    "key, nearest",
    [
        ("TRAIN.BATCHSIZE", "did you mean TRAIN.BATCH_SIZE?"),
        ("SOLVR.BASE_LR", "did you mean SOLVER.BASE_LR?"),
        ("NUM_CLASSES", "did you mean MODEL.NUM_CLASSES?"),
        ("TRAIN.BATCH_SIZE.MORE", "did you mean TRAIN.BATCH_SIZE?"),
        ("QQQQ.ZZZZ", "`mutual3d run --cfg CONFIG --print-config` prints every key"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    with pytest.raises(ValueError) as error:
        get_cfg().merge_from_list([key, "8"])
    assert str(error.value).startswith(f"unknown config key {key} (override): {nearest}")


def test_an_unknown_key_of_a_file_names_the_file(tmp_path):
    path = write(tmp_path / "run.yaml", "TRAIN: {BATCHSIZE: 8}\n")
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert str(error.value) == f"unknown config key TRAIN.BATCHSIZE (in '{path}'): did you mean TRAIN.BATCH_SIZE?"


def test_overrides_come_in_pairs():
    with pytest.raises(ValueError, match="KEY VALUE pairs, but 'LOG_PERIOD' stands alone"):
        load_config(None, ["RNG_SEED", "1", "LOG_PERIOD"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no config '.*nowhere.yaml'"):
        load_config(tmp_path / "nowhere.yaml")
    path = write(tmp_path / "run.yaml", "_BASE_: nowhere.yaml\n")
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config(path)


@pytest.mark.parametrize("text", ["TRAIN: {BATCH_SIZE: 1", "", "a: b: c"])
def test_a_file_that_is_no_config_is_named(tmp_path, text):
    path = write(tmp_path / "run.yaml", text)
    with pytest.raises(ValueError, match="run.yaml' is not a config"):
        load_config(path)


def test_a_loaded_config_is_frozen():
    cfg = load_config(None)
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SOLVER.BASE_LR = 1.0


def test_a_dumped_config_loads_to_the_same(tmp_path):
    cfg = load_config(None, ["SOLVER.WEIGHT_DECAY", "5e-5", "SOLVER.STEPS", "[0, 10]", "SOLVER.CLIP_GRAD_VAL", "0.5"])
    assert load_config(write(tmp_path / "dump.yaml", cfg.dump())) == cfg


def test_config_of_a_mutual_run_gives_its_space():
    cfg = load_config(None, ["MODEL.MODEL_NAME", "X3D", "MUTUAL.ENABLE", "True", "DATA.NUM_FRAMES", "16"])
    assert model_arguments(cfg)["space"] == {
        "width_range": [0.63, 1.0],
        "spatial_sizes": [142, 160, 192, 224],
        "temporal_sizes": [6, 9, 12, 16],
        "divisor": 8,
        "listed_widths": [],
    }


def test_a_list_of_words_needs_no_quotes():
    cfg = load_config(None, ["MUTUAL.SUBNETS", "[smallest, random, random]", "MUTUAL.TEMPORAL_SIZES", "[8, 16]"])
    assert (cfg.MUTUAL.SUBNETS, cfg.MUTUAL.TEMPORAL_SIZES) == (["smallest", "random", "random"], [8, 16])


@pytest.mark.parametrize("text", ["smallest", "[smallest", "{smallest: 1}"])
def test_what_is_no_list_is_refused_for_one(text):
    with pytest.raises(ValueError, match=r"MUTUAL.SUBNETS \(override\) is .*: it must be of type list, like"):
        load_config(None, ["MUTUAL.SUBNETS", text])


def test_numbers_with_an_exponent_are_numbers_in_a_list_too(tmp_path):
    cfg = load_config(write(tmp_path / "run.yaml", "SOLVER: {LRS: [1, 1e-1, 1.5E-2], STEPS: [0, 1, 2], WEIGHT_DECAY: 1e-4}"))
    assert cfg.SOLVER.LRS == [1, 0.1, 0.015] and cfg.SOLVER.WEIGHT_DECAY == 1e-4
