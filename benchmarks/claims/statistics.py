"""Means over seeds, and their 95 % intervals."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit  # scikit-learn needs it


class Estimate(NamedTuple):
    """A mean and half its 95 % interval, which one value does not have."""

    mean: float
    half: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.half is None else f"{self.mean:.1f} ± {self.half:.1f}"

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values that one distribution gave, with Student's interval. Raises ValueError for none."""
    if not values:
        raise ValueError("no value has no mean")
    count = len(values)
    if count == 1:
        return Estimate(values[0], None, 1)
    t = float(stdtrit(count - 1, 0.975))
    return Estimate(statistics.mean(values), t * statistics.stdev(values) / math.sqrt(count), count)


def paired(values: dict[int, float], others: dict[int, float]) -> Estimate | None:
    """The mean of `values - others` over the seeds that both have; None where they share none."""
    shared = sorted(values.keys() & others.keys())
    return estimate([values[seed] - others[seed] for seed in shared]) if shared else None
