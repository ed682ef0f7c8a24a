"""The training loop."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mutual3d.evaluation.unreadable import UnreadableVideos, UnreadableVideosError
from mutual3d.layers.norm import load_part_statistics, part_statistics
from mutual3d.metrics.metrics import topk_correct
from mutual3d.sampling import Configuration
from mutual3d.training.mixing import BatchTransform
from mutual3d.training.schedule import Schedule
from mutual3d.training.step import MutualStep, StepResult
from mutual3d.training.teacher import StoredTeacher
from mutual3d.utils import distributed
from mutual3d.utils.batches import BatchSource
from mutual3d.utils.host_copy import HostCopy
from mutual3d.utils.logging import log_json_stats, progress_bar
from mutual3d.utils.stopping import StopRequestedError, request_stop, stop_reason

_BY_ANOTHER = "another process of the run was asked to stop"


@dataclass(frozen=True)
class GradientClipping:
    """What gradients are limited to before a step: each of their values, and the norm of all together; 0 limits nothing."""

    value: float | None = 0.0
    norm: float | None = 0.0

    def apply(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Limit the gradients of `parameters`, in place."""
        if self.value:
            torch.nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm:
            torch.nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True)
class TrainingCourse:
    """How a training goes. max_epoch: epochs of all of it. seed: of dropout. max_unreadable: the share of the videos that may
    be unreadable. log_period: steps between two lines of the log. checkpoint_seconds: between two states saved inside an epoch;
    0 saves none but where the run is asked to stop. subnets_start_epoch: exact epoch before which the largest configuration trains
    alone."""

    max_epoch: int
    seed: int = 0
    clipping: GradientClipping = GradientClipping()
    max_unreadable: float = 0.0
    log_period: int = 10
    checkpoint_seconds: float = 0.0
    subnets_start_epoch: float = 0.0


class Trainer:
    """Runs a MutualStep over the batches of a loader, epoch by epoch.

    loader: see BatchSource.
    schedule: exact epoch -> learning rate. after_epoch(epoch) is called with the number of finished epochs, to save and
    to evaluate. inside_epoch(epoch, iteration, parts) is called with the number of finished epochs and of the next one's
    finished batches, and what `train` takes as `parts`, to save. writer: a TensorBoard SummaryWriter or None. transforms: what
    becomes of a step's clips and labels, one after the other, on the device and before any configuration sees them. after_step()
    is called after each step of the optimizer. teacher: whose stored logits a step learns from too; they are of whole videos, so that
    no transform may mix clips.
    """

    def __init__(
        self,
        step: MutualStep,
        optimizer: torch.optim.Optimizer,
        loader: BatchSource,
        schedule: Schedule,
        course: TrainingCourse,
        *,
        device: torch.device,
        after_epoch: Callable[[int], object] | None = None,
        inside_epoch: Callable[[int, int, list[dict]], object] | None = None,
        writer: Any = None,
        transforms: Sequence[BatchTransform] = (),
        after_step: Callable[[], object] | None = None,
        teacher: StoredTeacher | None = None,
    ) -> None:
        self.teacher = teacher
        self.step, self.optimizer, self.loader, self.schedule = step, optimizer, loader, schedule
        self.course, self.device = course, device
        self.after_epoch = after_epoch or (lambda epoch: None)
        self.inside_epoch = inside_epoch or (lambda epoch, iteration, parts: None)
        self.writer = writer
        self.transforms, self.after_step = tuple(transforms), after_step or (lambda: None)
        self.unreadable = UnreadableVideos(course.max_unreadable, loader.num_samples, "DATA_LOADER.MAX_UNREADABLE_TRAIN")

    def train(self, start_epoch: int = 0, start_iteration: int = 0, parts: Sequence[dict] = ()) -> None:
        """Train from `start_epoch` finished epochs, and `start_iteration` batches of the next one, to the course's last.

        parts: what each process had of that epoch, in the order of ranks. Raises StopRequestedError, on all processes after the
        same step, where the run is asked to stop; `inside_epoch` or `after_epoch` was called before.
        """
        self._saved_at, self._seconds_of_a_save = time.monotonic(), 0.0
        self._result: StepResult | None = None
        for epoch in range(start_epoch, self.course.max_epoch):
            is_first = epoch == start_epoch
            self._train_epoch(epoch, start_iteration if is_first else 0, parts if is_first else ())
            self.after_epoch(epoch + 1)
            self._saved_at = time.monotonic()
        self.step.parts.close()

    def _train_epoch(self, epoch: int, start: int, parts: Sequence[dict]) -> None:
        self.step.model.train()
        meter = _Meter(epoch, self.course.max_epoch, len(self.loader))
        self._take_parts(meter, parts)
        if parts:
            self.loader.load_state([part.get("loader", {}) for part in parts])
        name = f"train {epoch + 1}/{self.course.max_epoch}"
        batches = progress_bar(self.loader.batches(epoch=epoch, start=start), name, len(self.loader), initial=start)
        for iteration, batch in enumerate(batches, start):
            meter.data_ready()
            self._take_unreadable(batch)
            exact_epoch = epoch + iteration / len(self.loader)
            rate = self._set_rate(exact_epoch)
            largest_alone = exact_epoch < self.course.subnets_start_epoch
            result = self._train_batch(batch, epoch * len(self.loader) + iteration, largest_alone)
            meter.update(result, rate, self.step.model.space.largest)
            self.step.parts.step_done(meter.last["dt_data"], meter.last["dt"])
            if (iteration + 1) % self.course.log_period == 0:
                log_json_stats(meter.iteration_stats(iteration))
            self._save_inside(epoch, iteration + 1, meter, *self._agreed_wishes(result, iteration))
        self.unreadable.check_everywhere()
        stats = meter.epoch_stats()
        if ensemble := self.step.ensemble():
            stats["ensemble"] = ensemble
        log_json_stats(stats)
        self._write(stats, epoch)

    def _take_unreadable(self, batch: Any) -> None:
        self.unreadable.add(batch.bad)
        if not len(batch.clips_BVCTHW):
            raise UnreadableVideosError("no video of a training batch can be read: raise TRAIN.BATCH_SIZE or mend them")

    def _wishes(self) -> tuple[bool, bool]:
        """Whether this process is to stop, and whether the main one has not saved for long."""
        pause = max(self.course.checkpoint_seconds, 10 * self._seconds_of_a_save)
        is_late = self.course.checkpoint_seconds > 0 and time.monotonic() - self._saved_at >= pause
        return stop_reason() is not None, is_late and distributed.is_main()

    def _agreed_wishes(self, result: StepResult, iteration: int) -> Sequence[bool]:
        """The wishes of all processes after a step. A GPU is asked for those of the step before, which it has done meanwhile: all
        processes ask alike, and what is wished stays wished until it is done."""
        before, self._result = self._result, result
        asked = result if self.device.type == "cpu" or iteration + 1 == len(self.loader) else before
        return (False, False) if asked is None else asked.wishes

    def _save_inside(self, epoch: int, iteration: int, meter: "_Meter", stop: bool, is_late: bool) -> None:
        """What all processes wish after a step: save, stop. The last step of an epoch leaves both to what follows it."""
        if stop:
            request_stop(_BY_ANOTHER)
        if not stop and not is_late or iteration == len(self.loader):
            return
        start = time.monotonic()
        norms = {name: both.cpu() for name, both in part_statistics(self.step.model).items()}
        own = {**meter.state(), "unreadable": self.unreadable.causes, "norms": norms, "loader": self.loader.state()}
        parts = distributed.gather(own, "what each has of the epoch")
        self.inside_epoch(epoch, iteration, parts)
        self._saved_at = time.monotonic()
        self._seconds_of_a_save = self._saved_at - start
        if stop:
            distributed.barrier("the main process to save")
            raise StopRequestedError(stop_reason() or _BY_ANOTHER)

    def _take_parts(self, meter: "_Meter", parts: Sequence[dict]) -> None:
        """Go on with the sums of an epoch: each process with its own, or the main one with all where their number changed."""
        rank = distributed.rank()
        main_has = parts if distributed.is_main() else ()
        for part in parts[rank : rank + 1] if len(parts) == distributed.world_size() else main_has:
            meter.add(part)
            load_part_statistics(self.step.model, part["norms"])
            self.unreadable.causes.update(part["unreadable"])

    def _train_batch(self, batch: Any, step: int, largest_alone: bool) -> StepResult:
        # Random numbers, of dropout and of mixed clips, depend on the step alone, so that a resumed run repeats and skips none.
        torch.manual_seed(hash((self.course.seed, step, distributed.rank())) & 0x7FFFFFFF)
        views = batch.clips_BVCTHW.shape[1]
        with self.step.parts.part("to the device"):
            clips = batch.clips_BVCTHW.to(self.device, non_blocking=True)
            labels = batch.labels.to(self.device, non_blocking=True)
            boxes = None if batch.boxes is None else batch.boxes.to(self.device, non_blocking=True)
            stored = None if self.teacher is None else self.teacher.logits(batch.indices).to(self.device, non_blocking=True)
        if not self.step.own_crops:
            clips = clips.flatten(0, 1)
            labels = labels if views == 1 else labels.repeat_interleave(views, 0)
            stored = stored if stored is None or views == 1 else stored.repeat_interleave(views, 0)
        for transform in self.transforms:
            clips, labels = transform(clips, labels)
        self.optimizer.zero_grad(set_to_none=True)
        result = self.step(clips, labels, step, boxes, self._wishes, largest_alone, stored)
        with self.step.parts.part("clipping and the optimizer"):
            self._update()
            self.after_step()
        return result

    def _update(self) -> None:
        scaler = self.step.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.course.clipping.apply(parameters)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()

    def _set_rate(self, exact_epoch: float) -> float:
        rate = self.schedule(exact_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _write(self, stats: dict[str, Any], epoch: int) -> None:
        if self.writer is not None:
            for key in {"loss", "lr", "top1_err", "top5_err"} & stats.keys():
                self.writer.add_scalar(f"Train/{key}", stats[key], epoch + 1)
            for configuration, share in stats.get("ensemble", {}).items():
                self.writer.add_scalar(f"Train/ensemble/{configuration}", share, epoch + 1)


class _Meter:
    """Sums of one epoch, and the json_stats that PySlowFast's users parse (errors in percent, times in seconds).

    A step's numbers are read after the next step was given to the device, which a GPU then has to do meanwhile, and before a
    line of the log. That is when a loss that is not finite is found there.
    """

    def __init__(self, epoch: int, max_epoch: int, iterations: int) -> None:
        self.epoch, self.max_epoch, self.iterations = epoch, max_epoch, iterations
        self.start = self.mark = time.perf_counter()
        self.samples = 0
        self.sums: dict[str, float] = {}
        self.times = {"dt": 0.0, "dt_data": 0.0, "dt_net": 0.0}
        self.last: dict[str, float] = {}
        self.unread: tuple[StepResult, HostCopy | None, bool] | None = None

    def state(self) -> dict[str, Any]:
        """What `add` takes, of plain numbers. Raises NonFiniteLossError: no such state is to be saved."""
        self._read()
        spent = time.perf_counter() - self.start
        return {"samples": self.samples, "sums": self.sums, "times": self.times, "last": self.last, "seconds": spent}

    def add(self, state: dict[str, Any]) -> None:
        """Join what an earlier part of the epoch came to."""
        self.samples += state["samples"]
        self.sums = {key: self.sums.get(key, 0.0) + value for key, value in state["sums"].items()}
        self.times = {key: max(value, state["times"][key]) for key, value in self.times.items()}
        self.last = state["last"]
        self.start = min(self.start, time.perf_counter() - state["seconds"])

    def data_ready(self) -> None:
        self.ready = time.perf_counter()

    def update(self, result: StepResult, rate: float, largest: Configuration) -> None:
        self._read()
        now = time.perf_counter()
        self.last = {"dt": now - self.mark, "dt_data": self.ready - self.mark, "dt_net": now - self.ready, "lr": rate}
        self.mark = now
        for key in self.times:
            self.times[key] += self.last[key]
        self.unread = result, _hits(result), result.configurations[0] == largest

    def _read(self) -> None:
        """Add what the last step gave, once."""
        if self.unread is None:
            return
        (result, hits, is_largest), self.unread = self.unread, None
        result.check_finite()
        count, losses = len(result.labels), result.losses
        self.samples += count
        values = {"loss": sum(losses) * count}
        if hits is not None:
            values |= dict(zip(("top1_err", "top5_err"), (100.0 * (count - hit) for hit in hits.tolist())))
        if is_largest:
            values["loss_largest"] = losses[0] * count
        values |= {name: loss * count for name, loss in result.loss_parts.items()}
        self.sums = {key: self.sums.get(key, 0.0) + value for key, value in values.items()}

    def iteration_stats(self, iteration: int) -> dict[str, Any]:
        self._read()
        left = (self.max_epoch - self.epoch) * self.iterations - iteration - 1
        return {
            "_type": "train_iter",
            "epoch": f"{self.epoch + 1}/{self.max_epoch}",
            "iter": f"{iteration + 1}/{self.iterations}",
            "eta": _duration(left * self.times["dt"] / (iteration + 1)),
            "gpu_mem": _gpu_memory(),
            **self.last,
            **self._means(),
        }

    def epoch_stats(self) -> dict[str, Any]:
        self._read()
        self._join_processes()
        elapsed = time.perf_counter() - self.start
        return {
            "_type": "train_epoch",
            "epoch": f"{self.epoch + 1}/{self.max_epoch}",
            "eta": _duration(elapsed * (self.max_epoch - self.epoch - 1)),
            "gpu_mem": _gpu_memory(),
            **self.times,
            "lr": self.last["lr"],
            **self._means(),
        }

    def _join_processes(self) -> None:
        parts = distributed.gather((self.samples, self.sums))
        self.samples = sum(samples for samples, _ in parts)
        self.sums = {key: sum(sums[key] for _, sums in parts) for key in self.sums}

    def _means(self) -> dict[str, float]:
        return {key: value / max(self.samples, 1) for key, value in self.sums.items()}


def _hits(result: StepResult) -> HostCopy | None:
    """How many of the labels are the highest score and among the five highest; None where a clip or box has several labels, or shares of
    them, and where the network classifies nothing."""
    if result.logits is None or not isinstance(result.labels, torch.Tensor) or result.labels.ndim > 1:
        return None
    return HostCopy(torch.stack([hit.sum() for hit in topk_correct(result.logits, result.labels, (1, 5))]))


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


def _gpu_memory() -> str:
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return f"{used / 2**30:.2f}G"
