"""The optional decord backend."""

import decord
import numpy as np

from mutual3d.data.reader import VideoError, VideoReader, frame_rate, join_times

# Seconds. Where a file does not tell a frame's time, decord makes one up that is far beyond.
_LONGEST_VIDEO = 1e9


class DecordReader(VideoReader):
    """Frames by decord, one decoder thread. See `open_video` for the files that it gets wrong."""

    def __init__(self, path):
        self.path = path
        try:
            self._reader = decord.VideoReader(path, num_threads=1)
            self.num_frames = len(self._reader)
            announced = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(path, f"decord cannot open it ({_first_line(error)})") from error
        if self.num_frames == 0:
            raise VideoError(path, "it has no decodable frame")
        times = self._list_times()
        self._seconds = join_times(times or [None] * self.num_frames, 1 / (announced or 30.0))
        self.fps = frame_rate(path, announced, self._seconds if times else None)

    def _list_times(self):
        """Seconds from the picture's first one, where decord's zero is; None where the file does not tell them."""
        times = self._reader.get_frame_timestamp(range(self.num_frames))[:, 0].astype(np.float64)
        is_known = np.isfinite(times).all() and np.abs(times).max() < _LONGEST_VIDEO
        return times.tolist() if is_known else None

    def frames(self, indices):
        wanted = self._check_indices(indices)
        try:
            decoded = self._reader.get_batch(wanted).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(self.path, f"decord cannot decode it ({_first_line(error)})") from error
        yield from zip(wanted, decoded)

    def frame_times(self) -> np.ndarray:
        return self._seconds

    def close(self):
        self._reader = None


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
