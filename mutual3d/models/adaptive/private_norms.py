"""Norms of one's own for each width (S-Net), size (RS-Net) or number of frames (FFN): which there are, and which one a configuration runs."""

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn as nn

from mutual3d.layers import BNStatistics, SlimmableNorm, interpolated_norm, make_private
from mutual3d.sampling import Configuration, SearchSpace

from ..arguments import wrong_frames

# A width, a size in space and time, or a number of frames.
Key = float | tuple[int, int]


@dataclass(frozen=True)
class PrivateBy:
    """What has norms of its own.

    keys: of a space, in the order of the norms. key: of a configuration. home: (key, largest configuration) -> the configuration that
    trains its norms in full. rule: the sampling rule that runs all of these in every step. counts_frames: whether a key says how many
    frames, so that a number of frames that was not trained takes the norms of the nearest one.
    """

    keys: Callable[[SearchSpace], list[Key]]
    key: Callable[[Configuration], Key]
    home: Callable[[Any, Configuration], Configuration]
    rule: str
    counts_frames: bool = True


def sizes_of(space: SearchSpace) -> list[tuple[int, int]]:
    """Sizes in space and time, descending."""
    return [*itertools.product(reversed(space.spatial_sizes), reversed(space.temporal_sizes))]


PRIVATE_BY = {
    "width": PrivateBy(
        keys=lambda space: [*reversed(space.listed_widths)],
        key=lambda c: c.width,
        home=lambda width, largest: replace(largest, width=width),
        rule="each_width",
        counts_frames=False,
    ),
    "size": PrivateBy(
        keys=lambda space: [*sizes_of(space)],
        key=lambda c: (c.spatial, c.temporal),
        home=lambda size, largest: Configuration(largest.width, *size),
        rule="each_size",
    ),
    "frames": PrivateBy(
        keys=lambda space: [*reversed(space.temporal_sizes)],
        key=lambda c: c.temporal,
        home=lambda frames, largest: replace(largest, temporal=frames),
        rule="each_temporal",
    ),
}


def put_private_norms(network: nn.Module, space: SearchSpace, by: str) -> list[Key]:
    """Give each of what `by` says, one of PRIVATE_BY, norms of its own, in place; returns what has them, in order.

    Raises ValueError for widths that are not listed, or whose max is not that of the range, and for a single number of frames.
    """
    if by == "frames" and (mistake := wrong_frames(space.temporal_sizes)):
        raise ValueError(mistake)
    keys = PRIVATE_BY[by].keys(space)
    if by != "width":
        make_private(network, lambda norm: [copy.deepcopy(norm) for _ in keys])
        return keys
    if not space.listed_widths or space.listed_widths[-1] != space.width_range[1]:
        raise ValueError(
            f"private norms by width need MUTUAL.WIDTHS that end at MUTUAL.WIDTH_RANGE's {space.width_range[1]:g}: "
            f"they are {list(space.listed_widths)}"
        )
    make_private(network, lambda norm: [norm.narrowed(width) for width in reversed(space.listed_widths)])
    return keys


def nearest_frames(frames: int, trained: Sequence[int]) -> int:
    """The number of frames among `trained` that is nearest to `frames`; of two as near the larger, whose share in it is nearer to 1."""
    return min(trained, key=lambda other: (abs(other - frames), -other))


def add_size_between(lists: Iterable[nn.ModuleList], keys: list[Any], space: SearchSpace, spatial: int) -> None:
    """Give `spatial` pixels modules between their neighbours', at each number of frames; `keys` gains what has them.

    lists: modules by size, norms or quantisers, each in the order of `keys`, (spatial, temporal) sizes. Everything of a module is
    interpolated linearly (RS-Net, 4.3); outside the sizes that are there it is the nearest one's (RS-Net, Table 8). Raises
    ValueError for a size that is there.
    """
    sizes, frames = space.spatial_sizes, sorted({temporal for _, temporal in keys})
    if spatial in sizes:
        raise ValueError(f"size {spatial} has norms of its own: norms can be added for others than {', '.join(map(str, sizes))} pixels")
    lower, upper, share = neighbours(spatial, sizes)
    lists = list(lists)
    for temporal in frames:
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


def private_index(
    by: str, keys: Sequence[Key], configuration: Configuration, largest: Configuration, trained_frames: Sequence[int]
) -> tuple[int, bool]:
    """(which of the private norms runs, whether it is trained at this configuration in full).

    A number of frames that is not among `trained_frames` is taken for the nearest of them, with its norms and their statistics.
    Raises ValueError for a width without norms of its own. by: one of PRIVATE_BY. keys: what has norms, in their order.
    """
    kind = PRIVATE_BY[by]
    if kind.counts_frames:
        configuration = replace(configuration, temporal=nearest_frames(configuration.temporal, trained_frames))
    key = kind.key(configuration)
    if key not in keys:
        known = ", ".join(f"{width:g}" for width in keys)
        raise ValueError(f"{configuration}: width {key} has no norms of its own; there are norms for {known}")
    return keys.index(key), configuration == kind.home(key, largest)
