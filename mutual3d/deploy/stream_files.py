"""What a stream leaves behind: a csv that is whole at any time, and a video with the answers drawn into it."""

import contextlib
import io
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

from mutual3d.data.video.forward import TimedFrame
from mutual3d.deploy.draw import FrameEncoder, draw_on_frame, enlarge, font_size
from mutual3d.deploy.scan_table import as_text, columns_of, row_writer
from mutual3d.deploy.stream import StreamPrediction
from mutual3d.deploy.timeline import Segment
from mutual3d.utils.files import atomic_write, ensure_directory
from mutual3d.utils.text import printable

Opened = TypeVar("Opened", bound="LiveCsv")
TOP = 3
COLUMNS = (
    "start", "end", "configuration", "wait_ms", "network_ms", "total_ms", "met", "first_run",
    *(f"{name}_{place + 1}" for place in range(TOP) for name in ("label", "score")), "dropped",
)  # fmt: skip
# Frames that wait to be drawn.
_WAITING = 8


class LiveCsv:
    """Rows that are in the file as soon as they are added, so that what a killed program leaves is whole. columns: names of these.

    A context manager. Raises OSError, which names the file, where the disk does not take it, and where another process writes there.
    """

    def __init__(self, path: str | os.PathLike, columns: Sequence[str]) -> None:
        self.path = Path(path)
        ensure_directory(self.path.parent)
        with self._told():
            self._file = open(self.path, "ab", buffering=0)
        self._keep_others_away()
        with self._told():
            # Not before: what another stream writes there is its own.
            if os.fstat(self._file.fileno()).st_size:
                self._file.truncate(0)
        self.write(columns)

    def _keep_others_away(self) -> None:
        """Lock the file until it is closed; a killed process leaves no lock behind."""
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise OSError(f"cannot write '{self.path}': another stream writes there; name another file") from None
        except (ImportError, OSError):
            pass  # a system, or a file system, without locks

    def write(self, row: Sequence[object]) -> None:
        """Write a row, all of it or nothing."""
        text = io.StringIO()
        row_writer(text)([str(word) for word in row])
        with self._told():
            # One call for a row: what it does not take at once, a full disk, leaves half a row, which is taken back.
            place, data = self._file.tell(), text.getvalue().encode("utf-8", "surrogateescape")
            if self._file.write(data) != len(data):
                self._file.truncate(place)
                raise OSError("the disk took less than it was given")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"cannot write '{self.path}' ({error.strerror or error}): free space there, or name another file") from error

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class StreamCsv(LiveCsv):
    """A row for each answer of a stream. path: of the file, which is written anew."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path, COLUMNS)

    def add(self, prediction: StreamPrediction) -> None:
        """Write an answer."""
        best = [(name, f"{value:.6f}") for name, value in prediction.top(TOP)]
        best += [("", "")] * (TOP - len(best))
        times = (f"{value:.3f}" for value in (prediction.wait_ms, prediction.network_ms, prediction.total_ms))
        self.write((
            f"{prediction.start:.3f}", f"{prediction.end:.3f}", str(prediction.configuration), *times, int(prediction.is_met),
            int(prediction.is_first_run), *(word for pair in best for word in pair), prediction.num_dropped,
        ))  # fmt: skip


class SegmentCsv(LiveCsv):
    """A row for each segment of a stream's timeline, as in the table of a scan's events. source: the stream's name, its path there."""

    def __init__(self, path: str | os.PathLike, source: str) -> None:
        super().__init__(path, columns_of(1))
        self._source = source

    def add(self, segment: Segment) -> None:
        """Write a segment that has ended."""
        self.write((as_text(self._source), f"{segment.start:.3f}", f"{segment.end:.3f}", segment.label, f"{segment.confidence:.6f}"))


class AnnotatedVideo:
    """The frames of a stream as an mp4, with the last answer drawn into each; a thread of its own draws and encodes.

    waits: whoever adds a frame waits until there is room; otherwise a frame is left out and counted in `num_left_out`. A
    context manager: the file is there, whole, after the block, however that ends. It raises OSError where it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, waits: bool) -> None:
        self.path, self.num_left_out = Path(path), 0
        self._waits = waits
        self._shown: StreamPrediction | None = None
        self._frames: queue.Queue[tuple[TimedFrame, StreamPrediction | None] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)

    def show(self, prediction: StreamPrediction) -> None:
        """Draw this answer into the frames that are added from now on."""
        self._shown = prediction

    def add(self, frame: TimedFrame) -> None:
        """Take the next frame; from any one thread."""
        if self._error is not None:
            return
        try:
            self._frames.put((frame, self._shown), block=self._waits)
        except queue.Full:
            self.num_left_out += 1

    def _run(self) -> None:
        try:
            self._encode()
        except BaseException as error:  # of any kind: leaving the block raises it
            self._error = error
            while self._frames.get() is not None:
                pass

    def _encode(self) -> None:
        first = self._frames.get()
        if first is None:
            return
        with atomic_write(self.path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            encoder = FrameEncoder(container, 30.0)
            held, shown = first
            while (following := self._frames.get()) is not None:
                encoder.add(_drawn(held.image_HWC, shown), held.second, following[0].second)
                held, shown = following
            encoder.add(_drawn(held.image_HWC, shown), held.second, held.second + 1 / 30)
            encoder.finish()

    def __enter__(self) -> "AnnotatedVideo":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._frames.put(None)
        self._thread.join()
        if self._error is not None and exception[0] is None:
            raise self._error


def _drawn(image_HWC: np.ndarray, prediction: StreamPrediction | None) -> np.ndarray:
    """A frame that is large enough to read texts, with an answer on a dark strip, in a border: red where it came late."""
    if prediction is None:
        return enlarge(image_HWC)
    image_HWC = enlarge(image_HWC).copy()  # a source may keep its frames
    late = "" if prediction.is_met else ", late"
    best = (f"{printable(name)} {100 * value:.0f} %" for name, value in prediction.top(TOP))
    text = "\n".join([f"{prediction.configuration}  {prediction.total_ms:.1f} ms{late}", *best])
    strip = image_HWC[: round((TOP + 2.2) * font_size(*image_HWC.shape[:2]))]
    strip //= 4
    return draw_on_frame(image_HWC, np.array([[0.0, 0.0, 1.0, 1.0]]), [text], ["lime" if prediction.is_met else "red"])
