"""A run that goes on from a checkpoint equals the old settings, or says what is different; or it does not go on."""

import shutil

import pytest
import torch
from tiny import overrides, write_set

from mutual3d.cli import run as run_net
from mutual3d.utils.files import load_tensors

ALONE = {"GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False, "SOLVER.NESTEROV": False}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A directory with a set of four videos, and a run of one epoch of one step."""
    directory = tmp_path_factory.mktemp("begun")
    (directory / "run.yaml").write_text("RNG_SEED: 3\n")
    write_set(directory / "set", num_videos=4, splits=("train",))
    run(directory, **{"SOLVER.MAX_EPOCH": 1})
    return directory


def run(directory, **changes):
    words = overrides(directory / "set", directory / "out", **{**ALONE, **changes})
    run_net.main(["--cfg", str(directory / "run.yaml"), *words])


@pytest.fixture
def go_on(begun, tmp_path):
    """Go on, in a copy of the output directory, to the second epoch; gives its weights and the log that it added."""

    def go_on(data=begun / "set", **changes):
        output = tmp_path / "out"
        shutil.copytree(begun / "out", output)
        log = (output / "stdout.log").read_text()
        words = overrides(data, output, **{**ALONE, "OUTPUT_DIR": output, **changes})
        run_net.main(["--cfg", str(begun / "run.yaml"), *words])
        weights = load_tensors(output / "checkpoints" / "checkpoint_epoch_00002.pyth")["model_state"]
        return torch.cat([value.flatten().double() for value in weights.values()]), (output / "stdout.log").read_text()[len(log) :]

    return go_on


@pytest.fixture(scope="module")
def unchanged(begun, tmp_path_factory):
    """The weights after the second epoch, with the old settings."""
    output = tmp_path_factory.mktemp("unchanged") / "out"
    shutil.copytree(begun / "out", output)
    run_net.main(["--cfg", str(begun / "run.yaml"), *overrides(begun / "set", output, **ALONE)])
    weights = load_tensors(output / "checkpoints" / "checkpoint_epoch_00002.pyth")["model_state"]
    return torch.cat([value.flatten().double() for value in weights.values()])


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("SOLVER.WEIGHT_DECAY", 0.1, "SOLVER.WEIGHT_DECAY 0.0001 -> 0.1"),
        ("SOLVER.MOMENTUM", 0.5, "SOLVER.MOMENTUM 0.9 -> 0.5"),
        ("SOLVER.NESTEROV", True, "SOLVER.NESTEROV False -> True"),
        ("SOLVER.DAMPENING", 0.5, "SOLVER.DAMPENING 0.0 -> 0.5"),
        ("SOLVER.BASE_LR", 0.5, "SOLVER.BASE_LR 0.05 -> 0.5"),
    ],
)
def test_what_may_change_takes_effect_and_is_said(go_on, unchanged, key, value, told):
    weights, log = go_on(**{key: value})
    assert not torch.equal(weights, unchanged)
    assert "changed since 'checkpoint_epoch_00001.pyth', and in effect from here on:" in log and told in log


def test_what_is_no_setting_of_the_training_changes_no_bit(go_on, unchanged):
    weights, log = go_on(**{"LOG_PERIOD": 3, "TEST.BATCH_SIZE": 2})
    assert torch.equal(weights, unchanged) and "LOG_PERIOD 10 -> 3" in log


def test_all_that_makes_another_run_is_refused_at_once_with_the_ways_on(go_on):
    with pytest.raises(ValueError, match="belongs to another run") as refused:
        go_on(**{
            "DATA.SAMPLING_RATE": 1, "DATA.MEAN": [0.4, 0.4, 0.4], "RNG_SEED": 4, "TRAIN.BATCH_SIZE": 2,
            "MODEL.DROPOUT_RATE": 0.2, "TRAIN.ACCUMULATION_STEPS": 2,
        })  # fmt: skip
    text = str(refused.value)
    for told in ("RNG_SEED 3 -> 4", "DATA.SAMPLING_RATE 2 -> 1", "TRAIN.BATCH_SIZE 4 -> 2", "ACCUMULATION_STEPS 1 -> 2",
                 "MODEL.DROPOUT_RATE 0.1 -> 0.2", "DATA.MEAN [0.45, 0.45, 0.45] -> [0.4, 0.4, 0.4]", "set them back",
                 "choose another OUTPUT_DIR", "TRAIN.CHECKPOINT_FILE_PATH '"):  # fmt: skip
        assert told in text, told


def test_another_training_set_is_refused_unless_it_is_allowed(go_on, begun, unchanged, tmp_path):
    shutil.copytree(begun / "set", tmp_path / "set")
    lines = (tmp_path / "set" / "train.csv").read_text().splitlines()
    flipped = [f"{path} {1 - int(label)}" for path, label in map(str.split, lines)]
    (tmp_path / "set" / "train.csv").write_text("\n".join(flipped) + "\n")
    with pytest.raises(ValueError, match="was trained on another training set.*set TRAIN.ALLOW_OTHER_DATA True to go on"):
        go_on(data=tmp_path / "set")
    shutil.rmtree(tmp_path / "out")
    weights, log = go_on(data=tmp_path / "set", **{"TRAIN.ALLOW_OTHER_DATA": True})
    assert "going on, since TRAIN.ALLOW_OTHER_DATA is True" in log and not torch.equal(weights, unchanged)


def test_the_finished_epochs_are_told_of_in_a_warning(go_on):
    _, log = go_on(**{"DATA_LOADER.MAX_UNREADABLE_TRAIN": 0.5})
    assert "the finished epochs (1) of 'checkpoint_epoch_00001.pyth' were made otherwise" in log
    assert "DATA_LOADER.MAX_UNREADABLE_TRAIN 0.01 -> 0.5" in log


def test_what_changes_after_the_training_is_refused_or_told_too(begun, tmp_path):
    """Statistics of other videos beside finished weights would be nobody's results."""
    output = tmp_path / "out"
    shutil.copytree(begun / "out", output)
    finished = {**ALONE, "SOLVER.MAX_EPOCH": 1, "OUTPUT_DIR": output}

    def again(data, **changes):
        before = (output / "stdout.log").read_text()
        run_net.main(["--cfg", str(begun / "run.yaml"), *overrides(data, output, **{**finished, **changes})])
        return (output / "stdout.log").read_text()[len(before) :]

    log = again(begun / "set", **{"SOLVER.BASE_LR": 0.5})
    assert "too late for what belongs to training, which is finished" in log and "SOLVER.BASE_LR 0.05 -> 0.5" in log
    other = write_set(tmp_path / "other", num_videos=4, splits=("train",))
    (other / "train.csv").write_text((other / "train.csv").read_text().replace(" 1\n", " 0\n"))
    with pytest.raises(ValueError, match="was trained on another training set.*ALLOW_OTHER_DATA.*or set TRAIN.ENABLE False"):
        again(other)
    assert "going on, since TRAIN.ALLOW_OTHER_DATA is True" in again(other, **{"TRAIN.ALLOW_OTHER_DATA": True})
