"""The clock of a video: times joined, seconds to frames and back."""

import numpy as np
import pytest

from mutual3d.data.video.reader import VideoError, VideoReader, frame_rate, join_times, nearest


class TimedReader(VideoReader):
    """A reader of nothing, for its clock."""

    def __init__(self, times):
        self.path, self.num_frames, self.fps = "video", len(times), 25.0
        self._seconds = np.asarray(times, dtype=float)

    def frame_times(self):
        return self._seconds


def test_the_nearest_frame_and_its_second():
    reader = TimedReader([0.7, 0.8, 1.0, 1.5])
    assert [reader.index_at(second) for second in (-1, 0, 0.74, 0.76, 0.9, 1.24, 1.26, 99)] == [0, 0, 0, 1, 2, 2, 3, 3]
    assert [reader.time_of(index) for index in range(4)] == [0.7, 0.8, 1.0, 1.5]
    assert reader.duration == 2.0 and TimedReader([3.0]).duration == 3.04
    with pytest.raises(ValueError, match="outside its frames 0..3"):
        reader.time_of(4)


def test_times_that_jump_are_joined():
    assert join_times([1.6, 1.7, 1.8, 1.6, 1.7], 0.04).tolist() == pytest.approx([1.6, 1.7, 1.8, 1.9, 2.0])
    assert join_times([0, 1, 2, 100, 101, 0, 1], 0.04, 10).tolist() == pytest.approx(range(7))
    assert join_times([0, 1, 2, 100, 101], 0.04).tolist() == [0, 1, 2, 100, 101]


def test_times_that_are_not_told_stand_between_the_others():
    assert join_times([None, None, None], 0.04).tolist() == [0, 0.04, 0.08]
    assert join_times([None, 2.0, None, None, 3.5, None], 0.04).tolist() == pytest.approx([1.5, 2, 2.5, 3, 3.5, 4])
    assert join_times([None, 2.0, None], 0.04).tolist() == pytest.approx([1.96, 2, 2.04])


@pytest.mark.parametrize("fps", [1, 12.5, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120, 240])
@pytest.mark.parametrize("unit", [1e-3, 1 / 90000, None])
def test_a_constant_rate_keeps_its_frames_however_times_are_rounded(fps, unit):
    """Matroska's milliseconds, MPEG's ninety thousandths: a frame of a grid is that frame, in videos of any length."""
    for num_frames in (1, 2, 3, 17, 300, 100_000):
        times = 0.7 + np.arange(num_frames) / fps
        times = times if unit is None else np.round(times / unit) * unit
        assert TimedReader(times).evenly(range(num_frames)) == list(range(num_frames))


def test_moments_of_a_varying_rate():
    """Thirty frames a second, then fifteen: half of the frames is a third of the time."""
    times = np.concatenate([np.arange(30) / 30, 1 + np.arange(30) / 15])
    reader = TimedReader(times)
    frames = reader.evenly(range(60))
    assert frames[0] == 0 and frames[-1] == 59
    shown = times[frames]
    np.testing.assert_allclose(shown, np.linspace(0, times[-1], 60), atol=0.5 / 15 + 1e-9)


def test_nearest_takes_the_later_of_two():
    assert nearest(np.array([0.0, 1.0]), [0.5, 0.4999]).tolist() == [1, 0]


@pytest.mark.parametrize(
    "announced, times, rate",
    [
        (25, [0, 0.04, 0.08], 25),
        (25.5, [0, 0.04, 0.08], 25.5),
        (30, [0, 0.04, 0.08], 25),
        (124_151_428, [0, 0.04, 0.08], 25),
        (0, [0, 0.04], 25),
        (24, None, 24),
        (24, [0.0], 24),
        (0, [0.0], 30),
        (0, None, 30),
    ],
)
def test_a_rate_is_believed_where_the_times_agree(announced, times, rate):
    assert frame_rate("v", announced, None if times is None else np.array(times)) == pytest.approx(rate)


@pytest.mark.parametrize(
    "announced, times",
    [(124_151_428, None), (124_151_428, np.arange(60) / 124_151_428), (0.2, None), (25, np.arange(3) * 1e4), (1e9, np.zeros(1))],
)
def test_a_rate_that_no_camera_has_is_a_bad_video(announced, times):
    with pytest.raises(VideoError, match="frames a second is outside 1 to 1000"):
        frame_rate("v", announced, times)
