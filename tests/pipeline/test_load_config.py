"""A config is checked by every room: words that nobody registered, and values that do not go together."""

import pytest

from mutual3d.pipeline import load_config

MUTUAL = ["MUTUAL.ENABLE", "True", "MODEL.MODEL_NAME", "X3D", "DATA.NUM_FRAMES", "16"]


def test_a_mutual_x3d_config_is_valid():
    assert load_config(None, MUTUAL).MUTUAL.ENABLE


@pytest.mark.parametrize(
    "key, value, nearest",
    [
        ("MODEL.MODEL_NAME", "X3d", "X3D"),
        ("MODEL.MODEL_NAME", "MobilNetV2", "MobileNetV2"),
        ("MODEL.LOSS_FUNC", "cross_entrpy", "cross_entropy"),
        ("TRAIN.DATASET", "Kinetics", "kinetics"),
        ("TEST.DATASET", "charade", "charades"),
        ("MUTUAL.OBJECTIVE", "inplace_destillation", "inplace_distillation"),
        ("MUTUAL.BATCHNORM", "private", "private_size"),
        ("MUTUAL.SUBNETS", "[smallest, randon]", "random"),
    ],
)
def test_a_word_that_nobody_registered_is_refused_with_the_legal_ones_and_the_nearest(key, value, nearest):
    with pytest.raises(ValueError, match=f"{key} is '.*': mutual3d has .*; did you mean '{nearest}'"):
        load_config(None, [*MUTUAL, key, value])


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
