"""What every decoding backend offers, and the error that all of them raise."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

# Frames a second that a video may have. What a damaged header says is far beyond.
MIN_FPS, MAX_FPS = 1, 1000


class VideoError(ValueError):
    """A video that cannot be read, with its `path` and the `cause` in words."""

    def __init__(self, path: str | Path, cause: str) -> None:
        super().__init__(f"cannot read video '{path}': {cause}")
        self.path = str(path)
        self.cause = cause

    def __reduce__(self) -> tuple:
        return VideoError, (self.path, self.cause)


class VideoReader:
    """An open video: `num_frames` that really decode, `fps` (average, float), its frames by display index, and its clock.

    The clock's zero is the file's own: where the frames begin 0.7 seconds after the sound, frame 0 is shown at 0.7. A
    second becomes a frame, and a frame a second, nowhere but here.

    A context manager; not to be shared between threads. Subclasses set `path`, `num_frames`, `fps` and write `frames` and
    `frame_times`.
    """

    path: str
    num_frames: int
    fps: float

    def frame_times(self) -> np.ndarray:
        """The second at which each frame is shown, float64, one for each frame; they never descend."""
        raise NotImplementedError

    def time_of(self, index: int) -> float:
        """The second at which frame `index` is shown. Raises ValueError for an index outside [0, num_frames)."""
        (index,) = self._check_indices([index])
        return float(self.frame_times()[index])

    def index_at(self, second: float) -> int:
        """The frame whose time is nearest to `second`, the later one of two; before the video its first, after it its last.

        Whoever must refuse a second after the end compares it with `duration`.
        """
        return self.indices_at([second])[0]

    def indices_at(self, seconds: Sequence[float]) -> list[int]:
        """`index_at` of each of many seconds, at once."""
        return nearest(self.frame_times(), seconds).tolist()

    @property
    def duration(self) -> float:
        """The second at which the last frame ends, on the same clock: it lasts as long as the one before it."""
        times = self.frame_times()
        step = float(times[-1] - times[-2]) if self.num_frames > 1 else 0.0
        return float(times[-1]) + (step or 1 / self.fps)

    def evenly(self, positions: Sequence[int]) -> list[int]:
        """The frames shown where frames `positions` of this many frames at a constant rate would be.

        The frames themselves in a video of a constant rate, however its times are rounded; in others those seen at the
        same moments.
        """
        times = self.frame_times()
        step = (times[-1] - times[0]) / max(self.num_frames - 1, 1)
        return nearest(times, times[0] + np.asarray(positions) * step).tolist()

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, uint8 RGB array H, W, 3) for each distinct index, each decoded once, in one pass.

        Raises ValueError for an index outside [0, num_frames) and VideoError for a frame that does not decode. indices: of
        frames in display order.
        """
        raise NotImplementedError

    def read(self, indices: Iterable[int]) -> np.ndarray:
        """Frames `indices` (display order; unsorted and repeated ones allowed) as a uint8 array T, H, W, 3."""
        indices = [int(index) for index in indices]
        decoded = dict(self.frames(indices))
        return np.stack([decoded[index] for index in indices])

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_indices(self, indices: Iterable[int]) -> list[int]:
        """Distinct frame indices in ascending order."""
        wanted = sorted({int(index) for index in indices})
        if not wanted:
            raise ValueError(f"no frame of '{self.path}' was asked for: give at least one index")
        if wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(
                f"frame indices {wanted[0]}..{wanted[-1]} of '{self.path}' are outside its frames "
                f"0..{self.num_frames - 1}"
            )
        return wanted


def nearest(times: np.ndarray, seconds: Sequence[float] | np.ndarray) -> np.ndarray:
    """For each of `seconds` the position of the nearest of `times`, which never descend; the later one of two."""
    return np.searchsorted((times[1:] + times[:-1]) / 2, seconds, side="right")


def join_times(times: Sequence[float | None] | np.ndarray, usual_step: float, longest_step: float | None = None) -> np.ndarray:
    """Seconds that never descend for frames in display order, whose times, in seconds, may jump or be unknown (None
    or NaN).

    Where times jump back, another recording was joined on: its first frame follows after a usual step, the median one. So it
    does after a step of more than `longest_step` seconds, where that is given. Frames without a time stand evenly between
    those with one. `usual_step`: seconds, for where the times tell none.
    """
    times = np.asarray(times, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(times))
    if not len(known):
        return np.arange(len(times)) * usual_step
    seconds = times[known]
    steps, gaps = np.diff(seconds), np.diff(known)
    forward = (steps / gaps)[steps > 0]
    usual = float(np.median(forward)) if len(forward) else usual_step
    is_jump = steps < 0
    if longest_step is not None:
        is_jump |= steps > longest_step
    steps = np.where(is_jump, usual * gaps, steps)
    seconds = seconds[0] + np.concatenate([[0.0], np.cumsum(steps)])
    places = np.arange(len(times))
    joined = np.interp(places, known, seconds)
    before, after = places < known[0], places > known[-1]
    joined[before] -= (known[0] - places[before]) * usual
    joined[after] += (places[after] - known[-1]) * usual
    return joined


def frame_rate(path: str, announced: float, times: np.ndarray | None) -> float:
    """Average frames a second: the header's where the frames agree within 5 %, else counted from their times.

    `announced`: what the header says, 0 where it says nothing; `times`: ascending seconds, None where the file tells none.
    Raises VideoError for a rate that no camera has.
    """
    counted = 0.0
    if times is not None and times[-1] > times[0]:
        counted = float((len(times) - 1) / (times[-1] - times[0]))
    if not counted and not announced and (times is None or len(times) == 1):
        return 30.0
    agrees = abs(announced - counted) <= 0.05 * counted or not counted
    rate = announced if agrees else counted
    if not MIN_FPS <= rate <= MAX_FPS:
        raise VideoError(
            path, f"its rate of {rate:.10g} frames a second is outside {MIN_FPS} to {MAX_FPS}: its header or its times are damaged"
        )
    return rate


def check_file(path: str | Path) -> None:
    """Raise VideoError when `path` is missing, no regular file, empty or unreadable."""
    if not os.path.exists(path):
        raise VideoError(path, "the file does not exist")
    if not os.path.isfile(path):
        raise VideoError(path, "it is not a file")
    if not os.access(path, os.R_OK):
        raise VideoError(path, "no permission to read the file")
    if os.path.getsize(path) == 0:
        raise VideoError(path, "the file is empty (0 bytes)")
