"""Labelled stretches of untrimmed videos: rows `path start end label`, and a reader that shows one stretch alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError, VideoReader

# An average rate that differs from the whole video's by more is the stretch's own.
_RATE_TOLERANCE = 0.05
# Clocks are floats: a frame at 2.0 seconds may be shown at 1.9999999.
_ROUNDING = 1e-6


class SegmentReader(VideoReader):
    """The frames of an open video that are shown from second `start` up to second `end`, on the clock of the whole video.

    Frame 0 is the first of them. Where none begins in so short a stretch it is the one that is shown at its start. Raises VideoError
    where the video has no such seconds; then, and when it is closed, the whole video is closed.
    """

    def __init__(self, whole: VideoReader, start: float, end: float) -> None:
        self._whole = whole
        times = whole.frame_times()
        first, last = np.searchsorted(times, [start - _ROUNDING, end - _ROUNDING]).tolist()
        if start >= whole.duration or end <= times[0]:
            seconds = f"{times[0]:.2f} to {whole.duration:.2f}"
            whole.close()
            raise VideoError(whole.path, f"the list has a segment from second {start:g} to {end:g} of it, and it shows seconds {seconds}")
        self._first = first if last > first else first - 1
        self._times = times[self._first : max(last, self._first + 1)]
        self.path, self.num_frames = whole.path, len(self._times)
        self.fps = self._rate(whole.fps)

    def _rate(self, usual: float) -> float:
        """Frames a second: the whole video's, unless those of the stretch come at another rate."""
        span = float(self._times[-1] - self._times[0])
        own = (self.num_frames - 1) / span if span > 0 else usual
        return own if abs(own - usual) > _RATE_TOLERANCE * own else usual

    def frame_times(self) -> np.ndarray:
        return self._times

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in self._whole.frames(index + self._first for index in self._check_indices(indices)):
            yield index - self._first, frame

    def close(self) -> None:
        self._whole.close()


class VideoSegment(NamedTuple):
    """A stretch of a file with one label, from second `start` up to second `end`: a `ListedVideo`."""

    path: str
    start: float
    end: float
    label: int

    def open(self, backend: str, tolerate_short: bool = False) -> VideoReader:
        """A reader of the stretch alone. Raises VideoError with the cause. backend, tolerate_short: as of `open_video`."""
        return self.within(open_video(self.path, backend, tolerate_short))

    def within(self, whole: VideoReader) -> VideoReader:
        """A reader of the stretch in an open video, which it closes."""
        return SegmentReader(whole, self.start, self.end)

    def label_of(self, clips: Sequence[Sequence[int]] | None, time_of: Callable[[int], float]) -> int:
        """Its one label, whatever `clips` and `time_of` are."""
        return self.label

    def content(self) -> tuple:
        """Path, seconds and label."""
        return tuple(self)

    def files(self) -> Sequence[str]:
        """The video that it is a stretch of."""
        return (self.path,)
