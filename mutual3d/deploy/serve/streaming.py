"""A WebSocket stream: frames of a client in, answers out, each within the client's deadline."""

import asyncio
import collections
import contextlib
import json
import queue
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from mutual3d.data.clips.transforms import stack_clips
from mutual3d.data.video.forward import TimedFrame
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.controller import DeadlineController
from mutual3d.deploy.live import FrameSource
from mutual3d.deploy.scan import Events
from mutual3d.deploy.serve.answers import StreamAnswer, StreamEnd
from mutual3d.deploy.serve.batching import Overloaded, Request
from mutual3d.deploy.serve.front import Choice
from mutual3d.deploy.serve.readers import Frame
from mutual3d.deploy.serve.service import Service
from mutual3d.deploy.serve.timelines import Scored, segment_answers
from mutual3d.deploy.timeline import THRESHOLD, TimelineBuilder, check_background
from mutual3d.deploy.windows import Pace, Window, WindowReader, clip_offsets, waiting_windows

# The most bytes of a message: an RGB image of 1920 x 1080 has 6.2 MB.
MAX_MESSAGE = 8_000_000
# Characters of a text before a frame: longer ones would be taken apart in the thread that answers everybody.
_LONGEST_HEADER = 300
# Frames that wait to be decoded; the oldest make room.
_MOST_FRAMES = 4
# Frames that are decoded and wait to be put into windows.
_MOST_DECODED = 64
# Seconds without a message after which a stream ends.
_SILENCE = 30.0
# Codes by which a WebSocket is closed: the client broke the rules; try again later.
REFUSED, TRY_AGAIN = 1008, 1013


class _Received(NamedTuple):
    """A frame as it came. second: of the client's clock; None where it tells none."""

    frame: Frame
    second: float | None
    arrival: float


class SocketSource(FrameSource):
    """Frames that a client sends, as a live source. They are what the network sees of each already, uint8 S, S, 3."""

    name, is_live = "stream", True

    def __init__(self) -> None:
        self._frames: queue.Queue[TimedFrame | None] = queue.Queue(_MOST_DECODED)
        self._last = 0.0

    def put(self, frame: TimedFrame) -> None:
        """Take the next frame; one whose second is before the last one's is shown with it. Of too many the oldest is lost."""
        self._last = max(self._last, frame.second)
        self._put(frame._replace(second=self._last))

    def _put(self, item: TimedFrame | None) -> None:
        while True:
            with contextlib.suppress(queue.Full):
                self._frames.put_nowait(item)
                return
            with contextlib.suppress(queue.Empty):
                self._frames.get_nowait()

    def frames(self) -> Iterator[TimedFrame]:
        while (frame := self._frames.get()) is not None:
            yield frame

    def close(self) -> None:
        self._put(None)


class ClientStream:
    """One client: `run` answers until it goes. deadline_ms: from a window's last frame to its answer. fps: answers a second.

    choice: what its budget allows; the controller of its deadline moves along the ladder. top: the classes to tell. events: how answers are
    joined into a timeline; None where none is asked for.
    """

    def __init__(
        self, service: Service, socket: WebSocket, choice: Choice, *, deadline_ms: float, fps: float, top: int, events: Events | None = None
    ) -> None:
        self._service, self._socket, self._ladder, self._deadline_ms, self._top = service, socket, choice.ladder, deadline_ms, top
        self._controller = DeadlineController(choice.ladder, deadline_ms)
        self._source = SocketSource()
        pace = Pace(fps, clip_offsets(service.model.preprocessing), drops=True, waiting=waiting_windows(deadline_ms, fps))
        self._reader = WindowReader(self._source, pace, torch.from_numpy)
        self._received: collections.deque[_Received] = collections.deque(maxlen=_MOST_FRAMES)
        self._has_received = asyncio.Event()
        self._num_refused = 0
        self._has_end = False
        self._timeline: TimelineBuilder | None = None
        if events is not None:
            several = service.model.preprocessing.has_several_labels
            self._timeline = TimelineBuilder(events.threshold, events.background, several=several, hold=1 / fps)

    async def run(self) -> None:
        """Answer until the client goes, or is silent for too long."""
        self._reader.start()
        tasks = [asyncio.create_task(each) for each in (self._receive(), self._decode(), self._answer())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if done == {tasks[1]} and tasks[1].exception() is None:  # all frames are decoded, which may still be answered
                done |= (await asyncio.wait([tasks[0], tasks[2]], return_when=asyncio.FIRST_COMPLETED))[0]
            for task in done:
                task.result()
        except WebSocketDisconnect:
            pass  # it has gone
        finally:
            for task in tasks:
                task.cancel()
            self._source.close()
            self._reader.queue.end(keep=False)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        """Messages become frames; what is behind is lost rather than late."""
        size, second = None, None
        while True:
            try:
                message = await asyncio.wait_for(self._socket.receive(), _SILENCE)
            except asyncio.TimeoutError:
                await self._refuse(f"no frame came for {_SILENCE:g} s", 1000)
                return
            if message["type"] == "websocket.disconnect":
                return
            arrival = time.perf_counter()
            if message.get("bytes") is not None:
                self._received.append(_Received(Frame(message["bytes"], size), second, arrival))
                self._has_received.set()
                size = second = None
                continue
            text = message.get("text") or ""
            if _is_end(text):
                self._has_end = True
                self._has_received.set()
                continue
            try:
                size, second = _read_header(text)
            except ValueError as error:
                await self._refuse(str(error), REFUSED)
                return

    async def _refuse(self, sentence: str, code: int) -> None:
        await self._socket.send_json({"detail": sentence})
        await self._socket.close(code)

    async def _decode(self) -> None:
        first = None
        while True:
            await self._has_received.wait()
            self._has_received.clear()
            while self._received:
                received = self._received.popleft()
                try:
                    image = await self._service.frame_readers.read(received.frame)
                except VideoError as error:
                    await self._socket.send_json({"detail": f"cannot read the frame: {error.cause}"})
                    continue
                assert isinstance(image, torch.Tensor), "of a frame"
                first = received.arrival if first is None else first
                second = received.arrival - first if received.second is None else received.second
                self._source.put(TimedFrame(second, image.numpy(), received.arrival))
            if self._has_end:
                self._source.close()
                return

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while (window := await loop.run_in_executor(self._service.stream_threads, self._reader.queue.get)) is not None:
            answer = await self._answer_window(window)
            if answer is not None:
                await self._socket.send_text(answer.model_dump_json())
        ended = [] if self._timeline is None else self._timeline.end()
        await self._socket.send_text(StreamEnd(ended=segment_answers(ended)).model_dump_json())
        await self._socket.close(1000)

    async def _answer_window(self, window: Window) -> StreamAnswer | None:
        """The answer to a window; None where the service is too busy for one in time."""
        taken = time.perf_counter()
        slack_ms = self._deadline_ms - 1000 * (taken - window.arrival)
        chosen = self._controller.choose(slack_ms)
        places = [timed.configuration for timed in self._ladder]
        ladder = self._ladder[: places.index(chosen) + 1]
        request = Request(stack_clips([window.frames_T]), ladder, window.arrival + self._deadline_ms / 1000)
        try:
            found = await asyncio.wrap_future(self._service.batcher.submit(request))
        except Overloaded:
            self._num_refused += 1
            self._controller.observe(ladder[0].configuration, 1.01 * self._deadline_ms, slack_ms=slack_ms)
            return None
        end = time.perf_counter()
        self._controller.observe(found.timed.configuration, 1000 * (end - taken), slack_ms=slack_ms)
        total_ms = 1000 * (end - window.arrival)
        scored = Scored(window.start, window.end, found.scores_K, self._service.model.class_names)
        ended = [] if self._timeline is None else self._timeline.add(scored)
        return StreamAnswer(
            start=window.start, end=window.end, top=self._service.best(found.scores_K, self._top), row=self._service.row_answer(found.timed),
            wait_ms=total_ms - found.network_ms, network_ms=found.network_ms, deadline_ms=self._deadline_ms,
            met=total_ms <= self._deadline_ms, dropped=self._reader.queue.num_dropped + self._num_refused,
            ended=segment_answers(ended),
        )  # fmt: skip


def events_of_stream(service: Service, events: bool, threshold: float | None, background: Sequence[str] | None) -> Events | None:
    """How the answers of a stream are joined, as a client asks for it; None where it asks for none.

    threshold, background: as of `Events`; None where they are not named. Raises ValueError for a background of unknown classes, and for
    either without `events`.
    """
    if not events:
        if threshold is not None or background:
            raise ValueError("threshold and background are of events, joined answers: ask for events=true")
        return None
    found = Events(THRESHOLD if threshold is None else threshold, tuple(background or ()))
    if service.model.class_names is not None:
        check_background(found.background, service.model.class_names)
    return found


def _is_end(text: str) -> bool:
    """Whether a client says that no frame follows."""
    if len(text) > _LONGEST_HEADER:
        return False
    try:
        return bool(json.loads(text) == {"end": True})
    except (ValueError, RecursionError):
        return False


def _read_header(text: str) -> tuple[tuple[int, int] | None, float | None]:
    """The size of a raw image and the second of a frame, each where a header tells it. ValueError for anything else."""
    try:
        if len(text) > _LONGEST_HEADER:
            raise ValueError
        header = json.loads(text)
        known = {name: header.pop(name, None) for name in ("width", "height", "second")}
    except (ValueError, AttributeError, RecursionError):
        header = known = None
    if known is not None and not header:
        sides, second = [known["width"], known["height"]], known["second"]
        is_size = all(type(side) is int and 0 < side <= MAX_MESSAGE for side in sides) or sides == [None, None]
        is_second = second is None or (type(second) in (int, float) and 0 <= second < 1e9)
        if is_size and is_second:
            return (None if sides[0] is None else (sides[0], sides[1])), second
    raise ValueError(
        'a header is a text such as {"second": 1.2} before a JPEG or PNG image, or {"width": 320, "height": 240, "second": 1.2} '
        f"before raw RGB, or {{\"end\": true}} after the last one; this has {len(text)} characters: {text[:80]!r}"
    )
