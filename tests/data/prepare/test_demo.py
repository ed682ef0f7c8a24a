import os
from collections import Counter

import av
import numpy as np
import pytest
from scripts import load_script

from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.prepare import demo

COUNTS = {"train": 2 * len(demo.CLASS_NAMES), "val": len(demo.CLASS_NAMES), "test": 3}
ARGUMENTS = {f"num_{split}": count for split, count in COUNTS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo.make_demo(tmp_path_factory.mktemp("demo") / "data", **ARGUMENTS, num_workers=2)


def decode(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return container.streams.video[0].codec_context.name, np.stack(frames)


def content(folder):
    """What a user sees of a folder: its text files, and the shape and place of its videos."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: "video" if name.suffix == ".mp4" else path.read_text() for name, path in files.items()}


def bytes_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_video_depends_on_seed_split_and_index_alone():
    frames, label = demo.draw_video("train", 3, seed=5)
    again, label_again = demo.draw_video("train", 3, seed=5)
    assert frames.dtype == np.uint8 and np.array_equal(frames, again) and label == label_again
    for split, index, seed in (("val", 3, 5), ("test", 3, 5), ("train", 3 + len(demo.CLASS_NAMES), 5), ("train", 3, 6)):
        assert not np.array_equal(frames, demo.draw_video(split, index, seed)[0])


@pytest.mark.parametrize("split", demo.SPLITS)
def test_every_listed_file_is_a_whole_h264_video(folder, split):
    videos = read_video_list(folder / f"{split}.csv", num_classes=len(demo.CLASS_NAMES))
    assert len(videos) == COUNTS[split]
    for path, _ in videos:
        codec, frames = decode(path)
        assert codec == "h264" and frames.shape == (demo.NUM_FRAMES, demo.FRAME_SIZE, demo.FRAME_SIZE, 3)


def test_a_file_holds_the_drawn_frames_under_its_label(folder):
    for index, row in enumerate((folder / "val.csv").read_text().splitlines()):
        path, label = row.split(" ")
        drawn, drawn_label = demo.draw_video("val", index)
        assert int(label) == drawn_label
        assert np.abs(decode(folder / path)[1].astype(int) - drawn).mean() < 12


def test_classes_are_named_and_balanced(folder):
    assert (folder / "classes.txt").read_text().splitlines() == list(demo.CLASS_NAMES)
    labels = Counter(int(row.split(" ")[1]) for row in (folder / "train.csv").read_text().splitlines())
    assert labels == {label: 2 for label in range(len(demo.CLASS_NAMES))} and len(labels) >= 8


def test_the_number_of_processes_changes_nothing(folder, tmp_path):
    alone = demo.make_demo(tmp_path / "data", **ARGUMENTS, num_workers=1)
    assert content(alone) == content(folder)
    for path in sorted(folder.glob("*/*.mp4")):
        assert path.read_bytes() == (alone / path.relative_to(folder)).read_bytes()


def test_a_complete_folder_is_reused_and_a_partial_one_completed(tmp_path):
    few = {"num_train": 3, "num_val": 1, "num_test": 1, "num_workers": 1}
    made = demo.make_demo(tmp_path / "data", **few)
    before, lost, kept = content(made), made / "train" / "00001.mp4", made / "train" / "00000.mp4"
    lost.unlink()
    (made / "val.csv").unlink()
    os.utime(kept, (1, 1))
    assert content(demo.make_demo(made, **few)) == before
    assert kept.stat().st_mtime == 1
    whole = bytes_of(made)
    assert bytes_of(demo.make_demo(made, **few)) == whole


def test_a_folder_of_other_arguments_is_refused_untouched(tmp_path):
    few = {"num_train": 1, "num_val": 1, "num_test": 1, "num_workers": 1}
    before = bytes_of(demo.make_demo(tmp_path / "data", **few))
    for other in ({"seed": 1}, {"num_train": 2}):
        with pytest.raises(ValueError, match="other arguments.*delete the folder"):
            demo.make_demo(tmp_path / "data", **{**few, **other})
    assert bytes_of(tmp_path / "data") == before


def test_a_folder_of_someone_else_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="choose"):
        demo.make_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_test": 1.5}, {"seed": -1}, {"num_workers": 0}])
def test_senseless_arguments_are_refused_by_name(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        demo.make_demo(tmp_path / "data", **wrong)
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def small_grey_clips():
    """Grey clips shrunk to 16x16, (N, T, 256), and their labels; drawn, not encoded."""
    clips, labels = zip(*(demo.draw_video("train", index, seed=9) for index in range(40 * len(demo.CLASS_NAMES))))
    grey = np.stack(clips).mean(axis=-1) / 255
    side = demo.FRAME_SIZE // 16
    pooled = grey.reshape(*grey.shape[:2], 16, side, 16, side).mean(axis=(3, 5))
    return pooled.reshape(*grey.shape[:2], 256), np.array(labels)


def held_out_accuracy(features, labels):
    """Of a linear classifier fitted to the first half."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    half = len(labels) // 2
    classifier = linear_model.LogisticRegression(C=0.1, max_iter=300).fit(features[:half], labels[:half])
    return classifier.score(features[half:], labels[half:])


@pytest.mark.parametrize("time", [0, demo.NUM_FRAMES // 2, demo.NUM_FRAMES - 1])
def test_a_single_frame_does_not_tell_the_class(small_grey_clips, time):
    clips, labels = small_grey_clips
    chance = 1 / len(demo.CLASS_NAMES)
    five_deviations = 5 * np.sqrt(chance * (1 - chance) / (len(labels) / 2))
    assert held_out_accuracy(clips[:, time], labels) < chance + five_deviations


def test_motion_does_tell_the_class(small_grey_clips):
    """The amount of change at growing time steps is already far above chance: the classifier above is not blind."""
    clips, labels = small_grey_clips
    change = np.stack([np.abs(clips[:, step:] - clips[:, :-step]).mean(axis=(1, 2)) for step in (1, 2, 4, 6, 8, 12)], 1)
    change = np.log(change / change.mean(axis=1, keepdims=True))
    assert held_out_accuracy(10 * change, labels) > 2 / len(demo.CLASS_NAMES)


def test_the_tool_writes_the_set_and_reports_a_refusal(tmp_path, capsys):
    tool = load_script("datasets/make_demo.py")
    counts = ["--num-train", "2", "--num-val", "1", "--num-test", "1"]
    command = ["--output", str(tmp_path / "data"), "--num-workers", "1", *counts]
    assert tool.main(command) == 0
    assert len((tmp_path / "data" / "train.csv").read_text().splitlines()) == 2
    assert tool.main([*command, "--seed", "3"]) == 1
    assert "other arguments" in capsys.readouterr().err


@pytest.mark.parametrize("changes, words", [({"num_val": 10**30}, "num_val=1000.* at most 1000000"), ({"seed": 10**30}, "at most"),
                                            ({"num_train": True}, "num_train=True")])  # fmt: skip
def test_absurd_counts(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        demo.make_demo(tmp_path / "demo", **{"num_train": 1, "num_val": 1, "num_test": 1, **changes})
    assert not (tmp_path / "demo").exists()


def test_names_that_no_folder_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("", "a\0b"):
        with pytest.raises(ValueError, match="is no folder: name the one that a demo set"):
            demo.make_demo(name, num_train=1, num_val=1, num_test=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_without_keys_that_the_tool_has_not(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write in the directory '.*file/demo'") as caught:
        demo.make_demo(tmp_path / "file" / "demo", num_train=1, num_val=1, num_test=1)
    assert "OUTPUT_DIR" not in str(caught.value)


@pytest.mark.parametrize("index", range(4))
def test_boxes_are_where_the_actors_are(index):
    """A scene without its actors is the same but for its grain: what else differs lies in the boxes, which are full of it."""
    frames, _ = demo.draw_video("test", index)
    empty = demo.draw_scene(lambda _: [], np.random.default_rng([0, demo.SPLITS.index("test"), index]))
    boxes = demo.boxes_of("test", index)
    assert len(boxes) == len(frames) and all(3 <= len(own) <= 5 for own in boxes)
    is_actor = np.abs(frames.astype(int) - empty).max(-1) > 40
    is_inside = np.zeros_like(is_actor)
    for inside, own in zip(is_inside, boxes):
        for x1, y1, x2, y2 in np.rint(np.array(own) * demo.FRAME_SIZE).astype(int).tolist():
            inside[y1:y2, x1:x2] = True
    assert is_actor[is_inside].mean() > 0.5
    assert is_actor[~is_inside].sum() < 0.03 * is_actor.sum()
