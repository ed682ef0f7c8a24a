"""A config is checked by every room: words that nobody registered, and values that do not go together."""

import logging

import pytest
import torch

from mutual3d.config import ConfigError
from mutual3d.pipeline import check_machine, load_config, tell_of_devices
from mutual3d.sampling import RULES
from mutual3d.sampling.rules import Rule
from mutual3d.training import OBJECTIVES, Objective
from mutual3d.training.build import build_schedule

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
    (("DATA.CROP_PADDING", "4"), "DATA.CROP_PADDING is 4: TRAIN.DATASET kinetics does not read it"),
    (("MODEL.MODEL_NAME", "MobileNetV2"), "MobileNetV2 takes images, and TRAIN.DATASET is kinetics"),
    (("TRAIN.DATASET", "digits", "TEST.DATASET", "digits"), "DATA.NUM_FRAMES is 8: with TRAIN.DATASET digits it must be 1"),
    ((*AVA, "GRID.SPLIT", "train"), "GRID.SPLIT is 'train': with TRAIN.DATASET ava it must be 'val'"),
    ((*AVA, "TEST.SAVE_RESULTS_PATH", "scores"), "TEST.SAVE_RESULTS_PATH is 'scores': with TRAIN.DATASET ava"),
])  # fmt: skip
def test_data_task_and_network_must_go_together(words, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, words)


DIGITS = ("DATA.NUM_FRAMES", "1", "TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1",
          "TRAIN.DATASET", "digits", "TEST.DATASET", "digits")  # fmt: skip
# A config of each task whose samples are seen whole, once.
WHOLE = ("CIFAR/WRN_28_10_CIFAR10", "COCO/MUTUAL_RESNET50", "NYUDv2/BASE", "DIV2K/US_WDSR", "Atari/US_BREAKOUT")


@pytest.mark.parametrize("key, value", [("GRID.NUM_VIEWS", "10"), ("TEST.NUM_ENSEMBLE_VIEWS", "10"), ("TEST.NUM_SPATIAL_CROPS", "3")])
@pytest.mark.parametrize("name", WHOLE)
def test_views_that_a_set_does_not_have_are_refused(name, key, value):
    """They would do nothing, and the table would say nothing of it."""
    with pytest.raises(ValueError, match=f"{key} is {value}: with TRAIN.DATASET .* it must be 1"):
        load_config(name, [key, value])


def test_a_keyframe_is_one_view_though_pyslowfasts_files_leave_those_of_the_test():
    load_config(None, AVA)
    with pytest.raises(ValueError, match="GRID.NUM_VIEWS is 10: with TRAIN.DATASET ava it must be 1"):
        load_config(None, (*AVA, "GRID.NUM_VIEWS", "10"))


@pytest.mark.parametrize("network, gives", [
    ("RefineNet", "maps of classes"), ("MaskRCNN", "objects"), ("WDSR", "larger images"), ("Policy", "actions"),
])  # fmt: skip
def test_a_network_of_another_task_is_refused_for_a_set_of_classes(network, gives):
    with pytest.raises(ValueError, match=rf"MODEL_NAME {network} gives {gives}, and TRAIN.DATASET digits needs classes: .* \(.*ImageResNet.*X3D"):
        load_config(None, (*DIGITS, "MODEL.MODEL_NAME", network))


@pytest.mark.parametrize("name, needs", [
    ("NYUDv2/BASE", r"maps of classes: choose a network that gives them \(RefineNet\)"), ("COCO/RESNET50", r"objects: .* \(MaskRCNN\)"),
    ("DIV2K/US_WDSR", r"larger images: .* \(WDSR\)"), ("Atari/US_BREAKOUT", r"actions: .* \(Policy\)"),
])  # fmt: skip
def test_a_network_of_classes_is_refused_for_a_set_of_another_task(name, needs):
    load_config(name)
    with pytest.raises(ValueError, match=f"MODEL.MODEL_NAME MobileNetV2 gives classes, and TRAIN.DATASET .* needs {needs}"):
        load_config(name, ("MODEL.MODEL_NAME", "MobileNetV2"))


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
    ((*EACH_WIDTH, "MUTUAL.SUBNETS_START_EPOCH", "2"), "SUBNETS_START_EPOCH is 2.*which MUTUAL.LARGEST False leaves out"),
    (("MUTUAL.SUBNETS_START_EPOCH", "12", "SOLVER.MAX_EPOCH", "12"), "SUBNETS_START_EPOCH is 12, .*MAX_EPOCH 12: no sub-network would ever train"),
    ((*EACH_WIDTH, "MUTUAL.LARGEST", "True"), "each_width runs the largest already; set MUTUAL.LARGEST False"),
    (("MUTUAL.SUBNETS", "[each_size]"), "each_size runs the largest already"),
    (("GRID.INTERPOLATED_SIZES", "[176, 176]", "MUTUAL.BATCHNORM", "private_size"), "GRID.INTERPOLATED_SIZES is .*: it names 176 twice"),
    (("GRID.LATENCY_DEVICES", "['cuda:x']"), "GRID.LATENCY_DEVICES is .*: 'cuda:x' in it is not legal: .* each cpu, cuda, cuda:1"),
    (("GRID.INTERPOLATED_SIZES", "[176]"), "it needs MUTUAL.BATCHNORM private_size"),
    (("GRID.INTERPOLATED_SIZES", "[176, 192]", "MUTUAL.BATCHNORM", "private_size"), r"\[192\] are among the trained sizes .*leave them out"),
    (("GRID.INTERPOLATED_SIZES", "[300]", "MUTUAL.BATCHNORM", "private_size", "CALIBRATION.TRANSFORM", "train"), "which cuts clips .* has 300: set it test"),
    (("MUTUAL.OWN_CROPS", "True"), r"(?s)OWN_CROPS is True: TRAIN.DATASET kinetics does not read it.*it needs MUTUAL.SUBNETS \[each_size\]"),
    (("MUTUAL.BATCHNORM", "shared"), "with MUTUAL.BATCHNORM shared.*one width twice; or set MUTUAL.BATCHNORM calibrated"),
])  # fmt: skip
def test_rules_objective_and_norms_must_go_together(words, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, (*METHOD, *words))


# ---- A stranger's network, objective and rule --------------------------------------------------------------------------


def test_a_registered_word_is_legal_and_says_itself_what_it_needs(monkeypatch):
    class FromTheTeacher(Objective):
        """It says nothing of what it needs, so that it needs a teacher."""

    monkeypatch.setitem(OBJECTIVES, "from_the_teacher", FromTheTeacher)
    monkeypatch.setitem(RULES, "largest_again", Rule("max", "max", "max"))
    words = [*MUTUAL, "MUTUAL.OBJECTIVE", "from_the_teacher"]
    assert load_config(None, words).MUTUAL.OBJECTIVE == "from_the_teacher"
    with pytest.raises(ValueError, match="MUTUAL.OBJECTIVE from_the_teacher needs MUTUAL.LARGEST True"):
        load_config(None, [*words, "MUTUAL.LARGEST", "False", "MUTUAL.SUBNETS", "[random, smallest]"])
    with pytest.raises(ValueError, match="largest_again runs the largest already"):
        load_config(None, [*words, "MUTUAL.SUBNETS", "[largest_again]"])


# ---- What a run writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, message", [
    ("adaptive.pyth", "a run has a 'adaptive.pyth' of its own"),
    ("./sub/../adaptive.pyth", "a run has a 'adaptive.pyth' of its own"),
    ("Adaptive.pyth", ".*of its own"),
    ("checkpoints/checkpoint_epoch_00099.pyth", "a run has a 'checkpoints' of its own"),
    ("query_table.json", ".*of its own"),
    ("run.lock", ".*of its own"),
    (".grid.rank0of1", ".*of its own"),
    ("detections_1-24-4.csv", ".*of its own"),
    ("../scores.pyth", "it leaves OUTPUT_DIR"),
    ("/tmp/scores.pyth", "it leaves OUTPUT_DIR"),
    ("link/scores.pyth", "it leaves OUTPUT_DIR"),
    (".", "it leaves OUTPUT_DIR"),
    ("folder", "that is a directory"),
])  # fmt: skip
def test_scores_overwrite_nothing_of_the_run_s_own_and_stay_in_its_directory(tmp_path, name, message):
    output = tmp_path / "out"
    (output / "folder").mkdir(parents=True)
    (output / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=f"TEST.SAVE_RESULTS_PATH is .*: {message}.*such as 'scores.pyth'"):
        load_config(None, ["OUTPUT_DIR", str(output), "TEST.SAVE_RESULTS_PATH", name])
    load_config(None, ["OUTPUT_DIR", str(output), "TEST.SAVE_RESULTS_PATH", "folder/scores.pyth"])


# ---- What a run asks of the machine ------------------------------------------------------------------------------------


def test_gpus_that_are_not_there_are_told_of_at_the_start(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    words = [*MUTUAL, "NUM_GPUS", "8", "GRID.LATENCY_DEVICES", "[cpu, 'cuda:1']"]
    cfg = load_config(None, words)
    check_machine(cfg)
    with caplog.at_level(logging.WARNING):
        tell_of_devices(cfg)
    assert caplog.messages == [
        "NUM_GPUS is 8 and this machine has no GPU that torch can use: running on the CPU",
        "GRID.LATENCY_DEVICES names cuda:1 and there is none: its latency will not be measured",
    ]


def test_one_process_of_several_gpus_is_told_of(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tell_of_devices(load_config(None, ["NUM_GPUS", "2"]))
    assert "NUM_GPUS is 2 and one process runs: start it with torchrun" in caplog.text


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="torchrun started 3 processes .* can use 2 GPUs: give --nproc_per_node 2, or NUM_GPUS 0"):
        check_machine(load_config(None, ["NUM_GPUS", "8"]))
    check_machine(load_config(None, ["NUM_GPUS", "0"]))


def test_tensorboard_is_missed_before_training(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="TENSORBOARD.ENABLE needs tensorboard: pip install"):
        check_machine(load_config(None, ["TENSORBOARD.ENABLE", "True"]))
    check_machine(load_config(None, []))


# ---- All at once -------------------------------------------------------------------------------------------------------


def test_words_values_and_what_does_not_go_together_are_told_at_once():
    with pytest.raises(ConfigError) as told:
        load_config(None, [
            *MUTUAL, "MUTUAL.SUBNETS", "[smalest]", "MUTUAL.OBJECTIVE", "labls", "SOLVER.MOMENTUM", "5",
            "DATA.CROP_PADDING", "4", "MUTUAL.TEMPORAL_SIZES", "[6, 9]", "TEST.SAVE_RESULTS_PATH", "adaptive.pyth",
        ])  # fmt: skip
    keys = {problem.keys[0] for problem in told.value.problems}
    assert keys == {
        "MUTUAL.SUBNETS", "MUTUAL.OBJECTIVE", "SOLVER.MOMENTUM", "DATA.CROP_PADDING", "MUTUAL.TEMPORAL_SIZES",
        "TEST.SAVE_RESULTS_PATH",
    }  # fmt: skip


def test_lists_of_a_schedule_go_together():
    with pytest.raises(ValueError, match="SOLVER.STEPS .* and SOLVER.LRS .* must have one length"):
        load_config(None, ["SOLVER.LR_POLICY", "steps_with_relative_lrs", "SOLVER.STEPS", "[0, 10]", "SOLVER.LRS", "[1]"])


def test_factors_that_are_never_reached_are_said_not_refused(caplog):
    """PySlowFast's stepwise files have six factors for four steps."""
    words = "SOLVER.LR_POLICY", "steps_with_relative_lrs", "SOLVER.STEPS", "[0, 10]", "SOLVER.LRS", "[1, 0.1, 0.01]"
    schedule = build_schedule(load_config(None, [*words, "SOLVER.BASE_LR", "1"]))
    assert [schedule(epoch) for epoch in (0, 9.9, 10, 300)] == [1, 1, 0.1, 0.1]
    assert "SOLVER.LRS has [0.01] beyond SOLVER.STEPS [0, 10]: never reached" in caplog.text
