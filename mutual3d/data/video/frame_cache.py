"""Decoded frames of a small set in one memory-mapped file, read in place of its videos (DATA.CACHE).

A folder of three files: `frame_cache.json` says how its frames were made, `frames.bin` holds them, one video's uint8 RGB frames
T, H, W, 3 after the other, each with the times of its frames behind it, and `index.json` says of each video where it lies and
which file it was made from. A video is in the index only when all of it is in the file. `mutual3d.data.prepare.caching` writes it.
"""

import dataclasses
import hashlib
import logging
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mutual3d.data.video.reader import VideoReader
from mutual3d.utils.files import DamagedFileError, read_json, state_of
from mutual3d.utils.fingerprint import fingerprint

ARGUMENTS, FRAMES, INDEX = "frame_cache.json", "frames.bin", "index.json"
_TIME = np.dtype(np.float64)
# How many files are named in a message.
_NAMED = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedVideo:
    """Where a video lies, and what it was made from.

    num_bytes, mtime_ns, content: size, time of modification and fingerprint of the video's file. offset: of its first frame, in
    bytes. num_frames, height, width, fps: of what is stored. sum: of its frames and their times, see `sum_of`.
    """

    num_bytes: int
    mtime_ns: int
    content: str
    offset: int
    num_frames: int
    height: int
    width: int
    fps: float
    sum: str = ""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.height * self.width * 3

    @property
    def times_offset(self) -> int:
        """Where the times of its frames begin: at a multiple of their size."""
        return -(-(self.offset + self.num_frames * self.frame_bytes) // _TIME.itemsize) * _TIME.itemsize

    @property
    def end(self) -> int:
        """Where the next video may begin."""
        return self.times_offset + self.num_frames * _TIME.itemsize


def read_index(directory: str | os.PathLike) -> dict[str, CachedVideo]:
    """{absolute path: where its frames lie} of a cache; empty where none is finished. Raises DamagedFileError for another content."""
    path = Path(directory) / INDEX
    if not path.is_file():
        return {}
    content = read_json(path)
    try:
        return {str(name): _checked(CachedVideo(**values)) for name, values in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise DamagedFileError(f"'{path}' is no index of a frame cache: delete the folder and run mutual3d prepare again") from None


def _checked(video: CachedVideo) -> CachedVideo:
    """The same; ValueError for what no file holds."""
    numbers = (video.num_bytes, video.mtime_ns, video.offset, video.num_frames, video.height, video.width)
    if not all(type(number) is int and number >= 0 for number in numbers) or type(video.fps) not in (int, float):
        raise ValueError(f"{video} lies nowhere")
    return video


def index_content(videos: dict[str, CachedVideo]) -> dict[str, dict]:
    """What `read_index` reads, as plain containers."""
    return {path: dataclasses.asdict(video) for path, video in videos.items()}


def content_of(path: str | os.PathLike) -> str:
    """The fingerprint of a file's bytes. Raises OSError."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()[:32]


def sum_of(frame_sums: Sequence[int], times: np.ndarray) -> str:
    """A video's sum: of `frame_sums`, the `frame_sum` of each frame in order, and of `times`, the seconds at which they are shown."""
    return fingerprint([int(one) for one in frame_sums], np.asarray(times, _TIME))


def frame_sum(frame_HWC: np.ndarray) -> int:
    """The check sum of a contiguous frame."""
    return zlib.crc32(frame_HWC.reshape(-1).data)


class MappedFrames:
    """`frames.bin`, mapped when it is first read, in each process anew. path: of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_bytes": None}

    def frames(self, video: CachedVideo) -> np.ndarray:
        """uint8 T, H, W, 3. What is written into it stays in this process: the file never changes."""
        shape = video.num_frames, video.height, video.width, 3
        return self._map(video)[video.offset : video.offset + video.num_frames * video.frame_bytes].reshape(shape)

    def times(self, video: CachedVideo) -> np.ndarray:
        """The second at which each frame is shown, float64."""
        return self._map(video)[video.times_offset : video.end].view(_TIME)

    def _map(self, video: CachedVideo) -> np.ndarray:
        if self._bytes is None or len(self._bytes) < video.end:
            with open(self._path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._bytes = np.frombuffer(mapped, np.uint8)
        if len(self._bytes) < video.end:
            raise DamagedFileError(f"'{self._path}' is cut short: run mutual3d prepare --verify")
        return self._bytes


class CachedReader(VideoReader):
    """A video whose frames lie in a cache: nothing is decoded. What it gives are views of the mapped file."""

    def __init__(self, path: str, video: CachedVideo, mapped: MappedFrames) -> None:
        self.path, self.num_frames, self.fps = path, video.num_frames, video.fps
        self._frames_THWC, self._times = mapped.frames(video), mapped.times(video)

    def frame_times(self) -> np.ndarray:
        return self._times

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in self._check_indices(indices):
            yield index, self._frames_THWC[index]


class FrameCache:
    """The frames that `mutual3d prepare` decoded into a folder. A changed video has none: it is decoded anew.

    `short_side`: what the frames' shorter side was resized to where it was longer; None where they are as decoded, which gives the
    same clips, bit for bit, as the videos. `tolerates_short`: videos that were cut off are among them.
    Raises FileNotFoundError for a folder that is no cache, DamagedFileError for one that is damaged.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        if not (self.directory / ARGUMENTS).is_file():
            raise FileNotFoundError(f"'{directory}' is no frame cache (DATA.CACHE): make it with `mutual3d prepare VIDEOS --out {directory}`")
        arguments = read_json(self.directory / ARGUMENTS)
        try:
            self.short_side: int | None = arguments["short_side"]
            self.tolerates_short: bool = arguments["tolerate_short"]
        except (KeyError, TypeError):
            raise DamagedFileError(
                f"'{self.directory / ARGUMENTS}' does not say how the frames were made: delete the folder and run mutual3d prepare again"
            ) from None
        self._videos = read_index(directory)
        self._mapped = MappedFrames(self.directory / FRAMES)
        # What a file may be by size and time: as it was, or as it is now, with the same content.
        self._states = {path: {(video.num_bytes, video.mtime_ns)} for path, video in self._videos.items()}
        size = (state_of(self.directory / FRAMES) or (0, 0))[0]
        if any(video.end > size for video in self._videos.values()):
            raise DamagedFileError(f"'{self.directory / FRAMES}' is cut short: run mutual3d prepare --verify")

    def fingerprint(self) -> str:
        """Changes where the same videos have other pixels."""
        return fingerprint("frame cache", self.short_side)

    def open(self, path: str | os.PathLike) -> CachedReader | None:
        """The reader of a video; None of one that is not in the cache, or was changed."""
        name = os.path.abspath(path)
        video = self._videos.get(name)
        if video is None or state_of(name) not in self._states[name]:
            return None
        return CachedReader(str(path), video, self._mapped)

    def check(self, paths: Iterable[str]) -> str:
        """A sentence on which of these videos come out of the cache. ValueError where none does.

        A file whose time alone is another one is read, and taken where its content is the same.
        """
        names = list(dict.fromkeys(os.path.abspath(path) for path in paths))
        missing = [name for name in names if name not in self._videos]
        changed = [name for name in names if name in self._videos and not self._is_same(name)]
        if len(missing) == len(names):
            raise ValueError(
                f"none of the {len(names)} videos, such as '{names[0]}', is in the frame cache '{self.directory}' (DATA.CACHE): "
                "add them with mutual3d prepare, or name another cache"
            )
        told = f"{len(names) - len(missing) - len(changed)} of {len(names)} videos come out of the frame cache '{self.directory}'"
        for some, what in ((missing, "not in it"), (changed, "changed since it was made")):
            if some:
                more = ", ..." if len(some) > _NAMED else ""
                told += f"; {len(some)} {what}, which are decoded anew ({', '.join(some[:_NAMED])}{more})"
        return told

    def _is_same(self, name: str) -> bool:
        video, state = self._videos[name], state_of(name)
        if state is None or state[0] != video.num_bytes:
            return False
        if state not in self._states[name]:
            if content_of(name) != video.content:
                return False
            self._states[name].add(state)
        return True
