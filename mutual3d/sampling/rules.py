"""Which configurations run beside the largest one in a training step, as data, and what such a step costs.

The 3D papers' step is `[smallest, random]`, the 2D one `[smallest_width, random, random]` (paper, 4.2.1 and 3.2).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .configuration import Configuration, SearchSpace, Value, pick


@dataclass(frozen=True)
class Rule:
    """For each dimension where its value comes from: `min`, `max`, `random`, or `each` (all, descending).

    A width may also be `random_each`: one for every group of layers (US-Net's non-uniform widths). A size may also be
    `shared`: one random size for all rules of a step that share it (US-Net with multi-scale augmentation, paper 6.1).
    """

    width: str
    spatial: str
    temporal: str

    @property
    def runs_largest(self) -> bool:
        """Whether the largest configuration is always among those that it draws."""
        return {self.width, self.spatial, self.temporal} <= {"max", "each"}


_DRAWN = ("random", "random_each", "shared")

RULES = {
    "smallest": Rule("min", "min", "min"),
    "random": Rule("random", "random", "random"),
    "smallest_width": Rule("min", "random", "random"),
    "smallest_width_full_size": Rule("min", "max", "max"),
    "random_width": Rule("random", "max", "max"),
    "random_size": Rule("max", "random", "random"),
    "shared_size": Rule("max", "shared", "shared"),
    "smallest_width_shared_size": Rule("min", "shared", "shared"),
    "random_width_shared_size": Rule("random", "shared", "shared"),
    "random_widths": Rule("random_each", "max", "max"),
    "each_width": Rule("each", "max", "max"),
    "each_size": Rule("max", "each", "each"),
    "each_temporal": Rule("max", "max", "each"),
}


def get_rule(name: str) -> Rule:
    """The rule called `name`; ValueError that lists the legal names."""
    if name not in RULES:
        raise ValueError(f"there is no sampling rule '{name}': choose among {', '.join(RULES)}")
    return RULES[name]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of training step `step`: the same on every rank and after a resume."""
    sequence = np.random.SeedSequence([seed, step])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def sample_subnets(space: SearchSpace, names: Sequence[str], generator: torch.Generator | None) -> list[Configuration]:
    """The configurations of each rule name, in order; the largest is not among them unless a rule says so."""
    rules = [get_rule(name) for name in names]
    sizes = space.spatial_sizes, space.temporal_sizes
    shared = [pick(values, generator) for values in sizes] if any(_shares(rule) for rule in rules) else [0, 0]
    return [configuration for rule in rules for configuration in _draw(space, rule, shared, generator)]


def first_contains_others(names: Sequence[str]) -> bool:
    """Whether the first configuration that the rules draw is, in every step and dimension, as large as each other one.

    What the first rule draws at random, and does not share, is no such configuration. False for no rules.
    """
    rules = [get_rule(name) for name in names]
    dimensions = [[getattr(rule, dimension) for rule in rules] for dimension in ("width", "spatial", "temporal")]
    return bool(rules) and all(_contains(sources[0], other) for sources in dimensions for other in sources)


def smallest_of_every_step(space: SearchSpace, names: Sequence[str]) -> Configuration | None:
    """The narrowest, and among those the smallest, configuration that the rules draw in every step; None where there is none.

    A rule that draws at random counts where there is one value to draw. The largest configuration is not meant.
    """
    values = {"width": space.width_range, "spatial": space.spatial_sizes, "temporal": space.temporal_sizes}

    def is_fixed(rule: Rule) -> bool:
        sources = {name: getattr(rule, name) for name in values}
        return all(source not in _DRAWN or len(set(values[name])) == 1 for name, source in sources.items())

    fixed = [name for name in names if is_fixed(get_rule(name))]
    drawn = sample_subnets(space, fixed, torch.Generator()) if fixed else []
    return min((configuration for configuration in drawn if configuration != space.largest), default=None)


def _contains(first: str, other: str) -> bool:
    """Whether a value from the source `first` is never below one from the source `other`."""
    return first in ("max", "each") or other == "min" or first == other == "shared"


def _shares(rule: Rule) -> bool:
    return "shared" in (rule.spatial, rule.temporal)


def _draw(
    space: SearchSpace, rule: Rule, shared: Sequence[int], generator: torch.Generator | None
) -> list[Configuration]:
    widths = _draw_widths(space, rule.width, generator)
    spatial = _draw_sizes(space.spatial_sizes, rule.spatial, shared[0], generator)
    temporal = _draw_sizes(space.temporal_sizes, rule.temporal, shared[1], generator)
    drawn = [Configuration(*values) for values in itertools.product(widths, spatial, temporal)]
    # Of sizes in space and time the one with more pixels counts as the larger.
    return drawn if len(drawn) == 1 else sorted(drawn, key=_pixels, reverse=True)


def _draw_sizes(sizes: Sequence[int], source: str, shared: int, generator: torch.Generator | None) -> list[int]:
    if source == "shared":
        return [shared]
    return [pick(sizes, generator)] if source == "random" else _listed(sizes, source)


def _pixels(configuration: Configuration) -> tuple[int, tuple[float, ...]]:
    return configuration.spatial**2 * configuration.temporal, configuration.widths


def _draw_widths(
    space: SearchSpace, source: str, generator: torch.Generator | None
) -> Sequence[float | tuple[float, ...]]:
    if source == "random":
        return [space.sample_width(generator)]
    if source == "random_each":
        return [tuple(space.sample_width(generator) for _ in range(space.width_groups))]
    return _listed(_trained_widths(space) if source == "each" else space.width_range, source)


def _trained_widths(space: SearchSpace) -> tuple[float, ...]:
    if not space.listed_widths:
        raise ValueError("the rule 'each_width' needs a list of widths: set MUTUAL.WIDTHS, for example [0.5, 0.75, 1.0]")
    return space.listed_widths


def _listed(values: Sequence[Value], source: str) -> list[Value]:
    return {"min": [values[0]], "max": [values[-1]], "each": list(values[::-1])}[source]


def expected_step_cost(
    space: SearchSpace,
    names: Sequence[str],
    cost: Callable[[Configuration], float],
    width_samples: int = 200,
    largest: bool = True,
) -> float:
    """Expected cost of a step: the largest configuration, if it runs, and a draw of each rule (paper, Tables 3 and 4).

    cost: function of a Configuration, for instance GFLOPs. Exact over the sizes; the integral over random widths is
    taken at the midpoints of `width_samples` equal parts of the range, widths of all layers alike.
    """
    rules = [get_rule(name) for name in names]
    always = cost(space.largest) if largest else 0.0
    return always + sum(_expected_cost(space, rule, cost, width_samples) for rule in rules)


def _expected_cost(
    space: SearchSpace, rule: Rule, cost: Callable[[Configuration], float], width_samples: int
) -> float:
    low, high = space.width_range
    widths: Sequence[float | tuple[float, ...]]
    if rule.width in _DRAWN:
        widths = [low + (high - low) * (i + 0.5) / width_samples for i in range(width_samples)]
    else:
        widths = _draw_widths(space, rule.width, None)
    spatial, temporal = (
        sizes if source in _DRAWN else _listed(sizes, source)
        for source, sizes in ((rule.spatial, space.spatial_sizes), (rule.temporal, space.temporal_sizes))
    )
    configurations = [Configuration(*values) for values in itertools.product(widths, spatial, temporal)]
    # Of values that a rule draws one runs in a step, of values that it lists all do.
    sources = ((rule.width, widths), (rule.spatial, spatial), (rule.temporal, temporal))
    draws = math.prod(len(values) for source, values in sources if source in _DRAWN)
    return sum(cost(c) for c in configurations) / draws
