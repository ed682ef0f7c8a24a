"""The mean return of episodes, with the interval that their number leaves."""

import math
from typing import Any

import torch

from mutual3d.metrics.build import METRICS
from mutual3d.metrics.metrics import MetricFacts, NotFiniteError, SummedMetric

# Half of the 95 % interval of a mean, in standard errors.
_HALF_INTERVAL = 1.96


class MeanReturn(SummedMetric):
    """The mean over episodes of the points that a game gives, undiscounted and as they are.

    return_interval: half the width of the mean's 95 % interval, 1.96 standard deviations of the episodes over the root of their number.
    """

    facts = MetricFacts(
        {"mean_return": "mean return", "return_interval": "95 % interval of it, plus or minus"}, "the points of an episode", unit="points"
    )

    def __init__(self) -> None:
        # Episodes, the sum of their returns, and that of the squares.
        super().__init__(3)

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: returns B, 1, on the CPU; batch: not asked. ValueError for scores that are no returns, of episodes that nobody played."""
        if scores.ndim != 2 or scores.shape[1] != 1:
            raise ValueError(f"scores are {tuple(scores.shape)}: the returns of episodes are needed, B, 1, which a data set of games plays")
        if not scores.isfinite().all():
            raise NotFiniteError("the return of an episode is not finite: the game gave a reward that is none")
        returns = scores.double()[:, 0]
        self.sums += torch.stack([torch.tensor(len(returns), dtype=torch.float64), returns.sum(), returns.square().sum()])

    def values(self) -> dict[str, float]:
        """{name: points}; ValueError where fewer than two episodes were played, of which nothing is known of the interval."""
        count, total, squares = self.sums.tolist()
        if count < 2:
            raise ValueError(f"{count:.0f} episodes were played: a mean and its interval need two")
        mean = total / count
        variance = max(squares / count - mean**2, 0.0) * count / (count - 1)
        return {"mean_return": mean, "return_interval": _HALF_INTERVAL * math.sqrt(variance / count)}

    def check(self, sums: torch.Tensor) -> None:
        """ValueError for squares that sum up to less than 0."""
        if sums[2] < 0:
            raise ValueError(f"{sums.tolist()} cannot be a number of episodes and the sums of their returns and squares")


METRICS["mean_return"] = MeanReturn
