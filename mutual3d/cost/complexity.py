"""What a network costs before it is trained, by counting: a training step, each stage, the activations of a clip."""

import copy
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mutual3d.cost.flops import Cost, CostCounter, counting, whole_picture
from mutual3d.sampling import Configuration, SearchSpace, expected_step_cost


class StageCost(NamedTuple):
    """GFLOPs of one child of a network. pathways: the part of each pathway; joint: of what belongs to no single one."""

    name: str
    pathways: tuple
    joint: float

    @property
    def gflops(self) -> float:
        return sum(self.pathways) + self.joint


def split_cost(model: Any, configuration: Configuration, crop: int) -> list[StageCost]:
    """[StageCost] of one view cut at `crop` pixels, in the order they run; their sum is the configuration's GFLOPs.

    A module called pathway{i}_... belongs to pathway i, as in PySlowFast; fusions and heads belong to all of them.
    """
    network, pathways, *boxes = _network_and_inputs(model, configuration, crop)
    with counting() as counter:
        network.eval()(pathways, *boxes)
    counted = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    root = type(network).__name__
    return [_stage_cost(name, stage, counted, root, len(pathways)) for name, stage in network.named_children()]


def _stage_cost(name, stage, counted, root, num_pathways):
    parts = [0] * num_pathways
    for child, _ in stage.named_children():
        if match := re.match(r"pathway(\d+)_", child):
            parts[int(match[1])] += counted.get(f"{root}.{name}.{child}", 0)
    joint = counted.get(f"{root}.{name}", 0) - sum(parts)
    # The counter's operations are two for each multiply-add.
    return StageCost(name, tuple(part / 2e9 for part in parts), joint / 2e9)


def _network_and_inputs(model, configuration, crop):
    """The plain network of `configuration`, its pathways of one view, and a box if it takes any; without memory."""
    meta = copy.deepcopy(model).to("meta").activate(configuration)
    dtype = next(meta.parameters()).dtype
    clip = torch.empty(1, meta.in_channels, meta.clip_frames, crop, crop, device="meta", dtype=dtype)
    return meta.subnetwork(configuration), meta.fit_clip(clip), *whole_picture(meta, "meta")


# ---- A training step -------------------------------------------------------------------------------------------------


def counted_step_cost(
    model: Any,
    subnets: Sequence[str],
    crop: int,
    *,
    width_samples: int = 10,
    known: Mapping[Configuration, Cost] | None = None,
    largest: bool = True,
) -> float:
    """Expected GFLOPs of a step's forward passes for one clip, each configuration counted at its real size.

    subnets: names of sampling rules. largest: whether the largest configuration runs beside them. width_samples: how finely random widths are averaged. known: {configuration:
    Cost} that was counted before at the same crop; each distinct network is counted once.
    """
    counted = {_network_key(model, c): cost.gflops for c, cost in (known or {}).items()}
    counter = CostCounter(model, crop)

    def gflops(configuration: Configuration) -> float:
        key = _network_key(model, configuration)
        if key not in counted:
            counted[key] = counter.count([configuration])[configuration].gflops
        return counted[key]

    return expected_step_cost(model.space, subnets, gflops, width_samples, largest)


def _network_key(model, configuration):
    return model.signature(configuration.width), configuration.spatial, configuration.temporal


def factor_step_cost(
    space: SearchSpace,
    subnets: Sequence[str],
    stages: list[StageCost],
    spatial_factors: Mapping[int, float],
    temporal_factors: Mapping[int, float],
    *,
    largest: bool = True,
) -> float:
    """The same estimated as the papers do: a configuration costs w^2 s^2 t of the largest (paper, Eq. 9 and Table 4).

    stages: `split_cost` of the largest configuration. Of several pathways the first alone shrinks (paper, 4.2.2).
    spatial_factors, temporal_factors: of `size_factors`.
    """
    total = sum(stage.gflops for stage in stages)
    adaptive = sum(stage.pathways[0] for stage in stages) if len(stages[0].pathways) > 1 else total

    def gflops(configuration: Configuration) -> float:
        width = configuration.width / space.width_range[1]
        sizes = spatial_factors[configuration.spatial] ** 2 * temporal_factors[configuration.temporal]
        return total - adaptive + adaptive * width**2 * sizes

    return expected_step_cost(space, subnets, gflops, largest=largest)


def size_factors(name: str, sizes: Sequence[int], factors: Sequence[float] | None = None) -> dict[int, float]:
    """{size: factor}: the factors given, or each size over the largest; ValueError unless they rise to 1, one each.

    name: what the error calls them, spatial or temporal.
    """
    factors = [size / sizes[-1] for size in sizes] if factors is None else list(factors)
    rising = all(0 < earlier <= later <= 1 for earlier, later in zip(factors, [*factors[1:], 1.0]))
    if len(factors) != len(sizes) or not rising or factors[-1] != 1:
        legal = ", ".join(map(str, sizes))
        raise ValueError(
            f"the {name} factors are {factors}: give one for each of the sizes {legal}, rising, above 0, the last one 1"
        )
    return dict(zip(sizes, factors))


# ---- Memory ----------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """While it is active, adds up the memory of tensors: `now` in bytes, and `peak`, the most at any time.

    Counted are the input tensors given and whatever operations make, for as long as something holds it; memory that
    tensors share once. `existing` tensors are not counted.
    """

    def __init__(self, inputs: Sequence[torch.Tensor], existing: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in existing}
        for tensor in inputs:
            self._add(tensor)

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _remove(self, identity, size):
        self._seen.discard(identity)
        self.now -= size


def count_activation_bytes(model: Any, configuration: Configuration, crop: int) -> int:
    """Most bytes that tensors take at one time in the forward and backward pass of one clip, in the weights' dtype.

    Counted are the clip, the activations that autograd keeps, and gradients on their way. Not counted are weights and
    their gradients, optimizer state, and what convolution libraries take for themselves.
    """
    network, pathways, *boxes = _network_and_inputs(model, configuration, crop)
    for parameter in network.train().parameters():
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
    with LiveBytes(pathways, [*network.parameters(), *network.buffers()]) as live:
        outputs = [leaf for leaf in tree_leaves(network(pathways, *boxes)) if isinstance(leaf, torch.Tensor)]
        torch.stack([leaf.sum() for leaf in outputs]).sum().backward()
    return live.peak


def _drop_gradient(parameter):
    parameter.grad = None
