"""Opening a video with the backend of one's choice."""

import importlib.util
import logging
import os
from dataclasses import dataclass

from mutual3d.data.video.picture_reader import PictureReader
from mutual3d.data.video.reader import VideoError, VideoReader, check_file
from mutual3d.data.video.stills import has_image_name

__all__ = ["BACKENDS", "VideoError", "VideoOpening", "VideoReader", "check_backend", "open_video"]

BACKENDS = ("pyav", "decord")

_logger = logging.getLogger(__name__)
_warned: set[str] = set()


def check_backend(backend: str) -> str:
    """The backend's own name; raises ValueError for an unknown one and ImportError for one that is not installed.

    "torchvision", the value that PySlowFast's YAML files carry, means pyav: torchvision reads no video any more.
    """
    if backend == "torchvision":
        if backend not in _warned:
            _warned.add(backend)
            _logger.warning("DATA.DECODING_BACKEND 'torchvision' decodes no video any more: using 'pyav'")
        return "pyav"
    if backend not in BACKENDS:
        raise ValueError(f"unknown decoding backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "decord" and importlib.util.find_spec("decord") is None:
        raise ImportError("the decoding backend 'decord' is not installed: pip install -e .[decord], or use 'pyav'")
    return backend


@dataclass(frozen=True)
class VideoOpening:
    """How videos are opened: `backend` and `tolerate_short` of `open_video`. Raises as `check_backend` does."""

    backend: str = "pyav"
    tolerate_short: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "backend", check_backend(self.backend))


def open_video(path: str | os.PathLike, backend: str = "pyav", tolerate_short: bool = False) -> VideoReader:
    """Open a video for reading: a `VideoReader` to be used in a `with` block.

    `pyav` is exact. `decord` is used where it is exact too: not in transport streams, with edit lists or open GOPs, in MJPEG, or
    where it counts or times the frames otherwise than the packets do; PyAV reads those. Since decord passes damage over, PyAV
    first decodes what decord is to decode, from the keyframe before each frame, once in a process for an unchanged file: on clips
    of ten seconds the first access costs 1.3 to 1.4 times the CPU time that decord alone takes, later ones to the same frames no more.

    A file with the name of an image is read by neither: its images are the frames, see `picture_reader`. `tolerate_short`: take
    a video whose container announces over 20 % more frames than there are.

    Raises VideoError with the cause, whatever fails. Only video containers are opened, no playlists. Both backends give
    upright frames of one size. What neither can see: flipped bits in VP8 and VP9, which have no checksums, give images
    that are wrong; a transport or program stream (ts, mpg) or a raw stream that was cut off announces no length. backend:
    `pyav` or `decord`.
    """
    path = str(path)
    backend = check_backend(backend)
    check_file(path)
    if has_image_name(path):
        return PictureReader(path)
    if backend == "decord":
        from mutual3d.data.video.decord_reader import DecordReader

        return DecordReader(path, tolerate_short)
    from mutual3d.data.video.pyav_reader import PyAVReader

    return PyAVReader(path, tolerate_short)
