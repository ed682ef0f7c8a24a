"""A configuration of an adaptive network, and the space that configurations are drawn from."""

import itertools
from dataclasses import dataclass

import torch


@dataclass(frozen=True, order=True)
class Configuration:
    """Width x space x time of one sub-network; printed and parsed as `0.8-160-9`.

    width: multiplier of the channel counts. spatial: side of the input in pixels. temporal: number of frames.
    Sizes are absolute, at the training crop; never factors.
    """

    width: float
    spatial: int
    temporal: int

    def __str__(self):
        return f"{self.width:.10g}-{self.spatial}-{self.temporal}"

    @classmethod
    def parse(cls, text):
        """Read `width-spatial-temporal`; raises ValueError that shows the form."""
        if isinstance(text, cls):
            return text
        try:
            width, spatial, temporal = str(text).split("-")
            return cls(float(width), int(spatial), int(temporal))
        except ValueError:
            raise ValueError(
                f"'{text}' is not a configuration: write width-pixels-frames, for example 0.8-160-9"
            ) from None


@dataclass(frozen=True)
class SearchSpace:
    """Every configuration that a network is trained for (paper, 4.2.1 and 6.5).

    Widths are continuous in `width_range`; spatial and temporal sizes are lists of absolute values.
    `divisor` is what channel counts round to.
    """

    width_range: tuple
    spatial_sizes: tuple
    temporal_sizes: tuple
    divisor: int = 8

    def __post_init__(self):
        for name in ("width_range", "spatial_sizes", "temporal_sizes"):
            object.__setattr__(self, name, _ascending(getattr(self, name), repeats=name == "width_range"))
        if len(self.width_range) != 2 or self.width_range[0] <= 0:
            raise ValueError(f"the width range {list(self.width_range)} must be [least, greatest], both above 0")
        for name in ("spatial_sizes", "temporal_sizes"):
            sizes = getattr(self, name)
            if not sizes or any(int(size) != size or size < 1 for size in sizes):
                raise ValueError(f"{name} is {list(sizes)}: give at least one whole number, each 1 or more")
        if self.divisor < 1:
            raise ValueError(f"the width divisor is {self.divisor}: it must be 1 or more")

    @property
    def largest(self):
        return Configuration(self.width_range[1], self.spatial_sizes[-1], self.temporal_sizes[-1])

    @property
    def smallest(self):
        return Configuration(self.width_range[0], self.spatial_sizes[0], self.temporal_sizes[0])

    def widths(self, step):
        """The least width, every multiple of `step` inside the range, and the greatest width, ascending."""
        if step <= 0:
            raise ValueError(f"the width step is {step}: it must be above 0")
        least, greatest = self.width_range
        count = int(greatest / step) + 1
        inner = [round(step * i, 10) for i in range(1, count + 1) if least < round(step * i, 10) < greatest]
        return sorted({least, *inner, greatest})

    def grid(self, step):
        """All configurations with widths `step` apart, ascending (paper, 3.4)."""
        products = itertools.product(self.widths(step), self.spatial_sizes, self.temporal_sizes)
        return [Configuration(*values) for values in products]

    def corners(self):
        """The configurations at the ends of every dimension: at most eight."""
        ends = [sorted({sizes[0], sizes[-1]}) for sizes in (self.width_range, self.spatial_sizes, self.temporal_sizes)]
        return [Configuration(*values) for values in itertools.product(*ends)]

    def sample(self, generator=None):
        """A random configuration: width uniform in the range, sizes uniform over their lists."""
        return Configuration(
            self.sample_width(generator),
            pick(self.spatial_sizes, generator),
            pick(self.temporal_sizes, generator),
        )

    def sample_width(self, generator=None):
        least, greatest = self.width_range
        return least + (greatest - least) * torch.rand((), generator=generator, dtype=torch.float64).item()

    def check(self, configuration):
        """Return the configuration (parsed when it is text) if it lies in the space; otherwise ValueError."""
        configuration = Configuration.parse(configuration)
        least, greatest = self.width_range
        if not least <= configuration.width <= greatest:
            raise ValueError(
                f"{configuration}: the width {configuration.width:g} is outside the range "
                f"[{least:g}, {greatest:g}] that this network was trained for"
            )
        for name, size, sizes in (
            ("size", configuration.spatial, self.spatial_sizes),
            ("number of frames", configuration.temporal, self.temporal_sizes),
        ):
            if size not in sizes:
                legal = ", ".join(map(str, sizes))
                raise ValueError(f"{configuration}: the {name} {size} is not one of {legal}")
        return configuration


def _ascending(values, repeats):
    return tuple(sorted(values if repeats else set(values)))


def pick(values, generator=None):
    """One of `values`, each equally likely."""
    return values[torch.randint(len(values), (), generator=generator).item()]
