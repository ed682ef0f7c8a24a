"""Archives: what a network sees in any number of videos, by worker processes that each decode and compute, and may die.

One function stands under scans of one machine, of arrays of jobs and of Ray: `Scanner.scan_shard(paths) -> ShardTable`.
"""

import functools
import os
import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.video.reader import VideoError
from mutual3d.data.workers.pool import Settings, WorkerPool
from mutual3d.data.workers.process import Job, begin_to_fork, show_life
from mutual3d.deploy.cascade import run_cascade
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.predict import Part, Reading, read_parts, score_parts
from mutual3d.deploy.prediction import Prediction
from mutual3d.deploy.timeline import THRESHOLD, Segment, TimelineBuilder, check_background
from mutual3d.deploy.used_frames import used_by_all
from mutual3d.utils.logging import progress_bar

if TYPE_CHECKING:  # whose method `scan` is what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# Videos of a part, which a worker scans at a time: so many are done again where it dies.
_MOST_VIDEOS, _MOST_PARTS = 1024, 2000
_USUAL_VIDEOS = 64
# What a worker imports to load a model.
BUNDLE_MODULE = "mutual3d.deploy.adaptive_model"


@dataclass(frozen=True)
class ScanRow:
    """A row of a scan's table: what a network says of a video, of one window of it, or of a segment of its timeline.

    path: the file. start, end: seconds on the reader's clock; None for a video as a whole, and for a still. labels,
    confidences: the best classes and their probabilities, descending; of a segment its one class and its mean probability.
    """

    path: str
    start: float | None
    end: float | None
    labels: tuple[str, ...]
    confidences: tuple[float, ...]

    @property
    def label(self) -> str:
        """The best class."""
        return self.labels[0]

    @property
    def confidence(self) -> float:
        """The probability of the best class; of a segment its mean over time."""
        return self.confidences[0]


@dataclass
class ShardTable:
    """What scanning some videos gave: rows in the order of the videos, and what could not be read.

    num_videos: that were looked at, bad ones too. counts: of a cascade, the clips that ran at each of its configurations.
    """

    rows: list[ScanRow] = field(default_factory=list)
    bad: list[VideoError] = field(default_factory=list)
    num_videos: int = 0
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Events:
    """That windows are joined into segments. threshold, background: as of `TimelineBuilder`."""

    threshold: float = THRESHOLD
    background: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanSettings:
    """How videos are scanned. reading: how a file becomes clips, and how it is decoded. top: classes of a row. batch: clips of any
    videos that the network computes together. events: a row for each segment of the timeline instead of each window.

    Raises ValueError for events without a window, and for counts under 1.
    """

    reading: Reading = Reading()
    top: int = 5
    batch: int = 16
    events: Events | None = None

    def __post_init__(self) -> None:
        for name, value in (("top", self.top), ("batch", self.batch), ("views", self.reading.num_views)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}: give a whole number, 1 or more")
        if self.reading.window is None and (self.reading.step is not None or self.events is not None):
            what = "events are joined windows" if self.events is not None else f"step is {self.reading.step!r}, from window to window"
            raise ValueError(f"{what}: give a window too, such as '2s'")


def parts_of(paths: Sequence[str]) -> list[Sequence[str]]:
    """The paths in parts that a worker scans at a time, each kept as a whole: 64 videos, more where there are very many."""
    size = min(max(_USUAL_VIDEOS, len(paths) // _MOST_PARTS), _MOST_VIDEOS)
    return [paths[first : first + size] for first in range(0, len(paths), size)]


def usable_cores() -> int:
    """The processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Scanner:
    """A model that scans shards of an archive at what is active, in `workers` processes that each load it once.

    It pickles, without its processes, and is then a network's weights and some settings: that is what goes to other machines.
    Where workers is 0, this process decodes and computes, and a video that crashes its decoder ends it. Raises ValueError for a
    model that classifies boxes, and for events whose background is none of its classes.
    """

    def __init__(self, model: "AdaptiveModel", settings: ScanSettings = ScanSettings(), *, workers: int = 1) -> None:
        check_gives_classes(model, "a scan")
        if model.network.takes_boxes:
            raise ValueError("this model classifies boxes in a video: use mutual3d.deploy.predict_boxes, or mutual3d predict --boxes")
        if settings.events is not None and model.class_names is not None:
            check_background(settings.events.background, model.class_names)
        if model.runtime is not None:
            # Once, for all workers, which find it on disk.
            model.prepare(model.stages, progress=False)
        # Pickled here and once: the model may change while videos are scanned, and every worker is to have the same.
        self._model = pickle.dumps(model)
        self._settings, self.workers = settings, workers
        self._pool: WorkerPool | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pool": None}

    def scan_shard(self, paths: Sequence[str]) -> ShardTable:
        """The table of some videos, in their order. The same videos give the same table, whatever was scanned before."""
        return next(iter(self.scan_in_order([paths])))

    def scan_in_order(self, shards: Iterable[Sequence[str]]) -> Iterator[ShardTable]:
        """`scan_shard` of each shard, in their order, in all workers at once."""
        return self._workers().map(shards)

    def scan_as_ready(self, shards: Iterable[Sequence[str]]) -> Iterator[tuple[int, ShardTable]]:
        """(number from 0, `scan_shard`) of each shard as it is finished."""
        return self._workers().map_as_ready(shards)

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _workers(self) -> WorkerPool:
        if self._pool is None:
            if self.workers:
                begin_to_fork(BUNDLE_MODULE)
            make = functools.partial(_ScanJob, self._model, self._settings)
            decoding = self._settings.reading.decoding
            told = Settings(decoding.timeout_option, "the number of workers (--workers)", " or the batch (--batch)")
            job, made = (_Archive(), make) if self.workers else (make(), None)
            self._pool = WorkerPool(job, self.workers, timeout=decoding.timeout, settings=told, make=made)
        return self._pool


class _Archive(Job):
    """What a file of an archive is called, and what stands for one that cannot be read."""

    def read(self, key: str) -> "_Seen | VideoError":
        raise AssertionError("workers read")

    def join(self, items: list) -> ShardTable:
        raise AssertionError("workers join")

    def name(self, key: str) -> str:
        return key

    def lost(self, key: str, cause: str) -> VideoError:
        return VideoError(key, cause)


class _Waiting(NamedTuple):
    """A part of a video that is decoded and not computed yet."""

    seen: "_Seen"
    part: Part


class _ScanJob(_Archive):
    """Decodes the videos of a shard, and computes their clips together as soon as they fill a batch."""

    def __init__(self, model: bytes, settings: ScanSettings) -> None:
        self._model: AdaptiveModel = pickle.loads(model)
        self._model.eval()
        self._settings = settings
        stages = self._model.stages
        self._how = settings.reading._replace(
            used=tuple(used_by_all(self._model.network, stages)), chunk=settings.batch
        )
        if self._model.runtime is not None:
            self._model.prepare(stages, progress=False)
        self._begin()

    def _begin(self) -> None:
        """What one shard leaves changes nothing in the next: a scan that was killed goes on with other shards."""
        self._waiting: list[_Waiting] = []
        self._num_clips = 0
        self._failure: Exception | None = None
        self._spending = None if self._model.spending is None else self._model.spending.anew()

    def read(self, key: str) -> "_Seen | VideoError":
        """The video's rows, which are there when its last clips were computed."""
        model, seen = self._model, _Seen(key, self._settings, several=self._model.preprocessing.has_several_labels)
        found = read_parts(Path(key), model.preprocessing, self._how)
        while self._failure is None:
            try:
                parts, _ = next(found)
            except StopIteration:
                break
            except VideoError as error:
                seen.error = error
                break
            except Exception as error:
                seen.error = VideoError(key, describe_failure(error))
                break
            self._waiting += [_Waiting(seen, part) for part in parts]
            self._num_clips += sum(len(part.clips.clips_VCTHW) for part in parts)
            if self._num_clips >= self._settings.batch:
                self._compute()
            show_life()
        found.close()
        return seen

    def join(self, items: list) -> ShardTable:
        self._compute()
        failure, spending = self._failure, self._spending
        self._begin()
        if failure is not None:
            raise failure
        table = ShardTable(num_videos=len(items), counts=[] if spending is None else spending.counts)
        for item in items:
            if isinstance(item, VideoError):
                table.bad.append(item)
                continue
            table.rows += item.finished()
            table.bad += [] if item.error is None else [item.error]
        return table

    def _compute(self) -> None:
        """The rows of all that waits. What the network fails at is no video's fault: it ends the shard."""
        waiting, self._waiting, self._num_clips = self._waiting, [], 0
        if not waiting or self._failure is not None:
            return
        try:
            parts = [(each.seen.path, each.part, 0.0) for each in waiting]
            for each, prediction in zip(waiting, score_parts(self._model, parts, self._settings.batch, self._run)):
                each.seen.add(prediction)
        except Exception as error:
            self._failure = error

    def _run(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        if self._spending is not None:
            return run_cascade(self._model, clip_BCTHW, self._spending.cascade, self._spending)
        return self._model(clip_BCTHW, configuration=self._model.active)


class _Seen:
    """The rows of one video so far, and what is wrong with it."""

    def __init__(self, path: str, settings: ScanSettings, *, several: bool) -> None:
        self.path, self.rows = path, list[ScanRow]()
        self.error: VideoError | None = None
        self._top = settings.top
        events = settings.events
        self._timeline = None if events is None else TimelineBuilder(events.threshold, events.background, several=several)

    def add(self, prediction: Prediction) -> None:
        """Take what the network says of the next window, or of the video. Raises ValueError for what is no probability."""
        if not bool(prediction.scores.isfinite().all()):
            raise ValueError(f"the network gives NaN or infinity for '{self.path}': its weights or statistics are not finite, or its numbers overflow")
        if self._timeline is not None:
            self._keep(self._timeline.add(prediction) if prediction.start is not None else [])
            return
        labels, confidences = zip(*prediction.top(self._top))
        self.rows.append(ScanRow(self.path, prediction.start, prediction.end, labels, confidences))

    def finished(self) -> list[ScanRow]:
        """All rows, by their start."""
        if self._timeline is not None:
            self._keep(self._timeline.end())
            self.rows.sort(key=lambda row: (row.start or 0.0, row.end or 0.0, row.labels))
        return self.rows

    def _keep(self, segments: Iterable[Segment]) -> None:
        self.rows += [ScanRow(self.path, each.start, each.end, (each.label,), (each.confidence,)) for each in segments]


# ---- From Python -------------------------------------------------------------------------------------------------------


class ScanStream:
    """An iterator over the rows of a scan, in the order of the files, as they come.

    bad: VideoError of each file so far that cannot be read. num_videos: so far, bad ones too. progress: show a bar.
    """

    def __init__(self, scanner: Scanner, paths: Sequence[str], *, progress: bool = False) -> None:
        self.bad, self.num_videos = list[VideoError](), 0
        self._rows = self._iterate(scanner, paths, progress)

    def __iter__(self) -> "ScanStream":
        return self

    def __next__(self) -> ScanRow:
        return next(self._rows)

    def close(self) -> None:
        """End the scan, and its workers."""
        self._rows.close()

    def _iterate(self, scanner: Scanner, paths: Sequence[str], progress: bool) -> Generator[ScanRow, None, None]:
        bar = progress_bar(range(len(paths)), "scan", len(paths), unit="video") if progress else None
        try:
            for table in scanner.scan_in_order(parts_of(paths)):
                self.bad += table.bad
                self.num_videos += table.num_videos
                if bar is not None:
                    bar.update(table.num_videos)
                yield from table.rows
        finally:
            scanner.close()
            if bar is not None:
                bar.close()
