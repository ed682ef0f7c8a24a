"""Which configurations run beside the largest one in a training step, as data, and what such a step costs.

The 3D papers' step is `[smallest, random]`, the 2D one `[smallest_width, random, random]` (paper, 4.2.1 and 3.2).
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from .configuration import Configuration, pick


@dataclass(frozen=True)
class Rule:
    """For each dimension where its value comes from: `least`, `greatest` or `random`."""

    width: str
    spatial: str
    temporal: str


RULES = {
    "smallest": Rule("least", "least", "least"),
    "random": Rule("random", "random", "random"),
    "smallest_width": Rule("least", "random", "random"),
    "smallest_width_full_size": Rule("least", "greatest", "greatest"),
    "random_width": Rule("random", "greatest", "greatest"),
    "random_size": Rule("greatest", "random", "random"),
}


def get_rule(name):
    """The rule called `name`; ValueError that lists the legal names."""
    if name not in RULES:
        raise ValueError(f"there is no sampling rule '{name}': choose among {', '.join(RULES)}")
    return RULES[name]


def step_generator(seed, step):
    """The generator of training step `step`: the same on every rank and after a resume (DESIGN: rule 9)."""
    sequence = np.random.SeedSequence([seed, step])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def sample_subnets(space, names, generator):
    """One configuration for each rule name, in order; the largest configuration is not among them."""
    return [_draw(space, get_rule(name), generator) for name in names]


def _draw(space, rule, generator):
    width = space.sample_width(generator) if rule.width == "random" else _end(space.width_range, rule.width)
    spatial, temporal = (
        pick(sizes, generator) if source == "random" else _end(sizes, source)
        for source, sizes in ((rule.spatial, space.spatial_sizes), (rule.temporal, space.temporal_sizes))
    )
    return Configuration(width, spatial, temporal)


def _end(values, which):
    return {"least": values[0], "greatest": values[-1]}[which]


def expected_step_cost(space, names, cost, width_samples=200):
    """Expected cost of a step: the largest configuration and one draw of each rule (paper, Tables 3 and 4).

    cost: function of a Configuration, for instance GFLOPs. Exact over the sizes; the integral over random widths is
    taken at the midpoints of `width_samples` equal parts of the range.
    """
    rules = [get_rule(name) for name in names]
    return cost(space.largest) + sum(_expected_cost(space, rule, cost, width_samples) for rule in rules)


def _expected_cost(space, rule, cost, width_samples):
    least, greatest = space.width_range
    midpoints = [least + (greatest - least) * (i + 0.5) / width_samples for i in range(width_samples)]
    widths = midpoints if rule.width == "random" else [_end(space.width_range, rule.width)]
    spatial = space.spatial_sizes if rule.spatial == "random" else [_end(space.spatial_sizes, rule.spatial)]
    temporal = space.temporal_sizes if rule.temporal == "random" else [_end(space.temporal_sizes, rule.temporal)]
    configurations = [Configuration(*values) for values in itertools.product(widths, spatial, temporal)]
    return sum(cost(c) for c in configurations) / len(configurations)
