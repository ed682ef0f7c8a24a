"""The optional torchcodec backend, in its exact mode."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torchcodec.decoders import VideoDecoder

from mutual3d.data.video.checked_reader import CheckedReader, OtherFrames
from mutual3d.data.video.container import told
from mutual3d.data.video.reader import VideoError


class TorchcodecReader(CheckedReader):
    """Frames by torchcodec where it is found to be right. path, tolerate_short: as of `CheckedReader`.

    It tells the time of every frame that it gives, which is compared with that of the packet.
    """

    def __init__(self, path: str, tolerate_short: bool = False) -> None:
        self._torchcodec: VideoDecoder | None = None
        super().__init__(path, tolerate_short)

    def close(self) -> None:
        self._torchcodec = None
        super().close()

    def _agrees(self) -> bool:
        """Whether torchcodec finds as many frames in the stream that is read here."""
        try:
            return len(self._open_torchcodec()) == self.num_frames
        except OtherFrames:
            return False

    def _open_torchcodec(self) -> VideoDecoder:
        if self._torchcodec is None:
            # An absolute path: FFmpeg takes what stands before a colon for a protocol.
            path, stream = os.path.abspath(self.path), self._stream.index
            with _left_to_pyav(), told(self.path, "torchcodec cannot open it"):
                self._torchcodec = VideoDecoder(
                    path, stream_index=stream, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
                )
        return self._torchcodec

    def _decode_by_other(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        decoder = self._open_torchcodec()
        with _left_to_pyav(), told(self.path, "torchcodec cannot decode it"):
            batch = decoder.get_frames_at(list(indices))
        seconds = self._table.frame_times[list(indices)] * self._unit
        if not np.allclose(batch.pts_seconds.numpy(), seconds, rtol=1e-12, atol=self._unit / 2):
            raise OtherFrames
        yield from batch.data.numpy()


@contextmanager
def _left_to_pyav() -> Iterator[None]:
    """What torchcodec cannot do (streams of raw H.264, a size that changes on the way) it says in a RuntimeError."""
    try:
        yield
    except VideoError as error:
        if isinstance(error.__cause__, RuntimeError):
            raise OtherFrames from error
        raise
