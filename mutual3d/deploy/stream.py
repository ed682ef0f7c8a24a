"""A long video or a live feed, answered window after window within a deadline."""

import os
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mutual3d.data.clips.transforms import stack_clips
from mutual3d.data.video.forward import TimedFrame
from mutual3d.deploy.controller import DeadlineController
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.live import FrameSource, Paced, open_source
from mutual3d.deploy.predict import frame_transform, window_seconds
from mutual3d.deploy.timeline import THRESHOLD, Segment, TimelineBuilder
from mutual3d.deploy.timing import timed_front
from mutual3d.deploy.windows import Pace, Window, WindowReader, clip_offsets, waiting_windows
from mutual3d.sampling import Cascade, Configuration
from mutual3d.utils.logging import logger
from mutual3d.utils.text import printable

if TYPE_CHECKING:  # whose method `stream` makes these
    from mutual3d.deploy.adaptive_model import AdaptiveModel

WHEN_LATE = ("wait", "drop-oldest")
# A window is answered so many times a second at most.
_MAX_FPS = 1000.0


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is answered; see `AdaptiveModel.stream`. Raises ValueError for a value that cannot be."""

    deadline_ms: float | None = None
    fps: float = 5.0
    window: str | float | None = None
    when_late: str | None = None
    seconds: float | None = None
    configuration: Configuration | str | None = None

    def __post_init__(self) -> None:
        for name, most in (("deadline_ms", float("inf")), ("fps", _MAX_FPS), ("seconds", float("inf"))):
            value = getattr(self, name)
            if (value is not None or name == "fps") and not (_is_number(value) and 0 < value <= most):
                raise ValueError(f"{name} is {value!r:.80}: give a number above 0{f', at most {most:g}' if name == 'fps' else ''}")
        if isinstance(self.configuration, Cascade) or "@" in str(self.configuration):
            raise ValueError(
                f"the configuration is {self.configuration!s:.200}, a cascade, whose time changes from window to window: hold one of its "
                "configurations, or name none, and the deadline chooses"
            )
        if self.when_late is not None and self.when_late not in WHEN_LATE:
            raise ValueError(f"when_late is {self.when_late!r:.80}: choose among {', '.join(WHEN_LATE)}")
        if self.window is not None:
            window_seconds(self.window)

    @property
    def deadline(self) -> float:
        """Milliseconds: those given, or the time until the next answer."""
        return 1000 / self.fps if self.deadline_ms is None else self.deadline_ms


@dataclass(frozen=True)
class StreamPrediction:
    """What a network says of one window of a stream.

    start, end: seconds of the stream at which the first and the last frame of its clip are shown. scores: class probabilities K.
    configuration: where the network ran. wait_ms: from the arrival of the last frame (in a file: from taking it up) to the
    network; network_ms: of stacking the clip and of the network; total_ms: both. is_met: within the deadline. is_first_run: the
    configuration was not made ready before, so that its time says nothing about the next. num_dropped: windows of the stream so
    far that were never answered. class_names: K names; None numbers the classes.
    """

    start: float
    end: float
    scores: torch.Tensor
    configuration: Configuration
    wait_ms: float
    network_ms: float
    deadline_ms: float
    is_first_run: bool = False
    num_dropped: int = 0
    class_names: Sequence[str] | None = None

    @property
    def total_ms(self) -> float:
        """Milliseconds that count against the deadline."""
        return self.wait_ms + self.network_ms

    @property
    def is_met(self) -> bool:
        """Whether it came within the deadline."""
        return self.total_ms <= self.deadline_ms

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """[(name or class number, probability)] of the k best, descending."""
        values, classes = self.scores.topk(min(k, len(self.scores)))
        names = self.class_names or [str(i) for i in range(len(self.scores))]
        return [(names[i], value) for i, value in zip(classes.tolist(), values.tolist())]

    def __repr__(self) -> str:
        best = ", ".join(f"{printable(name)} {100 * value:.1f} %" for name, value in self.top(3))
        met = "" if self.is_met else ", late"
        return f"StreamPrediction({self.start:.2f} to {self.end:.2f} s, {self.configuration}, {self.total_ms:.1f} ms{met}: {best})"


class DeadlineStream:
    """An iterator over the answers to a stream, and a context manager: leaving it ends the thread that decodes.

    All configurations that it may run at are made ready when it is made, and timed where the controller chooses among them.
    Raises what opening the source raises, and ValueError for a model that cannot answer windows. Iterating raises VideoError where
    the source ends otherwise than by its end, after the windows before.

    front: the configurations that the controller moves along, and their times. num_answered, num_met: so far. watch: is shown
    every decoded frame, in the decoding thread, at the size of the source: see `WindowReader`.
    """

    def __init__(
        self,
        model: "AdaptiveModel",
        source: str | os.PathLike | int | FrameSource,
        settings: StreamSettings,
        watch: Callable[[TimedFrame], None] | None = None,
    ) -> None:
        check_gives_classes(model, "a stream")
        if model.network.takes_boxes:
            raise ValueError("this model classifies boxes, and a stream has none: use mutual3d predict --boxes on a file")
        self._model, self._settings = model, settings
        fixed = None if settings.configuration is None else [model.network.space.check(settings.configuration)]
        self._source = _at_its_pace(open_source(source), settings.when_late)
        self._reader = WindowReader(self._source, self._pace(), frame_transform(model.preprocessing), watch)
        try:
            self.front = tuple(timed_front(model, fixed))
        except BaseException:
            self._reader.close()
            raise
        self._ran = {timed.configuration for timed in self.front}
        self._controller = DeadlineController(self.front, settings.deadline)
        self.num_answered = self.num_met = 0
        if self._controller.is_hopeless:
            cheapest = self.front[0]
            what = "it" if fixed else "no configuration meets the deadline on this machine: the cheapest"
            logger.warning(
                "%s, %s, takes %.3g ms and the deadline is %g ms: it runs, and is late; deadlines that can be met are above %.3g ms",
                what, cheapest.configuration, cheapest.quiet_ms, settings.deadline, cheapest.quiet_ms,
            )  # fmt: skip
        self._reader.start()
        # A stream that nobody iterates over any more ends its thread.
        weakref.finalize(self, self._reader.close).atexit = False

    def _pace(self) -> Pace:
        settings, is_live = self._settings, self._source.is_live
        window = None if settings.window is None else window_seconds(settings.window)
        drops = settings.when_late == "drop-oldest" if settings.when_late else is_live
        return Pace(
            settings.fps, clip_offsets(self._model.preprocessing, window), drops, waiting_windows(settings.deadline, settings.fps),
            settings.seconds,
        )  # fmt: skip

    def __iter__(self) -> "DeadlineStream":
        return self

    def __next__(self) -> StreamPrediction:
        window = self._reader.queue.get()
        if window is None:
            raise StopIteration
        return self._answer(window)

    def _answer(self, window: Window) -> StreamPrediction:
        taken = time.perf_counter()
        wait_ms = 1000 * (taken - window.arrival) if self._source.is_live else 0.0
        slack_ms = self._settings.deadline - wait_ms
        configuration = self._controller.choose(slack_ms)
        is_first_run = configuration not in self._ran
        clip_BCTHW = stack_clips([window.frames_T])
        (scores_K,) = self._model(clip_BCTHW.to(next(self._model.parameters()).device), configuration=configuration).cpu()
        network_ms = 1000 * (time.perf_counter() - taken)
        self._controller.observe(configuration, network_ms, slack_ms=slack_ms, is_first_run=is_first_run)
        self._ran.add(configuration)
        prediction = StreamPrediction(
            window.start, window.end, scores_K, configuration, wait_ms, network_ms, self._settings.deadline, is_first_run,
            self.num_dropped, self._model.class_names,
        )  # fmt: skip
        self.num_answered += 1
        self.num_met += prediction.is_met
        return prediction

    def timeline(self, threshold: float = THRESHOLD, background: Collection[str] = ()) -> Iterator[Segment]:
        """The answers joined into segments, each as soon as it has ended. Arguments and errors as of `TimelineBuilder`."""
        builder = self.timeline_builder(threshold, background)
        for prediction in self:
            yield from builder.add(prediction)
        yield from builder.end()

    def timeline_builder(self, threshold: float = THRESHOLD, background: Collection[str] = ()) -> TimelineBuilder:
        """What makes a timeline of the answers for whoever wants these too. Arguments and errors as of `TimelineBuilder`."""
        several, hold = self._model.preprocessing.has_several_labels, 1 / self._settings.fps
        return TimelineBuilder(threshold, background, several=several, hold=hold)

    @property
    def num_dropped(self) -> int:
        """Windows so far that were never answered, as later ones took their place."""
        return self._reader.queue.num_dropped

    @property
    def num_breaks(self) -> int:
        """How often the source broke, and was connected again."""
        return self._source.num_breaks

    @property
    def num_bad(self) -> int:
        """Frames and packets of the source so far that did not decode."""
        return self._source.num_bad

    @property
    def share_met(self) -> float:
        """Of all windows so far, dropped ones too, the share that was answered within the deadline; 1 where there were none."""
        total = self.num_answered + self.num_dropped
        return self.num_met / total if total else 1.0

    @property
    def deadline_ms(self) -> float:
        """Milliseconds that an answer may take."""
        return self._settings.deadline

    def describe(self) -> str:
        """What runs, and in what time, in words."""
        first, last = self.front[0], self.front[-1]
        times = f"{first.configuration} in {first.quiet_ms:.3g} ms"
        if len(self.front) > 1:
            times = f"{len(self.front)} configurations, from {times} to {last.configuration} in {last.quiet_ms:.3g} ms"
        return f"{self._settings.fps:g} answers a second, each within {self.deadline_ms:g} ms, by {times}"

    def close(self) -> None:
        """End the decoding, and let go of the source; iterating then ends."""
        self._reader.close()

    def __enter__(self) -> "DeadlineStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _at_its_pace(source: FrameSource, when_late: str | None) -> FrameSource:
    """A file whose late windows are dropped is played as if it were live: read at once, nearly all would be."""
    return Paced(source) if when_late == "drop-oldest" and not source.is_live else source


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
