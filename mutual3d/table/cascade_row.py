"""A cascade as a row of the query table: its accuracy was counted on the table's own videos, its costs follow from its stages'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mutual3d.cost.axes import CostWords
from mutual3d.sampling.cascade import Cascade, mean_cost, p99_cost

# {cost: {device key: number}}; the key is "" where a cost has one number.
Costs = Mapping[str, Mapping[str, float]]
_FIELDS = ("configuration", "accuracy", "shares")


@dataclass(frozen=True)
class CascadeFacts:
    """What was counted of a cascade: accuracy, by metric, and the shares of clips that each configuration answers.

    Raises ValueError for shares that are not from 0 to 1, one for each configuration, or do not sum to 1.
    """

    configuration: Cascade
    accuracy: Mapping[str, float]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("accuracy", list(self.accuracy.values())), ("shares", list(self.shares))):
            if not all(isinstance(value, (int, float)) and not isinstance(value, bool) and value == value for value in values):
                raise ValueError(f"{self.configuration}: {name} is {values!r:.80}: numbers are needed")
        if len(self.shares) != len(self.configuration.configurations) or not all(0 <= share <= 1 for share in self.shares):
            raise ValueError(f"{self.configuration}: shares is {list(self.shares)}: give one from 0 to 1 for each configuration")
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"{self.configuration}: shares is {list(self.shares)}: their sum must be 1")

    @classmethod
    def from_dict(cls, entry: Any) -> "CascadeFacts":
        """Of a file's entry, whose costs are counted anew; ValueError that names what is missing or wrong."""
        if not isinstance(entry, dict) or [name for name in _FIELDS if name not in entry]:
            raise ValueError(f"a cascade is {entry!r:.80}: it must have {', '.join(_FIELDS)}")
        if not isinstance(entry["accuracy"], dict) or not isinstance(entry["shares"], (list, tuple)):
            raise ValueError(f"the cascade {entry['configuration']!s:.80} needs accuracy (a dictionary) and shares (a list)")
        return cls(Cascade.parse(entry["configuration"]), dict(entry["accuracy"]), tuple(entry["shares"]))


@dataclass(frozen=True)
class CascadeRow:
    """A row of a query table whose configuration is a cascade; read as `Row` is.

    `values` are means over clips. signature: the channel counts of all its configurations, one after the other. p99: what 99 of
    100 clips cost at most; worst: what a clip costs that no configuration but the last is sure of. Costs that do not add, such as
    parameters, are the max of the configurations'.
    """

    configuration: Cascade
    accuracy: Mapping[str, float]
    shares: tuple[float, ...]
    signature: tuple[int, ...]
    mean: Costs
    p99: Costs
    worst: Costs

    @classmethod
    def of_stages(
        cls,
        facts: CascadeFacts,
        signature: tuple[int, ...],
        costs: Mapping[tuple[CostWords, str], Sequence[float]],
    ) -> "CascadeRow":
        """A row of what was counted. costs: of a clip at each configuration, by cost and device key."""
        columns: dict[str, dict[str, dict[str, float]]] = {"mean": {}, "p99": {}, "worst": {}}
        for (words, key), stages in costs.items():
            joined = {"mean": mean_cost(facts.shares, stages), "p99": p99_cost(facts.shares, stages), "worst": sum(stages)}
            for name, value in joined.items():
                columns[name].setdefault(words.name, {})[key] = value if words.adds else max(stages)
        return cls(facts.configuration, facts.accuracy, facts.shares, signature, columns["mean"], columns["p99"], columns["worst"])

    def values(self, cost: str) -> dict[str, float]:
        """{device key: mean over clips} of a cost; see `Row.values`."""
        return dict(self.mean.get(cost, {}))

    @property
    def gflops(self) -> float:
        """Mean over clips, of one view."""
        return self.mean["gflops"][""]

    @property
    def parameters(self) -> int:
        """Those of its largest configuration: all others are parts of it."""
        return int(self.mean["parameters"][""])

    @property
    def latency_ms(self) -> dict[str, float]:
        """{device key: mean milliseconds of a clip}."""
        return self.values("latency_ms")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what was counted, and the costs, which a reader of the file need not count again."""
        return {
            "configuration": str(self.configuration),
            "signature": list(self.signature),
            "accuracy": dict(self.accuracy),
            "shares": list(self.shares),
            **{
                f"{kind}_costs": {name: values[""] if "" in values else dict(values) for name, values in costs.items()}
                for kind, costs in (("mean", self.mean), ("p99", self.p99), ("worst", self.worst))
            },
        }
