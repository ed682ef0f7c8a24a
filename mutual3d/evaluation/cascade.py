"""Cascades by the scores that measuring a grid gave: their accuracy and cost at any threshold, without another pass.

A clip's cost in a cascade is the sum over the configurations that it ran at; the frames are decoded once.
"""

import collections
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar

from mutual3d.sampling import Configuration
from mutual3d.sampling.cascade import TEMPERATURES, Cascade, confidence

# Shares of the clips that go on which are tried between two configurations.
SHARES = tuple(i / 20 for i in range(1, 20))


def fit_temperature(probabilities_BK: torch.Tensor, labels_B: torch.Tensor) -> float:
    """The temperature at which the labels are likeliest (Guo et al., ICML 2017), within `TEMPERATURES`."""
    logits = probabilities_BK.double().clamp_min(torch.finfo(torch.float32).tiny).log()

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / math.exp(log_temperature), labels_B))

    low, high = (math.log(value) for value in TEMPERATURES)
    return math.exp(minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded").x)


@dataclass(frozen=True)
class CascadeResult:
    """What a cascade gives on a split. accuracy: top-1 in per cent. mean_cost, p99_cost: of a clip, in the unit of the
    costs given. shares: of the clips that each configuration answers; they sum to 1."""

    cascade: Cascade
    accuracy: float
    mean_cost: float
    p99_cost: float
    shares: tuple[float, ...]


class CascadeScores:
    """The scores of some configurations on the same labelled clips, and what each configuration costs.

    Args:
        scores: probabilities B, K of each configuration, one row a clip, in the same order.
        labels_B: int64.
        costs: of one clip at each configuration, above 0: GFLOPs or milliseconds.
        temperatures: of each configuration; None fits them to these labels.

    Raises ValueError where the three do not belong together.
    """

    def __init__(
        self,
        scores: Mapping[Configuration, torch.Tensor],
        labels_B: torch.Tensor,
        costs: Mapping[Configuration, float],
        temperatures: Mapping[Configuration, float] | None = None,
    ) -> None:
        if {len(rows) for rows in scores.values()} != {len(labels_B)} or not len(labels_B):
            counts = {str(c): len(rows) for c, rows in scores.items()}
            raise ValueError(f"the scores are of {counts} clips and there are {len(labels_B)} labels: give one row a label")
        if missing := [str(c) for c in scores if not costs.get(c, 0) > 0]:
            raise ValueError(f"no cost above 0 is known of {', '.join(missing)}")
        self.costs = {c: float(costs[c]) for c in scores}
        self.temperatures = {
            c: temperatures[c] if temperatures is not None else fit_temperature(rows, labels_B) for c, rows in scores.items()
        }
        self.confidences = {c: confidence(rows, self.temperatures[c]) for c, rows in scores.items()}
        self.is_right = {c: rows.argmax(1) == labels_B for c, rows in scores.items()}

    def result(self, cascade: Cascade) -> CascadeResult:
        """What `cascade` gives; its own temperatures must be the ones that these confidences are of."""
        remaining = torch.ones_like(next(iter(self.is_right.values())))
        cost_B = torch.zeros(len(remaining), dtype=torch.float64)
        num_right, answered = 0, []
        for i, configuration in enumerate(cascade.configurations):
            cost_B += self.costs[configuration] * remaining
            is_last = i == len(cascade.configurations) - 1
            is_sure = remaining if is_last else remaining & (self.confidences[configuration] >= cascade.thresholds[i])
            num_right += int((self.is_right[configuration] & is_sure).sum())
            answered.append(int(is_sure.sum()))
            remaining = remaining & ~is_sure
        return CascadeResult(
            cascade,
            accuracy=100 * num_right / len(cost_B),
            mean_cost=float(cost_B.mean()),
            p99_cost=float(torch.quantile(cost_B, 0.99, interpolation="higher")),
            shares=tuple(count / len(cost_B) for count in answered),
        )

    def search(self, *, num_stages: int = 2, shares: Sequence[float] = SHARES) -> list[CascadeResult]:
        """The Pareto front of all cascades of `num_stages` configurations, ascending in mean cost and accuracy."""
        ascending = sorted(self.costs, key=lambda c: self.costs[c])
        found = [
            self.result(cascade)
            for configurations in itertools.combinations(ascending, num_stages)
            for cascade in self._cascades(configurations, shares)
        ]
        front: list[CascadeResult] = []
        for result in sorted(found, key=lambda result: (result.mean_cost, -result.accuracy)):
            if not front or result.accuracy > front[-1].accuracy:
                front.append(result)
        return front

    def _cascades(self, configurations: Sequence[Configuration], shares: Sequence[float]) -> list[Cascade]:
        """Those whose first stages send each of `shares` of all clips on, as far as their confidences differ."""
        thresholds = [
            sorted({self.threshold(configuration, share) for share in shares}) for configuration in configurations[:-1]
        ]
        temperatures = tuple(self.temperatures[c] for c in configurations[:-1])
        return [Cascade(tuple(configurations), chosen, temperatures) for chosen in itertools.product(*thresholds)]

    def threshold(self, configuration: Configuration, share: float) -> float:
        """The confidence under which `share` of the clips are, half way to the next clip's."""
        ordered = self.confidences[configuration].sort().values
        count = min(max(round(share * len(ordered)), 0), len(ordered) - 1)
        below = ordered[count - 1] if count else ordered[0] * 0
        return float((below + ordered[count]) / 2)


# ---- A promised mean cost --------------------------------------------------------------------------------------------


def share_within(mean_cost: float, cheap: float, dear: float) -> float:
    """The share of clips that may run at a second configuration too so that their mean cost is `mean_cost`.

    cheap, dear: cost of a clip that stops at the first, and of one that goes on (of both configurations together). Raises
    ValueError for a mean cost under the cheap one's, which no share keeps.
    """
    if mean_cost < cheap:
        raise ValueError(f"a mean cost of {mean_cost:g} is less than the cheapest configuration's {cheap:g}")
    return min((mean_cost - cheap) / (dear - cheap), 1.0)


def least_sure(confidences_B: torch.Tensor, share: float) -> torch.Tensor:
    """A mask B of the `share` of a batch that is least sure, rounded down: the promised mean cost is kept exactly."""
    count = int(share * len(confidences_B) + 1e-9)
    mask = torch.zeros(len(confidences_B), dtype=torch.bool)
    mask[confidences_B.argsort(stable=True)[:count]] = True
    return mask


class RunningQuantile:
    """Sends on a share of a stream: what is less sure than that share of the last clips were, while the promise lasts.

    Args:
        share: of the clips that may go on.
        threshold: used until `memory` confidences were seen.
        memory: how many of the last confidences count.
    """

    def __init__(self, share: float, threshold: float, memory: int = 200) -> None:
        self.share, self.memory = share, memory
        self.num_seen = self.num_sent = 0
        self._first_threshold = threshold
        self._last: collections.deque[float] = collections.deque(maxlen=memory)

    def sends_on(self, confidence: float) -> bool:
        """Whether the clip of this confidence goes on; never more than `share` of all that were seen."""
        threshold = self._first_threshold
        if len(self._last) == self.memory:
            ordered = sorted(self._last)
            threshold = ordered[min(int(self.share * self.memory), self.memory - 1)]
        self._last.append(confidence)
        self.num_seen += 1
        is_sent = confidence < threshold and self.num_sent + 1 <= self.share * self.num_seen + 1e-9
        self.num_sent += is_sent
        return is_sent
