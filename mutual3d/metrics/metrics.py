"""Metrics that add up over batches and over processes."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


class NotFiniteError(ValueError):
    """Scores that are NaN or infinite: a network that gives them says nothing, and ranking them would look like an answer."""


def check_finite(scores: torch.Tensor) -> None:
    """NotFiniteError when a score (rows, K) is NaN or infinite; it says of how many rows."""
    wrong = ~scores.isfinite().all(1)
    if wrong.any():
        kind = "NaN" if scores.isnan().any() else "infinite"
        raise NotFiniteError(
            f"the scores of {int(wrong.sum())} of {len(scores)} rows are {kind}: the weights or statistics are not finite, or "
            "the numbers overflow on the way; go on from an earlier checkpoint, or calibrate again"
        )


@contextlib.contextmanager
def naming(configuration: object) -> Iterator[None]:
    """Say which configuration gave the scores that a metric refuses."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"configuration {configuration}: {error}") from None


def topk_correct(scores: torch.Tensor, labels: torch.Tensor, ks: Sequence[int]) -> list[torch.Tensor]:
    """For each k a bool tensor B: is the label among the k highest scores? k above the number of classes counts all.

    ks: the numbers k.
    """
    order = scores.topk(min(max(ks), scores.shape[1]), dim=1).indices
    hits = order == labels[:, None]
    return [hits[:, :k].any(1) for k in ks]


@dataclass(frozen=True)
class MetricFacts:
    """What a metric says of itself, to whoever shows or compares its numbers.

    labels: {name of a number in `values`: how it is written for people}, the number that decides first. task: what it
    measures, in words. unit: of the numbers. higher_is_better: of the number that decides. is_share: the numbers are
    shares of the videos, whose 95 % interval their number gives. has_one_label: each video has one class, so that the
    class that scores highest is right or wrong. of_class: what `per_class` gives.
    """

    labels: Mapping[str, str]
    task: str
    unit: str = "%"
    higher_is_better: bool = True
    is_share: bool = False
    has_one_label: bool = False
    of_class: str = "average precision"

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """{name of a number: what a query table keeps of it}, plain data."""
        kept = {"unit": self.unit, "higher_is_better": self.higher_is_better, "is_share": self.is_share}
        return {name: {"label": label, **kept} for name, label in self.labels.items()}


class Metric(ABC):
    """How good scores are. Adds up over batches, over processes (`merge`), and over kills (`state`, `load_state`).

    A subclass says its `facts`, and joins `mutual3d.metrics.build.METRICS` under the word that data sets name it by.
    """

    facts: MetricFacts

    @classmethod
    def of_dataset(cls, dataset: Any) -> "Metric":
        """An empty metric for the samples of a `ClipDataset`. A metric that needs nothing of the data set leaves this as it is.

        dataset: the evaluated one.
        """
        return cls()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers in `values`."""
        return tuple(self.facts.labels)

    @property
    def primary(self) -> str:
        """The number that decides which configuration is better."""
        return self.names[0]

    @abstractmethod
    def update(self, scores: Any, batch: Any) -> None:
        """Take the scores of a batch, rows, K, on the CPU; of a task's network what it gives. batch: what the loader gave.

        Raises NotFiniteError for NaN or infinity.
        """

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Take what another metric of the same kind has seen. other: a metric of the same kind."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """{name: number in `facts.unit`}. Raises ValueError when nothing was seen that a number could be made of."""

    @property
    @abstractmethod
    def num_videos(self) -> int:
        """Videos that were seen; of boxes, keyframes."""

    @abstractmethod
    def state(self) -> Any:
        """What was seen so far, as tensors and plain containers, for `load_state`."""

    @abstractmethod
    def load_state(self, state: Any) -> None:
        """Take what `state` gave; ValueError for anything else."""

    def per_class(self) -> dict[int, float] | None:
        """{class: number}, where the metric has one for each class."""
        return None

    def write_details(self, output: Path, configuration: str) -> None:  # noqa: B027 - most metrics have nothing more
        """Write what there is beyond numbers into `output`, files named after the configuration."""


class SummedMetric(Metric):
    """A metric of sums over samples, the first of which is their number.

    A subclass adds to `sums` in `update`, makes numbers of them in `values`, and says in `check` which sums can be.

    Args:
        size: how many sums there are, the number of samples among them.
        dtype: of the sums: int64 counts exactly, float64 adds up values.
    """

    def __init__(self, size: int, dtype: torch.dtype = torch.float64) -> None:
        self.sums = torch.zeros(size, dtype=dtype)

    def merge(self, other: Any) -> None:
        self.sums += other.sums

    @property
    def num_videos(self) -> int:
        return int(self.sums[0])

    def state(self) -> torch.Tensor:
        return self.sums.clone()

    def load_state(self, state: Any) -> None:
        """Take what `state` gave; ValueError for anything else."""
        if not isinstance(state, torch.Tensor) or state.shape != self.sums.shape or state.dtype != self.sums.dtype:
            raise ValueError(f"{len(self.sums)} sums of {self.sums.dtype} are needed, not {state!r:.80}")
        if not state.isfinite().all() or state[0] < 0 or state[0] != state[0].round():
            raise ValueError(f"{state.tolist()} cannot be a number of samples and sums over them")
        self.check(state)
        self.sums = state.clone()

    def check(self, sums: torch.Tensor) -> None:  # noqa: B027 - most sums can be anything finite
        """ValueError for sums that no samples have."""


class TopK(SummedMetric):
    """Top-1 and top-5 accuracy, in percent."""

    facts = MetricFacts(
        {"top1_acc": "top-1 accuracy", "top5_acc": "top-5 accuracy"}, "one class for each video", is_share=True, has_one_label=True
    )

    def __init__(self) -> None:
        super().__init__(3, torch.int64)

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: B, K, on the CPU; batch: what the loader gave, with labels B."""
        check_finite(scores)
        top1, top5 = topk_correct(scores, batch.labels, (1, 5))
        self.sums += torch.tensor([len(scores), int(top1.sum()), int(top5.sum())])

    def values(self) -> dict[str, float]:
        """{name: percent}; ValueError when no video was seen."""
        total, *correct = self.sums.tolist()
        if total == 0:
            raise ValueError("no video was evaluated")
        return {name: 100.0 * count / total for name, count in zip(self.names, correct)}

    def check(self, sums: torch.Tensor) -> None:
        """ValueError for counts that no videos have."""
        total, top1, top5 = sums.tolist()
        if not 0 <= top1 <= top5 <= total:
            raise ValueError(f"counts of {total} videos, {top1} right at first and {top5} among five cannot be")
