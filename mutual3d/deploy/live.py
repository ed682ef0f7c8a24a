"""Where a stream's frames come from: a file, a camera, an address, or an object of one's own; with reconnecting."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from mutual3d.data.video.forward import ForwardReader, TimedFrame, open_address, open_camera, open_file, without_password
from mutual3d.data.video.reader import VideoError
from mutual3d.utils.logging import logger

# Seconds that a feed may be silent before it counts as broken.
_SILENCE = 5.0
# A file whose frames end by so many seconds before the length that it tells is told as cut short.
_SHORT = 1.0
# Seconds to wait before each attempt to connect again; after the last one the feed is given up.
_RETRIES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)


class FrameSource:
    """Something that gives frames one after the other; a subclass writes `frames`.

    name: for messages. is_live: frames come whether or not somebody is ready for them, so that a deadline counts from their
    arrival. `frames` runs in a thread of its own, and `close` may be called from another one, once: `frames` then ends soon.
    num_bad: frames so far that did not decode. num_breaks: how often it broke and was connected again.
    """

    name: str = "source"
    is_live: bool = False
    num_bad: int = 0
    num_breaks: int = 0

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in display order. Raises VideoError where they end otherwise than by their end."""
        raise NotImplementedError

    def close(self) -> None:
        """End `frames`, and release what it holds."""


class VideoFile(FrameSource):
    """A video file, as fast as it is asked for. Raises VideoError for one that cannot be read."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.name = str(path)
        self._reader = open_file(path)
        self._stopped = threading.Event()

    def frames(self) -> Iterator[TimedFrame]:
        announced, last = self._reader.announced_seconds, 0.0
        try:
            for frame in self._reader.frames():
                if self._stopped.is_set():
                    return
                last = frame.second
                yield frame
            if announced is not None and announced - last > _SHORT:
                logger.warning(
                    "%s: its frames end at second %.1f, and it tells a length of %.1f s: it was cut short, or its sound is longer; the seconds "
                    "without frames have no answers", self.name, last, announced,
                )  # fmt: skip
        finally:
            self.num_bad = self._reader.num_bad
            self._reader.close()

    def close(self) -> None:
        self._stopped.set()


class Feed(FrameSource):
    """A camera or an address. Where it breaks it is connected again, after ever longer waits.

    connect: opens it; called at once, so that what is not there raises what `connect` does. retries: seconds before each
    attempt to connect again. An address of a known length (a file on a server) is no live feed: it ends with its end.
    """

    def __init__(self, name: str, connect: Callable[[], ForwardReader], retries: Sequence[float] = _RETRIES) -> None:
        self.name, self._connect, self._retries = name, connect, tuple(retries)
        self._stopped = threading.Event()
        self._reader: ForwardReader | None = connect()
        self.is_live = self._reader.is_endless

    def frames(self) -> Iterator[TimedFrame]:
        begin, failures = time.perf_counter(), 0
        is_cut, offset, last = False, 0.0, 0.0
        while True:
            cause = "it ended"
            try:
                reader = self._reader or self._connect()
                self._reader = None
                first = None
                for frame in self._frames_of(reader):
                    failures = 0
                    if first is None:
                        first = frame.second
                        # The clock of a feed that was connected again goes on by the time that passed, and never back.
                        offset = max(time.perf_counter() - begin, last) - first if is_cut else 0.0
                    last = frame.second + offset
                    yield frame._replace(second=last, is_cut=is_cut)
                    is_cut = False
            except VideoError as error:
                cause = error.cause
                if not self.is_live:
                    raise
            if self._stopped.is_set() or not self.is_live:
                return
            if failures == len(self._retries):
                raise VideoError(self.name, f"it broke, and {failures} attempts to connect again failed: {cause}")
            logger.warning("%s broke (%s): connecting again in %g s", self.name, cause, self._retries[failures])
            if self._stopped.wait(self._retries[failures]):
                return
            self.num_breaks, failures, is_cut = self.num_breaks + 1, failures + 1, True

    def _frames_of(self, reader: ForwardReader) -> Iterator[TimedFrame]:
        known = self.num_bad
        try:
            for frame in reader.frames():
                self.num_bad = known + reader.num_bad
                if self._stopped.is_set():
                    return
                yield frame
        finally:
            reader.close()

    def close(self) -> None:
        self._stopped.set()


class Paced(FrameSource):
    """Another source at its own pace: each frame arrives at its second, as from a camera."""

    def __init__(self, source: FrameSource) -> None:
        self.name, self.is_live, self._source = source.name, True, source
        self._stopped = threading.Event()

    def frames(self) -> Iterator[TimedFrame]:
        begin = None
        for frame in self._source.frames():
            begin = time.perf_counter() - frame.second if begin is None else begin
            due = begin + frame.second
            if self._stopped.wait(max(due - time.perf_counter(), 0.0)):
                return
            yield frame._replace(arrival=due)
        self.num_bad = self._source.num_bad

    def close(self) -> None:
        self._stopped.set()
        self._source.close()


def open_source(source: str | os.PathLike | int | FrameSource) -> FrameSource:
    """What `--source` names: a file, a camera by its number or as /dev/video0, an address, or a source as it is.

    Raises ValueError for a word that is none of them, VideoError for what is not there or is no video.
    """
    if isinstance(source, FrameSource):
        return source
    text = str(source) if not isinstance(source, bool) else ""
    camera = re.fullmatch(r"(?:/dev/video)?(\d{1,3})", text)
    if camera:
        return Feed(f"camera {int(camera[1])}", lambda: open_camera(int(camera[1]), _SILENCE))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return Feed(without_password(text), lambda: open_address(text, _SILENCE))
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"the source is {source!r:.80}: give a file, the number of a camera, or an address such as rtsp://...")
    return VideoFile(source)
