"""From frames to the windows that a stream is answered by: cut once, shared by all windows that show them, in bounded memory."""

import collections
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from mutual3d.data.video.forward import TimedFrame
from mutual3d.data.video.reader import nearest
from mutual3d.deploy.live import FrameSource
from mutual3d.sampling import Preprocessing

# Seconds without a frame after which windows begin anew.
_LONGEST_GAP = 10.0
# The most frames a second that are kept for windows: a damaged clock that stands still would fill the memory.
_MOST_FPS = 480
# Clocks round to thousandths of a second: so much earlier a frame counts as the one that a window ends with.
_ROUNDING = 1e-3
# The most windows that wait for an answer.
_MOST_WAITING = 16
# Seconds that the decoding thread is waited for when a stream is closed: it may be waiting for a feed.
_PATIENCE = 10.0


class Window(NamedTuple):
    """What is to be answered: seconds `start` to `end` of the stream, and the frames of a clip, uint8 S, S, 3 each, which
    other windows share. arrival: of its last frame, in seconds of `time.perf_counter`.
    """

    start: float
    end: float
    frames_T: tuple[torch.Tensor, ...]
    arrival: float


@dataclass(frozen=True)
class Pace:
    """Which windows a stream has. fps: answers a second of its time. offsets: the seconds of a clip's frames, ascending to 0,
    which is the window's end. drops: windows that nobody is ready for make room for later ones; otherwise decoding waits.
    waiting: windows that may wait. limit: seconds of the stream after which it ends; None: with its source.
    """

    fps: float
    offsets: tuple[float, ...]
    drops: bool
    waiting: int = 1
    limit: float | None = None

    @property
    def length(self) -> float:
        """Seconds from a window's first frame to its last."""
        return -self.offsets[0]


def clip_offsets(preprocessing: Preprocessing, window: float | None = None) -> tuple[float, ...]:
    """The seconds of a clip's frames before the window's end, at the network's own pace, or spread over `window` seconds."""
    count = preprocessing.num_frames
    span = count * preprocessing.sampling_rate / preprocessing.target_fps if window is None else window
    # A clip's last frame is the last one of its span, which then lasts for one frame more.
    length = max(span - 1 / preprocessing.target_fps, 0.0) if count > 1 else 0.0
    return tuple(np.linspace(-length, 0.0, count).tolist())


def waiting_windows(deadline_ms: float, fps: float) -> int:
    """How many windows may wait in a live stream: those that a deadline leaves time for."""
    return max(1, min(math.ceil(deadline_ms / 1000 * fps), _MOST_WAITING))


class FrameRing:
    """The frames that windows to come need, by their seconds; those before are let go."""

    def __init__(self, offsets: tuple[float, ...]) -> None:
        self._offsets = np.array(offsets)
        self._frames: collections.deque[tuple[float, torch.Tensor]] = collections.deque(
            maxlen=math.ceil(-offsets[0] * _MOST_FPS) + 2
        )

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, second: float, frame: torch.Tensor) -> None:
        """Take the next frame, whose second is not before the last one's."""
        self._frames.append((second, frame))

    def clip_at(self, end: float) -> tuple[torch.Tensor, ...]:
        """The frames nearest to each of the offsets from second `end`; where there is none so early, the first."""
        times = np.array([second for second, _ in self._frames])
        return tuple(self._frames[place][1] for place in nearest(times, end + self._offsets))

    def forget_before(self, second: float) -> None:
        """Let go of what no clip that begins at `second` or later shows."""
        while len(self._frames) > 1 and self._frames[1][0] <= second:
            self._frames.popleft()

    def clear(self) -> None:
        """Let go of all."""
        self._frames.clear()


class WindowQueue:
    """Windows that wait for their answer, at most `size`. Where it `drops`, a new one takes the oldest one's place; otherwise
    whoever puts it waits. `num_dropped`: so far.
    """

    def __init__(self, size: int, drops: bool) -> None:
        self.num_dropped = 0
        self._size, self._drops = size, drops
        self._waiting: collections.deque[Window] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = self._is_taken = False
        self._error: BaseException | None = None

    def put(self, window: Window) -> None:
        """Add a window; without effect where the queue is closed."""
        with self._changed:
            if self._drops and len(self._waiting) == self._size:
                self._waiting.popleft()
                self.num_dropped += 1
            self._changed.wait_for(lambda: self._is_closed or len(self._waiting) < self._size)
            if not self._is_closed:
                self._waiting.append(window)
                self._changed.notify_all()

    def get(self) -> Window | None:
        """The oldest window, waited for; None at the end. The one taken before is thereby answered. Raises what ended it."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_closed or self._waiting)
            if self._waiting:
                self._is_taken = True
                self._changed.notify_all()
                return self._waiting.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return None

    def wait_until_answered(self) -> None:
        """Return when no window waits, and the last one was answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not (self._waiting or self._is_taken))

    def end(self, error: BaseException | None = None, *, keep: bool = True) -> None:
        """No window follows; after those that wait `get` raises `error`, or gives None. keep: whether they are answered."""
        with self._changed:
            self._is_closed, self._error = True, self._error or error
            if not keep:
                self._waiting.clear()
            self._changed.notify_all()


class WindowReader:
    """Decodes a source in a thread of its own, from `start` to `close`, and puts the windows of `pace` into `queue`.

    cut: makes of a frame uint8 H, W, 3 what the network sees of it, uint8 S, S, 3. watch: is shown every frame; where no
    windows are dropped, when those that end with the frame or before it have been answered.
    """

    def __init__(
        self,
        source: FrameSource,
        pace: Pace,
        cut: Callable[[np.ndarray], torch.Tensor],
        watch: Callable[[TimedFrame], None] | None = None,
    ) -> None:
        self.queue = WindowQueue(pace.waiting, pace.drops)
        self._source, self._pace, self._cut, self._watch = source, pace, cut, watch
        self._ring = FrameRing(pace.offsets)
        # The first frame since windows began anew, and the end of the first window of these.
        self._begin = self._first_end = 0.0
        self._position = 0
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    def start(self) -> None:
        """Begin to decode."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and let go of the source."""
        self._source.close()
        self.queue.end(keep=False)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # of any kind: the thread that waits for windows raises it
            self.queue.end(error)
        else:
            self.queue.end()

    def _read(self) -> None:
        first = last = None
        arrival, num_windows = 0.0, 0
        for frame in self._source.frames():
            first = frame.second if first is None else first
            if self._pace.limit is not None and frame.second - first > self._pace.limit:
                break
            if last is None or frame.is_cut or frame.second - last > _LONGEST_GAP:
                self._ring.clear()
                self._begin, self._first_end, self._position = frame.second, frame.second + self._pace.length, 0
            last, arrival = frame.second, frame.arrival
            self._ring.add(frame.second, self._cut(frame.image_HWC))
            num_windows += self._put_windows(frame)
            if self._watch is not None:
                if not self._pace.drops:
                    self.queue.wait_until_answered()
                self._watch(frame)
        # What is shorter than a window is answered once, its first frame repeated.
        if last is not None and not num_windows:
            self._put(last, arrival)

    def _put_windows(self, frame: TimedFrame) -> int:
        """Put the windows that end with a frame; of several a queue that drops gets the last. How many there were."""
        ends = []
        while frame.second >= self._next_end - _ROUNDING:
            ends.append(self._next_end)
            self._position += 1
        for end in ends[-1:] if self._pace.drops else ends:
            self._put(end, frame.arrival)
        self._ring.forget_before(self._next_end - self._pace.length - _ROUNDING)
        return len(ends)

    @property
    def _next_end(self) -> float:
        return self._first_end + self._position / self._pace.fps

    def _put(self, end: float, arrival: float) -> None:
        self.queue.put(Window(max(end - self._pace.length, self._begin), end, self._ring.clip_at(end), arrival))
