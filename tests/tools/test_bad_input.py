"""What a user sees when something is wrong: one line that names the file, the value and the fix, and status 1."""

import subprocess
import sys

import pytest
from tiny import ROOT, overrides, tiny_network, write_set
from videos import moving_frames, write_audio, write_video

from mutual3d.cli import run as run_net
from mutual3d.training import Checkpoints, build_optimizer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), num_videos=8)


@pytest.fixture
def run(data, tmp_path):
    """Run the tool with changed keys, in this process."""
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")

    def run(directory=data, **changes):
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        run_net.main(["--cfg", str(config), *overrides(directory, changes.pop("OUTPUT_DIR", tmp_path / "out"), **changes)])

    return run


def set_with(tmp_path, lines, split="train"):
    directory = write_set(tmp_path / "bad", num_videos=8)
    (directory / f"{split}.csv").write_text(lines)
    return directory


def test_missing_csv(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/train.csv"):
        run(tmp_path / "nowhere")


def test_empty_csv(run, tmp_path):
    with pytest.raises(ValueError, match="train.csv"):
        run(set_with(tmp_path, ""))


def test_label_out_of_range(run, tmp_path):
    with pytest.raises(ValueError, match=r"train.csv.*label 2.*0 to 1 \(MODEL.NUM_CLASSES 2\)"):
        run(set_with(tmp_path, "0.mp4 0\n1.mp4 2\n"))


def test_a_csv_with_fewer_videos_than_a_batch(run, tmp_path):
    with pytest.raises(ValueError, match="lower TRAIN.BATCH_SIZE"):
        run(set_with(tmp_path, "0.mp4 0\n1.mp4 1\n"))


def spoil(directory, kind):
    path = directory / "3.mp4"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "text":
        path.write_text("this is no video")
    elif kind == "audio":
        write_audio(path)
    elif kind == "missing":
        path.unlink()
    return directory


@pytest.mark.parametrize("kind", ["truncated", "text", "audio", "missing"])
def test_unreadable_videos_stop_training_with_path_and_cause(run, tmp_path, kind):
    directory = spoil(write_set(tmp_path / "bad", num_videos=8), kind)
    with pytest.raises(RuntimeError, match=r"1 of 8 videos cannot be read(.|\n)*3.mp4: (.|\n)*mutual3d check-data"):
        run(directory)


def test_a_stated_share_of_unreadable_videos_is_tolerated_and_left_out(run, tmp_path, caplog):
    directory = spoil(write_set(tmp_path / "bad", num_videos=8), "text")
    run(directory, DATA_LOADER__MAX_UNREADABLE_TRAIN=0.2, DATA_LOADER__MAX_UNREADABLE_TEST=0.2, GRID__LATENCY_DEVICES=[])
    log = (tmp_path / "out" / "stdout.log").read_text()
    assert "skipped: cannot read" in log and "they are left out" in log
    from mutual3d.table.query_table import QueryTable

    assert QueryTable.load(tmp_path / "out" / "query_table.json").provenance["num_videos"] == 7


def test_evaluation_tolerates_none_unless_told(run, tmp_path):
    directory = spoil(write_set(tmp_path / "bad", num_videos=8), "text")
    with pytest.raises(RuntimeError, match="MAX_UNREADABLE_TEST"):
        run(directory, DATA_LOADER__MAX_UNREADABLE_TRAIN=0.2)


def test_calibration_tolerates_as_training_does(run, tmp_path):
    directory = spoil(write_set(tmp_path / "bad", num_videos=8), "text")
    run(OUTPUT_DIR=tmp_path / "sound", SOLVER__MAX_EPOCH=1, CALIBRATION__ENABLE=False, GRID__ENABLE=False, TEST__ENABLE=False)
    weights = tmp_path / "sound" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    with pytest.raises(RuntimeError, match="MAX_UNREADABLE_TRAIN"):
        run(directory, TRAIN__ENABLE=False, TEST__CHECKPOINT_FILE_PATH=weights, DATA_LOADER__MAX_UNREADABLE_TEST=0.5)


def test_a_mistake_in_the_validation_list_shows_before_training(run, tmp_path):
    with pytest.raises(ValueError, match="val.csv.*label 7"):
        run(set_with(tmp_path, "0.mp4 7\n", split="val"), MUTUAL__ENABLE=False, TEST__ENABLE=False)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_odd_videos_are_videos(run, tmp_path):
    """One frame, and a variable frame rate: both train and are measured."""
    directory = write_set(tmp_path / "odd", num_videos=8)
    write_video(directory / "3.mp4", moving_frames(1))
    write_video(directory / "4.mp4", moving_frames(8), times=[0, 10, 35, 40, 90, 100, 130, 200])
    run(directory, SOLVER__MAX_EPOCH=1, GRID__LATENCY_DEVICES=[])
    assert (tmp_path / "out" / "query_table.json").is_file()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"SOLVER.BASE_RATE": 1}, "unknown config key SOLVER.BASE_RATE.*did you mean SOLVER.BASE_LR"),
        ({"MUTUAL.SPATIAL_SIZES": [16, 20]}, "MUTUAL.SPATIAL_SIZES.*largest value must equal DATA.TRAIN_CROP_SIZE"),
        ({"MUTUAL.TEMPORAL_SIZES": [2, 8]}, "MUTUAL.TEMPORAL_SIZES.*DATA.NUM_FRAMES"),
        ({"MUTUAL.WIDTH_RANGE": [1.0]}, r"MUTUAL.WIDTH_RANGE is \[1.0\]: it must be a list of 2"),
        ({"MUTUAL.SUBNETS": ["tiniest"]}, "MUTUAL.SUBNETS is 'tiniest': mutual3d has smallest, random"),
        ({"TEST.CONFIGURATIONS": ["0.3-16-2"]}, r"width 0.3 is outside the range \[0.5, 1\]"),
        ({"TEST.CONFIGURATIONS": ["0.5-17-2"]}, "size 17 is not one of 16, 24"),
        ({"TEST.CONFIGURATIONS": ["0.5-16-3"]}, "frames 3 is not one of 2, 4"),
        ({"MODEL.MODEL_NAME": "MViT"}, "MODEL.MODEL_NAME is 'MViT': mutual3d has .*X3D"),
        ({"TRAIN.MIXED_PRECISION": True, "TRAIN.MIXED_PRECISION_DTYPE": "float16"}, "float16 needs a GPU"),
    ],
)
def test_impossible_settings(run, changes, message):
    with pytest.raises(ValueError, match=message):
        run(**{key.replace(".", "__"): value for key, value in changes.items()})


def checkpoint_of(tmp_path, model):
    Checkpoints(tmp_path / "other").save(model, build_optimizer(model, base_lr=0.1, weight_decay=0.0), epoch=1)
    return Checkpoints(tmp_path / "other").path(1)


def test_checkpoint_of_another_class_count(run, tmp_path):
    path = checkpoint_of(tmp_path, tiny_network(num_classes=5))
    with pytest.raises(ValueError, match="made for 5 classes and this network has 2: set MODEL.NUM_CLASSES"):
        run(TRAIN__CHECKPOINT_FILE_PATH=path)


def test_checkpoint_of_another_network(run, tmp_path):
    path = checkpoint_of(tmp_path, tiny_network())
    with pytest.raises(ValueError, match="checkpoint of another network(.|\n)*missing in the file(.|\n)*check MODEL"):
        run(TRAIN__CHECKPOINT_FILE_PATH=path, X3D__DEPTH_FACTOR=1.5)


def test_missing_checkpoint(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pyth"):
        run(TRAIN__CHECKPOINT_FILE_PATH=tmp_path / "nowhere.pyth")
    with pytest.raises(FileNotFoundError, match="train first, or give TEST.CHECKPOINT_FILE_PATH"):
        run(TRAIN__ENABLE=False)


def test_testing_an_uncalibrated_configuration_says_how_to_calibrate(run):
    with pytest.raises(RuntimeError, match="0.5-16-2 was never calibrated(.|\n)*mutual3d run"):
        run(CALIBRATION__ENABLE=False, GRID__ENABLE=False, TEST__CONFIGURATIONS=["0.5-16-2"], SOLVER__MAX_EPOCH=1)


def test_an_output_directory_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write in the directory .*choose another directory"):
        run(OUTPUT_DIR=tmp_path / "file" / "out")


def test_the_command_line_ends_in_one_line_and_status_1(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(tmp_path / "no.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"error: there is no config '{tmp_path / 'no.yaml'}': give the path of a YAML file, or a name such as Kinetics/MUTUAL_X3D_M\n"
