"""Slimmable batch norm, norms that are private to a width or a size, and the statistics that a configuration needs.

Sub-networks have different feature statistics (paper, 3.4). In training every norm uses the batch's own, and only the
full network updates the running ones. In evaluation a norm uses the statistics of its `settings`, and refuses to run
when there are none. While `observer` is set, a function of (count, mean, variance), the norm uses the batch's
statistics, tells them to the observer, and leaves everything else alone.

Whose clips training takes as one batch is `batch_over`, for every norm of a network: this process's (as ever), those of a
group of processes (PySlowFast's sync_batchnorm), or each of several parts of this process's (its sub_batchnorm). Evaluation
and calibration know nothing of it.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F

from .channels import Channels, Width, as_channels
from .private import PrivateParts
from .slimmable import SlimmablePart

# Takes how many values a channel had, their means and their (biased) variances.
Observer = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class BNStatistics:
    """Mean and (biased) variance of every norm of a network, by the norm's name, for one configuration."""

    mean: dict[str, torch.Tensor]
    variance: dict[str, torch.Tensor]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "BNStatistics":
        """The same statistics with `function` applied to every tensor, for instance to move them to a device."""
        return BNStatistics(
            {name: function(mean) for name, mean in self.mean.items()},
            {name: function(variance) for name, variance in self.variance.items()},
        )

    def only(self, names: Iterable[str]) -> "BNStatistics":
        """Those of the norms of these names, each of which must be there."""
        names = list(names)
        return BNStatistics({name: self.mean[name] for name in names}, {name: self.variance[name] for name in names})

    def to_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """{"mean": ..., "variance": ...}, each {norm's name: tensor of its active channels}: plain data for a file."""
        return {"mean": dict(self.mean), "variance": dict(self.variance)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Mapping[str, torch.Tensor]]) -> "BNStatistics":
        """The inverse of `to_dict`; ValueError for anything else than two dicts of floating tensors."""
        if not isinstance(state, Mapping) or state.keys() != {"mean", "variance"}:
            raise ValueError("statistics of a configuration must be a dict of 'mean' and 'variance'")
        for title, values in state.items():
            if not isinstance(values, Mapping) or not all(map(_is_statistic, values.values())):
                raise ValueError(f"statistics of a configuration, {title}: give a dict of norms' names to float tensors")
        return cls(dict(state["mean"]), dict(state["variance"]))


def _is_statistic(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.is_floating_point()


class SlimmableNorm(SlimmablePart, nn.modules.batchnorm._BatchNorm):
    """What the slimmable norms share; before nn.BatchNorm2d or nn.BatchNorm3d among the bases of a class.

    rule: the count of its channels. observer: see above. eps, momentum: as of `nn.BatchNorm2d`.
    """

    _plain_type: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    observer: Observer | None
    # See `batch_over`.
    group: "dist.ProcessGroup | None" = None
    num_parts = 1
    # Running means and variances of the parts, P x C each, since training was last switched on.
    _part_statistics: tuple[torch.Tensor, torch.Tensor] | None = None
    # (what the views are of and for, scale, shift)
    _kept: tuple[tuple[int, ...], torch.Tensor, torch.Tensor] | None = None

    def __init__(self, num_features: Channels | int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        rule = as_channels(num_features)
        super().__init__(rule.full, eps=eps, momentum=momentum)
        self.rule = rule
        self.is_full = True
        self.active_statistics: tuple[torch.Tensor, torch.Tensor] | None = None
        self.tracked: tuple[torch.Tensor, torch.Tensor] | None = None
        self.observer = None

    @staticmethod
    def settings(
        is_full: bool,
        statistics: tuple[torch.Tensor, torch.Tensor] | None = None,
        tracked: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """The attributes that make the norm run so.

        is_full: the full network is active; it alone updates the running statistics, and may evaluate with them.
        statistics: (mean, variance), each of the active width, to evaluate with; None when never calibrated.
        tracked: (mean, variance) of the active width, which training moves towards its batches', in place (US-Net, 3.2).
        """
        return {"is_full": is_full, "active_statistics": statistics, "tracked": tracked}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.observer is not None:
            return self._observed(x, self.observer)
        if self.training and self.group is not None:
            return self._over_processes(x)
        if self.training and self.num_parts > 1:
            return self._over_parts(x)
        if self.is_full and (self.training or self.active_statistics is None):
            return super().forward(x)
        channels = x.shape[1]
        weight, bias = self._active_slice(channels)
        if self.training:
            if self.tracked is None:
                return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
            assert self.momentum is not None
            return F.batch_norm(x, *self.tracked, weight, bias, training=True, momentum=self.momentum, eps=self.eps)
        if self.active_statistics is None:
            raise RuntimeError(f"this norm was not calibrated for {channels} of its {self.num_features} channels")
        return F.batch_norm(x, *self.active_statistics, weight, bias, training=False, eps=self.eps)

    def _active_slice(self, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and shift of the first channels: views, which evaluation without gradients keeps from call to call."""
        if torch.is_grad_enabled() or torch.jit.is_tracing():
            return self.weight[:channels], self.bias[:channels]
        key, kept = (channels, self.weight.data_ptr(), self.bias.data_ptr()), self._kept
        if kept is None or kept[0] != key:
            kept = self._kept = key, self.weight[:channels], self.bias[:channels]
        return kept[1:]

    def _observed(self, x: torch.Tensor, observer: Observer) -> torch.Tensor:
        """Normalise by the batch and tell the observer what it was: values a channel, mean, (biased) variance."""
        channels, count = x.shape[1], x.numel() // x.shape[1]
        if count < 2:
            raise ValueError(
                f"a norm of {channels} channels sees one value of each, which has no variance: a batch of calibration has one clip, and the "
                "network's features one place; give other CALIBRATION.NUM_CLIPS or CALIBRATION.BATCH_SIZE, so that no batch has one clip"
            )
        # With momentum 1 PyTorch leaves the batch's own mean and unbiased variance behind: no second pass over x.
        mean, variance = torch.zeros(2, channels, device=x.device, dtype=self.weight.dtype)
        y = F.batch_norm(x, mean, variance, self.weight[:channels], self.bias[:channels], True, 1.0, self.eps)
        observer(count, mean, variance * ((count - 1) / count))
        return y

    def _over_processes(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the values of all processes of the group; gradients cross them too (torch's SyncBatchNorm)."""
        channels, dims = x.shape[1], [0, *range(2, x.ndim)]
        values = x.to(self.weight.dtype)
        count = values.new_full((1,), x.numel() // channels)
        # Two exchanges: the mean first, so that no variance is the difference of two large numbers.
        sums = _SumOverProcesses.apply(torch.cat([values.sum(dims), count]), self.group)
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - _per_channel(mean, x)
        variance = _SumOverProcesses.apply(centred.square().sum(dims), self.group) / count
        self._keep_running(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        scale = torch.rsqrt(variance + self.eps) * self.weight[:channels]
        return (centred * _per_channel(scale, x) + _per_channel(self.bias[:channels], x)).to(x.dtype)

    def _over_parts(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise every `num_parts`-th clip, from each of the first ones on, by these alone.

        Each part has a running mean and variance of its own. The norm's are those of all parts together: the mean of their
        means, and the mean of their variances plus the variance between their means.
        """
        channels, count = x.shape[1], min(self.num_parts, len(x))
        means, variances = torch.zeros(2, count, channels, device=x.device, dtype=self.weight.dtype)
        weight, bias = self.weight[:channels], self.bias[:channels]
        # With momentum 1 PyTorch leaves the part's own mean and unbiased variance behind.
        parts = [
            F.batch_norm(x[i::count], means[i], variances[i], weight, bias, True, 1.0, self.eps) for i in range(count)
        ]  # fmt: skip
        if self.is_full:
            self._keep_parts(means, variances)
        elif self.tracked is not None:
            self._move_tracked(means.mean(0), variances.mean(0) + means.var(0, correction=0))
        order = torch.cat([torch.arange(i, len(x), count, device=x.device) for i in range(count)]).argsort()
        return torch.cat(parts)[order]

    def _keep_parts(self, means: torch.Tensor, variances: torch.Tensor) -> None:
        """Move the running statistics of the first parts towards these, and the norm's with them."""
        assert self.num_batches_tracked is not None and self.running_mean is not None
        assert self.running_var is not None and self.momentum is not None
        if self._part_statistics is None:
            mean, variance = self.running_mean, self.running_var
            self._part_statistics = mean.repeat(self.num_parts, 1), variance.repeat(self.num_parts, 1)
        own_means, own_variances = self._part_statistics
        # A batch of fewer clips than parts, where some could not be read, has nothing for the last ones.
        own_means[: len(means)].lerp_(means, self.momentum)
        own_variances[: len(variances)].lerp_(variances, self.momentum)
        self.num_batches_tracked.add_(1)
        self.running_mean.copy_(own_means.mean(0))
        self.running_var.copy_(own_variances.mean(0) + own_means.var(0, correction=0))

    def train(self, mode: bool = True) -> "SlimmableNorm":
        """As of every module. Parts begin anew, each with the norm's own statistics, as after a checkpoint is loaded.

        A checkpoint holds the statistics of all parts together, so that a run which stopped between two epochs goes on as
        one that did not; inside an epoch, see `part_statistics`.

        mode: True to normalise by batches, False to evaluate.
        """
        self._part_statistics = None
        return super().train(mode)

    def _keep_running(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """What `nn.BatchNorm` does with the statistics of a batch, by the full network and the tracked one."""
        if self.is_full:
            assert self.num_batches_tracked is not None and self.running_mean is not None
            assert self.running_var is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        elif self.tracked is not None:
            self._move_tracked(mean, variance)

    def _move_tracked(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.tracked is not None and self.momentum is not None
        for kept, new in zip(self.tracked, (mean, variance)):
            kept.lerp_(new.detach(), self.momentum)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, which may go to another process, has no processes beside it."""
        return {**vars(self), "group": None, "_kept": None, "_part_statistics": None}

    def narrowed(self, width: Width) -> "SlimmableNorm":
        """A new norm of the width's channels alone, with the first ones of this norm's parameters and statistics."""
        narrow = type(self)(self.rule.at(width), eps=self.eps, momentum=self.momentum)
        narrow.load_state_dict(self.plain(width).state_dict())
        return narrow

    def plain(self, width: Width) -> nn.Module:
        """An ordinary batch norm of this width; its statistics are the running ones' first channels."""
        channels = self.rule.at(width)
        plain = self._plain_type(
            channels, eps=self.eps, momentum=self.momentum, device=self.weight.device, dtype=self.weight.dtype
        )
        own = self.state_dict()
        plain.load_state_dict({key: value[:channels] if value.ndim else value for key, value in own.items()})
        return plain


class SlimmableBatchNorm2d(SlimmableNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that runs on the channels that arrive; x is B, C, H, W."""

    _plain_type = nn.BatchNorm2d


class SlimmableBatchNorm3d(SlimmableNorm, nn.BatchNorm3d):
    """`nn.BatchNorm3d` that runs on the channels that arrive; x is B, C, T, H, W."""

    _plain_type = nn.BatchNorm3d


class PrivateNorms(PrivateParts):
    """Norms of one place in the network, of which the active one runs: each width (S-Net), size (RS-Net, 3.1) or number of frames (FFN) has its own.

    Every norm has its own scale, shift and running statistics, and all the channels that it is ever used with.
    """

    list_name = "norms"

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)


def slimmable_norms(module: nn.Module) -> dict[str, SlimmableNorm]:
    """The slimmable norms of a module by name, in order."""
    return {name: part for name, part in module.named_modules() if isinstance(part, SlimmableNorm)}


def batch_over(module: nn.Module, *, group: "dist.ProcessGroup | None" = None, num_parts: int = 1) -> None:
    """Say whose clips every slimmable norm of a module takes as one batch in training.

    group: the processes whose clips are one batch; all of them must then run the same configurations in the same order.
    num_parts: this process's clips are so many batches, of every `num_parts`-th clip each, with running statistics of their
    own. The norm's running mean is that of the parts', its running variance that of the parts' plus the variance between
    the parts' running means. At most one of the two is given.
    """
    assert group is None or num_parts == 1
    for norm in slimmable_norms(module).values():
        norm.group, norm.num_parts, norm._part_statistics = group, num_parts, None


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes of a group; so is its gradient's, since every process uses the sum."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: "dist.ProcessGroup") -> torch.Tensor:
        ctx.group = group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One value a channel, shaped to go with x."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def make_private(module: nn.Module, make_norms: Callable[[SlimmableNorm], list[SlimmableNorm]]) -> None:
    """Put PrivateNorms in the place of every slimmable norm; make_norms(norm) gives the list that stands for one."""
    for name, child in list(module.named_children()):
        if isinstance(child, SlimmableNorm):
            setattr(module, name, PrivateNorms(make_norms(child)))
        else:
            make_private(child, make_norms)


def interpolated_norm(lower: nn.Module, upper: nn.Module, share: float) -> nn.Module:
    """A norm between two others: every parameter and statistic `share` of the way to `upper` (RS-Net, 4.3)."""
    norm = copy.deepcopy(lower)
    states = zip(lower.state_dict().items(), upper.state_dict().values())
    norm.load_state_dict({
        key: torch.lerp(low, high, share) if low.is_floating_point() else low for (key, low), high in states
    })
    return norm


def part_statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """Running means and variances, 2 x P x C, of the parts of each norm that has them, by its name: what the state dict has not."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, SlimmableNorm)}
    return {name: torch.stack(norm._part_statistics) for name, norm in norms.items() if norm._part_statistics is not None}


def load_part_statistics(model: nn.Module, statistics: Mapping[str, torch.Tensor]) -> None:
    """Go on with what `part_statistics` gave, after the model was set to train."""
    for name, both in statistics.items():
        norm = model.get_submodule(name)
        assert isinstance(norm, SlimmableNorm), "the same network gave them"
        means, variances = both.to(norm.weight.device).unbind()
        norm._part_statistics = means.clone(), variances.clone()
