"""Which clips of a batch or of a stream run at a cascade's next configuration, so that a promised mean cost is kept."""

import collections
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mutual3d.cost.axes import CostWords
from mutual3d.sampling import Cascade


def share_within(mean_cost: float, cheap: float, dear: float) -> float:
    """The share of clips that may run at a second configuration too so that their mean cost is `mean_cost`.

    cheap, dear: cost of a clip that stops at the first, and of one that goes on (of both configurations together). Raises
    ValueError for a mean cost under the cheap one's, which no share keeps.
    """
    if mean_cost < cheap:
        raise ValueError(f"a mean cost of {mean_cost:g} is less than the cheapest configuration's {cheap:g}")
    return min((mean_cost - cheap) / (dear - cheap), 1.0)


def least_sure(confidences_B: torch.Tensor, count: int) -> torch.Tensor:
    """A mask B of the `count` rows of a batch that are least sure."""
    mask = torch.zeros(len(confidences_B), dtype=torch.bool)
    mask[confidences_B.argsort(stable=True)[:count]] = True
    return mask


class ShareKeeper:
    """Sends on at most a share of all clips so far: of a batch the least sure, of single clips those that are less sure than that
    share of the last ones were.

    Args:
        share: of the clips that may go on.
        threshold: of confidence, for single clips, until `memory` were seen.
        memory: how many of the last confidences count.

    What a batch leaves of a whole clip is carried on to the next, so that many batches together keep the share too. For one
    thread at a time.
    """

    def __init__(self, share: float, threshold: float, memory: int = 200) -> None:
        self.share, self.memory = share, memory
        self.num_seen = self.num_sent = 0
        self._first_threshold = threshold
        self._last: collections.deque[float] = collections.deque(maxlen=memory)

    def choose(self, confidences_B: torch.Tensor) -> torch.Tensor:
        """A mask B of the clips that go on."""
        self.num_seen += len(confidences_B)
        # A sum such as 0.3 * 10 may be just under a whole number.
        allowed = max(int(self.share * self.num_seen + 1e-9) - self.num_sent, 0)
        mask = least_sure(confidences_B, allowed)
        if len(confidences_B) == 1:
            mask &= confidences_B < self._threshold()
        self._last.extend(confidences_B.tolist())
        self.num_sent += int(mask.sum())
        return mask

    def _threshold(self) -> float:
        """The running quantile; above every confidence where all may go on."""
        if self.share >= 1:
            return float("inf")
        if len(self._last) < self.memory:
            return self._first_threshold
        return sorted(self._last)[int(self.share * self.memory)]


class Spending:
    """How many clips ran at each configuration of a cascade, and what that cost; safe from many threads.

    Args:
        cascade: whose thresholds decide where nothing is promised.
        words, key: the cost that is counted, and the device key, "" of one that depends on none.
        stage_costs: of a clip at each configuration.
        promised: the mean cost that is to be kept; None promises nothing.
        answered: of all clips those that each configuration answered when the cascade was measured.

    Raises ValueError for a promise under what its first configuration costs.
    """

    def __init__(
        self, cascade: Cascade, words: CostWords, key: str, stage_costs: Sequence[float], *,
        promised: float | None = None, answered: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        self.cascade, self.words, self.key, self.stage_costs = cascade, words, key, tuple(stage_costs)
        self.promised, self.answered = promised, answered
        # Of the clips that ran at each configuration.
        self.counts = [0] * len(cascade.configurations)
        self._lock = threading.Lock()
        self._keepers: list[ShareKeeper] | None = None
        if promised is not None:
            shares = shares_of_stages(promised, self.stage_costs, answered)
            self._keepers = [ShareKeeper(share, threshold) for share, threshold in zip(shares, cascade.thresholds)]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def anew(self) -> "Spending":
        """The same promise, of which nothing is spent yet."""
        return Spending(self.cascade, self.words, self.key, self.stage_costs, promised=self.promised, answered=self.answered)

    def to_dict(self) -> dict[str, object]:
        """The promise as plain data, for `from_dict`."""
        return {
            "cascade": str(self.cascade), "cost": self.words.name, "key": self.key, "stage_costs": list(self.stage_costs),
            "promised": self.promised, "answered": None if self.answered is None else list(self.answered),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], costs: Mapping[str, CostWords]) -> "Spending":
        """What `to_dict` told. costs: {name: words} of those that there are. Raises KeyError and ValueError for anything else."""
        return cls(
            Cascade.parse(content["cascade"]), costs[content["cost"]], content["key"], content["stage_costs"],
            promised=content["promised"], answered=content["answered"],
        )  # fmt: skip

    def start(self, num_clips: int) -> None:
        """Count clips that run at the first configuration."""
        with self._lock:
            self.counts[0] += num_clips

    def choose(self, stage: int, confidences_B: torch.Tensor) -> torch.Tensor:
        """A mask B of the clips of `stage`, counted from 0, that run at the next configuration too."""
        with self._lock:
            if self._keepers is None:
                mask = confidences_B < self.cascade.thresholds[stage]
            else:
                mask = self._keepers[stage].choose(confidences_B)
            self.counts[stage + 1] += int(mask.sum())
            return mask

    @property
    def spent(self) -> float | None:
        """The mean cost of the clips so far, each configuration counted at what the table says; None before the first one."""
        if not self.counts[0]:
            return None
        return sum(count * cost for count, cost in zip(self.counts, self.stage_costs)) / self.counts[0]

    @property
    def told_promise(self) -> str:
        """What is promised, in words."""
        if self.promised is None:
            return "nothing promised"
        return f"promised a mean of {self.words.amount(f'{self.promised:.4g}', self.key)}"

    def __str__(self) -> str:
        """What was promised and what was spent, in words."""
        if self.spent is None:
            return f"{self.told_promise}, nothing spent so far"
        shares = ", ".join(
            f"{100 * count / self.counts[0]:.1f} % at {c}" for c, count in zip(self.cascade.configurations[1:], self.counts[1:])
        )
        spent = self.words.amount(f"{self.spent:.4g}", self.key)
        return f"{self.told_promise}, spent {spent} a clip over {self.counts[0]} clips ({shares} too)"


def shares_of_stages(promised: float, costs: Sequence[float], answered: Sequence[float] | None) -> list[float]:
    """Of the clips that run at each configuration, but the last, the share that may go on.

    answered: of all clips those that each configuration answered when the cascade was measured: of three configurations, the
    promise is split between the second and the third in that proportion.
    """
    if len(costs) == 2:
        return [share_within(promised, costs[0], sum(costs))]
    left = 1 - torch.tensor(answered or [1 / len(costs)] * len(costs), dtype=torch.float64).cumsum(0)[:-1]
    reaching = left.clamp_min(0).tolist()
    spare = promised - costs[0]
    if spare < 0:
        raise ValueError(f"a mean cost of {promised:g} is less than the cheapest configuration's {costs[0]:g}")
    shares, before = [], 1.0
    for i, (reach, cost) in enumerate(zip(reaching, costs[1:])):
        rest = sum(r * c for r, c in zip(reaching[i:], costs[i + 1 :]))
        wanted = min(reach * spare / rest, before) if rest > 0 else 0.0
        spare -= wanted * cost
        shares.append(wanted / before if before > 0 else 0.0)
        before = wanted
    return shares
