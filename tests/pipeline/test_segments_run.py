"""A network that is trained on stretches of untrimmed videos finds them in others: init, run, scan and score-timeline, on H.264 files."""

import csv
import json
import shlex

import numpy as np
import pytest
from segment_scores import independent, precision_of
from videos import write_video

from mutual3d import cli
from mutual3d.cli import init
from mutual3d.data.build import build_dataset
from mutual3d.pipeline import load_config, recipe

COLOURS = {"nothing": (40, 40, 40), "red": (230, 30, 30), "blue": (30, 30, 230)}
FPS, SIDE = 20, 32
IOUS = (0.3, 0.5, 0.7, 0.9, 0.95)


def write_untrimmed(folder, count=9):
    """Videos of nothing, in which the picture is red once and blue once, for other seconds in each; and their list with names of classes."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        order = ["red", "blue"] if number % 2 else ["blue", "red"]
        pieces = [("nothing", 1.2), (order[0], 1.4 + 0.1 * (number % 4)), ("nothing", 1.1), (order[1], 1.8 - 0.1 * (number % 3)), ("nothing", 1.0)]
        frames, second = [], 0.0
        for name, length in pieces:
            length = round(length * FPS) / FPS
            noise = generator.integers(-20, 20, (round(length * FPS), SIDE // 8, SIDE // 8, 3)).repeat(8, 1).repeat(8, 2)
            frames.append((np.array(COLOURS[name]) + noise).astype(np.uint8))
            if name != "nothing":
                rows.append(f"{number}.mp4 {second:g} {second + length:g} {name}")
            second = round(second + length, 3)
        write_video(folder / f"{number}.mp4", np.concatenate(frames), fps=FPS)
    (folder / "all.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.txt").write_text("blue\nred\n")
    return folder / "all.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of lists and config, the network's file)."""
    folder = tmp_path_factory.mktemp("segments")
    listed = write_untrimmed(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(init, "CHOICES", init.CHOICES[:1])
        patch.setattr(recipe, "time_step", lambda *arguments: recipe.StepTime(0.01, 0.001, 30))
        assert not cli.main(["init", str(listed), "--out", str(folder / "run"), "--background", "nothing", "--cpu"])
    quick = (
        "SOLVER.MAX_EPOCH 12 SOLVER.WARMUP_EPOCHS 1 SOLVER.BASE_LR 0.03 TRAIN.BATCH_SIZE 4 CALIBRATION.NUM_CLIPS 16 GRID.WIDTH_STEP 0.5 GRID.LATENCY_REPEATS 1 GRID.RUNTIMES [] "
        "TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1 MUTUAL.SPATIAL_SIZES [16,32] MUTUAL.TEMPORAL_SIZES [2,4] DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 "
        "DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 DATA.TRAIN_JITTER_SCALES [32,36]"
    )
    assert not cli.main(["run", "--cfg", str(folder / "run/config.yaml"), *shlex.split(quick)])
    return folder / "run", folder / "run/out/adaptive.pyth"


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_found_in_other_videos_has_the_precision_of_an_independent_computation(trained, tmp_path, capsys):
    run, bundle = trained
    rows = [row for split in ("val", "test") for row in (run / f"{split}.csv").read_text().splitlines()]
    (run / "held_out.csv").write_text("\n".join(rows) + "\n")
    listed, found = str(run / "held_out.csv"), str(tmp_path / "events.csv")
    windows = ["--window", "0.4s", "--step", "0.1s", "--events", "--threshold", "0.5", "--background", "nothing"]
    assert cli.main(["scan", str(bundle), listed, "--out", found, "--workers", "1", "--runtime", "none", *windows]) == 0
    score = tmp_path / "score.json"
    words = ["score-timeline", found, listed, "--background", "nothing", "--ious", *map(str, IOUS), "--output", str(score)]
    assert not cli.main(words)
    told = capsys.readouterr().out
    classes = (run / "classes.txt").read_text().split()
    truth = [(path, float(start), float(end), classes[int(label)]) for path, start, end, label in map(str.split, rows)]
    events = [(row["path"], float(row["start"]), float(row["end"]), row["label"], float(row["confidence"])) for row in rows_of(found)]
    assert {row[3] for row in truth} == {"red", "blue", "nothing"} and {row[3] for row in events} <= {"red", "blue"}
    expected = independent(events, truth, IOUS, ["nothing"])
    result = json.loads(score.read_text())
    assert result["values"] == {name: pytest.approx(value) for name, value in expected.items()}
    for iou in IOUS:
        assert result["per_class"][f"{iou:g}"] == {label: pytest.approx(precision_of(events, truth, label, iou)) for label in ("blue", "red")}
    assert f"mAP {expected['map']:.2f} %, the mean over 5 IoUs: {len(events)} segments found" in told
    # The colours are told apart, and where they begin and end is known to a window.
    assert result["values"]["map@0.3"] > 80 and result["values"]["map@0.5"] > 50


def test_what_single_stretches_were_taken_for_says_which_they_are(trained):
    run, _ = trained
    listed = build_dataset(load_config(run / "config.yaml"), "val", "single_view").videos
    rows = rows_of(run / "out/predictions.csv")
    assert {(row["video"], float(row["start"]), float(row["end"]), int(row["label"])) for row in rows} == {tuple(video) for video in listed}
    assert len({(row["video"], row["start"], row["end"]) for row in rows}) == len(listed) > len({row["video"] for row in rows})
