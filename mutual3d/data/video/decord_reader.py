"""The optional decord backend."""

import os
from collections.abc import Iterable, Iterator

import decord
import numpy as np
from decord.bridge import bridge_in

from mutual3d.data.container import (
    TIMED_FORMATS,
    announced_rate,
    check_length,
    open_container,
    orientation_of_frame,
    read_announced,
    told,
    video_stream,
)
from mutual3d.data.video.orientation import upright
from mutual3d.data.video.reader import VideoError, VideoReader, frame_rate, join_times

# Seconds. Where a file does not tell a frame's time, decord makes one up that is far beyond.
_LONGEST_VIDEO = 1e9


class DecordReader(VideoReader):
    """Frames by decord, one decoder thread. See `open_video` for the files that it gets wrong.

    What decord does not tell, or tells wrongly, PyAV reads from the header and the first frame: whether the file is a
    container, its zero, how the picture stands, how long it should be. Frames are upright and of one size.
    Their times are decord's; where it knows none, frame k is taken to be shown at k / fps.
    """

    def __init__(self, path: str, tolerate_short: bool = False) -> None:
        self.path = path
        with told(path, "the file is damaged"):
            header = self._read_header()
            with told(path, "decord cannot open it"):
                self._reader = decord.VideoReader(os.path.abspath(path), num_threads=1)
                self.num_frames = len(self._reader)
            if self.num_frames == 0:
                raise VideoError(path, "it has no decodable frame")
            self._turns = self._find_turns(self._first_frame)
            self._first_frame = None
            starts, end = self._list_times()
            seconds = join_times(starts, 1 / (self._announced_rate or 30.0))
            self.fps = frame_rate(path, self._announced_rate, None if np.isnan(starts).all() else seconds)
            self._seconds = seconds - seconds[0] + self._first_second
            if not tolerate_short:
                covered = self.num_frames / self.fps if np.isnan(end) else end
                times = seconds if self._is_timed and not np.isnan(end) else None
                check_length(path, header, self.num_frames, covered, self.fps, times)

    def _read_header(self):
        """What the header announces; also keeps what PyAV knows of the picture."""
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            self._announced_rate = announced_rate(stream)
            self._is_timed = container.format.name in TIMED_FORMATS
            start, zero = stream.start_time, container.start_time
            known = start is not None and zero is not None
            self._first_second = max(float(start * stream.time_base) - zero / 1e6, 0.0) if known else 0.0
            frame = next(iter(container.decode(stream)), None)
            if frame is None:
                raise VideoError(self.path, "it has no decodable frame")
            self._orientation, self._first_frame = orientation_of_frame(frame), frame
            return read_announced(container, stream)

    def _list_times(self):
        """(Seconds from the picture's first one, where decord's zero is, NaN where the file does not tell them; the end)."""
        spans = self._reader.get_frame_timestamp(range(self.num_frames)).astype(np.float64)
        if np.isfinite(spans).all() and np.abs(spans).max() < _LONGEST_VIDEO:
            return spans[:, 0], float(spans[:, 1].max())
        return np.full(self.num_frames, np.nan), np.nan

    def _find_turns(self, first_frame):
        """How many quarters, counterclockwise, decord turns each picture: it takes the matrix of most containers for an angle."""
        turns = round(first_frame.rotation / 90) % 4 if first_frame.rotation % 90 == 0 else 0
        if not turns:
            return 0
        stored = first_frame.to_ndarray(format="rgb24").astype(np.int16)
        shown = next(self._decode([0]))
        turned = np.rot90(stored, turns)
        if turned.shape != stored.shape:
            return turns if shown.shape == turned.shape else 0
        return turns if np.abs(shown - turned).mean() < np.abs(shown - stored).mean() else 0

    def _decode(self, indices):
        """Pictures as decord gives them."""
        with told(self.path, "decord cannot decode it"):
            # The program around may have asked decord for tensors of its own framework.
            yield from bridge_in(self._reader.get_batch(indices)).asnumpy()

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        wanted = self._check_indices(indices)
        for index, image in zip(wanted, self._decode(wanted)):
            yield index, upright(np.rot90(image, -self._turns), self._orientation)

    def frame_times(self) -> np.ndarray:
        return self._seconds

    def close(self) -> None:
        self._reader = None
