"""Video lists, class names, and the samples of a dataset."""

import json

import numpy as np
import pytest
import torch
from clips import video_dataset
from videos import moving_frames, write_video

from mutual3d.data.datasets.kinetics import BadVideo, Video, read_video_list, write_bad_videos
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.video import pyav_reader

CLIP = dict(num_frames=4, sampling_rate=4, crop_size=32, jitter_scales=(32, 40))


def write_csv(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_with_spaces_prefix_and_separator(tmp_path):
    listing = write_csv(tmp_path / "train.csv", "a b/power clean.mp4 3\n\n/abs/c.mp4 0\r\n")
    assert read_video_list(listing) == [(f"{tmp_path}/a b/power clean.mp4", 3), ("/abs/c.mp4", 0)]
    assert read_video_list(listing, path_prefix="/data")[0] == ("/data/a b/power clean.mp4", 3)
    commas = write_csv(tmp_path / "val.csv", "\ufeffa,b.mp4,1\nc.mp4,2")
    assert read_video_list(commas, separator=",") == [(f"{tmp_path}/a,b.mp4", 1), (f"{tmp_path}/c.mp4", 2)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a.mp4 1\nb.mp4\n", "line 2: 'b.mp4' is not 'path label'"),
        ("a.mp4,1\n", "DATA.PATH_LABEL_SEPARATOR is ' '"),
        ("a.mp4 one\n", "line 1: the label 'one'"),
        ("a.mp4 1\n\nb.mp4 10\n", "line 3: label 10 .* 0 to 9"),
        ("a.mp4 -1\n", "label -1 "),
    ],
)
def test_bad_lists_name_file_line_and_row(tmp_path, text, words):
    listing = write_csv(tmp_path / "train.csv", text)
    with pytest.raises(ValueError, match=words) as caught:
        read_video_list(listing, num_classes=10)
    assert str(listing) in str(caught.value)


def test_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="train.csv"):
        read_video_list(tmp_path / "train.csv")


def test_class_names(tmp_path):
    assert read_class_names(write_csv(tmp_path / "names.txt", "run\n\nwalk slowly\n")) == ["run", "walk slowly"]
    listing = write_csv(tmp_path / "list.json", json.dumps(["run", "walk"]))
    mapping = write_csv(tmp_path / "map.json", json.dumps({'"walk slowly"': 1, "run": 0}))
    assert read_class_names(listing) == ["run", "walk"] and read_class_names(mapping) == ["run", "walk slowly"]
    for name, text in (("gap.json", '{"a": 0, "b": 2}'), ("twice.json", '{"a": 0, "b": 0}'), ("empty.txt", "")):
        with pytest.raises(ValueError, match=name):
            read_class_names(write_csv(tmp_path / name, text))
    with pytest.raises(FileNotFoundError, match="none.txt"):
        read_class_names(tmp_path / "none.txt")


@pytest.fixture
def video(tmp_path):
    return str(write_video(tmp_path / "clip.mp4", moving_frames(40), gop=20, b_frames=2))


def test_training_samples_depend_on_seed_epoch_and_index_alone(video):
    videos = [(video, 5), (video, 6)]
    dataset = video_dataset(videos, **CLIP, training=True, seed=3)
    first = dataset[0, 0]
    dataset[1, 1]
    assert torch.equal(first.clips_VCTHW, video_dataset(videos, **CLIP, training=True, seed=3)[0, 0].clips_VCTHW)
    for seed, epoch, index in ((4, 0, 0), (3, 1, 0), (3, 0, 1)):
        other = video_dataset(videos, **CLIP, training=True, seed=seed)[epoch, index]
        assert not torch.equal(first.clips_VCTHW, other.clips_VCTHW)
        assert other.index == index and other.label == 5 + index
    assert first.clips_VCTHW.shape == (1, 3, 4, 32, 32) and first.clips_VCTHW.dtype == torch.uint8


def test_a_label_may_depend_on_the_frames_of_the_clips(video):
    """What Charades needs: the clips of a training sample, in order; none in evaluation."""
    asked = []

    class Asking(Video):
        def label_of(self, clips, time_of):
            asked.append((clips, time_of(15)))
            return torch.ones(3)

    dataset = video_dataset([Asking(video, 0)], **CLIP, training=True, num_views=2)
    assert dataset[0, 0].label.tolist() == [1, 1, 1] and dataset[0, 0].boxes is None
    clips, second = asked[0]
    assert asked[0] == asked[1] and second == 0.5 and len(clips) == 2 and all(len(clip) == 4 for clip in clips)
    video_dataset([Asking(video, 0)], **CLIP, num_views=2)[0, 0]
    assert asked[-1] == (None, 0.5)


def test_several_random_clips_of_one_video_differ(video):
    clips_VCTHW = video_dataset([(video, 0)], **CLIP, training=True, num_views=2)[0, 0].clips_VCTHW
    assert clips_VCTHW.shape[0] == 2 and not torch.equal(clips_VCTHW[0], clips_VCTHW[1])


def test_all_views_are_decoded_in_one_pass(video, monkeypatch):
    opened, converted = [], []
    reader_class = pyav_reader.PyAVReader
    init, to_rgb = reader_class.__init__, reader_class._to_rgb
    monkeypatch.setattr(reader_class, "__init__", lambda self, path, *options: opened.append(path) or init(self, path, *options))
    monkeypatch.setattr(
        reader_class, "_to_rgb", lambda self, index, frame: converted.append(index) or to_rgb(self, index, frame)
    )
    dataset = video_dataset([(video, 0)], **CLIP, num_views=5, num_crops=3)
    clips_VCTHW = dataset[0, 0].clips_VCTHW
    assert clips_VCTHW.shape == (15, 3, 4, 32, 32)
    assert len(opened) == 1 and len(converted) == len(set(converted)) < 5 * 4


def test_views_are_clip_major_with_crops_inside(video):
    views = video_dataset([(video, 0)], **CLIP, num_views=3, num_crops=3)[0, 0].clips_VCTHW
    centres = video_dataset([(video, 0)], **CLIP, num_views=3)[0, 0].clips_VCTHW
    assert torch.equal(views[1::3], centres)
    assert torch.equal(centres, video_dataset([(video, 0)], **CLIP, num_views=3)[7, 0].clips_VCTHW)


def test_unreadable_videos_become_records(tmp_path, video):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    dataset = video_dataset([(video, 0), (str(text), 1), (str(tmp_path / "gone.mp4"), 2)], **CLIP)
    assert isinstance(dataset[0, 1], BadVideo)
    assert dataset[0, 1].path == str(text) and dataset[0, 1].index == 1
    assert dataset[0, 2].cause == "the file does not exist"
    write_bad_videos(tmp_path / "bad.csv", [dataset[0, 2]])
    assert (tmp_path / "bad.csv").read_text().splitlines()[0] == "index,path,cause"


def test_one_frame_video_fills_a_clip(tmp_path):
    path = str(write_video(tmp_path / "one.mp4", moving_frames(1)))
    for training in (True, False):
        clip = video_dataset([(path, 0)], **CLIP, training=training)[0, 0].clips_VCTHW[0]
        assert np.ptp(clip.numpy().astype(int), axis=1).max() == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(num_frames=0), "num_frames"),
        (dict(num_crops=2), "NUM_SPATIAL_CROPS"),
        (dict(training=True, jitter_scales=(16, 20)), "TRAIN_JITTER_SCALES"),
        (dict(seed=-1), "RNG_SEED"),
        (dict(backend="cv2"), "backend 'cv2'"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        video_dataset([("a.mp4", 0)], **{**CLIP, **arguments})
