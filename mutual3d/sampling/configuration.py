"""A configuration of an adaptive network, and the space that configurations are drawn from."""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

# A grid has no more widths than this; channel counts are multiples of a divisor, so that far fewer are different.
MAX_WIDTHS = 10**5
# Which counts of channels may have a width of their own.
WIDTHS_BY = ("stage", "layer")

Value = TypeVar("Value")


@functools.total_ordering
@dataclass(frozen=True)
class Configuration:
    """Width x space x time of one sub-network; printed and parsed as `0.8-160-9`, an image's as `0.8-160`.

    width: multiplier of the channel counts; a tuple has one for each group of layers whose counts are tied (US-Net's
    non-uniform widths), printed as `1x3,0.5,0.75x2-160`: 1 three times, 0.5, 0.75 twice. spatial: side of the input in pixels.
    temporal: number of frames. Sizes are absolute, at the training crop; never factors. They are ordered by widths, then
    sizes.
    """

    width: float | tuple
    spatial: int
    temporal: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.width, tuple) and len(self.width) == 1:
            object.__setattr__(self, "width", self.width[0])

    def __str__(self) -> str:
        frames = f"-{self.temporal}" if self.temporal != 1 else ""
        return f"{self.width_text}-{self.spatial}{frames}"

    def __lt__(self, other: "Configuration") -> bool:
        if not isinstance(other, Configuration):
            return NotImplemented
        return (self.widths, self.spatial, self.temporal) < (other.widths, other.spatial, other.temporal)

    @property
    def width_text(self) -> str:
        """Its widths as text, each with how often it follows itself: `0.8`, or `1x3,0.5`."""
        runs = [(width, len([*group])) for width, group in itertools.groupby(f"{width:.10g}" for width in self.widths)]
        return ",".join(width if count == 1 else f"{width}x{count}" for width, count in runs)

    @property
    def widths(self) -> tuple[float, ...]:
        """Its width multipliers: one, or one a group of layers."""
        return self.width if isinstance(self.width, tuple) else (self.width,)

    @classmethod
    def parse(cls, text: "Configuration | str") -> "Configuration":
        """Read `width-spatial-temporal`; raises ValueError that shows the form."""
        if isinstance(text, cls):
            return text
        try:
            width, *sizes = str(text).split("-")
            return cls(tuple(_read_widths(width)), *_spatial_and_temporal(*map(int, sizes)))
        except (ValueError, TypeError):
            raise ValueError(
                f"'{text}' is not a configuration: write width-pixels-frames, for example 0.8-160-9, or 0.8-160 for images"
            ) from None


def _read_widths(text: str) -> list[float]:
    """The widths of `1x3,0.5`; ValueError for what is none, and for more than any network has."""
    parts = [part.partition("x") for part in text.split(",")]
    counts = [int(count) if times else 1 for _, times, count in parts]
    if not all(count >= 1 for count in counts) or sum(counts) > MAX_WIDTHS:
        raise ValueError(f"{sum(counts)} widths")
    return [float(width) for (width, _, _), count in zip(parts, counts) for _ in range(count)]


def _spatial_and_temporal(spatial: int, temporal: int = 1) -> tuple[int, int]:
    return spatial, temporal


@dataclass(frozen=True)
class SearchSpace:
    """Every configuration that a network is trained for (paper, 4.2.1 and 6.5).

    Widths are continuous in `width_range`; spatial and temporal sizes are lists of absolute values.
    `divisor` is what channel counts round to. `listed_widths`, where given, are the only ones that the grid has and that
    the rule `each_width` trains (S-Net). `width_groups`: groups of layers that a network can give widths of their own, which
    the network counts; `widths_by`: what such a group is, all layers of a `stage` or each `layer` whose outputs no residual
    sum ties to others'.
    """

    width_range: tuple
    spatial_sizes: tuple
    temporal_sizes: tuple = (1,)
    divisor: int = 8
    listed_widths: tuple = ()
    width_groups: int = 1
    widths_by: str = WIDTHS_BY[0]

    def __post_init__(self) -> None:
        for name in ("width_range", "spatial_sizes", "temporal_sizes", "listed_widths"):
            object.__setattr__(self, name, _ascending(getattr(self, name), repeats=name == "width_range"))
        if len(self.width_range) != 2 or self.width_range[0] <= 0:
            raise ValueError(f"the width range {list(self.width_range)} must be [min, max], both above 0")
        for name in ("spatial_sizes", "temporal_sizes"):
            sizes = getattr(self, name)
            if not sizes or any(int(size) != size or size < 1 for size in sizes):
                raise ValueError(f"{name} is {list(sizes)}: give at least one whole number, each 1 or more")
        outside = [w for w in self.listed_widths if not self.width_range[0] <= w <= self.width_range[1]]
        if outside:
            raise ValueError(f"the listed widths {outside} are outside the width range {list(self.width_range)}")
        if self.widths_by not in WIDTHS_BY:
            raise ValueError(f"widths_by is {self.widths_by!r:.80}: choose among {', '.join(WIDTHS_BY)}")
        if self.divisor < 1:
            raise ValueError(f"the width divisor is {self.divisor}: it must be 1 or more")

    @property
    def largest(self) -> Configuration:
        """The whole network on whole clips: it teaches the others, and its statistics are the running ones."""
        return Configuration(self.width_range[1], self.spatial_sizes[-1], self.temporal_sizes[-1])

    @property
    def smallest(self) -> Configuration:
        """The cheapest configuration: the narrowest width at the smallest size and the fewest frames."""
        return Configuration(self.width_range[0], self.spatial_sizes[0], self.temporal_sizes[0])

    def widths(self, step: float) -> list[float]:
        """The listed widths; without a list the min of the range, every multiple of `step` inside it, and its max."""
        low, high = self.width_range
        if not 0 < step < math.inf or (high - low) / step > MAX_WIDTHS:
            raise ValueError(f"the width step is {step}: it must be above 0, finite, and give at most {MAX_WIDTHS} widths")
        if self.listed_widths:
            return list(self.listed_widths)
        count = int(high / step) + 1
        inner = [round(step * i, 10) for i in range(1, count + 1) if low < round(step * i, 10) < high]
        return sorted({low, *inner, high})

    def grid(self, step: float) -> list[Configuration]:
        """All configurations with widths `step` apart, ascending (paper, 3.4)."""
        products = itertools.product(self.widths(step), self.spatial_sizes, self.temporal_sizes)
        return [Configuration(*values) for values in products]

    def corners(self) -> list[Configuration]:
        """The configurations at the ends of every dimension: at most eight."""
        ends = [sorted({sizes[0], sizes[-1]}) for sizes in (self.width_range, self.spatial_sizes, self.temporal_sizes)]
        return [Configuration(*values) for values in itertools.product(*ends)]

    def sample(self, generator: torch.Generator | None = None) -> Configuration:
        """A random configuration: width uniform in the range, sizes uniform over their lists."""
        return Configuration(
            self.sample_width(generator),
            pick(self.spatial_sizes, generator),
            pick(self.temporal_sizes, generator),
        )

    def sample_width(self, generator: torch.Generator | None = None) -> float:
        """A random width, uniform in the range; generator: torch's own where None."""
        low, high = self.width_range
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    def check(self, configuration: Configuration | str) -> Configuration:
        """Return the configuration (parsed when it is text) if it lies in the space; otherwise ValueError."""
        configuration = Configuration.parse(configuration)
        low, high = self.width_range
        if not all(low <= width <= high for width in configuration.widths):
            raise ValueError(
                f"{configuration}: the width {configuration.width_text} is outside the range "
                f"[{low:g}, {high:g}] that this network was trained for"
            )
        if len(configuration.widths) not in (1, self.width_groups):
            raise ValueError(
                f"{configuration}: it has {len(configuration.widths)} widths; this network takes 1 or {self.width_groups}"
            )
        for name, size, sizes in (
            ("size", configuration.spatial, self.spatial_sizes),
            ("number of frames", configuration.temporal, self.temporal_sizes),
        ):
            if size not in sizes:
                legal = ", ".join(map(str, sizes))
                raise ValueError(f"{configuration}: the {name} {size} is not one of {legal}")
        return configuration


def _ascending(values: Iterable[float], repeats: bool) -> tuple[float, ...]:
    return tuple(sorted(values if repeats else set(values)))


def pick(values: Sequence[Value], generator: torch.Generator | None = None) -> Value:
    """One of `values`, each equally likely."""
    return values[int(torch.randint(len(values), (), generator=generator))]
