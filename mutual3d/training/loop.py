"""The training loop."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mutual3d.evaluation.unreadable import UnreadableVideos, UnreadableVideosError
from mutual3d.metrics.metrics import topk_correct
from mutual3d.sampling import Configuration
from mutual3d.training.mixing import BatchTransform
from mutual3d.training.schedule import Schedule
from mutual3d.training.step import MutualStep, StepResult
from mutual3d.utils import distributed
from mutual3d.utils.host_copy import HostCopy
from mutual3d.utils.logging import log_json_stats, progress_bar


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
    be unreadable. log_period: steps between two lines of the log."""

    max_epoch: int
    seed: int = 0
    clipping: GradientClipping = GradientClipping()
    max_unreadable: float = 0.0
    log_period: int = 10


class Trainer:
    """Runs a MutualStep over the batches of a loader, epoch by epoch.

    loader: `len(loader)` batches an epoch, `loader.batches(epoch)` gives them (clips uint8 B, V, C, T, H, W).
    schedule: exact epoch -> learning rate. after_epoch(epoch) is called with the number of finished epochs, to save and
    to evaluate. writer: a TensorBoard SummaryWriter or None. transforms: what becomes of a step's clips and labels, one after
    the other, on the device and before any configuration sees them. after_step() is called after each step of the optimizer.
    """

    def __init__(
        self,
        step: MutualStep,
        optimizer: torch.optim.Optimizer,
        loader: Any,
        schedule: Schedule,
        course: TrainingCourse,
        *,
        device: torch.device,
        after_epoch: Callable[[int], object] | None = None,
        writer: Any = None,
        transforms: Sequence[BatchTransform] = (),
        after_step: Callable[[], object] | None = None,
    ) -> None:
        self.step, self.optimizer, self.loader, self.schedule = step, optimizer, loader, schedule
        self.course, self.device = course, device
        self.after_epoch = after_epoch or (lambda epoch: None)
        self.writer = writer
        self.transforms, self.after_step = tuple(transforms), after_step or (lambda: None)
        self.unreadable = UnreadableVideos(course.max_unreadable, loader.num_samples, "DATA_LOADER.MAX_UNREADABLE_TRAIN")

    def train(self, start_epoch: int = 0) -> None:
        """Train from `start_epoch` finished epochs to the course's last."""
        for epoch in range(start_epoch, self.course.max_epoch):
            self._train_epoch(epoch)
            self.after_epoch(epoch + 1)

    def _train_epoch(self, epoch: int) -> None:
        self.step.model.train()
        meter = _Meter(epoch, self.course.max_epoch, len(self.loader))
        name = f"train {epoch + 1}/{self.course.max_epoch}"
        batches = progress_bar(self.loader.batches(epoch=epoch), name, len(self.loader))
        for iteration, batch in enumerate(batches):
            meter.data_ready()
            self._take_unreadable(batch)
            rate = self._set_rate(epoch + iteration / len(self.loader))
            result = self._train_batch(batch, epoch * len(self.loader) + iteration)
            meter.update(result, rate, self.step.model.space.largest)
            if (iteration + 1) % self.course.log_period == 0:
                log_json_stats(meter.iteration_stats(iteration))
        self.unreadable.check_everywhere()
        stats = meter.epoch_stats()
        log_json_stats(stats)
        self._write(stats, epoch)

    def _take_unreadable(self, batch: Any) -> None:
        self.unreadable.add(batch.bad)
        if not len(batch.clips_BVCTHW):
            raise UnreadableVideosError("no video of a training batch can be read: raise TRAIN.BATCH_SIZE or mend them")

    def _train_batch(self, batch: Any, step: int) -> StepResult:
        # Random numbers, of dropout and of mixed clips, depend on the step alone, so that a resumed run repeats and skips none.
        torch.manual_seed(hash((self.course.seed, step, distributed.rank())) & 0x7FFFFFFF)
        views = batch.clips_BVCTHW.shape[1]
        clips = batch.clips_BVCTHW.to(self.device, non_blocking=True).flatten(0, 1)
        labels = batch.labels.to(self.device, non_blocking=True)
        boxes = None if batch.boxes is None else batch.boxes.to(self.device, non_blocking=True)
        labels = labels if views == 1 else labels.repeat_interleave(views, 0)
        for transform in self.transforms:
            clips, labels = transform(clips, labels)
        self.optimizer.zero_grad(set_to_none=True)
        result = self.step(clips, labels, step, boxes)
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
    them."""
    if result.labels.ndim > 1:
        return None
    return HostCopy(torch.stack([hit.sum() for hit in topk_correct(result.logits, result.labels, (1, 5))]))


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


def _gpu_memory() -> str:
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return f"{used / 2**30:.2f}G"
