"""The optional decord backend."""

import os
from collections.abc import Iterator, Sequence

import decord
import numpy as np
from decord.bridge import bridge_in

from mutual3d.data.video.checked_reader import CheckedReader
from mutual3d.data.video.container import told

# Seconds by which decord may tell a frame's time otherwise than the packets do: it keeps them as 32-bit floats.
_TIME_TOLERANCE = 2e-3


class DecordReader(CheckedReader):
    """Frames by decord where it is found to be right. path, tolerate_short: as of `CheckedReader`."""

    def __init__(self, path: str, tolerate_short: bool = False) -> None:
        self._decord = None
        super().__init__(path, tolerate_short)

    def close(self) -> None:
        self._decord = None
        super().close()

    def _agrees(self) -> bool:
        """Whether decord has the same frames and keyframes at the same times."""
        reader = self._open_decord()
        if len(reader) != self.num_frames:
            return False
        starts = reader.get_frame_timestamp(range(self.num_frames)).astype(np.float64)[:, 0]
        keyframes = np.searchsorted(self._table.frame_times, self._table.pts[self._table.is_keyframe])
        if sorted(reader.get_key_indices()) != keyframes.tolist():
            return False
        # 32-bit floats tell an hour to a quarter of a millisecond.
        error = np.abs((starts - starts[0]) - (self._seconds - self._seconds[0]))
        return bool((error <= _TIME_TOLERANCE + 1e-6 * self._seconds[-1]).all())

    def _open_decord(self) -> decord.VideoReader:
        if self._decord is None:
            with told(self.path, "decord cannot open it"):
                self._decord = decord.VideoReader(os.path.abspath(self.path), num_threads=1)
        return self._decord

    def _decode_by_other(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        reader = self._open_decord()
        with told(self.path, "decord cannot decode it"):
            # The program around may have asked decord for tensors of its own framework.
            yield from bridge_in(reader.get_batch(indices)).asnumpy()
