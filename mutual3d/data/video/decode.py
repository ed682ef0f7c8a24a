"""Opening a video with the backend of one's choice."""

import functools
import importlib
import importlib.util
import logging
import os
import re
from dataclasses import dataclass

from mutual3d.data.video.picture_reader import PictureReader
from mutual3d.data.video.reader import VideoError, VideoReader, check_file
from mutual3d.data.video.stills import has_image_name

__all__ = ["BACKENDS", "BY_SPEED", "CHOICES", "VideoError", "VideoOpening", "VideoReader", "check_backend", "open_video", "what_is_missing"]

# What "auto" takes the first installed one of: from fast to slow by benchmarks/loading.py, whose last run is
# benchmarks/results/loading.csv.
BY_SPEED = ("pyav", "torchcodec", "decord")
BACKENDS = ("pyav", "decord", "torchcodec")
# What may be asked for by name.
CHOICES = (*BACKENDS, "auto")

_logger = logging.getLogger(__name__)
_told: set[str] = set()


def check_backend(backend: str) -> str:
    """The backend's own name; raises ValueError for an unknown one and ImportError for one that is not installed.

    "auto" is the fastest of those that are installed, by a measurement that was made once; the log says which. "torchvision",
    the value that PySlowFast's YAML files carry, means pyav: torchvision reads no video any more.
    """
    if backend == "torchvision":
        _tell_once(logging.WARNING, "DATA.DECODING_BACKEND 'torchvision' decodes no video any more: using 'pyav'")
        return "pyav"
    if backend == "auto":
        installed = [name for name in BY_SPEED if not what_is_missing(name)]
        _tell_once(logging.INFO, f"videos are decoded by '{installed[0]}', the fastest of those that work here ({', '.join(installed)})")
        return installed[0]
    if backend not in BACKENDS:
        raise ValueError(f"unknown decoding backend {backend!r}: choose one of {', '.join(CHOICES)}")
    missing = what_is_missing(backend)
    if missing:
        raise ImportError(missing)
    return backend


def _tell_once(level: int, text: str) -> None:
    if text not in _told:
        _told.add(text)
        _logger.log(level, text)


def what_is_missing(backend: str) -> str:
    """What keeps `backend`, one of `BACKENDS`, from working here, with the fix; empty where nothing does."""
    if backend == "pyav":
        return ""
    if importlib.util.find_spec(backend) is None:
        return f"the decoding backend '{backend}' is not installed: pip install -e .[{backend}], or use 'pyav'"
    return _missing_libraries() if backend == "torchcodec" else ""


@functools.cache
def _missing_libraries() -> str:
    """torchcodec brings no FFmpeg of its own."""
    try:
        decoders = importlib.import_module("torchcodec.decoders")
        # From version 0.15 or so on it loads them where it first decodes: here what is no video.
        decoders.VideoDecoder(b"no video")
    except (RuntimeError, OSError, ImportError, ValueError) as error:
        if isinstance(error, (RuntimeError, ValueError)) and "load libtorchcodec" not in str(error):
            return ""
        found = re.search(r"lib(av|sw)\w+\.\S*?(so|dylib|dll)[.\d]*|CUDA|libnv\w+\.so[.\d]*", str(error))
        return (
            f"the decoding backend 'torchcodec' is installed, but does not load{f' ({found[0]} is missing)' if found else ''}: it needs the shared "
            "libraries of FFmpeg (apt-get install ffmpeg, or conda install ffmpeg) and a build for this torch; or use 'pyav'"
        )
    return ""


@dataclass(frozen=True)
class VideoOpening:
    """How videos are opened: `backend` and `tolerate_short` of `open_video`. Raises as `check_backend` does."""

    backend: str = "pyav"
    tolerate_short: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "backend", check_backend(self.backend))


def open_video(path: str | os.PathLike, backend: str = "pyav", tolerate_short: bool = False) -> VideoReader:
    """Open a video for reading: a `VideoReader` to be used in a `with` block.

    `pyav` is exact. `decord` and `torchcodec` are used where they are exact too: not in transport streams, with edit lists or open
    GOPs, in MJPEG, or where they count or time the frames otherwise than the packets do; PyAV reads those. Since they pass damage
    over, PyAV first decodes what they are to decode, from the keyframe before each frame, once in a process for an unchanged file:
    on clips of ten seconds the first access by decord costs 1.3 to 1.4 times the CPU time that it alone takes, later ones to the
    same frames no more. `auto` takes the fastest that is installed, see `check_backend`.

    A file with the name of an image is read by neither: its images are the frames, see `picture_reader`. `tolerate_short`: take
    a video whose container announces over 20 % more frames than there are.

    Raises VideoError with the cause, whatever fails. Only video containers are opened, no playlists. All backends give
    upright frames of one size. What neither can see: flipped bits in VP8 and VP9, which have no checksums, give images
    that are wrong; a transport or program stream (ts, mpg) or a raw stream that was cut off announces no length. backend:
    a word of `CHOICES`.
    """
    path = str(path)
    backend = check_backend(backend)
    check_file(path)
    if has_image_name(path):
        return PictureReader(path)
    if backend == "decord":
        from mutual3d.data.video.decord_reader import DecordReader

        return DecordReader(path, tolerate_short)
    if backend == "torchcodec":
        from mutual3d.data.video.torchcodec_reader import TorchcodecReader

        return TorchcodecReader(path, tolerate_short)
    from mutual3d.data.video.pyav_reader import PyAVReader

    return PyAVReader(path, tolerate_short)
