"""Channel arithmetic: how many channels a layer has at a width multiplier. All rounding happens in this file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

# A width multiplier, one for the whole network or one for each count that has a width of its own (`Channels.root`).
Width = float | Mapping["Channels", float]


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at least one divisor and at least 90 % of `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


class Channels:
    """A channel count as a function of the width. `at(width)` gives it; `full` is what the layer's tensors hold."""

    def at(self, width: Width) -> int:
        """The number of active channels at `width`. Raises TypeError for a class that does not say."""
        raise TypeError(f"{type(self).__name__} must say how many channels it has at width {width}")

    @property
    def full(self) -> int:
        """The number of channels at the max width, which is what the layer's tensors hold."""
        raise TypeError(f"{type(self).__name__} must say how many channels it has at most")

    def select(self, tensor: torch.Tensor, count: int, dimension: int) -> torch.Tensor:
        """The part of a tensor that a layer with `count` active channels uses: the first ones.

        dimension: the one of the tensor that counts channels.
        """
        return tensor.narrow(dimension, 0, count)

    @property
    def root(self) -> "Channels | None":
        """The count whose width this one derives from, which may be itself; None when it does not depend on the width."""
        return None


@dataclass(frozen=True)
class FixedChannels(Channels):
    """The same count at every width: the network's classes, X3D's 2048 features."""

    count: int

    def at(self, width: Width) -> int:
        return self.count

    @property
    def full(self) -> int:
        return self.count


@dataclass(frozen=True)
class PixelChannels(FixedChannels):
    """The channels of the images or clips that a network is given: a layer that reads them is its first."""


@dataclass(frozen=True)
class ScaledChannels(Channels):
    """`base` channels times the width, rounded to the divisor; exactly `base` at width 1.0, never more than `full`.

    The width is one for the whole network, or a dict with one for each ScaledChannels (non-uniform widths). Equal ones
    are one count, tied together; `layer` tells apart those that are not.
    """

    base: int
    divisor: int = 8
    max_width: float = 1.0
    layer: int = 0

    def at(self, width: Width) -> int:
        return min(self._rounded(width[self] if isinstance(width, Mapping) else width), self.full)

    @property
    def full(self) -> int:
        return self._rounded(self.max_width)

    @property
    def root(self) -> "Channels | None":
        return self

    def _rounded(self, width: float) -> int:
        if width == 1.0:
            return self.base
        rounded = make_divisible(self.base * width, self.divisor)
        return min(rounded, self.base) if width < 1.0 else max(rounded, self.base)


@dataclass(frozen=True)
class ExpandedChannels(Channels):
    """`ratio` times another count, after that one was rounded (the inside of a bottleneck)."""

    of: Channels
    ratio: float

    def at(self, width: Width) -> int:
        return int(self.of.at(width) * self.ratio)

    @property
    def full(self) -> int:
        return int(self.of.full * self.ratio)

    @property
    def root(self) -> "Channels | None":
        return self.of.root


@dataclass(frozen=True)
class OwnChannels(Channels):
    """The same count as `of` at one width for the whole network, with a width of its own where there are several.

    Of a layer whose outputs no sum ties to others' (US-Net, section 6: each layer adjusts its own ratio). `layer` tells
    apart those that are not tied.
    """

    of: Channels
    layer: int

    def at(self, width: Width) -> int:
        return self.of.at(width[self] if isinstance(width, Mapping) else width)

    @property
    def full(self) -> int:
        return self.of.full

    @property
    def root(self) -> "Channels | None":
        return self


# From a count to the same count, with a width of its own or without.
Untie = Callable[[Channels], Channels]


def tied(channels: Channels) -> Channels:
    """The count itself, whose width stays that of what it derives from."""
    return channels


class OwnWidths:
    """Gives each count that it is called with a width of its own (`OwnChannels`); what never changes stays as it is."""

    def __init__(self) -> None:
        self.layers = 0

    def __call__(self, channels: Channels) -> Channels:
        if channels.root is None:
            return channels
        self.layers += 1
        return OwnChannels(channels, self.layers)


@dataclass(frozen=True)
class SqueezedChannels(Channels):
    """`ratio` times another count, rounded to the divisor: the hidden width of a squeeze-excite block."""

    of: Channels
    ratio: float
    divisor: int = 8

    def at(self, width: Width) -> int:
        return min(make_divisible(self.of.at(width) * self.ratio, self.divisor), self.full)

    @property
    def full(self) -> int:
        return make_divisible(self.of.full * self.ratio, self.divisor)

    @property
    def root(self) -> "Channels | None":
        return self.of.root


@dataclass(frozen=True)
class JoinedChannels(Channels):
    """After a fusion: the first channels of `adaptive`, then always the last `tail` ones (paper, Fig. 6)."""

    adaptive: Channels
    tail: int

    def at(self, width: Width) -> int:
        return self.adaptive.at(width) + self.tail

    @property
    def full(self) -> int:
        return self.adaptive.full + self.tail

    def select(self, tensor: torch.Tensor, count: int, dimension: int) -> torch.Tensor:
        first = tensor.narrow(dimension, 0, count - self.tail)
        last = tensor.narrow(dimension, tensor.shape[dimension] - self.tail, self.tail)
        return torch.cat([first, last], dimension)

    @property
    def root(self) -> "Channels | None":
        return self.adaptive.root


def as_channels(channels: Channels | int) -> Channels:
    """An int becomes a count that does not depend on the width."""
    return channels if isinstance(channels, Channels) else FixedChannels(int(channels))
