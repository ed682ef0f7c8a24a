"""JHMDB's lists with a validation set, its boxes, and both as keyframes in AVA's form."""

import re
from collections import Counter
from pathlib import Path

import published
import pytest
from tiny import ROOT
from videos import moving_frames, write_video

from mutual3d.data.build import build_dataset
from mutual3d.data.datasets.ava.annotations import read_ava_frames, read_keyframes
from mutual3d.data.datasets.frame_boxes import read_frame_boxes
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.jhmdb import MOTION_CLASSES, read_jhmdb, source_of, with_validation
from mutual3d.data.prepare.official_lists import Entry
from mutual3d.pipeline import load_config

REAL = (Path(__file__).resolve().parents[4] / "shared/data/jhmdb").resolve()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("jhmdb")
    published.write_jhmdb(directory)
    return directory


def write(lists_tool, root, output, *options):
    folders = ["--lists", f"{root}/splits", "--videos", f"{root}/ReCompress_Videos", "--boxes", f"{root}/puppet_mask"]
    assert lists_tool.main(["jhmdb", *folders, "--output", f"{output}", *options]) == 0
    return {split: read_video_list(output / f"{split}.csv") for split in ("train", "val", "test")}


def sources(videos):
    return {Path(video.path).name.partition(f"_{Path(video.path).parent.name}_")[0] for video in videos}


def test_a_validation_set_shares_no_source_with_train(lists_tool, root, tmp_path):
    lists = write(lists_tool, root, tmp_path / "first")
    assert read_class_names(tmp_path / "first/classes.txt") == list(published.JHMDB_CLASSES)
    counts = {split: Counter(video.label for video in videos) for split, videos in lists.items()}
    assert len(lists["train"]) + len(lists["val"]) == 84 and set(counts["test"].values()) == {1}
    # Half of the clips are of the film that all classes have, which cannot be held out: the other folds share the rest.
    assert not sources(lists["train"]) & sources(lists["val"]) and len(lists["val"]) in range(10, 43)
    assert write(lists_tool, root, tmp_path / "second") == lists


def test_the_motion_classes_alone(lists_tool, root, tmp_path):
    lists = write(lists_tool, root, tmp_path, "--motion")
    assert tuple(read_class_names(tmp_path / "classes.txt")) == MOTION_CLASSES
    for videos in lists.values():
        assert all(Path(video.path).parent.name == MOTION_CLASSES[video.label] for video in videos)
    assert len(lists["test"]) == len(MOTION_CLASSES) == 12


def test_boxes_lie_around_masks(lists_tool, root, tmp_path):
    lists = write(lists_tool, root, tmp_path)
    boxes = read_frame_boxes(tmp_path / "boxes.csv")
    assert boxes.keys() == {video.path for videos in lists.values() for video in videos}
    own = boxes[lists["val"][0].path]
    assert own == {frame: [(round(frame / 32, 4), 0.25, round(frame / 32 + 0.5, 4), 0.75)] for frame in range(6)}


def test_lists_and_boxes_of_ones_own_are_read_as_the_published_ones(lists_tool, root, tmp_path, capsys):
    """What the tool wrote, without val.csv, gives the same validation set again."""
    lists = write(lists_tool, root, tmp_path / "first")
    rows = [f"{video.path} {video.label}\n" for split in ("train", "val") for video in lists[split]]
    (tmp_path / "first/train.csv").write_text("".join(sorted(rows)))
    arguments = [
        "jhmdb",
        "--lists",
        f"{tmp_path}/first",
        "--videos",
        f"{root}",
        "--boxes",
        f"{tmp_path}/first/boxes.csv",
        "--output",
    ]
    assert lists_tool.main([*arguments, f"{tmp_path}/second"]) == 0
    again = {split: read_video_list(tmp_path / f"second/{split}.csv") for split in lists}
    assert {split: sorted(videos, key=lambda video: video.path) for split, videos in again.items()} == {
        split: sorted(videos, key=lambda video: video.path) for split, videos in lists.items()
    }
    assert read_frame_boxes(tmp_path / "second/boxes.csv") == read_frame_boxes(tmp_path / "first/boxes.csv")
    with pytest.raises(SystemExit):
        lists_tool.main([*arguments, f"{tmp_path}/first"])
    assert "it would be replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file, text, words",
    [
        ("train.csv", "clap/a_wave_f_1.mp4 0\n", "the name 'a_wave_f_1' is not 'source_clap_...'"),
        ("train.csv", "clap/a_clap_f_1.mp4 2\n", "train.csv', line 1: label 2 of .* is out of range, legal are 0 to 1"),
        ("train.csv", "clap/a_clap_f_1.mp4 0 1.5 0\n", "train.csv' lists seconds of a video, the first of '.*a_clap_f_1.mp4' .1 such rows."),
        ("train.csv", "clap/a_clap_f_1.mp4 0\n", "has 1 clips of 1 films and home videos, and 4 or more are needed"),
        ("boxes.csv", "clap/b.mp4,0,0,0,1,1\n", "boxes.csv' has no boxes of '.*film_"),
        ("puppet_mask.mat", "text", "is no .mat file with an entry 'part_mask'"),
    ],
)
def test_wrong_files_are_named(lists_tool, root, tmp_path, capsys, file, text, words):
    for name, content in (
        ("train.csv", "clap/a_clap_f_1.mp4 0\n"),
        ("test.csv", "clap/b_clap_f_1.mp4 0\n"),
        ("classes.txt", "clap\nwave\n"),
    ):
        (tmp_path / name).write_text(content)
    masks = tmp_path / "masks"
    if file == "puppet_mask.mat":
        for folder in (root / "puppet_mask").glob("*/*"):
            (masks / folder.relative_to(root / "puppet_mask")).mkdir(parents=True)
            (masks / folder.relative_to(root / "puppet_mask") / file).write_text(text)
    else:
        (tmp_path / file).write_text(text)
    lists = tmp_path if file == "train.csv" else root / "splits"
    boxes = masks if file == "puppet_mask.mat" else tmp_path / "boxes.csv"
    arguments = [
        "--lists",
        f"{lists}",
        "--videos",
        f"{root}/ReCompress_Videos",
        "--boxes",
        f"{boxes}",
        "--output",
        f"{tmp_path}/out",
    ]
    assert lists_tool.main(["jhmdb", *arguments]) == 1
    assert re.search(words, capsys.readouterr().err)


def test_a_list_whose_videos_are_not_there_is_told_and_the_others_get_their_boxes(lists_tool, root, tmp_path, capsys):
    write(lists_tool, root, tmp_path / "first")
    test = tmp_path / "first/test.csv"
    test.write_text(test.read_text().replace(".avi ", "_gone.avi "))
    arguments = ["jhmdb", "--lists", f"{tmp_path}/first", "--videos", f"{root}", "--boxes", f"{tmp_path}/first/boxes.csv", "--output", f"{tmp_path}/second"]
    assert lists_tool.main(arguments) == 0
    assert "test.csv: 0 videos, 21 more are not there" in capsys.readouterr().out and len(read_frame_boxes(tmp_path / "second/boxes.csv")) == 73
    assert len((tmp_path / "second/test_missing.txt").read_text().splitlines()) == 21
    assert write(lists_tool, root, tmp_path / "second") and not (tmp_path / "second/test_missing.txt").exists()


def test_boxes_that_are_read_are_not_replaced(lists_tool, root, tmp_path, capsys):
    write(lists_tool, root, tmp_path)
    before = (tmp_path / "boxes.csv").read_bytes()
    folders = ["--lists", f"{root}/splits", "--videos", f"{root}/ReCompress_Videos", "--boxes", f"{tmp_path}/boxes.csv", "--output", f"{tmp_path}"]
    with pytest.raises(SystemExit):
        lists_tool.main(["jhmdb", *folders, "--motion"])
    assert "boxes.csv', which is read" in capsys.readouterr().err and (tmp_path / "boxes.csv").read_bytes() == before


@pytest.mark.parametrize(
    "lists, boxes, words",
    [
        ({"train": "0.mp4 2"}, None, "train.csv', line 1: label 2 of .* is out of range, legal are 0 to 1"),
        ({"train": "0.mp4 0 1 0"}, None, "train.csv' lists seconds of a video"),
        ({"train": "0.mp4 0\n0.mp4 1"}, None, "the lists give '.*0.mp4' the labels 0 and 1"),
        ({"train": "0.mp4 0", "val": "0.mp4 1"}, None, "the lists give '.*0.mp4' the labels 0 and 1"),
        ({"train": "0.mp4 0"}, "0.mp4,8,0,0,1,1", "boxes.csv' has boxes of frame 8 of '.*0.mp4', which has 8, from 0 on: count frames from 0"),
        ({"train": "0.mp4 0"}, ",0,0,0,1,1", "boxes.csv', line 1, .*: the video has no name"),
        ({"train": "1.mp4 0"}, "1.mp4,0,0,0,1,1", "no video of the lists in '.*' can be read; the first is '.*1.mp4': "),
    ],
)
def test_keyframes_of_wrong_lists_and_boxes_are_refused(lists_tool, tmp_path, capsys, lists, boxes, words):
    write_video(tmp_path / "0.mp4", moving_frames(8))
    (tmp_path / "classes.txt").write_text("clap\nwave\n")
    (tmp_path / "boxes.csv").write_text(f"{boxes or '0.mp4,0,0,0,1,1'}\n")
    for split, rows in lists.items():
        (tmp_path / f"{split}.csv").write_text(f"{rows}\n")
    arguments = ["keyframes", "--lists", f"{tmp_path}", "--boxes", f"{tmp_path}/boxes.csv", "--num-workers", "1", "--output", f"{tmp_path}/ava"]
    assert lists_tool.main(arguments) == 1
    assert re.search(words, capsys.readouterr().err) and not list(tmp_path.glob("ava/annotations/*"))


def test_a_clip_that_is_listed_twice_has_one_keyframe(lists_tool, tmp_path, capsys):
    write_video(tmp_path / "0.mp4", moving_frames(8))
    (tmp_path / "classes.txt").write_text("clap\nwave\n")
    (tmp_path / "boxes.csv").write_text("0.mp4,4,0,0,1,1\n")
    (tmp_path / "train.csv").write_text("0.mp4 1\n0.mp4 1\n")
    arguments = ["keyframes", "--lists", f"{tmp_path}", "--boxes", f"{tmp_path}/boxes.csv", "--num-workers", "1", "--output", f"{tmp_path}/ava"]
    assert lists_tool.main(arguments) == 0 and "train.csv: 1 videos" in capsys.readouterr().out
    assert (tmp_path / "ava/annotations/ava_train_v2.2.csv").read_text() == "0,0001,0.0000,0.0000,1.0000,1.0000,2,0\n"


def test_keyframes_show_the_middle_of_a_clip(lists_tool, root, tmp_path):
    lists = write(lists_tool, root, tmp_path / "lists")
    arguments = [
        "--lists",
        f"{tmp_path}/lists",
        "--boxes",
        f"{tmp_path}/lists/boxes.csv",
        "--num-workers",
        "1",
        "--output",
        f"{tmp_path}/ava",
    ]
    assert lists_tool.main(["keyframes", *arguments]) == 0
    frames = read_ava_frames([tmp_path / "ava/frame_lists/val.csv"], tmp_path / "ava/frames", first_second=0)
    path, label = lists["val"][0].path, lists["val"][0].label
    name = Path(path).stem
    count = len(list((tmp_path / "ava/frames" / name).glob(f"{name}_*.jpg")))
    before = tmp_path / "ava/frames" / frames.videos[name].paths[0].decode()
    assert (
        before.read_bytes() == (tmp_path / f"ava/frames/{name}/{name}_000000.jpg").read_bytes()
        and len(frames.videos[name].paths) == 30 + count - count // 2
    )
    assert frames.videos[name].paths[frames.keyframe(name, 1)].decode() == f"{name}/{name}_{count // 2:06d}.jpg"
    annotations = tmp_path / "ava/annotations"
    truth = read_keyframes(frames, ground_truth=[annotations / "ava_val_v2.2.csv"], num_classes=21)
    assert len(truth) == len(lists["val"]) and truth[0].labels_NK[0].nonzero()[0].tolist() == [label]
    middle = round(count // 2 * 6 / count)
    assert truth[0].boxes_N4[0].tolist() == pytest.approx(read_frame_boxes(tmp_path / "lists/boxes.csv")[path][middle][0], abs=0.04)
    cfg = load_config(
        ROOT / "configs/JHMDB/MUTUAL_X3D_AVA.yaml",
        [
            "AVA.FRAME_DIR",
            f"{tmp_path}/ava/frames",
            "AVA.FRAME_LIST_DIR",
            f"{tmp_path}/ava/frame_lists",
            "AVA.ANNOTATION_DIR",
            f"{annotations}",
        ],
    )
    for split, mode in (("train", "train"), ("val", "single_view")):
        dataset = build_dataset(cfg, split, mode)
        sample = dataset[0, 0]
        assert len(dataset) == len(lists[split]) and sample.boxes.shape == (1, 4) and sample.label.shape == (1, 21)


def test_sources_end_at_the_last_word_of_the_class():
    assert source_of(Entry("run", "How_to_run_fast_run_f_cm_np1_ri_goo_2", "run")) == "How_to_run_fast"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real set is not there")
def test_the_real_set():
    lists, names = read_jhmdb(REAL)
    assert (len(names), len(lists["train"]), len(lists["test"])) == (21, 660, 268)
    split = with_validation(lists)
    assert not {source_of(entry) for entry in split["train"]} & {source_of(entry) for entry in split["val"]}
    assert len(split["train"]) + len(split["val"]) == 660 and 150 < len(split["val"]) < 180
    counts = {part: Counter(entry.class_name for entry in entries) for part, entries in split.items()}
    assert min(counts["val"].values()) >= 4 and min(counts["train"].values()) >= 15
    assert read_frame_boxes(REAL / "boxes.csv").keys() == {
        str(REAL / entry.folder / f"{entry.name}.mp4") for part in lists.values() for entry in part
    }
