"""GFLOPs, parameters and their bits of a configuration, by counting."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mutual3d.layers import stored_bits
from mutual3d.sampling import Configuration


class Cost(NamedTuple):
    """gflops: multiply-adds of convolutions and linears, in 1e9, of one view. parameters: of the sub-network."""

    gflops: float
    parameters: int


class _WithoutNorms(TorchFunctionMode):
    """Batch norms give what they take: of its shape, which is all that a count needs."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return args[0] if function is F.batch_norm else function(*args, **(kwargs or {}))


@contextlib.contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Torch's counter, which counts what is called meanwhile: two operations for each multiply-add, in evaluation, without gradients.

    Batch norms, which it counts as none, are left out: on the meta device they take two thirds of the time.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _WithoutNorms():
        yield counter


def count_cost(network: nn.Module, *inputs: Any) -> Cost:
    """The Cost of a module called with tensors on the meta device, counted without computing anything.

    The module is one of ordinary layers, on the meta device (`model.to("meta").subnetwork(c)`): torch's counter knows
    convolutions and matrix products and counts two for each multiply-add, batch norm none.
    """
    with counting() as counter:
        network.eval()(*inputs)
    return Cost(counter.get_total_flops() / 2e9, sum(p.numel() for p in network.parameters()))


class CostCounter:
    """Counts what configurations of a model cost: of one view cut at `crop` pixels. Sizes of one width share a network, which is made once."""

    def __init__(self, model: Any, crop: int) -> None:
        self._meta = copy.deepcopy(model).to("meta")
        self._clip = torch.empty(1, model.in_channels, model.clip_frames, crop, crop, device="meta")
        self._boxes = whole_picture(self._meta, "meta")
        self._networks: dict[tuple, nn.Module] = {}

    def count(self, configurations: Sequence[Configuration]) -> dict[Configuration, Cost]:
        """{configuration: Cost}."""
        pairs = self._meta.fit_clips(self._clip, configurations)
        return {c: count_cost(self._network(c), pathways, *self._boxes) for c, pathways in pairs}

    def _network(self, configuration: Configuration) -> nn.Module:
        key = self._meta.subnetwork_key(configuration)
        if key not in self._networks:
            self._networks[key] = self._meta.subnetwork(configuration)
        return self._networks[key]


def count_costs(model: Any, configurations: Sequence[Configuration], crop: int) -> dict[Configuration, Cost]:
    """{configuration: Cost} of one view cut at `crop` pixels."""
    return CostCounter(model, crop).count(configurations)


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
