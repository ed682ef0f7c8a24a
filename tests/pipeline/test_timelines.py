"""Timelines compared with a list of what is there: by an independent computation, by hand, and where they cannot be compared."""

import csv
import json
import random

import pytest
from segment_scores import independent, precision_of

from mutual3d.cli import score_timeline as command
from mutual3d.deploy.scan_table import columns_of, read_segments
from mutual3d.deploy.timeline import Segment
from mutual3d.pipeline.timelines import compare_timelines, read_true_timelines

CLASSES = ["run", "jump high", "nothing"]


def write_found(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns_of(1), *rows])
    return path


def write_truth(folder, rows, names=CLASSES):
    """truth.csv, with numbers, and classes.txt; rows: (video, start, end, label)."""
    (folder / "truth.csv").write_text("".join(f"{video} {start} {end} {CLASSES.index(label)}\n" for video, start, end, label in rows))
    if names:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return folder / "truth.csv"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_any_table_and_list_give_what_an_independent_computation_does(seed, suffix, tmp_path, capsys):
    generator = random.Random(seed)
    truth, found = [], []
    for video in (f"{k}.mp4" for k in range(3)):
        for k in range(6):
            start = 10 * k + generator.randrange(3)
            label = generator.choice(CLASSES)
            truth.append((video, start, start + generator.randrange(2, 7), label))
        for _ in range(9):
            start = generator.randrange(60) / 1.0
            found.append((str(tmp_path / video), start, start + generator.randrange(1, 8), generator.choice(CLASSES), generator.randrange(1000) / 1000))
    for k in (0, 5, 11):  # some that are nearly right
        video, start, end, label = truth[k]
        found.append((str(tmp_path / video), start + 0.25, float(end), label, 0.999))
    if suffix == "csv":
        table = write_found(tmp_path / "found.csv", found)
    else:
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        table = tmp_path / "found.parquet"
        pyarrow.parquet.write_table(arrow.table([list(map(float, column)) if k in (1, 2, 4) else list(column) for k, column in enumerate(zip(*found))], columns_of(1)), table)
    ious, absolute = (0.2, 0.5, 0.75), [(str(tmp_path / video), *rest) for video, *rest in truth]
    listed = write_truth(tmp_path, truth)
    for background in ([], ["nothing"]):
        words = [str(table), str(listed), "--ious", *map(str, ious), *(["--background", *background] if background else [])]
        for output in (tmp_path / "score.json", tmp_path / "score.csv"):
            command.main([*words, "--output", str(output)])
            assert f"written: {output}" in capsys.readouterr().out
        score, expected = json.loads((tmp_path / "score.json").read_text()), independent(found, absolute, ious, background)
        assert score["values"] == {name: pytest.approx(value) for name, value in expected.items()} and score["values"]["map@0.2"] > 0
        assert score["per_class"]["0.5"] == {
            label: pytest.approx(precision_of(found, absolute, label, 0.5)) for label in sorted({row[3] for row in truth} - {*background})
        }  # fmt: skip
        assert (score["videos"], score["segments"]) == (3, sum(row[3] not in background for row in truth))
        with open(tmp_path / "score.csv", newline="") as file:
            rows = [(row["iou"], row["class"], float(row["average_precision"])) for row in csv.DictReader(file)]
        assert rows[-1] == ("", "", pytest.approx(expected["map"], abs=1e-4))
        assert [value for iou, name, value in rows if iou and not name] == pytest.approx([expected[f"map@{iou:g}"] for iou in ious], abs=1e-4)


def test_what_is_missing_on_either_side_is_told(tmp_path, capsys, monkeypatch):
    """A stretch that is found, one that is not, a video without any, and one of which the list says nothing."""
    monkeypatch.chdir(tmp_path)
    truth = write_truth(tmp_path, [("a.mp4", 0, 2, "run"), ("a.mp4", 4, 6, "run"), ("b.mp4", 0, 1, "jump high")])
    found = write_found(tmp_path / "found.csv", [("a.mp4", 0, 2, "run", 0.9), ("c.mp4", 0, 2, "nothing", 0.9)])
    command.main([found.name, str(truth), "--ious", "0.5"])
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "IoU           0.5", "jump high    0.00", "run         50.00", "mean        25.00",
        "mAP 25.00 %, the mean over 1 IoUs: 1 segments found, 3 there, of 2 classes in 2 videos",
    ]  # fmt: skip
    assert "1 videos are in the list, and no segment in the table: nothing was found in them" in told.err and str(tmp_path / "b.mp4") in told.err
    assert "1 videos are in the table alone" in told.err and str(tmp_path / "c.mp4") in told.err


def test_what_cannot_be_compared_is_a_sentence(tmp_path):
    truth = write_truth(tmp_path, [("a.mp4", 0, 2, "run")])
    video = str(tmp_path / "a.mp4")

    def refused(rows, message, *more, list_path=truth):
        with pytest.raises(ValueError, match=message):
            command.main([str(write_found(tmp_path / "found.csv", rows)), str(list_path), *more])

    refused([(video, 0, 1, "walk", 0.9)], "'walk' was found in .*a.mp4', and .*truth.csv' knows no such class, but run, jump high, nothing: name all classes")
    refused([("elsewhere/a.mp4", 0, 1, "run", 0.9)], "says nothing of .*elsewhere/a.mp4' or any other of the 1 videos, but of .*a.mp4'")
    refused([(video, 0, 1, "run", 0.9)], "the background has 'nothign', which is no class of the list", "--background", "nothign")
    refused([(video, 0, 1, "run", 0.9)], "the IoUs are", "--ious", "0")
    refused([(video, "", "", "run", 0.9)], "line 2: start, end and confidence are nothing, nothing, '0.9': a table of events has numbers there")
    refused([(video, 2, 1, "run", 0.9)], "from second 2.0 to 1.0: give seconds, start before end")
    refused([(video, 0, 1, "run")], "line 2: 4 columns, and the header has 5")
    (tmp_path / "whole.csv").write_text("a.mp4 0\n")
    refused([(video, 0, 1, "run", 0.9)], "has '.*a.mp4' with a label alone, and a timeline is compared with stretches", list_path=tmp_path / "whole.csv")
    (tmp_path / "many.csv").write_text("a.mp4 0 1 3\n")
    refused([(video, 0, 1, "run", 0.9)], "label 3 of .* is out of range", list_path=tmp_path / "many.csv")
    for name, text, message in (
        ("windows.csv", ",".join(columns_of(5)) + "\n", "is a table of windows or of whole videos"),
        ("other.csv", "name,value\n", "has the columns name, value, and one of events has path, start, end, label, confidence"),
        ("empty.csv", "", "has the columns of an empty file"),
        ("broken.parquet", "no parquet", "is no parquet file, or a damaged one"),
    ):
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow")
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_segments(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no table"):
        read_segments(tmp_path / "none.csv")


def test_classes_without_names_are_numbers_and_names_may_lie_elsewhere(tmp_path):
    truth = write_truth(tmp_path, [("a.mp4", 0, 2, "run"), ("a.mp4", 3, 4, "nothing")], names=())
    found = [(str(tmp_path / "a.mp4"), Segment(0.0, 2.0, "0", 0.9))]
    assert read_true_timelines(truth).classes == ("0", "2")
    assert compare_timelines(found, read_true_timelines(truth), ious=(0.5,)).values["map"] == 50
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    named = read_true_timelines(truth, class_names=tmp_path / "names.txt")
    assert named.classes == tuple(CLASSES)
    assert compare_timelines([(path, s._replace(label="run")) for path, s in found], named, ious=(0.5,), background=["nothing"]).values["map"] == 100
