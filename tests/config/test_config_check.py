import pytest

from mutual3d.config import load_config

MUTUAL = ["MUTUAL.ENABLE", "True", "MODEL.MODEL_NAME", "X3D", "DATA.NUM_FRAMES", "16"]


def test_a_mutual_x3d_config_is_valid():
    assert load_config(None, MUTUAL).MUTUAL.ENABLE


@pytest.mark.parametrize(
    "key, value",
    [
        ("BN.NORM_TYPE", "sync_batchnorm"),
        ("BN.MOMENTUM", "0.5"),
        ("BN.EPSILON", "1e-3"),
        ("MODEL.DROPCONNECT_RATE", "0.2"),
        ("MODEL.LOSS_FUNC", "hinge"),
        ("X3D.BN_LIN5", "True"),
        ("X3D.CHANNELWISE_3x3x3", "False"),
        ("RESNET.STRIDE_1X1", "True"),
        ("DATA.REVERSE_INPUT_CHANNEL", "True"),
        ("DATA.TRAIN_JITTER_MOTION_SHIFT", "True"),
        ("DATA.ENSEMBLE_METHOD", "median"),
        ("SOLVER.OPTIMIZING_METHOD", "lbfgs"),
        ("SOLVER.LR_POLICY", "random"),
        ("TRAIN.DATASET", "nowhere"),
        ("TEST.DATASET", "nowhere"),
        ("TRAIN.CHECKPOINT_TYPE", "caffe2"),
        ("TEST.CHECKPOINT_TYPE", "caffe2"),
        ("TRAIN.CHECKPOINT_INFLATE", "True"),
        ("TRAIN.MIXED_PRECISION_DTYPE", "float8"),
        ("TEST.NUM_SPATIAL_CROPS", "2"),
        ("MUTUAL.OBJECTIVE", "hope"),
        ("MUTUAL.BATCHNORM", "shared"),
        ("CALIBRATION.TRANSFORM", "none"),
        ("CALIBRATION.AVERAGE", "harmonic"),
    ],
)
def test_what_is_not_supported_is_refused_with_what_is(key, value):
    with pytest.raises(ValueError, match=f"{key} is .*: mutual3d supports "):
        load_config(None, [key, value])


@pytest.mark.parametrize("key", ["TRAIN.CHECKPOINT_TYPE", "TEST.CHECKPOINT_TYPE"])
def test_another_project_s_file_is_converted_first(key):
    with pytest.raises(ValueError, match="supports 'pytorch'; tools/convert_checkpoint.py makes a checkpoint of another"):
        load_config(None, [key, "caffe2"])


@pytest.mark.parametrize(
    "key",
    [
        "TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS", "TRAIN.EVAL_PERIOD", "TRAIN.CHECKPOINT_PERIOD",
        "TEST.BATCH_SIZE", "TEST.NUM_ENSEMBLE_VIEWS", "SOLVER.MAX_EPOCH", "DATA.NUM_FRAMES", "DATA.SAMPLING_RATE",
        "DATA.TARGET_FPS", "MODEL.NUM_CLASSES", "GRID.NUM_VIEWS", "GRID.WIDTH_STEP", "GRID.LATENCY_REPEATS", "LOG_PERIOD",
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
    with pytest.raises(ValueError, match="NONLOCAL.LOCATION .* not supported"):
        load_config(None, ["NONLOCAL.LOCATION", "[[[]], [[1, 3]], [[]], [[]]]"])


def test_a_batch_divides_into_its_parts():
    with pytest.raises(ValueError, match="TRAIN.BATCH_SIZE 64 does not divide into TRAIN.ACCUMULATION_STEPS 3"):
        load_config(None, ["TRAIN.ACCUMULATION_STEPS", "3"])
    assert load_config(None, ["TRAIN.ACCUMULATION_STEPS", "4"]).TRAIN.ACCUMULATION_STEPS == 4


@pytest.mark.parametrize("scales, message", [("[320, 256]", "ascend"), ("[200, 320]", "none under DATA.TRAIN_CROP_SIZE 224")])
def test_jitter_scales_ascend_from_the_crop(scales, message):
    with pytest.raises(ValueError, match=f"DATA.TRAIN_JITTER_SCALES .*{message}"):
        load_config(None, ["DATA.TRAIN_JITTER_SCALES", scales])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MUTUAL.SPATIAL_SIZES", "[142, 160]", "must equal DATA.TRAIN_CROP_SIZE, which is 224"),
        ("MUTUAL.SPATIAL_SIZES", "[]", "must equal DATA.TRAIN_CROP_SIZE, which is 224"),
        ("MUTUAL.TEMPORAL_SIZES", "[6, 32]", "must equal DATA.NUM_FRAMES, which is 16"),
        ("MUTUAL.TEMPORAL_SIZES", "[]", "must equal DATA.NUM_FRAMES, which is 16"),
    ],
)
def test_the_largest_sizes_are_those_of_the_data(key, value, message):
    with pytest.raises(ValueError, match=f"{key} is .*{message}"):
        load_config(None, [*MUTUAL, key, value])
    load_config(None, [key, value])


AVA = ("TRAIN.DATASET", "ava", "TEST.DATASET", "ava", "DETECTION.ENABLE", "True", "MODEL.HEAD_ACT", "sigmoid",
       "MODEL.LOSS_FUNC", "bce", "TEST.SPLIT", "val")  # fmt: skip


@pytest.mark.parametrize("words, message", [
    (("TRAIN.DATASET", "charades"), "TEST.DATASET is 'kinetics': with TRAIN.DATASET charades"),
    (("MODEL.LOSS_FUNC", "bce"), "MODEL.LOSS_FUNC is 'bce': with TRAIN.DATASET kinetics it must be cross_entropy"),
    (("DATA.CROP_PADDING", "4"), "DATA.CROP_PADDING is 4: mutual3d supports it for images"),
    (("MODEL.MODEL_NAME", "MobileNetV2"), "MobileNetV2 takes images, and TRAIN.DATASET is kinetics"),
    (("TRAIN.DATASET", "digits", "TEST.DATASET", "digits"), "DATA.NUM_FRAMES is 8: with TRAIN.DATASET digits it must be 1"),
    ((*AVA, "GRID.SPLIT", "train"), "GRID.SPLIT is 'train': with TRAIN.DATASET ava it must be 'val'"),
    ((*AVA, "TEST.SAVE_RESULTS_PATH", "scores"), "TEST.SAVE_RESULTS_PATH is 'scores': with TRAIN.DATASET ava"),
])  # fmt: skip
def test_data_task_and_network_must_go_together(words, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, words)


METHOD = ("MODEL.MODEL_NAME", "X3D", "MUTUAL.ENABLE", "True", "DATA.NUM_FRAMES", "16")


EACH_WIDTH = ("MUTUAL.SUBNETS", "[each_width]", "MUTUAL.LARGEST", "False", "MUTUAL.OBJECTIVE", "labels")


@pytest.mark.parametrize("words, message", [
    (("MUTUAL.LARGEST", "False", "MUTUAL.SUBNETS", "[]"), "nothing would be trained"),
    (("MUTUAL.LARGEST", "False"), "inplace_distillation needs MUTUAL.LARGEST True"),
    (("MUTUAL.OBJECTIVE", "ensemble_distillation"), r"needs MUTUAL.SUBNETS \[each_size\] and MUTUAL.LARGEST False"),
    (("MUTUAL.BATCHNORM", "private_width", "MUTUAL.WIDTHS", "[0.7, 1.0]"), r"it must be \[each_width\]"),
    (EACH_WIDTH, "WIDTHS is .*: each_width needs a list from one end of MUTUAL.WIDTH_RANGE"),
    ((*EACH_WIDTH, "MUTUAL.WIDTHS", "[0.63, 0.8]"), "each_width needs a list from one end"),
    ((*EACH_WIDTH, "MUTUAL.WIDTHS", "[0.8, 1.0]"), "each_width needs a list from one end"),
    ((*EACH_WIDTH, "MUTUAL.LARGEST", "True"), "each_width runs the largest already; set MUTUAL.LARGEST False"),
    (("MUTUAL.SUBNETS", "[each_size]"), "each_size runs the largest already"),
    (("GRID.INTERPOLATED_SIZES", "[176, 176]", "MUTUAL.BATCHNORM", "private_size"), "GRID.INTERPOLATED_SIZES is .*: it names 176 twice"),
    (("GRID.LATENCY_DEVICES", "['cuda:x']"), "GRID.LATENCY_DEVICES is .*: 'cuda:x' in it is not legal: .* each cpu, cuda, cuda:1"),
    (("GRID.INTERPOLATED_SIZES", "[176]"), "it needs MUTUAL.BATCHNORM private_size"),
    (("GRID.INTERPOLATED_SIZES", "[300]", "MUTUAL.BATCHNORM", "private_size"), r"\[300\] must lie between the trained sizes"),
])  # fmt: skip
def test_rules_objective_and_norms_must_go_together(words, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, (*METHOD, *words))
