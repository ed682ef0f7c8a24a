"""Norms of one's own for each width (S-Net) or each size (RS-Net): which there are, and which one a configuration runs."""

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn as nn

from mutual3d.layers import BNStatistics, SlimmableNorm, interpolated_norm, make_private
from mutual3d.sampling import Configuration, SearchSpace

# A width, or a size in space and time.
Key = float | tuple[int, int]


def put_private_norms(network: nn.Module, space: SearchSpace, by: str) -> list[Key]:
    """Give each listed width (`by="width"`) or size (`by="size"`) norms of its own, in place; returns what has them, in order.

    Raises ValueError for widths that are not listed, or whose max is not that of the range.
    """
    if by == "size":
        sizes = [*itertools.product(reversed(space.spatial_sizes), reversed(space.temporal_sizes))]
        make_private(network, lambda norm: [copy.deepcopy(norm) for _ in sizes])
        return [*sizes]
    if not space.listed_widths or space.listed_widths[-1] != space.width_range[1]:
        raise ValueError(
            f"private norms by width need MUTUAL.WIDTHS that end at MUTUAL.WIDTH_RANGE's {space.width_range[1]:g}: "
            f"they are {list(space.listed_widths)}"
        )
    widths = list(reversed(space.listed_widths))
    make_private(network, lambda norm: [norm.narrowed(width) for width in widths])
    return [*widths]


def add_size_between(lists: Iterable[nn.ModuleList], keys: list[Any], space: SearchSpace, spatial: int) -> None:
    """Give `spatial` pixels modules between their neighbours', at each number of frames; `keys` gains what has them.

    lists: modules by size, norms or quantisers, each in the order of `keys`, (spatial, temporal) sizes. Everything of a module is
    interpolated linearly (RS-Net, 4.3); outside the sizes that are there it is the nearest one's (RS-Net, Table 8). Raises
    ValueError for a size that is there.
    """
    sizes = space.spatial_sizes
    if spatial in sizes:
        raise ValueError(f"size {spatial} has norms of its own: norms can be added for others than {', '.join(map(str, sizes))} pixels")
    lower, upper, share = neighbours(spatial, sizes)
    lists = list(lists)
    for temporal in space.temporal_sizes:
        low, high = (keys.index((size, temporal)) for size in (lower, upper))
        for modules in lists:
            modules.append(interpolated_norm(modules[low], modules[high], share))
        keys.append((spatial, temporal))


def neighbours(spatial: int, sizes: Sequence[int]) -> tuple[int, int, float]:
    """(the sizes that `spatial` pixels lie between, how far towards the second); outside `sizes`, which ascend, the nearest one and 0."""
    lower = max((size for size in sizes if size < spatial), default=sizes[0])
    upper = min((size for size in sizes if size > spatial), default=sizes[-1])
    return lower, upper, (spatial - lower) / (upper - lower) if lower < spatial < upper else 0.0


def norm_means(norms: Mapping[str, SlimmableNorm], statistics: BNStatistics | None) -> dict[str, list[float]]:
    """{scale, shift, mean, variance: the mean over the channels of each norm, in order} (RS-Net, Fig. 6).

    norms: {name: norm} of one configuration. statistics: what it evaluates with, None for the norms' running ones.
    """
    found: dict[str, list[float]] = {"scale": [], "shift": [], "mean": [], "variance": []}
    for name, norm in norms.items():
        running = (norm.running_mean, norm.running_var)
        means, variances = running if statistics is None else (statistics.mean[name], statistics.variance[name])
        for values, tensor in zip(found.values(), (norm.weight, norm.bias, means, variances)):
            assert tensor is not None, "slimmable norms keep running statistics"
            values.append(float(tensor.detach().float().mean()))
    return found


def private_index(by: str, keys: Sequence[Key], configuration: Configuration, largest: Configuration) -> tuple[int, bool]:
    """(which of the private norms runs, whether it is trained at this configuration in full).

    Raises ValueError for a width without norms of its own. by: `width` or `size`. keys: what has norms, in their order.
    """
    size = configuration.spatial, configuration.temporal
    key: Key
    if by == "size":
        key, is_home = size, configuration.width == largest.width
    else:
        key, is_home = configuration.width, size == (largest.spatial, largest.temporal)
    if key not in keys:
        known = ", ".join(f"{width:g}" for width in keys)
        raise ValueError(f"{configuration}: width {key} has no norms of its own; there are norms for {known}")
    return keys.index(key), is_home
