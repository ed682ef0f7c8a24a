"""What clients send becomes clips in processes of its own: one that kills, hangs or fills its decoder costs that upload alone."""

import asyncio
import contextlib
import io
import math
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.picture_reader import PictureReader
from mutual3d.data.video.reader import VideoError, VideoReader
from mutual3d.data.video.stills import open_image, pictures, rgb_of
from mutual3d.data.workers.pool import Settings, WorkerPool
from mutual3d.deploy.predict import Part, Reading, frame_transform, read_still, read_views, read_windows
from mutual3d.deploy.prediction import Clips
from mutual3d.deploy.sources import ArrayReader, frames_of
from mutual3d.sampling import Preprocessing
from mutual3d.utils.memory import limit_memory

# What an upload is called in messages: the name that a client gives it is never used.
UPLOAD = "upload"
_NPY = b"\x93NUMPY"
# How image files begin, which are read by Pillow; all others are videos, if anything.
_IMAGES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM|RIFF....WEBP|II\*\0|MM\0\*|P[1-6]\s|\0\0\0\x0cjP  |....ftypavi[fs]", re.DOTALL
)
_LONGEST_HEADER = 10_000
# Windows that are read at a time: their clips lie in memory.
WINDOWS_AT_ONCE = 8
# How much of what the last key took the estimate takes over.
_LEARNING = 0.2


class TooLongError(VideoError):
    """A video that lasts longer than a service takes."""

    def __reduce__(self) -> tuple:
        return TooLongError, (self.path, self.cause)


class Windows(NamedTuple):
    """Which windows of an upload are read at once: `WINDOWS_AT_ONCE` of them, from number `first` on. window, step: as of `Reading`."""

    window: float
    step: float | None = None
    first: int = 0


class Upload(NamedTuple):
    """A key of `UploadJob`. path: of the file that the service wrote. used: as of `read_clips`. windows: None reads one clip of it all."""

    path: str
    used: tuple[int, ...] | None
    windows: Windows | None = None


class ReadWindows(NamedTuple):
    """Windows of an upload, of `num_windows` that it has in all. duration: the second at which it ends."""

    parts: list[Part]
    num_windows: int
    duration: float


class Frame(NamedTuple):
    """A key of `UploadJob`: one image of a stream, as a JPEG or PNG file, or as raw RGB of `size`, (width, height)."""

    data: bytes
    size: tuple[int, int] | None


# What a job makes of a key that can be read.
Found = Clips | ReadWindows | torch.Tensor


class UploadJob:
    """The `Job` of the processes that decode: `Clips` or `ReadWindows` of an `Upload`, uint8 S, S, 3 of a `Frame`, or a VideoError.

    backend: of videos. max_seconds: of a video. memory: bytes that the process may take beside what it starts with.
    """

    def __init__(self, preprocessing: Preprocessing, *, is_of_images: bool, backend: str, max_seconds: float, memory: int) -> None:
        self._preprocessing, self._is_of_images, self._backend = preprocessing, is_of_images, backend
        self._max_seconds, self._memory = max_seconds, memory
        self._is_limited = False

    def read(self, key: Upload | Frame) -> Found | VideoError:
        if not self._is_limited:
            limit_memory(self._memory)
            self._is_limited = True
        try:
            return self._clips(key) if isinstance(key, Upload) else self._image(key)
        except VideoError as error:
            return error
        except MemoryError:
            return VideoError(UPLOAD, "reading it takes more memory than this service gives it")
        except Exception as error:
            return VideoError(UPLOAD, describe_failure(error))

    def join(self, items: list) -> Found | VideoError:
        return items[0]

    def name(self, key: Upload | Frame) -> str:
        return key.path if isinstance(key, Upload) else "frame"

    def lost(self, key: Upload | Frame, cause: str) -> VideoError:
        return VideoError(UPLOAD, cause)

    def _clips(self, upload: Upload) -> Clips | ReadWindows:
        with open(upload.path, "rb") as file:
            start = file.read(16)
        if start.startswith(_NPY):
            return self._clips_of_array(read_npy(upload.path), upload)
        if not _IMAGES.match(start):
            with open_video(upload.path, self._backend) as reader:
                return self._clips_of_video(reader, upload)
        with open_image(upload.path) as image:
            is_still = len(pictures(image, max_count=2)) < 2
        if is_still:
            _check_clock(upload, "an image")
            return read_still(upload.path, self._preprocessing)
        with PictureReader(upload.path) as reader:
            return self._clips_of_video(reader, upload)

    def _clips_of_video(self, reader: VideoReader, upload: Upload) -> Clips | ReadWindows:
        seconds = reader.duration - reader.time_of(0)
        if seconds > self._max_seconds:
            raise TooLongError(UPLOAD, f"it lasts {seconds:.1f} s, and at most {self._max_seconds:g} s are taken: send a part of it")
        return self._look(reader, upload)

    def _look(self, reader: VideoReader, upload: Upload) -> Clips | ReadWindows:
        """The clip in the middle of what is open, or the windows that are asked for."""
        wanted = upload.windows
        if wanted is None:
            return read_views(reader, self._preprocessing, 1, upload.used)
        how = Reading(window=wanted.window, step=wanted.step, chunk=WINDOWS_AT_ONCE, used=upload.used)
        parts, count = read_windows(reader, self._preprocessing, how, wanted.first)
        return ReadWindows(parts, count, reader.duration)

    def _clips_of_array(self, array: np.ndarray, upload: Upload) -> Clips | ReadWindows:
        """Frames uint8 T, H, W, 3 are a video at the network's own rate; anything else must be a clip."""
        cut = self._preprocessing
        frames = frames_of(array)
        if frames is not None:
            if len(frames) == 1:
                _check_clock(upload, "one frame")
            with ArrayReader(frames, cut.target_fps, UPLOAD) as reader:
                return self._look(reader, upload)
        _check_clock(upload, "a clip")
        full = (3, cut.crop, cut.crop) if self._is_of_images else (3, cut.num_frames, cut.crop, cut.crop)
        clip = array[0] if array.ndim == len(full) + 1 and len(array) == 1 else array
        if clip.shape != full or clip.dtype not in (np.uint8, np.float32):
            raise VideoError(
                UPLOAD, f"the array is {array.dtype} {array.shape}: give a clip {full}, uint8 pixels, or float32 that is normalised already; or frames "
                "uint8 (T, H, W, 3) in RGB"
            )  # fmt: skip
        if not np.isfinite(clip).all():
            raise VideoError(UPLOAD, "the clip holds numbers that are not finite")
        return Clips(torch.from_numpy(np.array(clip))[None])

    def _image(self, frame: Frame) -> torch.Tensor:
        if frame.size is not None:
            width, height = frame.size
            if len(frame.data) != 3 * width * height:
                raise VideoError("frame", f"it has {len(frame.data)} bytes, and {width} x {height} pixels in RGB have {3 * width * height}")
            image = np.frombuffer(frame.data, np.uint8).reshape(height, width, 3).copy()
        else:
            try:
                with Image.open(io.BytesIO(frame.data), formats=("JPEG", "PNG")) as opened:
                    image = np.array(rgb_of(opened))
            except Exception as error:  # what Pillow raises on a damaged file is of any kind
                raise VideoError("frame", "it is not a JPEG or PNG image, or a damaged one") from error
        return frame_transform(self._preprocessing)(image).contiguous()


def _check_clock(upload: Upload, what: str) -> None:
    """VideoError where windows are asked for of what has no seconds. what: that is."""
    if upload.windows is not None:
        raise VideoError(UPLOAD, f"it is {what}, which has no seconds to make a timeline of: send a video, or frames uint8 (T, H, W, 3) in RGB")


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file, without running any code in it, of no more bytes than the file has. VideoError for what is none."""
    data = Path(path).read_bytes()
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        readers: Mapping = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = readers[version](file, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # what numpy raises on a damaged header is of any kind
        raise VideoError(UPLOAD, "it begins as a .npy file, and its header is damaged") from error
    count, there = int(np.prod(shape, dtype=object)), len(data) - file.tell()
    if dtype.kind not in "biuf" or count * dtype.itemsize != there:
        raise VideoError(UPLOAD, f"its header announces {dtype} {shape}, and {there} bytes follow: save it with numpy.save, as plain numbers")
    array = np.frombuffer(data, dtype, count, offset=file.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")


class Readers:
    """`count` processes that read keys of `job`, each for one caller at a time; what a caller waits for is in order of arrival.

    timeout: seconds without progress after which a key is given up. option: what the user sets that by, for messages.
    """

    def __init__(self, job: UploadJob, count: int, *, timeout: float, option: str) -> None:
        self._job, self._count, self._timeout = job, count, timeout
        self._settings = Settings(option, "the number of decoders")
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="reading")
        # Each with the files that it gave up.
        self._free: queue.SimpleQueue[tuple[WorkerPool, dict[str, str]]] = queue.SimpleQueue()
        self.num_lost = 0
        # Keys that are read or wait for it, and seconds that reading one takes, by the last ones.
        self.num_inside, self._seconds, self._lock = 0, 0.0, threading.Lock()
        for _ in range(count):
            self._free.put(self._make_pool())

    def _make_pool(self) -> tuple[WorkerPool, dict[str, str]]:
        lost: dict[str, str] = {}
        return WorkerPool(self._job, 1, timeout=self._timeout, lost=lost, settings=self._settings, start_method="forkserver"), lost

    def read_now(self, key: Upload | Frame) -> Found:
        """What the job makes of a key. Raises VideoError, also where the process dies of it or hangs."""
        pool, lost = self._free.get()
        is_sound, begin = False, time.perf_counter()
        try:
            (found,) = pool.map([[key]])
            is_sound = not lost
            if is_sound and not isinstance(found, VideoError):
                self.learn(time.perf_counter() - begin)
        finally:
            if not is_sound:  # what a pool knows of files that it gave up would only grow
                self.num_lost += 1
                pool.close()
                pool, lost = self._make_pool()
            self._free.put((pool, lost))
        if isinstance(found, VideoError):
            raise found
        return found

    def learn(self, seconds: float) -> None:
        """Take in what reading one key took, without waiting for its turn."""
        with self._lock:
            self._seconds += (seconds - self._seconds) * (_LEARNING if self._seconds else 1.0)

    @property
    def is_busy(self) -> bool:
        """Whether one more key would have to wait for another one's process."""
        return self.num_inside >= self._count

    def seconds_until(self, count: int = 1) -> float:
        """Seconds until `count` keys more were read, those that came before them first; by what the last ones took."""
        return self._seconds * math.ceil((self.num_inside + count) / self._count)

    def start(self) -> None:
        """Start the processes, so that the first caller need not wait for that."""
        blank = Frame(bytes(3), (1, 1))
        for future in [self._threads.submit(self.read_now, blank) for _ in range(self._count)]:
            future.result()
        # The first ones started their processes.
        self._seconds = 0.0

    async def read(self, key: Upload | Frame) -> Found:
        """`read_now`, awaited."""
        with self.counted():
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.read_now, key)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While it is open, one more key is read or waits for it. In the thread of the event loop alone."""
        self.num_inside += 1
        try:
            yield
        finally:
            self.num_inside -= 1

    def close(self) -> None:
        """Finish what is read, and end the processes."""
        self._threads.shutdown(wait=True)
        while not self._free.empty():
            self._free.get()[0].close()
