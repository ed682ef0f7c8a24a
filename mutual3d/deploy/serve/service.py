"""A model that is served: what is kept ready, the processes that decode, the thread that computes."""

import asyncio
import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import torch

from mutual3d.data.video.decode import check_backend
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import has_image_name
from mutual3d.data.workers.process import begin_to_fork
from mutual3d.deploy.adaptive_model import AdaptiveModel, load
from mutual3d.deploy.controller import TimedConfiguration
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.prediction import Clips
from mutual3d.deploy.serve.answers import Answer, ClassScore, Health, Limits, LooksAnswer, RowAnswer, Sample, Table, Times
from mutual3d.deploy.serve.batching import Batcher, Overloaded, Request
from mutual3d.deploy.serve.explaining import draw_looks
from mutual3d.deploy.serve.front import Choice, ServedFront
from mutual3d.deploy.serve.measures import Measures
from mutual3d.deploy.serve.readers import UPLOAD, WINDOWS_AT_ONCE, Found, Readers, ReadWindows, Upload, UploadJob, Windows
from mutual3d.deploy.serve.settings import ServeSettings
from mutual3d.deploy.sources import list_inputs
from mutual3d.deploy.timing import latency_key
from mutual3d.deploy.used_frames import used_frames
from mutual3d.sampling import Configuration
from mutual3d.utils.processes import this_process
from mutual3d.utils.text import printable

# The folder of a process's uploads says whose it is, so that a later service removes those of processes that were killed.
_FOLDER = "mutual3d-serve-"
_FOLDER_NAME = re.compile(re.escape(_FOLDER) + r"(?P<place>[A-Za-z0-9_-]+)\+(?P<pid>\d+)\+(?P<started>\d+)\.\w+")
# Seconds that an image of a stream may take to decode.
_FRAME_SECONDS = 2.0
_MOST_SAMPLES = 60


class Service:
    """Answers predictions of one process; `start` before the first, `close` after the last.

    model: with a table whose column of this machine is `front.key`. settings: see there. Raises ValueError for a model that
    classifies boxes, and FileNotFoundError for a folder of samples without any.
    """

    def __init__(self, model: AdaptiveModel, front: ServedFront, settings: ServeSettings) -> None:
        self.model, self.front, self.settings, self.measures = model, front, settings, Measures()
        self.samples = _list_samples(settings.samples)
        self.inside = self.inside_long = self.streams = 0
        self.is_closing = False
        self._explaining = asyncio.Lock()
        # Of the last one, after which a client that was refused may try again.
        self._explain_seconds = 1.0
        self._started = time.monotonic()
        self._used = {row.configuration: frozenset(used_frames(model.network, row.configuration)) for row in front.rows}
        self._device = next(model.parameters()).device
        self._num_classes = self._warm_up()

    def _warm_up(self) -> int:
        """Call each configuration once, as a first call takes many times as long as the next; the number of classes."""
        cut = self.model.preprocessing
        clip = torch.zeros(1, 3, cut.num_frames, cut.crop, cut.crop, dtype=torch.uint8)
        return [self._run(clip, row.configuration).shape[1] for row in self.front.rows][-1]

    @classmethod
    def load(cls, settings: ServeSettings, milliseconds: Mapping[str, float] | None = None) -> "Service":
        """Load the model, and make all ready that it is served at.

        milliseconds: {configuration: those of one clip} on this machine, where another process has measured them; otherwise
        they are of the table, and measured now where it has none. Raises as `mutual3d.load` does, and ValueError for a model
        without a table.
        """
        begin_to_fork(UploadJob.__module__)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        model = load(settings.model)
        check_gives_classes(model, "a service")
        if model.network.takes_boxes:
            raise ValueError(f"'{settings.model}' classifies boxes, and an upload has none: use mutual3d predict --boxes on files")
        if model.table is None:
            raise ValueError(
                f"'{settings.model}' has no query table, by which a budget is chosen: run with GRID.ENABLE True"
            )
        model.network.place(torch.device(settings.device))
        model.run_in(settings.runtime)
        if milliseconds is not None:
            key = str(latency_key(model, model.runtime))
            times = {Configuration.parse(text): value for text, value in milliseconds.items()}
            model.table = model.table.with_costs({"latency_ms": {key: times}}, {})
        front = ServedFront.of(model)
        model.prepare(front.rows, progress=False)
        return cls(model, front, settings)

    def start(self) -> None:
        """Start the thread and the processes, and make the folder of uploads."""
        settings, network = self.settings, self.model.network
        job = UploadJob(
            self.model.preprocessing, is_of_images=network.takes == "images", backend=check_backend("auto"),
            max_seconds=settings.max_seconds, memory=settings.decoder_bytes,
        )  # fmt: skip
        self.readers = Readers(job, settings.decoders, timeout=settings.decode_seconds, option="--decode-seconds")
        self.frame_readers = Readers(job, 1, timeout=_FRAME_SECONDS, option="of the service")
        for readers in (self.readers, self.frame_readers):
            readers.start()
        self.stream_threads = ThreadPoolExecutor(settings.max_streams, thread_name_prefix="stream")
        self.batcher = Batcher(
            self._run, limit=settings.queue + settings.most_long * WINDOWS_AT_ONCE, max_batch=settings.max_batch, gather_ms=settings.gather_ms,
            num_coming=lambda: self.readers.num_inside, watch=self.measures.watch,
        )  # fmt: skip
        self.batcher.start()
        _remove_folders_of_the_dead()
        me = this_process()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{me.place}+{me.pid}+{me.started}."))

    def close(self) -> None:
        """Answer what is in hand, end the processes, and remove the folder of uploads."""
        self.is_closing = True
        self.readers.close()
        self.batcher.close()
        self.frame_readers.close()
        self.stream_threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def admitted(self, *, is_long: bool = False) -> Iterator[None]:
        """While it is open, one more request is inside. is_long: a timeline or an explanation."""
        self.inside += 1
        self.inside_long += is_long
        self.measures.inside.set(self.inside)
        try:
            yield
        finally:
            self.inside -= 1
            self.inside_long -= is_long
            self.measures.inside.set(self.inside)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """While it is open, one more stream is."""
        self.streams += 1
        self.measures.streams.set(self.streams)
        try:
            yield
        finally:
            self.streams -= 1
            self.measures.streams.set(self.streams)

    def _run(self, clips: torch.Tensor, configuration: Configuration) -> torch.Tensor:
        return self.model(clips.to(self._device), configuration=configuration).cpu()

    # ---- Predictions -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def copied(self, file: BinaryIO) -> AsyncIterator[Path]:
        """A file that holds an upload, from where it stands on, for the processes that decode; it is gone after the block."""
        with tempfile.NamedTemporaryFile(dir=self._folder) as copy:
            await asyncio.to_thread(shutil.copyfileobj, file, copy, 1 << 20)
            copy.flush()
            yield Path(copy.name)

    async def read(self, file: BinaryIO, choice: Choice | None = None, *, end: float) -> tuple[Clips, float]:
        """The clip of an upload, and milliseconds. Raises VideoError if unreadable, Overloaded as of `check_in_time`.

        file: the upload, from where it stands on. choice: only the frames that its rungs look at are read. end: of `time.perf_counter`, when
        the answer is wanted, see `check_in_time`.
        """
        begin = time.perf_counter()
        async with self.copied(file) as path:
            self.check_in_time(end, choice)
            found = await self._read(Upload(str(path), None if choice is None else self._frames_of(choice)))
        assert isinstance(found, Clips), "of an upload"
        return found, 1000 * (time.perf_counter() - begin)

    async def read_windows(self, path: Path, choice: Choice, windows: Windows) -> ReadWindows:
        """Some windows of an upload that `copied` has put at `path`. Raises VideoError where it is unreadable or has no clock."""
        found = await self._read(Upload(str(path), self._frames_of(choice), windows))
        assert isinstance(found, ReadWindows), "of an upload in windows"
        return found

    async def _read(self, upload: Upload) -> Found:
        begin = time.perf_counter()
        try:
            found = await self.readers.read(upload)
        finally:
            self.measures.lost.set(self.readers.num_lost)
        self.measures.seconds.labels("decode").observe(time.perf_counter() - begin)
        return found

    def seconds_ahead(self) -> float:
        """Seconds until what is inside has been decoded and computed at its cheapest, by what the last ones took."""
        return self.readers.seconds_until(0) + self.batcher.seconds_until(self.front.front[0])

    def check_in_time(self, end: float, choice: Choice | None) -> None:
        """Raise Overloaded where an upload would have to wait so long to be decoded that even its cheapest answer came after `end`.

        One that waits for no other to be decoded is let in, late or not. end: of `time.perf_counter`. choice: what the thread that computes is
        to run of it; None where the upload is not for that thread, and has to be decoded by then.
        """
        needed = self.readers.seconds_until() + (0.0 if choice is None else self.batcher.seconds_until(choice.ladder[0]))
        seconds = end - time.perf_counter()
        if self.readers.is_busy and needed > seconds:
            raise Overloaded(needed - seconds)

    def _frames_of(self, choice: Choice) -> tuple[int, ...]:
        """The positions in a clip that the rungs of a choice look at."""
        return tuple(sorted(set().union(*(self._used[timed.configuration] for timed in choice.ladder))))

    async def predict(self, file: BinaryIO, choice: Choice, *, deadline_ms: float | None, top: int) -> Answer:
        """What the network sees in an upload. Raises VideoError if unreadable, Overloaded where it would be late.

        file: as of `read`. deadline_ms: from now to the answer; None takes the service's. top: the classes to tell.
        """
        begin = time.perf_counter()
        deadline_ms = self.settings.deadline_ms if deadline_ms is None else deadline_ms
        end = begin + deadline_ms / 1000
        clips, decode_ms = await self.read(file, choice, end=end)
        request = Request(clips.clips_VCTHW, choice.ladder, end)
        found = await asyncio.wrap_future(self.batcher.submit(request))
        try:
            best = self.best(found.scores_K, top)
        except FloatingPointError:
            if clips.clips_VCTHW.dtype == torch.uint8:
                raise
            raise VideoError(UPLOAD, "its numbers are so large that the network's overflow: send uint8 pixels, or a clip normalised as in training") from None
        total_ms = 1000 * (time.perf_counter() - begin)
        self.measures.seconds.labels("total").observe(total_ms / 1000)
        return Answer(
            top=best, row=self.row_answer(found.timed), asked=str(choice.row.configuration),
            lowered=found.timed.configuration != choice.row.configuration, looked_at=list(clips.seconds), duration=clips.duration,
            padded=clips.is_padded,
            times=Times(decode_ms=decode_ms, wait_ms=found.wait_ms, network_ms=found.network_ms, total_ms=total_ms),
            deadline_ms=deadline_ms, met=total_ms <= deadline_ms, batch=found.batch,
        )  # fmt: skip

    async def explain(self, file: BinaryIO, choice: Choice, class_name: str | None, *, deadline_ms: float | None = None) -> LooksAnswer:
        """Where the network looks in an upload, at the configuration that a budget chooses. One is computed at a time.

        file: as of `read`. class_name: a name or number; None takes what is predicted. deadline_ms: as of `predict`. Raises as `read` and
        `explain_clip` do, and Overloaded where the deadline passes before its turn comes.
        """
        begin = time.perf_counter()
        deadline_ms = self.settings.deadline_ms if deadline_ms is None else deadline_ms
        end = begin + deadline_ms / 1000
        clips, _ = await self.read(file, end=end)
        # As a clip alone, the only one is answered, late or not.
        patience = max(end - time.perf_counter(), 0.0) if self._explaining.locked() else None
        try:
            await asyncio.wait_for(self._explaining.acquire(), patience)
        except asyncio.TimeoutError:
            raise Overloaded(self._explain_seconds) from None
        started = time.perf_counter()
        try:
            found, looks = await asyncio.to_thread(draw_looks, self.model, clips, choice.row.configuration, class_name)
        finally:
            self._explaining.release()
        self._explain_seconds = time.perf_counter() - started
        total_ms = 1000 * (time.perf_counter() - begin)
        return LooksAnswer(
            row=self.row_answer(choice.ladder[-1]), class_name=printable(found.class_name), probability=found.probability,
            method=found.method, looks=looks, total_ms=total_ms, deadline_ms=deadline_ms, met=total_ms <= deadline_ms,
        )  # fmt: skip

    def best(self, scores_K: torch.Tensor, top: int) -> list[ClassScore]:
        """The `top` best classes, descending. Raises FloatingPointError for what is no probability."""
        self.check_scores(scores_K)
        values, classes = scores_K.topk(min(top, len(scores_K)))
        names = self.model.class_names
        return [
            ClassScore(name=printable(names[i] if names else i), probability=value)
            for i, value in zip(classes.tolist(), values.tolist())
        ]  # fmt: skip

    @staticmethod
    def check_scores(scores_K: torch.Tensor) -> None:
        """FloatingPointError for what is no probability."""
        if not bool(scores_K.isfinite().all()):
            raise FloatingPointError("the network gives NaN or infinity: its weights or statistics are not finite, or its numbers overflow")

    # ---- What is told of the service ---------------------------------------------------------------------------------

    def row_answer(self, timed: TimedConfiguration) -> RowAnswer:
        """A row that is kept ready, to be told."""
        row = self.front.row(timed)
        configuration = row.configuration
        return RowAnswer(
            configuration=str(configuration), spatial=configuration.spatial, temporal=configuration.temporal, latency_ms=timed.quiet_ms,
            gflops=row.gflops, parameters=row.parameters, accuracy=self.front.table.accuracy(row), on_front=timed in self.front.front,
        )  # fmt: skip

    def table(self) -> Table:
        """What is kept ready."""
        table, cut = self.front.table, self.model.preprocessing
        words = table.words_of_metric()
        return Table(
            rows=[self.row_answer(self.front.timed(row)) for row in self.front.rows], metric=words.label, unit=words.unit,
            conditions=table.conditions, device=self.front.key, classes=self._num_classes, frames=cut.num_frames,
            clip_seconds=cut.num_frames * cut.sampling_rate / cut.target_fps, fps=cut.target_fps, crop=cut.crop,
        )  # fmt: skip

    def health(self) -> Health:
        """Whether it takes requests, and what it takes."""
        settings = self.settings
        return Health(
            status="closing" if self.is_closing else "ready" if self.batcher.is_alive else "broken", model=Path(settings.model).name, runtime=self.model.runtime or "eager",
            configurations=len(self.front.rows), inside=self.inside, streams=self.streams,
            uptime_seconds=time.monotonic() - self._started,
            limits=Limits(
                bytes=settings.max_bytes, seconds=settings.max_seconds, upload_seconds=settings.upload_seconds,
                deadline_ms=settings.deadline_ms,
            ),
        )  # fmt: skip

    def list_samples(self) -> list[Sample]:
        """The files that the page offers."""
        return [
            Sample(number=number, name=printable(path.name), is_video=not has_image_name(path))
            for number, path in enumerate(self.samples)
        ]  # fmt: skip


def without_path(error: Exception, path: str = "") -> str:
    """What an error says of an upload, without where the service keeps it."""
    cause = str(getattr(error, "cause", error))
    cause = re.sub(rf"'?[^\s']*{re.escape(_FOLDER)}[^\s']*'?", f"the {UPLOAD}", cause)
    return f"cannot read the {UPLOAD}: {printable(cause)}"


def _list_samples(folder: str | None) -> list[Path]:
    return [] if folder is None else list_inputs([folder])[:_MOST_SAMPLES]


def _remove_folders_of_the_dead() -> None:
    me = this_process()
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        named = _FOLDER_NAME.fullmatch(folder.name)
        if named and named["place"] == me.place and not replace(me, pid=int(named["pid"]), started=int(named["started"])).is_alive():
            shutil.rmtree(folder, ignore_errors=True)
