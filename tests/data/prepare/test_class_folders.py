import shutil
from collections import Counter
from pathlib import Path

import pytest
from videos import moving_frames, write_video

from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.class_folders import (
    LabelledVideos,
    groups_of,
    missing_classes,
    read_labelled_videos,
    split_off,
    split_videos,
    with_background,
    write_split_lists,
)  # fmt: skip
from mutual3d.pipeline.survey import survey_videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_frames(4))


@pytest.fixture
def folders(tmp_path, clip):
    """Two classes, three people, four videos of each person in each class; one class has a folder in its folder."""
    for name in ("walk", "run fast"):
        for person in ("ann", "bob", "cy"):
            for take in range(4):
                path = tmp_path / "videos" / name / ("deep" if name == "walk" else "") / f"{person}_{take} a.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(clip, path)
    return tmp_path / "videos"


def test_each_folder_is_a_class_in_the_order_of_the_names(folders):
    videos = read_labelled_videos(folders)
    assert videos.classes == ("run fast", "walk")
    assert Counter(videos.labels) == {0: 12, 1: 12}
    assert all(path.is_absolute() and videos.classes[label] in path.parts for path, label in zip(videos.paths, videos.labels))


def test_a_split_has_every_class_and_no_video_twice(folders):
    videos = read_labelled_videos(folders)
    splits = split_videos(videos.labels, groups_of(videos, None), seed=3)
    assert sorted(i for part in splits.values() for i in part) == list(range(24))
    assert {split: len(part) for split, part in splits.items()} == {"train": 18, "val": 3, "test": 3}
    assert missing_classes(videos, splits) == {}
    assert splits == split_videos(videos.labels, groups_of(videos, None), seed=3)
    assert splits != split_videos(videos.labels, groups_of(videos, None), seed=4)


def test_a_person_is_in_one_split(folders):
    videos = read_labelled_videos(folders)
    groups = groups_of(videos, r"/(\w+)_\d")
    assert set(groups) == {"ann", "bob", "cy"}
    splits = split_videos(videos.labels, groups)
    people = [{groups[i] for i in part} for part in splits.values()]
    assert sorted(map(len, people)) == [1, 1, 1] and len(set.union(*people)) == 3


def test_a_class_that_a_split_lacks_is_named():
    labels = [0] * 9 + [1] * 2
    videos = LabelledVideos(tuple(Path(f"/v/{i}.mp4") for i in range(len(labels))), tuple(labels), ("a", "b"))
    splits = split_videos(videos.labels, groups_of(videos, None))
    (lacking,) = missing_classes(videos, splits).values()
    assert lacking == ["b"]


def test_written_lists_read_back(folders, tmp_path):
    videos = read_labelled_videos(folders)
    splits = split_videos(videos.labels, groups_of(videos, None))
    write_split_lists(tmp_path / "out", videos, splits)
    assert read_class_names(tmp_path / "out" / "classes.txt") == ["run fast", "walk"]
    for split, positions in splits.items():
        rows = [tuple(video) for video in read_video_list(tmp_path / "out" / f"{split}.csv")]
        assert rows == [(str(videos.paths[i]), videos.labels[i]) for i in positions]
    assert read_labelled_videos(tmp_path / "out" / "train.csv").classes == videos.classes


def test_a_lists_unused_classes_are_left_out(tmp_path):
    (tmp_path / "all.csv").write_text("".join(f"{i}.mp4 {label}\n" for i, label in enumerate([0, 2, 2, 0])))
    assert read_labelled_videos(tmp_path / "all.csv").labels == (0, 1, 1, 0)
    assert read_labelled_videos(tmp_path / "all.csv").classes == ("0", "2")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="has the label 2 and '.*classes.txt' names 2 classes"):
        read_labelled_videos(tmp_path / "all.csv")


def test_mistakes_are_explained(folders, tmp_path, clip):
    videos = read_labelled_videos(folders)
    with pytest.raises(FileNotFoundError, match="there is no folder or list '.*nowhere'"):
        read_labelled_videos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is no regular expression"):
        groups_of(videos, "(")
    with pytest.raises(ValueError, match="does not match '.*bob"):
        groups_of(videos, "ann|cy")
    with pytest.raises(ValueError, match="form 1 group: three or more are needed"):
        split_videos(videos.labels, ["one"] * 24)
    shutil.rmtree(folders / "walk")
    with pytest.raises(ValueError, match="has the one class 'run fast'"):
        read_labelled_videos(folders)
    shutil.copy(clip, folders / "stray.mp4")
    with pytest.raises(ValueError, match="'.*stray.mp4' lies in no class folder .1 such"):
        read_labelled_videos(folders)


def test_stretches_of_untrimmed_videos_and_what_lies_between_them(tmp_path):
    """Videos of three seconds; stretches of one video share a split, and survive being written."""
    names = [write_video(tmp_path / f"{name}.mp4", moving_frames(30), fps=10).name for name in "abcdefg"]
    rows = [row for name in names for row in (f"{name} 0.2 1.0 0", f"{name} 1.0 1.5 1")]
    (tmp_path / "all.csv").write_text("\n".join([*rows, "gone.mp4 0 1 0"]) + "\n")
    videos = read_labelled_videos(tmp_path / "all.csv")
    assert videos.seconds[:2] == ((0.2, 1.0), (1.0, 1.5)) and videos.paths[0] == videos.paths[1]
    whole = with_background(videos, "nothing")
    assert whole.classes == ("0", "1", "nothing") and whole.labels == (*videos.labels, *[2] * 7)
    assert whole.seconds[len(videos.paths) :] == ((1.5, 3.0),) * 7
    splits = split_videos(whole.labels, groups_of(whole, None))
    write_split_lists(tmp_path / "out", whole, splits)
    written = {split: read_video_list(tmp_path / "out" / f"{split}.csv") for split in splits}
    assert {tuple(v) for found in written.values() for v in found} == {
        (str(path), *seconds, label) for path, seconds, label in zip(whole.paths, whole.seconds, whole.labels)
    }
    files = [{video.path for video in found} for found in written.values()]
    assert not files[0] & files[1] and not files[1] & files[2] and not files[0] & files[2]
    assert survey_videos(whole.paths, stretches=whole.seconds).seconds < 1.6 < 2.9 < survey_videos(whole.paths).seconds
    (tmp_path / "all.csv").write_text("a.mp4 0\nb.mp4 1\n")
    with pytest.raises(ValueError, match="is what lies between stretches, and there are none"):
        with_background(read_labelled_videos(tmp_path / "all.csv"), "nothing")


def test_a_fold_is_held_out_of_one_list():
    labels = [i % 3 for i in range(60)]
    groups = [str(i // 4) for i in range(60)]
    stay, held_out = split_off(labels, groups, 5)
    assert sorted([*stay, *held_out]) == list(range(60)) and len(held_out) == 12
    assert not {groups[i] for i in stay} & {groups[i] for i in held_out}
    assert set(Counter(labels[i] for i in held_out).values()) == {4}
    assert split_off(labels, groups, 5) == (stay, held_out) != split_off(labels, groups, 5, seed=1)
    for folds in (1, 16):
        with pytest.raises(ValueError, match=f"{folds} folds of 15 groups"):
            split_off(labels, groups, folds)
