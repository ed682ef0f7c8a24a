import pytest

from mutual3d.config import load_config


@pytest.mark.parametrize(
    "key, value",
    [
        ("BN.NORM_TYPE", "layernorm"),
        ("BN.MOMENTUM", "0.5"),
        ("BN.EPSILON", "1e-3"),
        ("MODEL.DROPCONNECT_RATE", "0.2"),
        ("X3D.BN_LIN5", "True"),
        ("X3D.CHANNELWISE_3x3x3", "False"),
        ("RESNET.STRIDE_1X1", "True"),
        ("DATA.TRAIN_JITTER_MOTION_SHIFT", "True"),
        ("DATA.ENSEMBLE_METHOD", "median"),
        ("SOLVER.OPTIMIZING_METHOD", "lbfgs"),
        ("SOLVER.LR_POLICY", "random"),
        ("TRAIN.CHECKPOINT_TYPE", "onnx"),
        ("TEST.CHECKPOINT_TYPE", "onnx"),
        ("TRAIN.MIXED_PRECISION_DTYPE", "float8"),
        ("TEST.NUM_SPATIAL_CROPS", "2"),
        ("CALIBRATION.TRANSFORM", "none"),
        ("CALIBRATION.AVERAGE", "harmonic"),
    ],
)
def test_what_is_not_supported_is_refused_with_what_is(key, value):
    with pytest.raises(ValueError, match=f"{key} is .*: mutual3d supports "):
        load_config(None, [key, value])


@pytest.mark.parametrize(
    "key",
    [
        "TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS", "TRAIN.EVAL_PERIOD", "TRAIN.CHECKPOINT_PERIOD",
        "TEST.BATCH_SIZE", "TEST.NUM_ENSEMBLE_VIEWS", "SOLVER.MAX_EPOCH", "DATA.NUM_FRAMES", "DATA.SAMPLING_RATE",
        "DATA.TARGET_FPS", "MODEL.NUM_CLASSES", "GRID.NUM_VIEWS", "GRID.LATENCY_REPEATS", "LOG_PERIOD",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["0", "-1"])
def test_counts_and_sizes_are_above_0(key, value):
    with pytest.raises(ValueError, match=f"{key} is {float(value):g}.*: it must be above 0"):
        load_config(None, [key, value])


@pytest.mark.parametrize("key", ["DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE"])
@pytest.mark.parametrize("value", ["0", "-1", "7"])
def test_crops_hold_what_a_network_halves(key, value):
    with pytest.raises(ValueError, match=f"{key} is {value}: it must be 8 or more"):
        load_config(None, [key, value])


def test_non_local_blocks_are_refused():
    with pytest.raises(ValueError, match="NONLOCAL.LOCATION .* mutual3d has no non-local blocks"):
        load_config(None, ["NONLOCAL.LOCATION", "[[[]], [[1, 3]], [[]], [[]]]"])


def test_a_batch_divides_into_its_parts():
    with pytest.raises(ValueError, match="TRAIN.BATCH_SIZE 64 does not divide into TRAIN.ACCUMULATION_STEPS 3"):
        load_config(None, ["TRAIN.ACCUMULATION_STEPS", "3"])
    assert load_config(None, ["TRAIN.ACCUMULATION_STEPS", "4"]).TRAIN.ACCUMULATION_STEPS == 4


@pytest.mark.parametrize("scales, message", [("[320, 256]", "ascend"), ("[200, 320]", "none under DATA.TRAIN_CROP_SIZE 224")])
def test_jitter_scales_ascend_from_the_crop(scales, message):
    with pytest.raises(ValueError, match=f"DATA.TRAIN_JITTER_SCALES .*{message}"):
        load_config(None, ["DATA.TRAIN_JITTER_SCALES", scales])
