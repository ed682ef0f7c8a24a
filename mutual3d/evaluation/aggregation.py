"""How much of a feature is missing where only the first inputs are summed: the residual of US-Net's Eq. 1 to 3, measured."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn

from mutual3d.layers import SlimmableLayer


class AggregationResidual(NamedTuple):
    """Of a layer with n inputs: what its outputs lack with the first k of them (US-Net, Eq. 2 and 3).

    counts: the numbers k, ascending, the last one n. residuals: for each k the mean over all outputs of |y^n - y^k| over the mean
    of |y^n|, without the bias. bounded: for each k but the last the share of the outputs whose residual does not grow from that k
    to the next, as Eq. 3 has it.
    """

    layer: str
    counts: tuple[int, ...]
    residuals: tuple[float, ...]
    bounded: tuple[float, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Each k over n."""
        return tuple(count / self.counts[-1] for count in self.counts)


@torch.no_grad()
def aggregation_residuals(
    model: Any, inputs: torch.Tensor | Sequence[torch.Tensor], widths: Sequence[float], boxes: torch.Tensor | None = None
) -> list[AggregationResidual]:
    """The AggregationResidual of every layer whose number of inputs differs at these widths, in the order in which they run.

    The inputs of each layer are those of the whole network, in evaluation at the largest configuration; only its own sum is cut
    short. model: the adaptive network. inputs: what it takes at its largest configuration, of a few clips. widths: of the space;
    k is what a layer's number of inputs rounds to at each. boxes: as of the network. Raises ValueError without a width, and for one
    outside the space.
    """
    low, high = model.space.width_range
    if not widths or not all(low <= width <= high for width in widths):
        raise ValueError(f"the widths are {list(widths)}: give at least one, each in the range [{low:g}, {high:g}] of the network")
    found: list[AggregationResidual] = []
    was_training, was_active = model.training, model.active
    hooks = [
        layer.register_forward_hook(_measuring(name, sorted({*widths, high}), found))
        for name, layer in model.named_modules()
        if isinstance(layer, SlimmableLayer) and isinstance(layer, nn.Module) and _sums_scaled_inputs(layer)
    ]
    try:
        model.eval().activate(model.space.largest)
        model(inputs, boxes)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
        model.activate(was_active)
    return found


def _sums_scaled_inputs(layer: SlimmableLayer) -> bool:
    """Whether outputs sum over inputs whose number depends on the width: not of a depthwise convolution."""
    return layer.in_rule.root is not None and getattr(layer, "groups", 1) == 1


def _measuring(
    name: str, widths: Sequence[float], found: list[AggregationResidual]
) -> Callable[[nn.Module, tuple, torch.Tensor], None]:
    """A hook that appends what a layer lacks at each of the widths."""

    def measure(layer: nn.Module, inputs: tuple[torch.Tensor], whole: torch.Tensor) -> None:
        assert isinstance(layer, SlimmableLayer)
        (x,) = inputs
        rule, dimension = layer.in_rule, -1 if isinstance(layer, nn.Linear) else 1
        counts = sorted({rule.at(width) for width in widths})
        if len(counts) == 1:  # so few that every width rounds to all of them
            return
        # The layer reads its number of inputs from the tensor; past `__call__`, so that this hook does not see itself.
        missing = [(whole - layer.forward(rule.select(x, count, dimension))).abs() for count in counts]
        total = (whole - _bias(layer, whole.ndim, dimension)).abs().mean().clamp_min(torch.finfo(torch.float32).tiny)
        residuals = tuple(float(each.mean() / total) for each in missing)
        bounded = tuple(float((after <= before).float().mean()) for before, after in zip(missing, missing[1:]))
        found.append(AggregationResidual(name, tuple(counts), residuals, bounded))

    return measure


def _bias(layer: nn.Module, ndim: int, dimension: int) -> torch.Tensor:
    bias = layer.bias
    if bias is None:
        return torch.zeros(())
    assert isinstance(bias, torch.Tensor)
    return bias if dimension == -1 else bias.view(1, -1, *[1] * (ndim - 2))
