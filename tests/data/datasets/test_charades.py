"""Lists with any number of labels a video, in their three forms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from backends import every_backend
from clips import video_dataset
from published import CHARADES_HEADER
from videos import moving_frames, phone_index, write_late_video, write_phone_video, write_video

from mutual3d.data.datasets.charades import TimedVideo, multi_hot, read_charades
from mutual3d.data.datasets.kinetics import BadVideo
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.extraction import write_frame_rows, write_image

SAMPLE = Path(__file__).resolve().parents[3].parent / "shared/data/charades/charades_test_ann.csv"
HEADER = "original_vido_id video_id frame_id path labels\n"
CLIP = dict(num_frames=4, sampling_rate=2, crop_size=32, jitter_scales=(32, 40), target_fps=24)


def at_24(index):
    """The second at which a video of 24 frames a second shows a frame."""
    return index / 24


def at_30(index):
    return index / 30


def labels_of(label_K):
    return label_K.nonzero().flatten().tolist()


@pytest.fixture
def frames(tmp_path):
    """A list of one video of 40 frames: class 1 in frames 0 to 19, class 2 in 10 to 29, none at the end."""
    rows = []
    for k, image in enumerate(moving_frames(40)):
        path = f"V/V-{k:06d}.jpg"
        (tmp_path / "V").mkdir(exist_ok=True)
        write_image(tmp_path / path, image)
        rows.append(("V", 0, k, path, ",".join(["1"] * (k < 20) + ["2"] * (10 <= k < 30))))
    write_frame_rows(tmp_path / "train.csv", rows)
    return tmp_path / "train.csv"


def test_a_test_video_has_the_labels_of_all_its_frames(frames):
    sample = video_dataset(read_charades(frames, num_classes=5), **CLIP, num_views=2)[0, 0]
    assert sample.clips_VCTHW.shape == (2, 3, 4, 32, 32)
    assert sample.label.dtype == torch.float32 and sample.label.tolist() == [0, 1, 1, 0, 0]


def test_a_training_clip_has_the_labels_from_its_first_frame_to_its_last(frames):
    (video,) = read_charades(frames, num_classes=5)
    assert labels_of(video.label_of([[0, 3, 6]], at_24)) == [1]
    assert labels_of(video.label_of([[8, 10]], at_24)) == labels_of(video.label_of([[9, 31]], at_24)) == [1, 2]
    assert labels_of(video.label_of([[30, 39]], at_24)) == [] and labels_of(video.label_of([[35, 36], [2, 5]], at_24)) == [1]
    dataset = video_dataset([video], **CLIP, training=True, seed=1)
    seen = {tuple(labels_of(dataset[epoch, 0].label)) for epoch in range(40)}
    assert seen == {(1,), (1, 2), (2,), ()}
    assert torch.equal(dataset[3, 0].label, video_dataset([video], **CLIP, training=True, seed=1)[3, 0].label)


def test_strides_count_in_extracted_frames(frames, monkeypatch):
    """Whatever the rate of the source: the list's frames are those of DATA.TARGET_FPS."""
    shown = []
    (video,) = read_charades(frames, num_classes=5, fps=24)
    monkeypatch.setattr(type(video), "label_of", lambda self, clips, time_of: shown.extend(clips) or multi_hot([], 5))
    video_dataset([video], **CLIP, training=True)[0, 0]
    assert (np.diff(shown[0]) >= 2).all() and shown[0][-1] - shown[0][0] == 7


def test_a_missing_frame_is_told_and_not_replaced(frames):
    (frames.parent / "V/V-000020.jpg").unlink()
    dataset = video_dataset(read_charades(frames, num_classes=5), **{**CLIP, "num_frames": 40, "sampling_rate": 1})
    bad = dataset[0, 0]
    assert isinstance(bad, BadVideo) and bad.path.endswith("V/V-000020.jpg")
    assert bad.cause == "the file does not exist (line 22 of its frame list)"


def test_a_run_resumes_on_the_same_rows_alone(frames):
    def fingerprint():
        return video_dataset(read_charades(frames, num_classes=5), **CLIP).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    text = frames.read_text()
    for old, new in (('V-000030.jpg ""', 'V-000030.jpg "2"'), ("V-000031", "W-000031"), ('"1"', '"3"')):
        frames.write_text(text.replace(old, new))
        assert fingerprint() != before


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample list is not here")
def test_sample_of_another_project():
    (video,) = read_charades(SAMPLE, num_classes=157)
    assert len(video.frames.paths) == 10 and labels_of(video.label_of(None, at_24)) == [75, 76, 77, 79]
    assert labels_of(video.label_of([[1, 2]], at_24)) == [75] and not video.label_of([[0, 0]], at_24).any()


def test_official_csv_with_videos(tmp_path):
    (tmp_path / "train.csv").write_text(
        f"{CHARADES_HEADER}\n"
        'AAA,X,Kitchen,6,7,Yes,"One, two.",a/b,"He cooks.",c003 0.00 0.50;c001 0.40 1.00,1.3\n'
        "BBB,X,Kitchen,,,No,s,o,d,,20.1\n"
    )
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/AAA.mp4", moving_frames(40))
    videos = read_charades(tmp_path / "train.csv", num_classes=4, path_prefix=tmp_path / "videos")
    assert [labels_of(video.label_of(None, at_30)) for video in videos] == [[1, 3], []]
    assert labels_of(videos[0].label_of([[0, 5, 11]], at_30)) == [3] and labels_of(videos[0].label_of([[12, 14]], at_30)) == [1, 3]
    assert labels_of(videos[0].label_of([[0, 1], [20, 29]], at_30)) == [1, 3] and not videos[0].label_of([[31, 39]], at_30).any()
    dataset = video_dataset(videos, **CLIP)
    assert labels_of(dataset[0, 0].label) == [1, 3] and dataset[0, 1].cause == "the file does not exist"


@every_backend
def test_actions_are_those_of_the_seconds_that_a_clip_shows(tmp_path, backend):
    """Of a phone's video, which slows down half-way: by one average rate, second 4 would be frame 80."""
    (tmp_path / "train.csv").write_text(
        f"{CHARADES_HEADER}\nphone,X,Kitchen,6,7,Yes,s,o,d,c000 0.0 1.9;c001 2.1 3.9;c002 4.1 6.0,6.0\n"
    )
    write_phone_video(tmp_path / "phone.mp4")
    (video,) = read_charades(tmp_path / "train.csv", num_classes=3)
    with video.open(backend) as reader:
        for first, last, labels in ((0, 1.8, [0]), (2.2, 3.8, [1]), (4.2, 5.8, [2]), (1.8, 2.2, [0, 1]), (3.8, 4.2, [1, 2])):
            clip = [reader.index_at(first), reader.index_at(last)]
            assert [phone_index(first), phone_index(last)] == clip
            assert labels_of(video.label_of([clip], reader.time_of)) == labels


def test_a_picture_that_starts_later_has_the_actions_of_its_seconds(tmp_path):
    (tmp_path / "train.csv").write_text(f"{CHARADES_HEADER}\nlate,X,Kitchen,6,7,Yes,s,o,d,c001 1.35 1.45,3.7\n")
    write_late_video(tmp_path / "late.mp4")
    (video,) = read_charades(tmp_path / "train.csv", num_classes=2)
    with video.open("pyav") as reader:
        assert [k for k in range(30) if labels_of(video.label_of([[k]], reader.time_of))] == [7]


def test_rows_of_a_path_and_labels(tmp_path):
    (tmp_path / "list.csv").write_text('a b.mp4 3,0\n/abs/c.mp4 ""\n\nd.mp4 2\n')
    videos = read_charades(tmp_path / "list.csv", num_classes=4)
    assert [video.path for video in videos] == [f"{tmp_path}/a b.mp4", "/abs/c.mp4", f"{tmp_path}/d.mp4"]
    assert [labels_of(video.label_of([[5, 9]], at_30)) for video in videos] == [[0, 3], [], [2]]
    assert str(videos[0]) != str(videos[2]) and videos[2] == TimedVideo(videos[2].path, videos[2].actions, 4)
    (tmp_path / "list.csv").write_text("a.mp4;3,0\n")
    assert labels_of(read_charades(tmp_path / "list.csv", num_classes=4, separator=";")[0].label_of(None, at_30)) == [0, 3]
    with pytest.raises(ValueError, match="PATH_LABEL_SEPARATOR is ','"):
        read_charades(tmp_path / "list.csv", num_classes=4, separator=",")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty"),
        ("a.mp4\n", "line 1: 'a.mp4' is not 'path label,label"),
        ("a.mp4 1\nb.mp4 1,x\n", "line 2: the label 'x'"),
        ("a.mp4 1,4\n", "label 4 of 'a.mp4 1,4' is out of range, legal are 0 to 3"),
        (HEADER, "is empty"),
        (HEADER + 'A 0 0 a.jpg "1"\nA 0 1 b.jpg "1,9"\n', "line 3: label 9 of '1,9' is out of range"),
        (HEADER + 'A 0 0 a.jpg "run"\n', "line 2: the label 'run'"),
        (HEADER + "A 0 a.jpg\n", "line 2: .* 3 columns"),
        ("frame_id path labels\nA 0 a.jpg\n", "line 1"),
        (CHARADES_HEADER + "\n", "is empty: it has a header"),
        ("subject,script,actions\nx,y,\n", "line 1: the header has no column id"),
        ("id,script,actions\nA,y,c001 1.0\n", "line 2: the action 'c001 1.0' is not"),
        ("id,script,actions\nA,y,c009 0 1\n", "line 2: label 9 of 'c009 0 1'"),
        ("id,script,actions\nA,y,run 0 1\n", "line 2: the label 'run'"),
        ("id,script,actions\nA,y\n", "line 2: .*has not the columns id and actions"),
        ("id,script,actions\nA,y,c001 0 nan\n", "line 2: the action 'c001 0 nan' is not"),
        ("id,script,actions\nA,y,c001 0 inf\n", "line 2: the action 'c001 0 inf'"),
        ("id,script,actions\nA,y,c001 -3 1\n", "line 2: the action 'c001 -3 1' .*0 or more"),
        ("id,script,actions\nA,y,c001 0 1 2\n", "line 2: the action 'c001 0 1 2'"),
        ("id,script,actions\nA,y,c001 1_0 2\n", "line 2: the action 'c001 1_0 2'"),
        ('id,script,actions\nA,y,c001 0 1\nB,"y,c001 0 1\nC,"z w",c001 0 1\n', "line 3: .*quotes do not fit"),
        ('id,script,actions\nA,y,c001 0 1\nB,"y,c001 0 1\nC,z,c001 0 1\n', "line 3: .*a quote is opened and never closed"),
        ("id,script,actions\nA,y,c000 0 1\nB,y,c004 0 1\n", "line 3: label 4 .*MODEL.NUM_CLASSES 4.$"),
        ("a.mp4 1\nb.mp4 4,2\n", "line 2: label 4 .*run from 1 to 4: they start at 0"),
        ("a.mp4 1 2\n", "line 1: .* more than two columns"),
        ("a.mp4 1, 2\n", "line 1: the path of .* ends in ','"),
    ],
)
def test_bad_lists_name_file_line_and_row(tmp_path, text, words):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_charades(tmp_path / "train.csv", num_classes=4)
    assert "train.csv" in str(caught.value)


def test_actions_that_end_before_they_begin_are_told(tmp_path, caplog):
    (tmp_path / "train.csv").write_text('id,script,actions\nA,"y\nz",c001 0 1\nB,y,c002 3.5 2\nB,y,c002 3.5 2\n')
    videos = read_charades(tmp_path / "train.csv", num_classes=4)
    assert videos[1].actions == ((2, 2.0, 3.5),)
    assert "line 4: an action ends before it begins; 2 such actions" in caplog.text and "lines 4 and 5" in caplog.text


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_an_impossible_rate(frames, fps):
    with pytest.raises(ValueError, match="DATA.TARGET_FPS"):
        read_charades(frames, num_classes=5, fps=fps)


def test_quoted_and_odd_names_of_frames_come_back(tmp_path):
    names = ['a "b" c', "d\u2028e", "f g"]
    write_frame_rows(tmp_path / "train.csv", [(name, 0, 0, f"{name}/0.jpg", "1,2") for name in names])
    videos = read_charades(tmp_path / "train.csv", num_classes=5)
    assert [video.frames.paths[0].decode() for video in videos] == [f"{name}/0.jpg" for name in names]
    with pytest.raises(ValueError, match="cannot stand in the list '.*bad.csv': it holds a line end"):
        write_frame_rows(tmp_path / "bad.csv", [("a\nb", 0, 0, "a.jpg", "")])
    assert not (tmp_path / "bad.csv").exists()


def test_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="train.csv"):
        read_charades(tmp_path / "train.csv", num_classes=4)


def test_class_names_lose_their_codes(tmp_path):
    (tmp_path / "classes.txt").write_text("c000 Holding some clothes\nc001 Putting clothes somewhere\n")
    assert read_class_names(tmp_path / "classes.txt") == ["Holding some clothes", "Putting clothes somewhere"]
    (tmp_path / "classes.txt").write_text("c000 Holding some clothes\nc002 Taking clothes\n")
    with pytest.raises(ValueError, match="classes.txt', line 2: .*must begin with 'c001 '"):
        read_class_names(tmp_path / "classes.txt")
