"""Stretches of untrimmed videos: lists, the frames that clips are made of, and what their fingerprints change with."""

import numpy as np
import pytest
import torch
from backends import every_backend
from clips import video_dataset
from videos import number_of, numbered_frames, phone_index, write_late_video, write_phone_video, write_video

from mutual3d.data.datasets.check import check_videos, find_contradictions
from mutual3d.data.datasets.kinetics import Video, read_video_list
from mutual3d.data.datasets.labels import list_row, split_segment_row
from mutual3d.data.datasets.segments import SegmentReader, VideoSegment
from mutual3d.data.prepare.caching import Working, prepare_cache
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.frame_cache import FrameCache
from mutual3d.data.video.reader import VideoError

CLIP = dict(num_frames=4, sampling_rate=2, crop_size=48, jitter_scales=(48, 48), flip=False)


def test_lists_give_stretches_beside_whole_videos(tmp_path, caplog):
    (tmp_path / "classes.txt").write_text("walk\nbrush hair\n")
    path = tmp_path / "train.csv"
    path.write_text('a b.mp4 0 2.5 1\na b.mp4 2.5 4 walk\n"c.d" 1e1 12 brush hair\ntake 2.25 1\nx.mp4 1\n')
    expected = [
        VideoSegment(f"{tmp_path}/a b.mp4", 0, 2.5, 1), VideoSegment(f"{tmp_path}/a b.mp4", 2.5, 4, 0),
        VideoSegment(f"{tmp_path}/c.d", 10, 12, 1), Video(f"{tmp_path}/take 2.25", 1), Video(f"{tmp_path}/x.mp4", 1),
    ]  # fmt: skip
    found = read_video_list(path)
    assert found == expected and list(map(type, found)) == list(map(type, expected))
    path.write_text("a.mp4,3,7.5,0\n")
    assert read_video_list(path, separator=",") == [VideoSegment(f"{tmp_path}/a.mp4", 3, 7.5, 0)]
    for name in ("a b.mp4", "no ending", 'quo"te 1 2', "1.mp4 3 4"):
        for seconds in (None, (0.0, 12.345678), (3.0, 4.0)):
            assert split_segment_row(list_row(name, 5, seconds=seconds), "", " ") == (name, seconds, "5")
    # Several stretches of a file are no doubles, unless they are the same.
    caplog.clear()
    path.write_text("a.mp4 1 2 0\na.mp4 2 3 1\na.mp4 1 2 1\n")
    videos = read_video_list(path)
    assert "1 rows list a video again with other labels" in caplog.text and [bad.index for bad in find_contradictions(videos)] == [2]


@pytest.mark.parametrize("row", ["a.mp4 5 3 0", "a.mp4 3 3 0", "a.mp4 -1 3 0"])
def test_stretches_that_cannot_be_are_named(tmp_path, row):
    (tmp_path / "train.csv").write_text(f"b.mp4 1\n{row}\n")
    with pytest.raises(ValueError, match="train.csv', line 2: .* is a stretch from second .* start before end"):
        read_video_list(tmp_path / "train.csv")


def shown(reader, indices):
    return [number_of(frame) for frame in reader.read(indices)]


@every_backend
def test_a_stretch_has_the_frames_that_are_shown_in_it(tmp_path, backend):
    """A phone's video: two seconds at 30 frames a second, then 15; and one whose frames begin at second 0.7."""
    phone = write_phone_video(tmp_path / "phone.mp4")
    for start, end in ((0, 2), (1, 3), (2, 4), (4.01, 4.05), (5.9, 99)):
        with SegmentReader(open_video(phone, backend), start, end) as reader:
            times = reader.frame_times()
            whole = np.array([k / 30 for k in range(60)] + [2 + k / 15 for k in range(60)])
            inside = np.flatnonzero((whole >= start - 1e-3) & (whole < end - 1e-3)).tolist() or [phone_index(start) - 0]
            assert shown(reader, range(reader.num_frames)) == inside
            assert times[0] == pytest.approx(whole[inside[0]], abs=1e-3) and reader.time_of(reader.num_frames - 1) == times[-1]
    with SegmentReader(open_video(phone, backend), 2, 4) as reader:
        assert reader.fps == pytest.approx(15, abs=0.1) and reader.index_at(3) == 15
    with SegmentReader(open_video(write_late_video(tmp_path / "late.mp4"), backend), 1.0, 1.5) as reader:
        assert shown(reader, range(reader.num_frames)) == [3, 4, 5, 6, 7]


def test_what_is_not_in_the_video_is_a_bad_video(tmp_path):
    late = str(write_late_video(tmp_path / "late.mp4"))
    for start, end in ((3.7, 9), (0.1, 0.5)):
        with pytest.raises(VideoError, match=f"a segment from second {start} to {end:g} of it, and it shows seconds 0.70 to 3.70"):
            VideoSegment(late, start, end, 0).open("pyav")
    bad, fine = check_videos([VideoSegment(late, 5, 6, 0), VideoSegment(late, 1, 2, 0)])
    assert "shows seconds 0.70 to 3.70" in bad.cause and fine is None
    assert video_dataset([VideoSegment(late, 5, 6, 0)], **CLIP)[0, 0].cause == bad.cause


def seconds_seen(dataset, epochs=1):
    """The seconds of the phone video's frames in the clips of the first sample."""
    found = [dataset[epoch, 0].clips_VCTHW for epoch in range(epochs)]
    numbers = [number_of(frame) for clips in found for clip in clips for frame in clip.permute(1, 2, 3, 0).numpy()]
    return [n / 30 if n < 60 else 2 + (n - 60) / 15 for n in numbers]


def test_stretches_late_in_long_videos_are_called_apart():
    dataset = video_dataset([VideoSegment("a.mp4", 12345.67, 12346.5, 0), VideoSegment("a.mp4", 12345.71, 12346.5, 1), VideoSegment("a.mp4", 1, 2.5, 1)], **CLIP)
    assert [dataset.title_of(i) for i in range(3)] == ["a.mp4, 12345.67 to 12346.5 s", "a.mp4, 12345.71 to 12346.5 s", "a.mp4, 1 to 2.5 s"]


@pytest.mark.parametrize("training", [True, False])
def test_clips_lie_inside_their_stretch_also_where_the_rate_varies(tmp_path, training):
    """Of a clip at 30 frames a second over the slow half of the video, every frame is within it, also where it is longer than that."""
    times = [10 * k for k in range(60)] + [600 + 20 * k for k in range(60)]
    phone = str(write_video(tmp_path / "phone.mp4", numbered_frames(120, 48, 48), times=times))
    for start, end in ((1.5, 2.5), (3, 3.2), (2, 6), (0.5, 0.6)):
        dataset = video_dataset([VideoSegment(phone, start, end, 0)], training=training, num_views=3, **CLIP)
        seen = seconds_seen(dataset, epochs=20 if training else 1)
        assert min(seen) >= start - 1e-6 and max(seen) < end
    seen = seconds_seen(video_dataset([VideoSegment(phone, 2, 6, 0)], training=training, num_views=3, **CLIP), 30 if training else 1)
    assert max(seen) - min(seen) > 1.5


def test_a_stretch_that_is_the_whole_video_gives_its_clips(tmp_path):
    path = str(write_video(tmp_path / "v.mp4", numbered_frames(50)))
    for training in (True, False):
        whole, stretch = (video_dataset([v], training=training, num_views=3, **CLIP) for v in (Video(path, 1), VideoSegment(path, 0, 9, 1)))
        assert torch.equal(whole[3, 0].clips_VCTHW, stretch[3, 0].clips_VCTHW) and stretch[3, 0].label == 1


def test_a_cache_gives_the_same_clips(tmp_path):
    phone = str(write_phone_video(tmp_path / "phone.mp4"))
    prepare_cache([phone], tmp_path / "cache", working=Working(num_workers=1), tell=lambda *words: None)
    videos = [VideoSegment(phone, 1.5, 2.5, 0)]
    plain, cached = video_dataset(videos, **CLIP), video_dataset(videos, cache=FrameCache(tmp_path / "cache"), **CLIP)
    assert torch.equal(plain[0, 0].clips_VCTHW, cached[0, 0].clips_VCTHW) and cached.cache.open(phone) is not None


def test_a_fingerprint_changes_with_a_stretchs_times(tmp_path):
    path = str(write_video(tmp_path / "v.mp4", numbered_frames(50)))
    prints = [
        video_dataset([video], **CLIP).fingerprint()
        for video in (Video(path, 0), VideoSegment(path, 0, 1, 0), VideoSegment(path, 0.1, 1, 0), VideoSegment(path, 0, 1.1, 0), VideoSegment(path, 0, 1, 1))
    ]
    assert len(set(prints)) == 5
