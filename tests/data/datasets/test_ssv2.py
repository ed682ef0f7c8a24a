"""Something-Something v2 from its published json files and lists of frames; one frame of each segment of a video."""

import json

import numpy as np
import pytest
from clips import video_dataset
from PIL import Image

from mutual3d.cli import check_data
from mutual3d.data.build import build_dataset
from mutual3d.data.datasets.ssv2 import SegmentDataset, read_class_numbers, read_ssv2, segment_frames
from mutual3d.pipeline import load_config
from mutual3d.pipeline.build import from_config

CLASSES = {"Pushing something from left to right": "1", "Dropping something": "0"}


@pytest.fixture
def directory(tmp_path):
    """Two videos of 8 frames; frame t is 10 * t grey."""
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(CLASSES))
    entries = [
        {"id": "7", "template": "Pushing [something] from left to right"},
        {"id": "9", "template": "Dropping [something]"},
    ]
    rows = ["original_vido_id video_id frame_id path labels"]
    for video in ("7", "9"):
        (tmp_path / video).mkdir()
        for t in range(8):
            Image.new("RGB", (40, 32), (10 * t,) * 3).save(tmp_path / video / f"{t:02}.png")
            rows.append(f'{video} {video} {t} {video}/{t:02}.png ""')
    for split, name in (("train", "train"), ("val", "validation")):
        (tmp_path / f"something-something-v2-{name}.json").write_text(json.dumps(entries))
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    return tmp_path


def dataset(directory, **options):
    return video_dataset(read_ssv2(directory, "train"), SegmentDataset, num_frames=4, sampling_rate=2, crop_size=32, flip=False, **options)


def test_a_test_clip_is_the_middle_of_each_segment_and_a_training_clip_a_random_frame_of_each(directory):
    sample = dataset(directory)[0, 0]
    assert sample.label == 1 and sample.clips_VCTHW.shape == (1, 3, 4, 32, 32)
    borders = np.round(7 / 4 * np.arange(5)).astype(int)
    assert sample.clips_VCTHW[0, 0, :, 0, 0].tolist() == [10 * int((a + b) // 2) for a, b in zip(borders, borders[1:])]
    training = dataset(directory, training=True, jitter_scales=(32, 32))
    drawn = [(training[epoch, 1].clips_VCTHW[0, 0, :, 0, 0] // 10).tolist() for epoch in range(20)]
    assert len({tuple(clip) for clip in drawn}) > 5
    assert all(low <= t <= high for clip in drawn for t, low, high in zip(clip, borders, borders[1:]))


def test_segments_cover_a_video_whatever_its_length():
    generator = np.random.default_rng(0)
    for length in (1, 3, 8, 100):
        for clip in (segment_frames(length, 8), segment_frames(length, 8, generator)):
            assert len(clip) == 8 and clip == sorted(clip) and 0 <= clip[0] and clip[-1] < length


def test_a_label_changes_the_fingerprint(directory):
    before = dataset(directory).fingerprint()
    path = directory / "something-something-v2-train.json"
    path.write_text(path.read_text().replace("Pushing [something] from left to right", "Dropping [something]"))
    assert dataset(directory).fingerprint() != before


def test_what_the_files_get_wrong_is_named(directory):
    assert list(read_class_numbers(directory)) == ["Dropping something", "Pushing something from left to right"]
    with pytest.raises(ValueError, match="labels.json' names 2 classes.*NUM_CLASSES is 174"):
        read_ssv2(directory, "train", num_classes=174)
    with pytest.raises(ValueError, match="no labels for the split 'test'"):
        read_ssv2(directory, "test")
    path = directory / "something-something-v2-train.json"
    path.write_text(json.dumps([{"id": "7", "template": "Eating [something]"}]))
    with pytest.raises(ValueError, match="train.json', entry 0: the class .*Eating something.* is not in"):
        read_ssv2(directory, "train")
    path.write_text(json.dumps([{"id": "7", "template": "Dropping [something]"}]))
    with pytest.raises(ValueError, match="has no label of 1 of the 2 videos in 'train.csv', the first is '9'"):
        read_ssv2(directory, "train")


def test_predictions_name_the_classes_of_the_label_file(directory):
    cfg = load_config(None, [
        "TRAIN.DATASET", "ssv2", "TEST.DATASET", "ssv2", "DATA.RANDOM_FLIP", "False", "MODEL.NUM_CLASSES", "2",
        "DATA.PATH_TO_DATA_DIR", str(directory), "DATA_LOADER.NUM_WORKERS", "0",
    ])  # fmt: skip
    assert from_config(cfg).class_names == ("Dropping something", "Pushing something from left to right")
    assert build_dataset(cfg, "val", "multi_view").videos[0].fps == 30


@pytest.mark.parametrize("words", [(), ("--format", "ssv2"), ("--format", "ptvssv2", "--num-classes", "2", "--num-workers", "0")])
def test_a_copy_is_checked_and_recognised_by_its_class_list(directory, capsys, words):
    assert check_data.main(["--csv", str(directory / "val.csv"), *words]) == 0
    assert "2 videos checked, 0 bad" in capsys.readouterr().out
    (directory / "9" / "03.png").unlink()
    assert check_data.main(["--csv", str(directory / "val.csv"), *words]) == 1
    told = capsys.readouterr().out
    assert "03.png" in told and "2 videos checked, 1 bad" in told
    (directory / "something-something-v2-validation.json").write_text("[]")
    assert check_data.main(["--csv", str(directory / "val.csv"), *words]) == 2
    assert "has no label of 2 of the 2 videos" in capsys.readouterr().err


def test_nothing_is_mirrored():
    with pytest.raises(ValueError, match="DATA.RANDOM_FLIP is True: with TRAIN.DATASET ssv2 it must be False"):
        load_config(None, ["TRAIN.DATASET", "ssv2", "TEST.DATASET", "ssv2"])
