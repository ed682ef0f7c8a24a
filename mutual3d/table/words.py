"""What a query table knows of its metrics and costs: it carries their words, so that it is read where nobody registered them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from mutual3d.cost.axes import COSTS, CostWords


@dataclass(frozen=True)
class MetricWords:
    """What a table says of a number that it has of each row: `mutual3d.metrics.metrics.MetricFacts` says what each means."""

    label: str
    unit: str = "%"
    higher_is_better: bool = True
    is_share: bool = False

    @property
    def axis(self) -> str:
        """Of an axis of a plot: `top-1 accuracy (%)`."""
        return f"{self.label} ({self.unit})"

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = bool if isinstance(field.default, bool) else str
            if not isinstance(getattr(self, field.name), kind):
                raise ValueError(f"{field.name} of a metric is {getattr(self, field.name)!r:.80}")


# Of tables that were measured before they said it themselves.
_EARLIER = {
    "top1_acc": MetricWords("top-1 accuracy", is_share=True),
    "top5_acc": MetricWords("top-5 accuracy", is_share=True),
    "map": MetricWords("mean average precision"),
}
_Words = TypeVar("_Words", MetricWords, CostWords)


def metric_words(provenance: Mapping[str, Any], name: str) -> MetricWords:
    """Of the metric called `name`, as the provenance of its table has them; a name that nobody explains stands for itself."""
    told = _told(provenance, "metrics", name, MetricWords)
    return told or _EARLIER.get(name) or MetricWords(name)


def cost_words(provenance: Mapping[str, Any], name: str, by_device: bool = False) -> CostWords:
    """Of the cost called `name`: as the provenance of its table has them, as registered, or made of its name.

    by_device: of the last.
    """
    told = _told(provenance, "costs", name, CostWords)
    return told or COSTS.get(name) or CostWords(name=name, title=name.replace("_", " "), unit=name, by_device=by_device)


def _told(provenance: Mapping[str, Any], what: str, name: str, kind: type[_Words]) -> _Words | None:
    """The words in a provenance, which may be of any form; ValueError for those that cannot be."""
    entries = provenance.get(what)
    if not isinstance(entries, Mapping) or name not in entries:
        return None
    try:
        return kind(**entries[name])
    except TypeError:
        legal = ", ".join(field.name for field in fields(kind))
        raise ValueError(f"the provenance's {what}, {name}, is {entries[name]!r:.80}: it must have {legal}") from None
