"""One mutual training step: the largest configuration with the labels, then each sub-network (paper, 4.2, Eq. 3-5)."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn as nn

from mutual3d.sampling import Configuration, sample_subnets, step_generator
from mutual3d.utils import distributed
from mutual3d.utils.host_copy import HostCopy
from mutual3d.utils.targets import Labels, map_tensors

from .features import FeatureAgreement
from .objectives import Losses, Method, StoredTeaching, total_loss
from .profile import StepParts


class NonFiniteLossError(RuntimeError):
    """A loss became infinite or NaN; says at which step, and which configurations made it."""


@dataclass(frozen=True)
class StepResult:
    """What step number `step` ran, and what came of it.

    logits: the first configuration's, B, K, detached; None of a network that gives something else. labels: of all of the step.
    numbers: the losses; then one which is 1 where those of every process are finite; then one for each wish that the step was given,
    1 where no process had it; then the named parts of the first configuration's loss. They may still be on their way from the device.
    """

    configurations: list[Configuration]
    logits: torch.Tensor | None
    labels: Labels
    step: int
    numbers: HostCopy
    num_wishes: int = 0
    part_names: tuple[str, ...] = ()

    @property
    def losses(self) -> list[float]:
        """One for each configuration, in order, and one more where the objective has its own; waits for the device."""
        return self._split()[0]

    @property
    def loss_parts(self) -> dict[str, float]:
        """The named losses that the first configuration's is the sum of, where its loss function names some; waits for the device."""
        return dict(zip(self.part_names, self._split()[3]))

    @property
    def wishes(self) -> list[bool]:
        """Of each wish that the step was given, whether any process had it; waits for the device."""
        return [not has_none for has_none in self._split()[2]]

    def _split(self) -> tuple[list[float], bool, list[float], list[float]]:
        """(losses, whether they are finite everywhere, of each wish whether no process has it, parts of the first loss)."""
        numbers = self.numbers.tolist()
        parts = len(numbers) - len(self.part_names)
        wishes = parts - self.num_wishes
        return numbers[: wishes - 1], bool(numbers[wishes - 1]), numbers[wishes:parts], numbers[parts:]

    def check_finite(self) -> None:
        """Raise NonFiniteLossError where a loss, of whichever process, is infinite or NaN; waits for the device."""
        losses, is_finite, _, _ = self._split()
        if is_finite:
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
    """Some clips of a step, float or uint8 B, C, T, H, W, and their labels; with boxes (N, 5) the labels are the boxes'. stored: another
    network's logits of them, B, K, where there are such."""

    clips: torch.Tensor
    labels: Labels
    boxes: torch.Tensor | None
    stored: torch.Tensor | None = None


def split_step(
    clips: torch.Tensor, labels: Labels, boxes: torch.Tensor | None, count: int, stored: torch.Tensor | None = None
) -> list[Part]:
    """`count` Parts of a step's clips, as equal as can be. stored: as of `Part`, of clips without boxes."""
    if boxes is None:
        labelled: Sequence[Labels] = labels.chunk(count)
        logits = [None] * len(labelled) if stored is None else stored.chunk(count)
        return [Part(some, of_some, None, own) for some, of_some, own in zip(clips.chunk(count), labelled, logits)]
    assert isinstance(labels, torch.Tensor), "boxes that are classified have a row of labels each"
    parts, start = [], 0
    for some in clips.chunk(count):
        own = (boxes[:, 0] >= start) & (boxes[:, 0] < start + len(some))
        shifted = boxes[own]
        shifted[:, 0] -= start
        parts.append(Part(some, labels[own], shifted))
        start += len(some)
    return parts


class _Found(NamedTuple):
    """What a Part gave: a loss for each configuration, and of the first one its outputs and the named parts of its loss, all detached."""

    losses: torch.Tensor
    first_outputs: Any
    first_parts: Mapping[str, torch.Tensor]


def _joined_logits(outputs: Sequence[Any]) -> torch.Tensor | None:
    """The logits B, K of all Parts; None where a network gives something else, which is not kept until it is asked for."""
    is_classifier = all(isinstance(each, torch.Tensor) and each.ndim == 2 for each in outputs)
    return torch.cat(list(outputs)) if is_classifier else None


class StepNetwork(Protocol):
    """What a step calls: `Networks`, or the DistributedDataParallel around it."""

    def __call__(
        self, configurations: Sequence[Configuration], clip: torch.Tensor, boxes: torch.Tensor | None = None,
        labels: Labels | None = None,
    ) -> list[Any]:  # fmt: skip
        """[outputs] of a full-size normalised clip at each configuration. labels: for a network that computes its own losses."""

    def no_sync(self) -> AbstractContextManager:
        """While it is open, a backward leaves its gradients in its own process."""


class Networks(nn.Module):
    """A network at several configurations, one after the other, as one module: what DistributedDataParallel wraps."""

    def __init__(self, model: Any) -> None:
        """model: an AdaptiveNetwork."""
        super().__init__()
        self.model: Any = model

    def forward(
        self, configurations: Sequence[Configuration], clip: torch.Tensor, boxes: torch.Tensor | None = None,
        labels: Labels | None = None,
    ) -> list[Any]:  # fmt: skip
        """[outputs] of a full-size normalised clip at each configuration; clip B, V, C, T, H, W: of one of V crops at each of V configurations.

        labels: for a network that computes its own losses.
        """
        own = [clip] * len(configurations) if clip.ndim == 5 else clip.unbind(1)
        return [self.model.activate(c)(self.model.fit_clip(x), boxes, labels=labels) for c, x in zip(configurations, own, strict=True)]

    def no_sync(self) -> AbstractContextManager:
        """One process exchanges no gradients."""
        return contextlib.nullcontext()


class MutualStep:
    """Computes the gradients of one step; `optimizer.step()` is the caller's.

    model: an AdaptiveNetwork. network: what is called, `Networks(model)` or its DistributedDataParallel. prepare: uint8
    clips B, C, T, H, W -> normalised ones on the model's device.
    The first configuration learns from the labels, the others as the method's objective says, which also says who learns from another
    network's stored logits where a step is given such (`Objective.stored_teaches`). Every backward follows its own
    forward, so that memory is one network's, unless the objective needs all outputs at once; gradients cross ranks in the last
    backward only. The objective's own parameters are `objective.parameters()`. Raises ValueError as
    `Method.make_objective`. accumulation_steps: batches whose gradients are summed before the optimizer steps. own_crops: each configuration
    is given a crop of its own, of as many as there are configurations (RS-Net, Table 6), instead of the one that all see.
    """

    def __init__(
        self, model: Any, method: Method, *, prepare: Callable[[torch.Tensor], torch.Tensor], seed: int,
        network: StepNetwork | None = None, accumulation_steps: int = 1,
        autocast: Callable[[], AbstractContextManager] | None = None, scaler: torch.amp.GradScaler | None = None, own_crops: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.method, self.prepare, self.seed = model, method, prepare, seed
        self.network: StepNetwork = network or Networks(model)
        loss, objective = method.make_objective(len(self.configurations(0)))
        self.loss_function, self.objective = loss, objective.to(next(model.parameters()).device)
        self.accumulation_steps = accumulation_steps
        self.autocast = autocast or contextlib.nullcontext
        self.scaler, self.own_crops = scaler, own_crops
        self.parts = StepParts()
        self.features = FeatureAgreement(model, method.feature_loss) if method.feature_loss else None

    def ensemble(self) -> dict[str, float]:
        """{configuration: its share of the ensemble that an objective learns} as it is now, for the log; {} without such an objective."""
        return {str(c): round(share, 5) for c, share in zip(self.configurations(0), self.objective.shares())}

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
        self, clips_BCTHW: torch.Tensor, labels: Labels, step: int, boxes: torch.Tensor | None = None,
        wishes: Callable[[], Sequence[bool]] = tuple, largest_alone: bool = False, stored_BK: torch.Tensor | None = None,
    ) -> StepResult:  # fmt: skip
        """Accumulate the step's gradients. clips: uint8 B, C, T, H, W on the model's device, with `own_crops` B, V, C, T, H, W; labels: B, or
        B, K, or a task's own.

        With boxes, float N, 5, the labels are N, K. wishes: what this process wants all of them to know, which costs no exchange
        of its own. largest_alone: see `configurations`. stored: another network's logits of the clips, on the model's device, NaN in the rows
        that there are none of; asked for where the method's `stored` is given. Raises NonFiniteLossError, on a CPU: a GPU is not waited for, and its result raises it when it is asked
        (`StepResult.check_finite`).
        """
        configurations = self.configurations(step, largest_alone)
        assert (stored_BK is None) == (self.method.stored is None), "stored logits are given where the method learns from them"
        parts = split_step(clips_BCTHW, labels, boxes, self.accumulation_steps, stored_BK)
        run = self._jointly if self.objective.is_joint else self._one_by_one
        losses: Any = 0.0
        outputs, named = [], dict[str, torch.Tensor]()
        for i, part in enumerate(parts):
            share = len(part.labels) / len(labels)
            found = run(part._replace(clips=self._prepared(part.clips)), configurations, share, i == len(parts) - 1)
            losses = losses + share * found.losses
            outputs.append(found.first_outputs)
            for name, loss in found.first_parts.items():
                named[name] = named.get(name, 0.0) + share * loss
        with self.parts.part("exchange of flags and of the objective's gradients"):
            distributed.average_gradients(self.objective)
            # What all processes must know alike, in one exchange.
            wished = [torch.full((), not wish, device=losses.device) for wish in wishes()]
            flags = distributed.everywhere(torch.stack([losses.isfinite().all(), *wished]))
        numbers = HostCopy(torch.cat([losses, flags.to(losses.dtype), *(loss.reshape(1).to(losses.dtype) for loss in named.values())]))
        result = StepResult(configurations, _joined_logits(outputs), labels, step, numbers, len(wished), tuple(named))
        if losses.device.type == "cpu":
            result.check_finite()
        return result

    def _prepared(self, clips: torch.Tensor) -> torch.Tensor:
        if not self.own_crops:
            return self.prepare(clips)
        return self.prepare(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])

    def _one_by_one(
        self, part: Part, configurations: Sequence[Configuration], share: float, is_last: bool
    ) -> "_Found":
        losses: list[torch.Tensor] = []
        teacher: Any = None
        first_parts: Mapping[str, torch.Tensor] = {}
        for i, configuration in enumerate(configurations):
            with self._gradient_exchange(is_last and i == len(configurations) - 1):
                watching = contextlib.nullcontext() if self.features is None else self.features.watching()
                with self.parts.part("forward", i, configuration), self.autocast(), watching:
                    clips = part.clips[:, i] if self.own_crops else part.clips
                    (outputs,) = self.network([configuration], clips, part.boxes, self._labels_for_network(part))
                    found = self._with_stored(self._losses(outputs, teacher, part.labels), outputs, part, is_first=teacher is None)
                    loss = total_loss(found)
                    if self.features is not None:
                        loss = loss + self.features.loss(is_first=teacher is None)
                with self.parts.part("backward", i, configuration):
                    self._backward(loss * share)
            if teacher is None:
                teacher = map_tensors(torch.Tensor.detach, outputs)
                first_parts = {} if isinstance(found, torch.Tensor) else map_tensors(torch.Tensor.detach, found)
            losses.append(loss.detach())
        assert teacher is not None, "a step runs a configuration at least"
        return _Found(torch.stack(losses), teacher, first_parts)

    def _losses(self, outputs: Any, teacher: Any, labels: Labels) -> Losses:
        if teacher is None:
            return self.loss_function.labels(outputs, labels)
        return self.objective(outputs, teacher, labels)

    def _with_stored(self, losses: Losses, outputs: Any, part: Part, is_first: bool) -> Losses:
        """The losses of a configuration, and by name beside them that of the stored logits, where they teach it."""
        if self.method.stored is None or not (is_first or self.objective.stored_teaches == "each"):
            return losses
        named = {"label_loss": losses} if isinstance(losses, torch.Tensor) else losses
        return {**named, "teacher_loss": self._stored_loss(self.method.stored, outputs, part)}

    def _stored_loss(self, stored: StoredTeaching, outputs: Any, part: Part) -> torch.Tensor:
        assert part.stored is not None, "stored logits come with the clips"
        return stored.loss(self.loss_function, outputs, part.stored, part.labels)

    def _labels_for_network(self, part: Part) -> Labels | None:
        return part.labels if self.model.takes_labels else None

    def _jointly(
        self, part: Part, configurations: Sequence[Configuration], share: float, is_last: bool
    ) -> "_Found":
        with self._gradient_exchange(is_last):
            with self.parts.part("forward of all networks"), self.autocast():
                outputs = self.network(configurations, part.clips, part.boxes, self._labels_for_network(part))
                losses = self.objective(outputs, part.labels)
                if self.method.stored is not None:
                    students = outputs if self.objective.stored_teaches == "each" else outputs[:1]
                    taught = torch.stack([self._stored_loss(self.method.stored, logits, part) for logits in students])
                    # An objective's own loss comes after the configurations'.
                    losses = losses + nn.functional.pad(taught, (0, len(losses) - len(taught)))
            with self.parts.part("backward of all networks"):
                self._backward(losses.sum() * share)
        return _Found(losses.detach(), map_tensors(torch.Tensor.detach, outputs[0]), {})

    def _gradient_exchange(self, wanted: bool) -> AbstractContextManager:
        return contextlib.nullcontext() if wanted else self.network.no_sync()

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
