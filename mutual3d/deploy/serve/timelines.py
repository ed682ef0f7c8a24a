"""A timeline of an upload: its windows are read some at a time, computed together within a deadline, and joined as they come."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch

from mutual3d.deploy.predict import Part, window_seconds
from mutual3d.deploy.scan import Events
from mutual3d.deploy.serve.answers import SegmentAnswer, TimelineAnswer
from mutual3d.deploy.serve.batching import Answered, Request
from mutual3d.deploy.serve.front import Choice
from mutual3d.deploy.serve.readers import ReadWindows, Windows
from mutual3d.deploy.serve.service import Service
from mutual3d.deploy.timeline import Segment, TimelineBuilder, check_background
from mutual3d.utils.text import printable

# Of one upload: ten minutes by thirds of a second.
_MOST_WINDOWS = 2000


@dataclass(frozen=True)
class TimelineRequest:
    """Which timeline is asked for. window, step: as of `Reading`, in words (`2s`) or seconds. events: how windows are joined."""

    window: str
    step: str | None = None
    events: Events = Events()


class Scored(NamedTuple):
    """A `ScoredWindow`."""

    start: float | None
    end: float | None
    scores: torch.Tensor
    class_names: Sequence[str] | None


async def answer_timeline(
    service: Service, file: BinaryIO, choice: Choice, wanted: TimelineRequest, *, deadline_ms: float | None
) -> TimelineAnswer:
    """The timeline of an upload: windows that say the same are joined, as those of `mutual3d scan --events`.

    Each batch of windows gets its share of the time that is left, so that the configurations go down the ladder as they do for single
    clips. The next windows are read meanwhile. file, choice, deadline_ms: as of `Service.predict`, which this raises as; ValueError also
    for windows that cannot be, a background of unknown classes, and more windows than are taken or than the deadline leaves time for.
    """
    begin = time.perf_counter()
    deadline_ms = service.settings.deadline_ms if deadline_ms is None else deadline_ms
    end = begin + deadline_ms / 1000
    model, events = service.model, wanted.events
    length, step = window_seconds(wanted.window), None if wanted.step is None else window_seconds(wanted.step)
    if model.class_names is not None:
        check_background(events.background, model.class_names)
    builder = TimelineBuilder(events.threshold, events.background, several=model.preprocessing.has_several_labels)
    segments: list[Segment] = []
    ran, num_done = Counter[str](), 0
    async with service.copied(file) as path:
        service.check_in_time(end, choice)
        reading: asyncio.Task[ReadWindows] | None = _read(service, path, choice, Windows(length, step))
        try:
            while reading is not None:
                found = await reading
                left = found.num_windows - num_done
                _check_time(service, choice, found, left, end - time.perf_counter())
                num_done += len(found.parts)
                reading = _read(service, path, choice, Windows(length, step, num_done)) if num_done < found.num_windows else None
                now = time.perf_counter()
                answers = await _compute(service, found.parts, choice, now + (end - now) * len(found.parts) / left)
                for part, answer in zip(found.parts, answers):
                    service.check_scores(answer.scores_K)
                    ran[str(answer.timed.configuration)] += 1
                    segments += builder.add(Scored(part.start, part.end, answer.scores_K, model.class_names))
        finally:
            if reading is not None:
                reading.cancel()
    segments += builder.end()
    total_ms = 1000 * (time.perf_counter() - begin)
    service.measures.seconds.labels("total").observe(total_ms / 1000)
    asked = str(choice.row.configuration)
    return TimelineAnswer(
        segments=segment_answers(sorted(segments)),
        windows=num_done, ran=dict(ran), asked=asked, lowered=set(ran) != {asked}, duration=found.duration, total_ms=total_ms,
        deadline_ms=deadline_ms, met=total_ms <= deadline_ms,
    )  # fmt: skip


def segment_answers(segments: Iterable[Segment]) -> list[SegmentAnswer]:
    """Segments, to be told."""
    return [SegmentAnswer(start=s.start, end=s.end, label=printable(s.label), confidence=s.confidence) for s in segments]


def _read(service: Service, path: Path, choice: Choice, windows: Windows) -> "asyncio.Task[ReadWindows]":
    return asyncio.create_task(service.read_windows(path, choice, windows))


def _check_time(service: Service, choice: Choice, found: ReadWindows, left: int, seconds: float) -> None:
    """ValueError where so many windows are not taken, or the `left` ones take longer than the seconds that are left."""
    fix = "give longer windows, a longer step, or a part of the video"
    if found.num_windows > _MOST_WINDOWS:
        raise ValueError(f"the upload has {found.num_windows} windows, and at most {_MOST_WINDOWS} are taken: {fix}")
    needed = service.batcher.seconds_of(choice.ladder[0], left)
    if needed > seconds:
        raise ValueError(
            f"{left} of {found.num_windows} windows are left, which take about {needed:.2g} s at {choice.ladder[0].configuration}, and of the deadline "
            f"{max(seconds, 0.0):.2g} s are: give a longer deadline_ms, or {fix}"
        )


async def _compute(service: Service, parts: Sequence[Part], choice: Choice, deadline: float) -> list[Answered]:
    """The answers to windows, which are computed together where they may. Raises Overloaded, after which none of them is computed."""
    waiting: list[asyncio.Future[Answered]] = []
    try:
        for part in parts:
            waiting.append(asyncio.wrap_future(service.batcher.submit(Request(part.clips.clips_VCTHW, choice.ladder, deadline))))
        return await asyncio.gather(*waiting)
    finally:
        for future in waiting:
            future.cancel()
