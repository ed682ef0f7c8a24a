"""The demo set in Charades' form."""

import os
from collections import Counter

import numpy as np
import pytest
from clips import video_dataset
from scripts import load_script
from tiny import ROOT

from mutual3d.data.datasets.charades import read_charades
from mutual3d.data.prepare import demo, demo_charades
from mutual3d.data.prepare.demo_charades import PAIRS, make_demo_charades

COUNTS = {"num_train": 4, "num_val": 1, "num_test": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_demo_charades(tmp_path_factory.mktemp("demo") / "data", **COUNTS, num_workers=2)


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_videos_read_with_two_labels_each(folder):
    for split, count in zip(demo.SPLITS, COUNTS.values()):
        dataset = video_dataset(
            read_charades(folder / f"{split}.csv", num_classes=8, fps=30), num_frames=8, sampling_rate=3, crop_size=48
        )
        assert len(dataset) == count
        for index in range(count):
            sample = dataset[0, index]
            assert tuple(sample.label.nonzero().flatten().tolist()) == demo_charades.labels_of(split, index)
            assert sample.clips_VCTHW.shape == (1, 3, 8, 48, 48)
    assert (folder / "classes.txt").read_text().splitlines() == list(demo.CLASS_NAMES)


def test_images_show_the_drawn_frames(folder):
    (video,) = read_charades(folder / "val.csv", num_classes=8, fps=30)
    frames_THWC = video.open("pyav").read(range(demo.NUM_FRAMES))
    drawn, _ = demo_charades.draw_video("val", 0)
    assert frames_THWC.shape == drawn.shape and np.abs(frames_THWC.astype(int) - drawn).mean() < 5


def test_pairs_take_turns():
    labels = [demo_charades.labels_of("train", index) for index in range(2 * len(PAIRS))]
    assert Counter(labels) == {pair: 2 for pair in PAIRS}
    assert labels[: len(PAIRS)] != labels[len(PAIRS) :]
    assert labels != [demo_charades.labels_of("val", index) for index in range(2 * len(PAIRS))]


def test_a_video_depends_on_seed_split_and_index_alone():
    frames, labels = demo_charades.draw_video("train", 3, seed=5)
    again, same = demo_charades.draw_video("train", 3, seed=5)
    assert np.array_equal(frames, again) and labels == same
    for split, index, seed in (("val", 3, 5), ("train", 4, 5), ("train", 3, 6)):
        assert not np.array_equal(frames, demo_charades.draw_video(split, index, seed)[0])


def test_a_complete_folder_is_reused_and_a_partial_one_completed(folder, tmp_path):
    made = make_demo_charades(tmp_path / "data", **COUNTS, num_workers=1)
    whole = bytes_of(made)
    assert whole == bytes_of(folder)
    lost, kept = made / "frames/train_00001/train_00001_000007.jpg", made / "frames/train_00000/train_00000_000000.jpg"
    lost.unlink()
    os.utime(kept, (1, 1))
    make_demo_charades(made, **COUNTS, num_workers=1)
    assert bytes_of(made) == whole and kept.stat().st_mtime == 1
    with pytest.raises(ValueError, match="demo set in Charades' form made with other arguments"):
        make_demo_charades(made, **COUNTS, seed=2)
    with pytest.raises(ValueError, match="num_val"):
        make_demo_charades(tmp_path / "other", num_val=0)


def test_tool(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "datasets"))
    tool = load_script("datasets/make_demo_charades.py")
    arguments = ["--output", str(tmp_path / "data"), "--num-train", "1", "--num-val", "1", "--num-test", "1"]
    assert tool.run(tool.make_demo_charades, tool.__doc__, arguments) == 0
    assert "1 train, 1 val, 1 test videos, 8 classes" in capsys.readouterr().out
    assert tool.run(tool.make_demo_charades, tool.__doc__, [*arguments, "--seed", "-1"]) == 1
    assert "seed" in capsys.readouterr().err
