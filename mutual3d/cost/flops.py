"""GFLOPs, parameters and their bits of a configuration, by counting."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch.utils.flop_counter import FlopCounterMode

from mutual3d.layers import stored_bits
from mutual3d.sampling import Configuration


class Cost(NamedTuple):
    """gflops: multiply-adds of convolutions and linears, in 1e9, of one view. parameters: of the sub-network."""

    gflops: float
    parameters: int


def count_cost(network: nn.Module, *inputs: Any) -> Cost:
    """The Cost of a module called with tensors on the meta device, counted without computing anything.

    The module is one of ordinary layers, on the meta device (`model.to("meta").subnetwork(c)`): torch's counter knows
    convolutions and matrix products and counts two for each multiply-add, batch norm none.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(*inputs)
    return Cost(counter.get_total_flops() / 2e9, sum(p.numel() for p in network.parameters()))


def count_costs(model: Any, configurations: Sequence[Configuration], crop: int) -> dict[Configuration, Cost]:
    """{configuration: Cost} of one view cut at `crop` pixels."""
    meta = copy.deepcopy(model).to("meta")
    clip = torch.empty(1, model.in_channels, model.clip_frames, crop, crop, device="meta")
    inputs = whole_picture(meta, "meta")
    return {c: count_cost(meta.subnetwork(c), p, *inputs) for c, p in meta.fit_clips(clip, configurations)}


def count_parameters(model: Any, configurations: Sequence[Configuration]) -> dict[Configuration, int]:
    """{configuration: parameters of its sub-network}, which sizes do not change: each width is counted once."""
    return _of_each_width(model, configurations, lambda network: sum(p.numel() for p in network.parameters()))


def count_weight_bits(model: Any, configurations: Sequence[Configuration]) -> dict[Configuration, int]:
    """{configuration: bits that the parameters of its sub-network are stored with}: 32 each, fewer of those that are quantised.

    model: an AdaptiveNetwork.
    """
    return _of_each_width(model, configurations, stored_bits)


def _of_each_width(
    model: Any, configurations: Sequence[Configuration], count: Callable[[nn.Module], int]
) -> dict[Configuration, int]:
    meta = copy.deepcopy(model).to("meta")
    by_width: dict[object, int] = {}
    for configuration in configurations:
        if configuration.width not in by_width:
            by_width[configuration.width] = count(meta.subnetwork(configuration))
    return {c: by_width[c.width] for c in configurations}


def whole_picture(model: Any, device: torch.device | str) -> list[torch.Tensor]:
    """One box around everything, as a list of arguments, for a network that classifies boxes; else nothing."""
    return [torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]], device=device)] if model.takes_boxes else []
