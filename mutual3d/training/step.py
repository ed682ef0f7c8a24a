"""One mutual training step: the largest configuration with the labels, then each sub-network (paper, 4.2, Eq. 3-5)."""

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn as nn

from mutual3d.sampling import Configuration, sample_subnets, step_generator
from mutual3d.utils import distributed
from mutual3d.utils.host_copy import HostCopy

from .features import FeatureAgreement
from .objectives import Method
from .profile import StepParts


class NonFiniteLossError(RuntimeError):
    """A loss became infinite or NaN; says at which step, and which configurations made it."""


@dataclass(frozen=True)
class StepResult:
    """What step number `step` ran, and what came of it.

    logits: the first configuration's, B, K, detached, with their labels. numbers: the losses; then one which is 1 where those of
    every process are finite; then one for each wish that the step was given, 1 where no process had it. They may still be on
    their way from the device.
    """

    configurations: list[Configuration]
    logits: torch.Tensor
    labels: torch.Tensor
    step: int
    numbers: HostCopy
    num_wishes: int = 0

    @property
    def losses(self) -> list[float]:
        """One for each configuration, in order, and one more where the objective has its own; waits for the device."""
        return self.numbers.tolist()[: -1 - self.num_wishes]

    @property
    def wishes(self) -> list[bool]:
        """Of each wish that the step was given, whether any process had it; waits for the device."""
        return [not has_none for has_none in self.numbers.tolist()[-self.num_wishes :]] if self.num_wishes else []

    def check_finite(self) -> None:
        """Raise NonFiniteLossError where a loss, of whichever process, is infinite or NaN; waits for the device."""
        losses = self.losses
        if self.numbers.tolist()[len(losses)]:
            return
        # An objective's own loss comes after the configurations'.
        names = [*map(str, self.configurations), "the ensemble"]
        broken = [name for name, loss in zip(names, losses) if not math.isfinite(loss)] or ["of another process"]
        raise NonFiniteLossError(
            f"the loss of configuration {', '.join(broken)} is not finite in step {self.step} (losses: "
            f"{', '.join(f'{name}: {loss:.4g}' for name, loss in zip(names, losses))}): lower SOLVER.BASE_LR, "
            "lengthen SOLVER.WARMUP_EPOCHS, or set SOLVER.CLIP_GRAD_L2NORM; the last checkpoint is untouched"
        )


class Part(NamedTuple):
    """Some clips of a step, float or uint8 B, C, T, H, W, and their labels; with boxes (N, 5) the labels are the boxes'."""

    clips: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor | None


def split_step(clips: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor | None, count: int) -> list[Part]:
    """`count` Parts of a step's clips, as equal as can be."""
    if boxes is None:
        return [Part(*part, None) for part in zip(clips.chunk(count), labels.chunk(count))]
    parts, start = [], 0
    for some in clips.chunk(count):
        own = (boxes[:, 0] >= start) & (boxes[:, 0] < start + len(some))
        shifted = boxes[own]
        shifted[:, 0] -= start
        parts.append(Part(some, labels[own], shifted))
        start += len(some)
    return parts


class StepNetwork(Protocol):
    """What a step calls: `Networks`, or the DistributedDataParallel around it."""

    def __call__(
        self, configurations: Sequence[Configuration], clip: torch.Tensor, boxes: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """[logits] of a full-size normalised clip at each configuration."""

    def no_sync(self) -> AbstractContextManager:
        """While it is open, a backward leaves its gradients in its own process."""


class Networks(nn.Module):
    """A network at several configurations, one after the other, as one module: what DistributedDataParallel wraps."""

    def __init__(self, model: Any) -> None:
        """model: an AdaptiveNetwork."""
        super().__init__()
        self.model: Any = model

    def forward(
        self, configurations: Sequence[Configuration], clip: torch.Tensor, boxes: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """[logits] of a full-size normalised clip at each configuration."""
        return [self.model.activate(c)(self.model.fit_clip(clip), boxes) for c in configurations]

    def no_sync(self) -> AbstractContextManager:
        """One process exchanges no gradients."""
        return contextlib.nullcontext()


class MutualStep:
    """Computes the gradients of one step; `optimizer.step()` is the caller's.

    model: an AdaptiveNetwork. network: what is called, `Networks(model)` or its DistributedDataParallel. prepare: uint8
    clips B, C, T, H, W -> normalised ones on the model's device.
    The first configuration learns from the labels, the others as the method's objective says. Every backward follows its own
    forward, so that memory is one network's, unless the objective needs all outputs at once; gradients cross ranks in the last
    backward only. The objective's own parameters are `objective.parameters()`. Raises ValueError as
    `Method.make_objective`. accumulation_steps: batches whose gradients are summed before the optimizer steps.
    """

    def __init__(
        self, model: Any, method: Method, *, prepare: Callable[[torch.Tensor], torch.Tensor], seed: int,
        network: StepNetwork | None = None, accumulation_steps: int = 1,
        autocast: Callable[[], AbstractContextManager] | None = None, scaler: torch.amp.GradScaler | None = None,
    ) -> None:  # fmt: skip
        self.model, self.method, self.prepare, self.seed = model, method, prepare, seed
        self.network: StepNetwork = network or Networks(model)
        loss, objective = method.make_objective(len(self.configurations(0)))
        self.loss_function, self.objective = loss, objective.to(next(model.parameters()).device)
        self.accumulation_steps = accumulation_steps
        self.autocast = autocast or contextlib.nullcontext
        self.scaler = scaler
        self.parts = StepParts()
        self.features = FeatureAgreement(model, method.feature_loss) if method.feature_loss else None

    def configurations(self, step: int, largest_alone: bool = False) -> list[Configuration]:
        """What runs in step number `step`: the largest configuration first, where it runs, and with `largest_alone` nothing else."""
        space = self.model.space
        if largest_alone:
            return [space.largest]
        drawn = sample_subnets(space, self.method.subnets, step_generator(self.seed, step))
        if not self.method.largest and not drawn:
            raise ValueError("MUTUAL.LARGEST is False and MUTUAL.SUBNETS is empty: nothing would be trained")
        return [space.largest, *drawn] if self.method.largest else drawn

    def __call__(
        self, clips_BCTHW: torch.Tensor, labels: torch.Tensor, step: int, boxes: torch.Tensor | None = None,
        wishes: Callable[[], Sequence[bool]] = tuple, largest_alone: bool = False,
    ) -> StepResult:  # fmt: skip
        """Accumulate the step's gradients. clips: uint8 B, C, T, H, W on the model's device; labels: B, or B, K.

        With boxes, float N, 5, the labels are N, K. wishes: what this process wants all of them to know, which costs no exchange
        of its own. largest_alone: see `configurations`. Raises NonFiniteLossError, on a CPU: a GPU is not waited for, and its result raises it when it is asked
        (`StepResult.check_finite`).
        """
        configurations = self.configurations(step, largest_alone)
        parts = split_step(clips_BCTHW, labels, boxes, self.accumulation_steps)
        run = self._jointly if self.objective.is_joint else self._one_by_one
        losses: Any = 0.0
        logits = []
        for i, part in enumerate(parts):
            share = len(part.labels) / len(labels)
            part_losses, part_logits = run(part._replace(clips=self.prepare(part.clips)), configurations, share, i == len(parts) - 1)
            losses = losses + share * part_losses
            logits.append(part_logits)
        with self.parts.part("exchange of flags and of the objective's gradients"):
            distributed.average_gradients(self.objective)
            # What all processes must know alike, in one exchange.
            wished = [torch.full((), not wish, device=losses.device) for wish in wishes()]
            flags = distributed.everywhere(torch.stack([losses.isfinite().all(), *wished]))
        numbers = HostCopy(torch.cat([losses, flags.to(losses.dtype)]))
        result = StepResult(configurations, torch.cat(logits), labels, step, numbers, len(wished))
        if losses.device.type == "cpu":
            result.check_finite()
        return result

    def _one_by_one(
        self, part: Part, configurations: Sequence[Configuration], share: float, is_last: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses: list[torch.Tensor] = []
        teacher: torch.Tensor | None = None
        for i, configuration in enumerate(configurations):
            with self._gradient_exchange(is_last and i == len(configurations) - 1):
                watching = contextlib.nullcontext() if self.features is None else self.features.watching()
                with self.parts.part("forward", i, configuration), self.autocast(), watching:
                    (logits,) = self.network([configuration], part.clips, part.boxes)
                    loss = self._loss(logits, teacher, part.labels)
                    if self.features is not None:
                        loss = loss + self.features.loss(is_first=teacher is None)
                with self.parts.part("backward", i, configuration):
                    self._backward(loss * share)
            teacher = logits.detach() if teacher is None else teacher
            losses.append(loss.detach())
        assert teacher is not None, "a step runs a configuration at least"
        return torch.stack(losses), teacher

    def _loss(self, logits: torch.Tensor, teacher: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor:
        if teacher is None:
            return self.loss_function.labels(logits, labels)
        return self.objective(logits, teacher, labels)

    def _jointly(
        self, part: Part, configurations: Sequence[Configuration], share: float, is_last: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self._gradient_exchange(is_last):
            with self.parts.part("forward of all networks"), self.autocast():
                logits = self.network(configurations, part.clips, part.boxes)
                losses = self.objective(logits, part.labels)
            with self.parts.part("backward of all networks"):
                self._backward(losses.sum() * share)
        return losses.detach(), logits[0].detach()

    def _gradient_exchange(self, wanted: bool) -> AbstractContextManager:
        return contextlib.nullcontext() if wanted else self.network.no_sync()

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
