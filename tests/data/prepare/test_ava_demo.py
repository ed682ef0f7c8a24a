"""The generated set in AVA's form."""

from collections import Counter

import numpy as np
import pytest
from clips import ava_dataset
from scripts import load_script
from tiny import ROOT

from mutual3d.data.datasets.ava.annotations import read_ava_frames, read_keyframes, read_reference
from mutual3d.data.datasets.ava.check import AvaFiles, check_ava
from mutual3d.data.datasets.check import CheckOptions
from mutual3d.data.prepare import demo_ava
from mutual3d.data.prepare.demo import CLASS_NAMES
from mutual3d.data.video.decode import open_video

FEW = {"num_train": 2, "num_val": 1, "num_workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo_ava.make_demo_ava(tmp_path_factory.mktemp("demo") / "ava", **FEW)


def split_of(folder, split, **paths):
    notes = folder / "annotations"
    frames = read_ava_frames([folder / "frame_lists" / f"{split}.csv"], folder / "frames", first_second=0)
    paths = {kind: [notes / f"ava_{split}_{ending}.csv"] for kind, ending in paths.items()}
    return frames, read_keyframes(frames, **paths, score_threshold=0.9, num_classes=len(CLASS_NAMES))


def text_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_text() if path.suffix == ".csv" else "" for path in paths}


@pytest.mark.parametrize("split", demo_ava.SPLITS)
def test_every_file_is_as_AVA_has_it(folder, split):
    notes = folder / "annotations"
    files = AvaFiles(
        frame_dir=folder / "frames", frame_lists=[folder / "frame_lists" / f"{split}.csv"],
        ground_truth=[notes / f"ava_{split}_v2.2.csv"], detected=[notes / f"ava_{split}_predicted_boxes.csv"],
        label_map=notes / demo_ava.LABEL_MAP, excluded=notes / f"ava_{split}_excluded_timestamps_v2.2.csv",
    )  # fmt: skip
    assert list(check_ava(files, num_classes=len(CLASS_NAMES), first_second=0, how=CheckOptions(full=True))) == []


def test_two_actors_with_motions_of_their_own_in_each_keyframe(folder):
    frames, keyframes = split_of(folder, "train", ground_truth="v2.2")
    assert len(keyframes) == 2 * demo_ava.KEYFRAMES and keyframes.num_boxes == 2 * len(keyframes)
    seen = Counter()
    for i in range(len(keyframes)):
        left, right = keyframes[i].labels_NK.argmax(1).tolist()
        assert left != right and keyframes[i].labels_NK.sum() == 2
        assert keyframes[i].boxes_N4[0, 2] <= keyframes[i].boxes_N4[1, 0] + 0.15
        seen.update((left, right))
    assert len(seen) >= 6
    clip = dict(num_frames=8, sampling_rate=3, crop_size=48, jitter_scales=(48, 56))
    sample = ava_dataset(frames, keyframes, **clip, training=True)[0, 0]
    assert sample.clips_VCTHW.shape == (1, 3, 8, 48, 48) and 1 <= len(sample.boxes) <= 2


def test_a_box_holds_what_stands_out_from_the_ground():
    """The stripes of an actor contrast; the ground does not."""
    contrasts = []
    for index in range(3):
        frames_THWC = demo_ava.draw_video("train", index).astype(float)
        for second, boxes in demo_ava.boxes_of("train", index).items():
            image = frames_THWC[second * 30]
            ground = np.abs(image - np.median(image, axis=(0, 1))).mean(2)
            for (x1, y1, x2, y2), _ in boxes:
                inside = ground[round(y1 * 48) : round(y2 * 48), round(x1 * 64) : round(x2 * 64)]
                contrasts.append(inside.mean() / ground.mean())
    assert np.mean(contrasts) > 2 and min(contrasts) > 1


def test_the_detector_finds_the_actors_and_more_with_low_scores(folder):
    _, keyframes = split_of(folder, "val", detected="predicted_boxes")
    assert len(keyframes) == demo_ava.KEYFRAMES and keyframes.num_boxes == 2 * len(keyframes)
    assert not any(keyframes[i].labels_NK.any() for i in range(len(keyframes)))
    rows = [line.split(",") for line in (folder / "annotations" / "ava_val_predicted_boxes.csv").read_text().splitlines()]
    assert len(rows) > keyframes.num_boxes and min(float(line[7]) for line in rows) < 0.7
    _, drawn = split_of(folder, "train", ground_truth="v2.2")
    _, both = split_of(folder, "train", ground_truth="v2.2", detected="predicted_boxes")
    assert both.num_boxes > 1.8 * drawn.num_boxes and all(both[i].labels_NK.any(1).all() for i in range(len(both)))


def test_an_excluded_keyframe_lacks_a_box(folder):
    notes = folder / "annotations"
    truth, excluded = notes / "ava_val_v2.2.csv", notes / "ava_val_excluded_timestamps_v2.2.csv"
    reference = read_reference(truth, excluded, notes / demo_ava.LABEL_MAP, num_classes=len(CLASS_NAMES))
    assert reference.excluded == {("val_00", demo_ava.KEYFRAMES)}
    counts = {key: len(boxes) for key, (boxes, _) in reference.ground_truth.items()}
    assert {key for key, count in counts.items() if count != 2} == reference.excluded
    assert reference.classes == list(enumerate(CLASS_NAMES, start=1))


def test_the_mp4_shows_what_the_frames_show(folder):
    with open_video(folder / "videos" / "val_00.mp4") as reader:
        assert reader.num_frames == demo_ava.NUM_VIDEO_FRAMES
        drawn = demo_ava.draw_video("val", 0)
        assert np.abs(reader.read([30, 200]).astype(int) - drawn[[30, 200]]).mean() < 12
    rows = (folder / "videos" / "val_00.csv").read_text().splitlines()
    assert len(rows) == len((folder / "annotations" / "ava_val_predicted_boxes.csv").read_text().splitlines())


def test_a_video_depends_on_seed_split_and_index_alone():
    frames_THWC = demo_ava.draw_video("val", 2, seed=1)
    assert frames_THWC.shape == (demo_ava.NUM_VIDEO_FRAMES, 48, 64, 3) and frames_THWC.dtype == np.uint8
    assert np.array_equal(frames_THWC[:5], demo_ava.draw_video("val", 2, seed=1)[:5])
    boxes = demo_ava.boxes_of("val", 2, seed=1)
    assert boxes == demo_ava.boxes_of("val", 2, seed=1)
    assert boxes not in [demo_ava.boxes_of(*other) for other in (("train", 2, 1), ("val", 3, 1), ("val", 2, 2))]


def test_an_interrupted_folder_is_completed_and_another_refused(folder):
    before = text_of(folder)
    (folder / "videos" / "train_01.mp4").unlink()
    (folder / "frames" / "train_01" / "train_01_000003.jpg").unlink()
    (folder / "annotations" / "ava_val_v2.2.csv").unlink()
    assert text_of(demo_ava.make_demo_ava(folder, **FEW)) == before
    with pytest.raises(ValueError, match="other arguments"):
        demo_ava.make_demo_ava(folder, **{**FEW, "seed": 1})
    with pytest.raises(ValueError, match="num_val"):
        demo_ava.make_demo_ava(folder, **{**FEW, "num_val": 0})


def test_the_tool_writes_the_set_and_reports_a_refusal(folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "datasets")
    tool = load_script("datasets/make_demo_ava.py")
    command = ["--output", str(folder), "--num-train", "2", "--num-val", "1", "--num-workers", "1"]
    assert tool.main(command) == 0 and "2 train, 1 val" in capsys.readouterr().out
    assert tool.main([*command, "--seed", "3"]) == 1 and "other arguments" in capsys.readouterr().err
