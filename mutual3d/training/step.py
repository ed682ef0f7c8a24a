"""One mutual training step: the largest configuration with the labels, then each sub-network (paper, 4.2, Eq. 3-5)."""

import contextlib
from typing import NamedTuple

import torch

from mutual3d.sampling import prepare_clip, sample_subnets, step_generator
from mutual3d.utils import distributed

from .objectives import OBJECTIVES, label_loss


class NonFiniteLossError(RuntimeError):
    """A loss became infinite or NaN; says at which step, and which configurations made it."""


class StepResult(NamedTuple):
    """losses: one float for each configuration, in order; logits: the largest configuration's, B, K, detached."""

    configurations: list
    losses: list
    logits: torch.Tensor
    labels: torch.Tensor


class MutualStep:
    """Computes the gradients of one step; `optimizer.step()` is the caller's.

    model: an AdaptiveNetwork. network: what is called with the clip, the model itself or its DistributedDataParallel.
    subnets: names of sampling rules; [] trains the largest configuration alone. Every backward follows its own forward,
    so that memory is one network's, and gradients cross ranks in the last backward only.
    """

    def __init__(
        self, model, *, subnets, objective, mean, std, seed,
        network=None, accumulation_steps=1, autocast=None, scaler=None,
    ):  # fmt: skip
        if objective not in OBJECTIVES:
            raise ValueError(f"there is no objective '{objective}': choose among {', '.join(OBJECTIVES)}")
        self.model, self.network = model, network or model
        self.subnets, self.objective = list(subnets), OBJECTIVES[objective]
        self.mean, self.std, self.seed = mean, std, seed
        self.accumulation_steps = accumulation_steps
        self.autocast = autocast or contextlib.nullcontext
        self.scaler = scaler

    def configurations(self, step):
        """What runs in step number `step`: the largest configuration first."""
        space = self.model.space
        return [space.largest, *sample_subnets(space, self.subnets, step_generator(self.seed, step))]

    def __call__(self, clips_BCTHW, labels, step):
        """Accumulate the step's gradients. clips: uint8 B, C, T, H, W on the model's device; labels: B."""
        configurations = self.configurations(step)
        parts = list(zip(clips_BCTHW.chunk(self.accumulation_steps), labels.chunk(self.accumulation_steps)))
        losses, logits = torch.zeros(len(configurations)), []
        for i, (clips, part_labels) in enumerate(parts):
            share, is_last = len(part_labels) / len(labels), i == len(parts) - 1
            part_losses, part_logits = self._part(clips, part_labels, configurations, share, is_last)
            losses += share * part_losses.cpu()
            logits.append(part_logits)
        self._check_finite(configurations, losses, step, clips_BCTHW.device)
        return StepResult(configurations, losses.tolist(), torch.cat(logits), labels)

    def _part(self, clips, labels, configurations, share, is_last):
        clip = prepare_clip(clips, clips.device, self.mean, self.std)
        losses, teacher = [], None
        for i, configuration in enumerate(configurations):
            exchange = is_last and i == len(configurations) - 1
            with self._gradient_exchange(exchange):
                with self.autocast():
                    self.model.activate(configuration)
                    logits = self.network(self.model.fit_clip(clip))
                    loss = label_loss(logits, labels) if teacher is None else self.objective(logits, teacher, labels)
                self._backward(loss * share)
            teacher = logits.detach() if teacher is None else teacher
            losses.append(loss.detach())
        return torch.stack(losses), teacher

    def _gradient_exchange(self, wanted):
        if wanted or self.network is self.model:
            return contextlib.nullcontext()
        return self.network.no_sync()

    def _backward(self, loss):
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _check_finite(self, configurations, losses, step, device):
        broken = [str(c) for c, loss in zip(configurations, losses) if not torch.isfinite(loss)]
        if distributed.any_process(broken, device):
            broken = broken or ["of another process"]
            raise NonFiniteLossError(
                f"the loss of configuration {', '.join(broken)} is not finite in step {step} (losses: "
                f"{', '.join(f'{c}: {loss:.4g}' for c, loss in zip(configurations, losses))}): lower SOLVER.BASE_LR, "
                "lengthen SOLVER.WARMUP_EPOCHS, or set SOLVER.CLIP_GRAD_L2NORM; the last checkpoint is untouched"
            )
