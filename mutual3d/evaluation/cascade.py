"""Cascades by the scores that measuring a grid gave: their accuracy and cost at any threshold, without another pass.

A clip's cost in a cascade is the sum over the configurations that it ran at; the frames are decoded once.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mutual3d.metrics.recording import ConfidenceRecord
from mutual3d.sampling import Configuration
from mutual3d.sampling.cascade import TEMPERATURES, Cascade, confidence, log_scores, mean_cost, p99_cost

# Shares of the clips that go on which are tried between two configurations, and, fewer, before and behind a third.
SHARES = tuple(i / 20 for i in range(1, 20))
_FEW_SHARES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
# Of more configurations there are too many combinations: those are tried that are spread evenly over the front.
_MOST_CONFIGURATIONS = {2: 24, 3: 8}
# Digits of a threshold, which is part of a cascade's name.
_DIGITS = 6


def fit_temperature(log_sums_NT: torch.Tensor, label_logs_N: torch.Tensor) -> int:
    """The position in `TEMPERATURES` of the one at which the labels are likeliest (Guo et al., ICML 2017); see `ConfidenceRecord`."""
    losses = log_sums_NT.double().mean(0) - label_logs_N.double().mean() / torch.tensor(TEMPERATURES, dtype=torch.float64)
    return int(losses.argmin())


@dataclass(frozen=True)
class ClipConfidences:
    """How sure one configuration was of each of N clips at its fitted `temperature` (float64 N), and whether it was right (bool N)."""

    confidences_N: torch.Tensor
    is_right_N: torch.Tensor
    temperature: float

    @classmethod
    def of_record(cls, record: ConfidenceRecord, temperature: float | None = None) -> "ClipConfidences":
        """Of what was kept while measuring, clips in the order of their list.

        temperature: one of `TEMPERATURES`; None takes the one that fits the labels best.
        """
        rows = record.rows()
        position = fit_temperature(rows["log_sums"], rows["label_logs"]) if temperature is None else TEMPERATURES.index(temperature)
        logs = rows["top_logs"].double() / TEMPERATURES[position] - rows["log_sums"][:, position].double()
        return cls(logs.exp(), rows["predicted"] == rows["labels"], TEMPERATURES[position])

    @classmethod
    def of_scores(cls, probabilities_NK: torch.Tensor, labels_N: torch.Tensor, temperature: float | None = None) -> "ClipConfidences":
        """Of all scores. temperature: None fits it to the labels, one of `TEMPERATURES`."""
        if temperature is None:
            logs = log_scores(probabilities_NK)
            log_sums_NT = torch.stack([(logs / each).logsumexp(1) for each in TEMPERATURES], 1)
            temperature = TEMPERATURES[fit_temperature(log_sums_NT, logs.gather(1, labels_N.long()[:, None]))]
        return cls(confidence(probabilities_NK, temperature), probabilities_NK.argmax(1) == labels_N, temperature)

    def __len__(self) -> int:
        return len(self.is_right_N)

    @property
    def accuracy(self) -> float:
        """Top-1, in per cent."""
        return 100 * int(self.is_right_N.sum()) / len(self)


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
    """What some configurations said of the same labelled clips, and what each configuration costs.

    Args:
        clips: of each configuration, all in the same order of the clips.
        costs: of one clip at each configuration, above 0: GFLOPs or milliseconds.

    Raises ValueError where the two do not belong together.
    """

    def __init__(self, clips: Mapping[Configuration, ClipConfidences], costs: Mapping[Configuration, float]) -> None:
        counts = {str(c): len(each) for c, each in clips.items()}
        if len({*counts.values()}) != 1 or not min(counts.values()):
            raise ValueError(f"scores of the same clips are needed, one or more, and these are of {counts}")
        if missing := [str(c) for c in clips if not costs.get(c, 0) > 0]:
            raise ValueError(f"no cost above 0 is known of {', '.join(missing)}")
        self.clips, self.costs = dict(clips), {c: float(costs[c]) for c in clips}

    def result(self, cascade: Cascade) -> CascadeResult:
        """What `cascade` gives; its own temperatures must be the ones that these confidences are of."""
        remaining = torch.ones_like(next(iter(self.clips.values())).is_right_N)
        num_right, answered = 0, []
        for i, configuration in enumerate(cascade.configurations):
            clips, is_last = self.clips[configuration], i == len(cascade.configurations) - 1
            is_sure = remaining if is_last else remaining & (clips.confidences_N >= cascade.thresholds[i])
            num_right += int((clips.is_right_N & is_sure).sum())
            answered.append(int(is_sure.sum()))
            remaining = remaining & ~is_sure
        shares = tuple(count / len(remaining) for count in answered)
        costs = [self.costs[c] for c in cascade.configurations]
        return CascadeResult(
            cascade, 100 * num_right / len(remaining), mean_cost(shares, costs), p99_cost(shares, costs), shares
        )

    def static_front(self) -> list[tuple[float, float]]:
        """(cost, accuracy) of the single configurations that no other one beats, ascending."""
        points = [(cost, self.clips[c].accuracy) for c, cost in self.costs.items()]
        return _front(points)

    def search(self, *, num_stages: int = 2, shares: Sequence[float] | None = None) -> list[CascadeResult]:
        """The Pareto front of cascades of 2 to `num_stages` configurations, ascending in mean cost and accuracy.

        shares: of all clips, which each stage but the last may send on; None tries 19 from 0.05 to 0.95 between two
        configurations, and 6 where there are three. Only what beats every single configuration of equal cost is on it.
        """
        found = [
            self.result(cascade)
            for count in range(2, num_stages + 1)
            for configurations in itertools.combinations(self._candidates(count), count)
            for cascade in self._cascades(configurations, shares or (SHARES if count == 2 else _FEW_SHARES))
        ]
        static, best, front = self.static_front(), float("-inf"), list[CascadeResult]()
        for result in sorted(found, key=lambda result: (result.mean_cost, -result.accuracy, result.cascade)):
            single = max((accuracy for cost, accuracy in static if cost <= result.mean_cost), default=float("-inf"))
            if result.accuracy > max(single, best):
                best = result.accuracy
                front.append(result)
        return front

    def _candidates(self, num_stages: int) -> list[Configuration]:
        """The single configurations that cascades are made of, ascending in cost, the cheapest and the dearest among them."""
        ascending = sorted(self.costs, key=lambda c: self.costs[c])
        return spread(ascending, _MOST_CONFIGURATIONS.get(num_stages, num_stages))

    def _cascades(self, configurations: Sequence[Configuration], shares: Sequence[float]) -> list[Cascade]:
        """Those whose first stages would send each of `shares` of all clips on, as far as their confidences differ."""
        thresholds = [sorted({self.threshold(c, share) for share in shares}) for c in configurations[:-1]]
        temperatures = tuple(self.clips[c].temperature for c in configurations[:-1])
        return [Cascade(tuple(configurations), chosen, temperatures) for chosen in itertools.product(*thresholds)]

    def threshold(self, configuration: Configuration, share: float) -> float:
        """The confidence under which `share` of the clips are, half way to the next clip's, rounded to what is printed of it."""
        ordered = self.clips[configuration].confidences_N.sort().values
        count = min(max(round(share * len(ordered)), 0), len(ordered) - 1)
        below = ordered[count - 1] if count else ordered[0] * 0
        return min(round(float((below + ordered[count]) / 2), _DIGITS), 1.0)


def spread(found: Sequence, most: int) -> list:
    """At most `most` of the sequence `found`, evenly spread, both ends among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front
