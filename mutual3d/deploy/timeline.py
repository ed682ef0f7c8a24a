"""A timeline: what windows of a video say, joined into segments with a start, an end, a class and a confidence."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import torch

from mutual3d.utils.text import printable

# Clocks round to thousandths of a second: what begins so soon after another ended follows it without a gap.
_ROUNDING = 2e-3
# Classes that a message names.
_MOST_TOLD = 50
# The probability from which on a class is taken to be there.
THRESHOLD = 0.5


class ScoredWindow(Protocol):
    """What a timeline is made of: a `Prediction` of a window, or a `StreamPrediction`. Seconds, and probabilities K."""

    @property
    def start(self) -> float | None:
        """Second at which the window begins."""

    @property
    def end(self) -> float | None:
        """Second at which it ends."""

    @property
    def scores(self) -> torch.Tensor:
        """Probabilities K."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """K names; None numbers the classes."""


class Segment(NamedTuple):
    """A stretch of a video in which one class is seen: seconds on the reader's clock, from `start` up to `end`.

    confidence: the mean probability of the class, over time.
    """

    start: float
    end: float
    label: str
    confidence: float

    def describe(self) -> str:
        """`2.00 to 4.50 s: walk 81.2 %`."""
        return f"{self.start:.2f} to {self.end:.2f} s: {printable(self.label)} {100 * self.confidence:.1f} %"


class _Open(NamedTuple):
    """A segment that may go on: where it began, and the integral of the probability over time up to now."""

    begin: float
    weight: float


def check_background(background: Collection[str], class_names: Sequence[str], owner: str = "this network") -> None:
    """Raise ValueError, which names the classes there are, where one of the background is none of them. owner: what has the classes."""
    for name in sorted({*background} - {*class_names}):
        known = ", ".join(map(printable, class_names[:_MOST_TOLD])) + (", ..." if len(class_names) > _MOST_TOLD else "")
        raise ValueError(f"the background has '{printable(name)}', which is no class of {owner}: choose among {known}")


class TimelineBuilder:
    """Joins the windows of one video, which come in ascending order, into segments, as soon as each has ended.

    Of windows that overlap, each speaks for the time up to the middle of what it shares with the next one. Neighbours that say
    the same are one segment. Raises ValueError for a threshold that is no probability, and `add` for a background of unknown classes.

    Args:
        threshold: the probability from which on a class is there.
        background: classes that are no segment.
        several: several classes may be there at once: each has segments of its own. Otherwise the most probable one alone.
        hold: seconds for which a window that is a single frame, and has no length of its own, speaks: those up to it, from the first window on.
    """

    def __init__(self, threshold: float = THRESHOLD, background: Collection[str] = (), *, several: bool = False, hold: float = 0.0) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold {threshold!r} is no probability: give a number from 0 to 1")
        self._threshold, self._background, self._several = threshold, frozenset(background), several
        self._hold = hold
        self._open: dict[str, _Open] = {}
        # The last window: where its own time begins, where it ends, and what is there in it.
        self._last: tuple[float, float, dict[str, float]] | None = None

    def add(self, window: ScoredWindow) -> list[Segment]:
        """The segments that are known to have ended, now that this window is known. ValueError for one without seconds."""
        start, end = window.start, window.end
        if start is None or end is None:
            raise ValueError("a timeline is made of windows, and this is a prediction of a video as a whole: predict with a window")
        if self._last is None:
            check_background(self._background, window.class_names or [str(k) for k in range(len(window.scores))])
            self._last = start, end, self._classes(window)
            return []
        begin, last_end, _ = self._last
        if start == end:
            start = max(end - self._hold, last_end)
        until = max((start + last_end) / 2 if start < last_end else last_end, begin)
        finished = self._close_last(until)
        if start - last_end > _ROUNDING:
            finished += self._end_all(last_end)
            until = start
        self._last = until, end, self._classes(window)
        return finished

    def end(self) -> list[Segment]:
        """The segments that last until the last window's end; another video may follow."""
        if self._last is None:
            return []
        last_end = self._last[1]
        finished = self._close_last(last_end) + self._end_all(last_end)
        self._last = None
        return finished

    def _classes(self, window: ScoredWindow) -> dict[str, float]:
        """{class that is there: its probability}."""
        scores, names = window.scores, window.class_names
        found = (scores >= self._threshold).nonzero().flatten().tolist() if self._several else [int(scores.argmax())]
        named = {str(k) if names is None else names[k]: float(scores[k]) for k in found}
        return {name: value for name, value in named.items() if value >= self._threshold and name not in self._background}

    def _close_last(self, until: float) -> list[Segment]:
        """The last window's own time ends: what is there in it goes on, and everything else has ended where it began."""
        assert self._last is not None, "there is a last window"
        begin, _, classes = self._last
        finished = self._end_all(begin, keep=classes)
        for name, value in classes.items():
            start, weight = self._open.get(name, _Open(begin, 0.0))
            self._open[name] = _Open(start, weight + value * (until - begin))
        return finished

    def _end_all(self, second: float, keep: Collection[str] = ()) -> list[Segment]:
        ended = {name: self._open.pop(name) for name in list(self._open) if name not in keep}
        found = [
            Segment(start, second, name, weight / (second - start)) for name, (start, weight) in ended.items() if second > start
        ]
        return sorted(found)


def join_windows(
    windows: Iterable[ScoredWindow], threshold: float = THRESHOLD, background: Collection[str] = (), *, several: bool = False
) -> list[Segment]:
    """The timeline of one video, by start. windows: of the video, in ascending order.

    threshold, background, several: as of `TimelineBuilder`, whose errors it raises.
    """
    builder = TimelineBuilder(threshold, background, several=several)
    found = [segment for window in windows for segment in builder.add(window)]
    return sorted(found + builder.end())
