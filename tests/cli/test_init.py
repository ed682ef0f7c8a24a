"""`mutual3d init`, from folders and from a list, to a config that needs no further key."""

import re

import pytest
import torch
from tiny import write_set

from mutual3d.cli import init, predict, run
from mutual3d.pipeline import recipe
from mutual3d.pipeline.recipe import NetworkChoice, StepTime


@pytest.fixture
def folders(tmp_path):
    """Two class folders of six videos; the first three are anna's and so on."""
    data = write_set(tmp_path / "set")
    for i in range(12):
        target = tmp_path / "videos" / ("down" if i % 2 else "right") / f"{('anna', 'ben', 'cleo')[i // 4]}_{i}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        (data / f"{i}.mp4").rename(target)
    return tmp_path / "videos"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small network whose steps need no timing."""
    monkeypatch.setattr(init, "CHOICES", (NetworkChoice(32, 2, 1.0, 0.5, 32),))
    monkeypatch.setattr(recipe, "time_step", lambda *arguments: StepTime(0.01, 0.001, 30))


def groups(path):
    return set(re.findall(r"(anna|ben|cleo)", path.read_text()))


def test_folders_become_lists_and_a_config_that_a_run_needs_nothing_beside(folders, tmp_path, capsys):
    out = tmp_path / "it is mine"
    init.main([str(folders), "--out", str(out), "--group", r"(\w+)_\d+\.mp4", "--cpu"])
    told = capsys.readouterr().out
    lists = [groups(out / f"{split}.csv") for split in ("train", "val", "test")]
    assert [len(names) for names in lists] == [1, 1, 1] and len(set.union(*lists)) == 3
    assert (out / "classes.txt").read_text() == "down\nright\n"
    assert "12 videos of 2 classes (6 to 6 each)" in told and "val is a coarse ruler: one of its 4 videos is 25.0 points" in told
    assert f"now: mutual3d run --cfg '{out}/config.yaml'" in told
    with pytest.raises(ValueError, match="config.yaml' is there: choose another --out"):
        init.main([str(folders), "--out", str(out)])
    run.main(["--cfg", str(out / "config.yaml"), "SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0", "GRID.WIDTH_STEP", "0.5", "GRID.LATENCY_REPEATS", "1"])
    assert predict.main([str(out / "out" / "adaptive.pyth"), str(folders)]) == 0


def test_a_list_is_taken_with_its_names_and_other_classes_weights(folders, tmp_path):
    rows = [f"{path} {int(path.parent.name == 'right') * 2}\n" for path in sorted(folders.rglob("*.mp4"))]
    (tmp_path / "all.csv").write_text("".join(rows))
    (tmp_path / "classes.txt").write_text("down\nnever\nright\n")
    init.main([str(tmp_path / "all.csv"), "--out", str(tmp_path / "run"), "--cpu"])
    assert (tmp_path / "run" / "classes.txt").read_text() == "down\nright\n"
    labels = {line.split()[-1] for line in (tmp_path / "run" / "train.csv").read_text().splitlines()}
    assert labels == {"0", "1"}
    torch.save({"model_state": {"a": torch.zeros(1)}}, tmp_path / "bare.pyth")
    with pytest.raises(ValueError, match="does not say which network"):
        init.main([str(tmp_path / "all.csv"), "--out", str(tmp_path / "other"), "--weights", str(tmp_path / "bare.pyth")])


def test_what_is_no_set_of_videos_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="--group 'x(' is no regular expression".replace("(", r"\(")):
        init.main([str(folders), "--out", str(tmp_path / "a"), "--group", "x("])
    with pytest.raises(FileNotFoundError, match="there is no folder or list"):
        init.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "b")])
    (tmp_path / "one").mkdir()
    (folders / "right").rename(tmp_path / "one" / "right")
    with pytest.raises(ValueError, match="has the one class 'right'"):
        init.main([str(tmp_path / "one"), "--out", str(tmp_path / "c")])
