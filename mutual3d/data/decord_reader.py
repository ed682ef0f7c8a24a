"""The optional decord backend."""

import decord

from mutual3d.data.reader import VideoError, VideoReader


class DecordReader(VideoReader):
    """Frames by decord, one decoder thread. See `open_video` for the files that it gets wrong."""

    def __init__(self, path):
        self.path = path
        try:
            self._reader = decord.VideoReader(path, num_threads=1)
            self.num_frames = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(path, f"decord cannot open it ({_first_line(error)})") from error
        if self.num_frames == 0:
            raise VideoError(path, "it has no decodable frame")

    def frames(self, indices):
        wanted = self._check_indices(indices)
        try:
            decoded = self._reader.get_batch(wanted).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(self.path, f"decord cannot decode it ({_first_line(error)})") from error
        yield from zip(wanted, decoded)

    def close(self):
        self._reader = None


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
