"""JHMDB's lists with a validation set, its boxes, and both as keyframes in AVA's form."""

import re
from collections import Counter
from pathlib import Path

import published
import pytest
from tiny import ROOT

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
        ("train.csv", "clap/a_clap_f_1.mp4 2\n", "the label 2, and classes.txt names 2 classes"),
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
