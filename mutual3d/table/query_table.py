"""The query table: what each configuration costs and how accurate it is, measured once and asked at run time.

The paper's complexity-configuration table (3.4, 4.3), with measured latency beside the arithmetic.
"""

import contextlib
import csv
import decimal
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import simplejson

from mutual3d.cost.axes import MEAN, CostWords
from mutual3d.cost.latency_key import is_here
from mutual3d.sampling import Cascade, Configuration
from mutual3d.table.cascade_row import CascadeFacts, CascadeRow
from mutual3d.table.words import MetricWords, cost_words, metric_words
from mutual3d.utils.files import DamagedFileError, atomic_write, read_json, write_json
from mutual3d.utils.fingerprint import fingerprint

FORMAT = "mutual3d.query_table"
VERSION = 1
# The costs that are fields of a row; whatever else was measured is in its `costs`.
ROW_COSTS = ("gflops", "parameters", "latency_ms")
REQUIRED_PROVENANCE = ("metric", "split", "num_views", "crop")
ROW_FIELDS = ("configuration", "signature", "gflops", "parameters", "accuracy", "latency_ms")
_Value = TypeVar("_Value")
MEASURE_AGAIN = "measure the grid again: `mutual3d run` with GRID.ENABLE True"


class BudgetTooSmall(ValueError):
    """No configuration fits the budget.

    nearest: the row that comes closest (for one budget, the cheapest). needed: what that row costs, under the names
    of the budgets that were asked for.
    """

    def __init__(self, message: str, nearest: "Row", needed: dict[str, float]) -> None:
        super().__init__(message)
        self.nearest = nearest
        self.needed = needed


@dataclass(frozen=True)
class Row:
    """One measured configuration.

    signature: the channel counts that its width rounds to. gflops: multiply-adds of convolutions and linears for one
    view, in units of 1e9, at the crop that was measured. parameters: of this sub-network. accuracy: metric name to
    per cent, or the metric's own unit. latency_ms: device key, such as `cpu.epyc_7b13-openvino-fp32-b1-t2` (see
    `mutual3d.cost.latency_key`), to median milliseconds. costs: name of another cost (`mutual3d.cost.axes`) to its number, or to {device key: number}.
    Raises ValueError for a value that is no number, not finite, or not above 0 where it is a cost.
    """

    configuration: Configuration
    signature: tuple
    gflops: float
    parameters: int
    accuracy: dict
    latency_ms: dict = field(default_factory=dict)
    costs: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        configuration = Configuration.parse(self.configuration)
        plain = {
            "configuration": configuration,
            "signature": tuple(_count(channels, f"{configuration}: signature") for channels in self.signature),
            "gflops": _cost(self.gflops, f"{configuration}: gflops"),
            "parameters": _count(self.parameters, f"{configuration}: parameters"),
            "accuracy": _numbers(self.accuracy, f"{configuration}: accuracy", _number),
            "latency_ms": _numbers(self.latency_ms, f"{configuration}: latency_ms", _cost),
            "costs": _costs(self.costs, str(configuration)),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of_costs(
        cls, configuration: Configuration, signature: tuple, accuracy: dict[str, float], costs: Mapping[str, Mapping[str, float]]
    ) -> "Row":
        """A row of what was measured: {cost: {device key: number}}, the key "" where a cost has one number."""
        plain = {name: dict(keyed) if "" not in keyed else keyed[""] for name, keyed in costs.items()}
        own: dict[str, Any] = {name: plain.pop(name) for name in ROW_COSTS if name in plain}
        return cls(configuration, signature, accuracy=accuracy, costs=plain, **own)

    def values(self, cost: str) -> dict[str, float]:
        """{device key: number} of a cost; the key is "" where it has one number, and {} is for one that was not measured."""
        found = getattr(self, cost) if cost in ROW_COSTS else self.costs.get(cost, {})
        return dict(found) if isinstance(found, dict) else {"": found}

    def to_dict(self) -> dict[str, Any]:
        """Plain data: strings, numbers, lists and dictionaries."""
        others = {name: dict(value) if isinstance(value, dict) else value for name, value in self.costs.items()}
        return {
            "configuration": str(self.configuration),
            "signature": list(self.signature),
            "gflops": self.gflops,
            "parameters": self.parameters,
            "accuracy": dict(self.accuracy),
            "latency_ms": dict(self.latency_ms),
            **({"costs": others} if others else {}),
        }

    @classmethod
    def from_dict(cls, entry: Any) -> "Row":
        """The inverse of `to_dict`; raises ValueError that names the missing or wrong key."""
        if not isinstance(entry, dict):
            raise ValueError(f"a row is {entry!r:.80}: it must have the keys {', '.join(ROW_FIELDS)}")
        missing = [name for name in ROW_FIELDS if name not in entry]
        if missing:
            raise ValueError(f"the row {entry.get('configuration', entry)!s:.80} lacks {', '.join(missing)}")
        if not isinstance(entry["signature"], (list, tuple)):
            raise ValueError(f"{entry['configuration']}: signature is {entry['signature']!r:.80}: a list is needed")
        return cls(**{name: entry[name] for name in ROW_FIELDS}, costs=entry.get("costs", {}))


AnyRow = Row | CascadeRow


class _Budget(NamedTuple):
    """A budget of `select_mean`: on the mean over clips, or on each."""

    name: str
    words: CostWords
    key: str
    limit: float
    is_mean: bool

    def amount(self, row: AnyRow) -> float | None:
        """What a row costs of it; None where that was not measured."""
        if isinstance(row, CascadeRow) and not self.is_mean:
            return row.worst.get(self.words.name, {}).get(self.key)
        return row.values(self.words.name).get(self.key)

    def told(self, value: float) -> str:
        """A number in a sentence."""
        return ("a mean of " if self.is_mean else "") + self.words.amount(f"{value:g}", self.key)


def _amounts(row: AnyRow, budgets: Sequence[_Budget]) -> list[float] | None:
    """What a row costs of each budget; None where something was not measured."""
    found = [amount for budget in budgets if (amount := budget.amount(row)) is not None]
    return found if len(found) == len(budgets) else None


class QueryTable:
    """Measured rows, ascending by configuration, with the conditions they were measured under.

    `rows` are single configurations, each of which was measured. `cascades` are rows too, ascending in mean GFLOPs: their
    accuracy was counted on the scores of the same videos, and their costs are means over clips. What every clip keeps within
    (`select`, `pareto_front`) is a single configuration; a budget on the mean (`select_mean`) may have either.

    provenance: plain data with at least metric (the name in `Row.accuracy` that decides), split, num_views and crop
    (pixels, of the largest configuration); further num_videos, checkpoint, dataset, date, versions and the like. `metrics`
    and `costs`, where it has them, say of each {name: its words} (`mutual3d.table.words`); `latency` says of each device key
    how, when and on what machine it was measured.
    Raises ValueError for no rows, a configuration given twice, a row without the metric, a cascade of a configuration that is
    no row, or missing provenance.
    """

    def __init__(self, rows: Iterable[Row], provenance: Mapping[str, Any], cascades: Iterable[CascadeFacts] = ()) -> None:
        self.rows = tuple(sorted(rows, key=lambda row: row.configuration))
        self.provenance = _checked_provenance(provenance)
        self._by_name = {str(row.configuration): row for row in self.rows}
        self._check_rows()
        self.costs = self._find_costs()
        self.cascades = tuple(sorted(map(self._row_of_cascade, cascades), key=lambda row: (row.gflops, row.configuration)))
        self._check_cascades()

    def _row_of_cascade(self, facts: CascadeFacts) -> CascadeRow:
        stages = [self.row(configuration) for configuration in facts.configuration.configurations]
        costs = {
            (words, key): [row.values(words.name)[key] for row in stages]
            for words, key in self.cost_columns
            if all(key in row.values(words.name) for row in stages)
        }
        return CascadeRow.of_stages(facts, tuple(count for row in stages for count in row.signature), costs)

    def _check_cascades(self) -> None:
        for row in self.cascades:
            if self.metric not in row.accuracy:
                raise ValueError(f"{row.configuration} has no accuracy under '{self.metric}'; it has: {', '.join(row.accuracy) or 'none'}")
            for name, value in row.accuracy.items():
                if self.words_of_metric(name).unit == "%":
                    _percent(value, f"{row.configuration}: accuracy['{name}']")
            _number(self.accuracy(row), f"{row.configuration}: accuracy['{self.metric}']")

    def _check_rows(self) -> None:
        if not self.rows:
            raise ValueError("a query table needs at least one row")
        if len(self._by_name) < len(self.rows):
            names = [str(row.configuration) for row in self.rows]
            raise ValueError(f"measured twice: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
        for row in self.rows:
            if self.metric not in row.accuracy:
                legal = ", ".join(row.accuracy) or "none"
                raise ValueError(f"{row.configuration} has no accuracy under '{self.metric}'; it has: {legal}")
            for name, value in row.accuracy.items():
                if self.words_of_metric(name).unit == "%":
                    _percent(value, f"{row.configuration}: accuracy['{name}']")

    def _find_costs(self) -> dict[str, CostWords]:
        """{name: words} of every cost that some row has, those of every row first."""
        by_device = {name: "" not in values for row in self.rows for name in (*ROW_COSTS, *sorted(row.costs)) if (values := row.values(name))}
        return {name: cost_words(self.provenance, name, keyed) for name, keyed in by_device.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        first, last = self.rows[0].configuration, self.rows[-1].configuration
        return f"QueryTable({len(self)} configurations, {first} to {last}, {metric_label(self.metric)}, {self.conditions})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueryTable) and self.to_dict() == other.to_dict()

    @property
    def all_rows(self) -> list[AnyRow]:
        """The single configurations, then the cascades."""
        return [*self.rows, *self.cascades]

    @property
    def metric(self) -> str:
        """The name of the metric that decides which row is better."""
        return self.provenance["metric"]

    @property
    def metrics(self) -> list[str]:
        """Every metric that some row has, the deciding one first."""
        names = {name for row in self.rows for name in row.accuracy}
        return [self.metric, *sorted(names - {self.metric})]

    def words_of_metric(self, name: str | None = None) -> MetricWords:
        """What is known of a metric, the deciding one by default: label, unit, what is better."""
        return metric_words(self.provenance, name or self.metric)

    @property
    def devices(self) -> list[str]:
        """Every key under which some row has a latency."""
        return self.keys("latency_ms")

    def keys(self, cost: str) -> list[str]:
        """Every device key under which some row has the cost; [""] of one that has one number, [] of one not measured."""
        return sorted({key for row in self.rows for key in row.values(cost)})

    def with_costs(
        self, costs: Mapping[str, Mapping[str, Mapping[Configuration, float]]], provenance: Mapping[str, Mapping[str, Any]]
    ) -> "QueryTable":
        """This table with further columns: {cost: {device key: {configuration: number}}}; of a column that is there, numbers are replaced.

        provenance: {name: {key: what is known of it}}, joined to what this one has. Raises ValueError for a configuration that
        is no row.
        """
        rows = {row.configuration: row.to_dict() for row in self.rows}
        for name, by_key in costs.items():
            for key, values in by_key.items():
                for configuration, value in values.items():
                    self.row(configuration)
                    entry = rows[configuration] if name in ROW_COSTS else rows[configuration].setdefault("costs", {})
                    if key:
                        entry.setdefault(name, {})[key] = value
                    else:
                        entry[name] = value
        joined = {name: {**self.provenance.get(name, {}), **entries} for name, entries in provenance.items()}
        return QueryTable(map(Row.from_dict, rows.values()), {**self.provenance, **joined}, self._cascade_facts)

    def with_rows(self, rows: Iterable[Row], provenance: Mapping[str, Any]) -> "QueryTable":
        """This table with further rows; one of a configuration that is there takes its row's place.

        provenance: entries that replace this one's.
        """
        joined = {row.configuration: row for row in (*self.rows, *rows)}
        return QueryTable(joined.values(), {**self.provenance, **provenance}, self._cascade_facts)

    @property
    def _cascade_facts(self) -> list[CascadeFacts]:
        return [CascadeFacts(row.configuration, row.accuracy, row.shares) for row in self.cascades]

    @property
    def cost_columns(self) -> list[tuple[CostWords, str]]:
        """(words, device key) of every cost as it was measured, a column of a table each; the key is "" for one number."""
        return [(words, key) for name, words in self.costs.items() for key in self.keys(name)]

    @property
    def shown_columns(self) -> list[tuple[CostWords, str]]:
        """Of `cost_columns`, those that a text has room for: of what depends on the device, what is drawn too."""
        return [(words, key) for words, key in self.cost_columns if words.is_drawn or not words.by_device]

    @property
    def drawn_columns(self) -> list[tuple[CostWords, str]]:
        """Of `cost_columns` those that are drawn: first what was measured on a device, which is what a user waits for.

        Of the device keys of one cost the fastest is first: the one that is low where it is highest.
        """
        order = list(self.costs)

        def measured_then_fastest(column: tuple[CostWords, str]) -> tuple[bool, int, float]:
            words, key = column
            return not words.by_device, order.index(words.name), max(row.values(words.name).get(key, 0.0) for row in self.rows)

        return sorted((column for column in self.cost_columns if column[0].is_drawn), key=measured_then_fastest)

    def words_of_cost(self, cost: str) -> CostWords:
        """What a cost of this table is called. ValueError, with those that it has, for another one."""
        if cost in self.costs:
            return self.costs[cost]
        if cost == "latency_ms":
            raise ValueError(
                "no latency was measured in this query table: measure it here with `mutual3d bench MODEL`, or give a budget in GFLOPs"
            )
        raise ValueError(
            f"'{cost}' is no cost of this query table: use {' or '.join(self.costs)}, or measure again with GRID.COSTS naming it"
        )

    @property
    def conditions(self) -> str:
        """What every accuracy in this table belongs to, in words: split, views and crop."""
        split, views, crop = (self.provenance[name] for name in ("split", "num_views", "crop"))
        return f"{split} split, {views} view{'' if views == 1 else 's'}, crop {crop}"

    def row(self, configuration: Configuration | str) -> Row:
        """The row of a configuration (or its text); raises ValueError when it was not measured."""
        name = str(Configuration.parse(configuration))
        if name not in self._by_name:
            raise ValueError(
                f"{name} is not in the query table of {len(self.rows)} configurations, "
                f"{self.rows[0].configuration} to {self.rows[-1].configuration}; {MEASURE_AGAIN}"
            )
        return self._by_name[name]

    def cascade(self, cascade: Cascade | str) -> CascadeRow | None:
        """The row of a cascade (or its text); None for one that this table does not have."""
        wanted = Cascade.parse(cascade)
        return next((row for row in self.cascades if row.configuration == wanted), None)

    def accuracy(self, row: AnyRow) -> float:
        """The deciding metric of a row, in per cent."""
        return row.accuracy[self.metric]

    def merit(self, row: AnyRow) -> float:
        """The deciding metric of a row, so that more is better."""
        value = self.accuracy(row)
        return value if self.words_of_metric().higher_is_better else -value

    def device(self, device: str | None = None, cost: str = "latency_ms") -> str:
        """The device key of a cost to use, "" for one that does not depend on the device.

        Raises ValueError listing the keys when the device is unknown, or None and ambiguous.
        """
        words, keys = self.words_of_cost(cost), self.keys(cost)
        if not words.by_device:
            return ""
        if device is None and len(keys) == 1:
            return keys[0]
        if device not in keys:
            asked = f"{words.title} was measured on several devices" if device is None else f"no {words.title} on '{device}'"
            raise ValueError(f"{asked}: name one of {', '.join(keys)}")
        return device

    def own_device(self, cost: str = "latency_ms") -> str:
        """The one device key of a cost that is of this machine; see `device`.

        Raises ValueError listing the keys where there is none, or are several.
        """
        words, keys = self.words_of_cost(cost), self.keys(cost)
        own = [key for key in keys if is_here(key)]
        if not words.by_device or len(own) == 1:
            return own[0] if words.by_device else ""
        if own:
            raise ValueError(f"{words.title} was measured here more than once: name one of {', '.join(own)}")
        raise ValueError(
            f"{words.title} was not measured on this machine, and another's promises nothing here: measure it with "
            f"`mutual3d bench MODEL`, or name one of {', '.join(keys)}"
        )

    def cost(self, row: AnyRow, cost: str = "gflops", device: str | None = None) -> float:
        """What a row costs: a number of `costs`, such as GFLOPs of one view or median milliseconds on `device`; of a cascade the mean.

        Raises ValueError when it was not measured of this row.
        """
        key, values = self.device(device, cost), row.values(cost)
        if key not in values:
            where = f" on {key}" if key else ""
            raise ValueError(f"the {self.costs[cost].title} of {row.configuration} was not measured{where}; {MEASURE_AGAIN}")
        return values[key]

    def measured(self, cost: str = "gflops", device: str | None = None) -> list[Row]:
        """The rows whose cost is known: of one that depends on the device, those measured on `device`."""
        key = self.device(device, cost)
        return [row for row in self.rows if key in row.values(cost)]

    def cost_label(self, cost: str = "gflops", device: str | None = None) -> str:
        """The name and unit of a cost, for an axis."""
        return self.words_of_cost(cost).label(self.device(device, cost))

    def pareto_front(self, cost: str = "gflops", device: str | None = None) -> list[Row]:
        """The rows that no other row beats: the best accuracy for each budget, ascending in cost and accuracy.

        Of rows with equal accuracy only the cheapest stays.
        """

        def cheapest_then_best(row: Row) -> tuple[float, float, Configuration]:
            return self.cost(row, cost, device), -self.merit(row), row.configuration

        best: list[Row] = []
        for row in sorted(self.measured(cost, device), key=cheapest_then_best):
            if not best or self.merit(row) > self.merit(best[-1]):
                best.append(row)
        return best

    def cascade_front(self, cost: str = "gflops", device: str | None = None) -> list[CascadeRow]:
        """The cascades that no single configuration and no other cascade of equal mean cost beats, ascending in cost and accuracy."""
        key, front = self.device(device, cost), self.pareto_front(cost, device)
        best: list[CascadeRow] = []
        measured = [row for row in self.cascades if key in row.values(cost)]
        for row in sorted(measured, key=lambda row: (row.values(cost)[key], -self.merit(row), row.configuration)):
            others: list[AnyRow] = [*front, *best]
            cheaper = [self.merit(other) for other in others if other.values(cost)[key] <= row.values(cost)[key]]
            if not cheaper or self.merit(row) > max(cheaper):
                best.append(row)
        return best

    def mean_front(self, cost: str = "gflops", device: str | None = None) -> list[AnyRow]:
        """The Pareto front, without what a cascade beats at equal mean cost, and with these; ascending in cost and accuracy."""
        key = self.device(device, cost)
        rows: list[AnyRow] = [*self.pareto_front(cost, device), *self.cascade_front(cost, device)]
        best: list[AnyRow] = []
        for row in sorted(rows, key=lambda row: (row.values(cost)[key], -self.merit(row))):
            if not best or self.merit(row) > self.merit(best[-1]):
                best.append(row)
        return best

    def select_mean(self, device: str | None = None, **budgets: float | None) -> AnyRow:
        """The most accurate row, of single configurations and cascades, within every budget given; of equals the cheapest.

        budgets: `mean_COST`, such as `mean_latency_ms`, bounds the mean over clips; `COST`, as in `select`, bounds every single
        clip, and a cascade counts with its worst case there. Raises as `select` does, and ValueError for the mean of a cost that
        does not add up, such as parameters.
        """
        asked = [self._budget(name, value, device) for name, value in budgets.items() if value is not None]
        if not any(budget.is_mean for budget in asked):
            raise ValueError(f"give a budget on a mean: {', '.join(words.mean_name for words in self.costs.values() if words.adds)}")
        found = [(row, values) for row in self.all_rows if (values := _amounts(row, asked)) is not None]
        if not found:
            raise ValueError(f"no configuration has all of {', '.join(budget.words.name for budget in asked)}; {MEASURE_AGAIN}")
        limits = [budget.limit for budget in asked]
        fitting = [(row, values) for row, values in found if all(map(operator.le, values, limits))]
        if fitting:
            return min(fitting, key=lambda pair: (-self.merit(pair[0]), *pair[1], str(pair[0].configuration)))[0]

        def overshoot(pair: tuple[Row, list[float]]) -> tuple[float, float]:
            return max(map(operator.truediv, pair[1], limits)), -self.merit(pair[0])

        # A cascade costs more than its first configuration in every way: the nearest is a single one.
        nearest, values = min([(row, values) for row, values in found if isinstance(row, Row)], key=overshoot)
        needs = " and ".join(budget.told(round_up(value)) for budget, value in zip(asked, values))
        message = f"no configuration fits {' and '.join(budget.told(budget.limit) for budget in asked)}"
        needed = {budget.name: value for budget, value in zip(asked, values)}
        raise BudgetTooSmall(f"{message}; the nearest, {nearest.configuration}, needs {needs}", nearest, needed)

    def _budget(self, name: str, limit: float, device: str | None) -> "_Budget":
        cost = name.removeprefix(MEAN)
        words, is_mean = self.words_of_cost(cost), name.startswith(MEAN)
        if is_mean and not words.adds:
            raise ValueError(f"{name} would bound the mean of {words.title}, which all clips have alike: give {cost}")
        key = self.own_device(cost) if device is None else self.device(device, cost)
        return _Budget(name, words, key, _cost(limit, f"the budget {name}"), is_mean)

    def select(
        self, gflops: float | None = None, latency_ms: float | None = None, device: str | None = None, **budgets: float | None
    ) -> Row:
        """The most accurate row within every budget given; of equals the cheapest.

        gflops, latency_ms, budgets: of the table's `costs`, by name; device: the key of those that depend on one, by default
        this machine's (`own_device`). Raises BudgetTooSmall when no row fits, ValueError when no budget is given, a budget is
        not above 0 or of no cost that was measured, or the device is unknown, another machine's or ambiguous.
        """
        limits = self._limits({"gflops": gflops, "latency_ms": latency_ms, **budgets}, device)
        keys = {name: self.own_device(name) if device is None else self.device(device, name) for name in limits}
        rows = [row for row in self.rows if all(key in row.values(name) for name, key in keys.items())]
        if not rows:
            raise ValueError(f"no configuration has all of {', '.join(limits)}; {MEASURE_AGAIN}")

        def costs(row: Row) -> tuple[float, ...]:
            return tuple(row.values(name)[key] for name, key in keys.items())

        fitting = [row for row in rows if all(map(operator.le, costs(row), limits.values()))]
        if fitting:
            return min(fitting, key=lambda row: (-self.merit(row), *costs(row), row.configuration))

        def overshoot(row: Row) -> tuple[float, float]:
            return max(cost / limit for cost, limit in zip(costs(row), limits.values())), -self.merit(row)

        nearest = min(rows, key=overshoot)
        raise self._too_small(limits, nearest, dict(zip(limits, costs(nearest))), keys)

    def _limits(self, budgets: Mapping[str, float | None], device: str | None) -> dict[str, float]:
        """The budgets that were given; those on a device first, because a user who gives several waits for the latency."""
        given = {name: value for name, value in budgets.items() if value is not None}
        on_device = {name: self.words_of_cost(name).by_device for name in given}
        limits = {name: _cost(given[name], f"the budget {name}") for name in sorted(given, key=lambda name: not on_device[name])}
        if not limits:
            raise ValueError(f"give a budget: {', '.join(self.costs)}, or several of them")
        if device is not None and not any(on_device.values()):
            names = [name for name, words in self.costs.items() if words.by_device] or ["latency_ms"]
            raise ValueError(f"the device '{device}' says where {' or '.join(names)} was measured: give {' or '.join(names)} with it")
        return limits

    def _too_small(
        self, limits: Mapping[str, float], nearest: Row, needed: dict[str, float], keys: Mapping[str, str]
    ) -> BudgetTooSmall:
        def told(amounts: Mapping[str, float]) -> str:
            return " and ".join(self.costs[name].amount(f"{amounts[name]:g}", keys[name]) for name in limits)

        needs = told({name: round_up(value) for name, value in needed.items()})
        return BudgetTooSmall(
            f"no configuration fits {told(limits)}; the nearest, {nearest.configuration}, needs {needs}", nearest, needed
        )

    def describe(self, row: AnyRow) -> str:
        """One row in words, each number with its unit and conditions."""
        words = self.words_of_metric()
        parts = [
            f"{row.configuration}: {words.label} {self.accuracy(row):.2f} {words.unit} ({self.conditions})",
            *(_told_of(row, cost, key) for cost, key in self.shown_columns if key in row.values(cost.name)),
        ]
        return ", ".join(parts)

    def format(self, rows: Iterable[AnyRow] | None = None, chosen: AnyRow | None = None) -> str:
        """A text table of `rows` (default: all) for a terminal, headed by the conditions and units. chosen: a row to mark."""
        return "\n".join([self.legend, *self._lines(self.all_rows if rows is None else rows, chosen)])

    def format_fronts(self) -> str:
        """The Pareto front over each cost that is drawn, as text: first over what was measured on a device.

        Cascades stand among the single configurations, at their mean costs.
        """
        parts = [self.legend]
        for words, key in self.drawn_columns:
            parts += [f"best within a budget of {words.label(key)}:", *self._lines(self.mean_front(words.name, key or None))]
        return "\n".join(parts)

    def _lines(self, rows: Iterable[AnyRow], chosen: AnyRow | None = None) -> list[str]:
        first, rest = _split_columns(self.shown_columns)
        headings = [[words.heading(key) for words, key in columns] for columns in (first, rest)]
        rows = list(rows)
        header = ["configuration", *headings[0], *self.metrics, *headings[1]]
        lines = [header, *(self._cells(row) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
        if chosen is None:
            return text
        marks = [" ", *(">" if row == chosen else " " for row in rows)]
        return [f"{mark} {line}" for mark, line in zip(marks, text)]

    @property
    def legend(self) -> str:
        """What the columns of a printed table mean: conditions and units."""
        costs = [
            f"{words.unit}: {words.title} {words.per}".rstrip()
            for words in dict.fromkeys(words for words, _ in self.shown_columns)
            if words.title != words.unit
        ]
        means = ["of a cascade (cheap@CONFIDENCE+dear) the mean over clips"] if self.cascades else []
        return "; ".join([f"Accuracy in {self.words_of_metric().unit} ({self.conditions})", *costs, *means])

    def _cells(self, row: AnyRow) -> list[str]:
        accuracies = [f"{row.accuracy[name]:.2f}" if name in row.accuracy else "-" for name in self.metrics]
        first, rest = ([_cell(row, *column) for column in columns] for columns in _split_columns(self.shown_columns))
        return [str(row.configuration), *first, *accuracies, *rest]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON or a checkpoint can hold."""
        rows = [row.to_dict() for row in self.rows]
        cascades = {"cascades": [row.to_dict() for row in self.cascades]} if self.cascades else {}
        return {"format": FORMAT, "version": VERSION, "provenance": dict(self.provenance), "rows": rows, **cascades}

    @classmethod
    def from_dict(cls, data: Any) -> "QueryTable":
        """The inverse of `to_dict`; raises ValueError that says what is missing or wrong."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"this is not a query table: its 'format' must be '{FORMAT}'; {MEASURE_AGAIN}")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')}, this mutual3d reads {VERSION}; {MEASURE_AGAIN}")
        if not isinstance(data.get("rows"), list) or not isinstance(data.get("provenance"), dict):
            raise ValueError(f"it needs 'rows' (a list) and 'provenance' (a dictionary); {MEASURE_AGAIN}")
        cascades = data.get("cascades", [])
        if not isinstance(cascades, list):
            raise ValueError(f"its 'cascades' are {cascades!r:.80}: a list is needed")
        return cls([Row.from_dict(entry) for entry in data["rows"]], data["provenance"], map(CascadeFacts.from_dict, cascades))

    def save_json(self, path: str | Path) -> None:
        """Write the table with a fingerprint of itself, by which `load` knows that nothing in it has changed."""
        data = self.to_dict()
        write_json(path, {**data, "fingerprint": fingerprint(data)})

    @classmethod
    def load(cls, path: str | Path) -> "QueryTable":
        """Read what `save_json` wrote.

        Raises FileNotFoundError when the file is missing and ValueError when it is malformed; both name the file and
        the fix.
        """
        try:
            data = read_json(path)
            _check_unchanged(data)
            return cls.from_dict(data)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no query table '{path}': give its path, or {MEASURE_AGAIN}") from None
        except RecursionError as error:
            raise ValueError(f"the query table '{path}' cannot be used: it is nested too deeply; {MEASURE_AGAIN}") from error
        except ValueError as error:
            words = str(error).removesuffix(f"; {MEASURE_AGAIN}")
            words = words if len(words) <= 500 else f"{words[:500]}..."  # a file may hold texts of any length
            kind = DamagedFileError if isinstance(error, DamagedFileError) else ValueError
            raise kind(f"the query table '{path}' cannot be used: {words}; {MEASURE_AGAIN}") from error

    def save_csv(self, path: str | Path) -> None:
        """One line a row; a column for every metric, every cost (of each device its own, `latency_ms:KEY`) and condition."""
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            lines = [self._csv_line(row) for row in self.all_rows]
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)

    def _csv_line(self, row: AnyRow) -> dict[str, Any]:
        first, rest = (
            {f"{words.name}:{key}" if key else words.name: row.values(words.name).get(key) for words, key in columns}
            for columns in _split_columns(self.cost_columns)
        )
        conditions = {name: self.provenance[name] for name in ("split", "num_views", "crop")}
        single = row.configuration if isinstance(row.configuration, Configuration) else None
        return {
            "configuration": str(row.configuration),
            "width": single and single.width_text,
            "spatial": single and single.spatial,
            "temporal": single and single.temporal,
            **first,
            **{name: row.accuracy.get(name) for name in self.metrics},
            **rest,
            **conditions,
            "signature": " ".join(map(str, row.signature)),
            **self._csv_of_cascade(row),
        }

    def _csv_of_cascade(self, row: AnyRow) -> dict[str, Any]:
        """Columns that a table with cascades has beside: shares of clips, and of what adds up the p99 and the worst case."""
        if not self.cascades:
            return {}
        adding = [(words.name, key) for words, key in self.cost_columns if words.adds]
        told: dict[str, Any] = {"shares": None}
        if isinstance(row, CascadeRow):
            told["shares"] = " ".join(f"{share:g}" for share in row.shares)
        for kind in ("p99", "worst"):
            of_kind = {} if not isinstance(row, CascadeRow) else row.p99 if kind == "p99" else row.worst
            for name, key in adding:
                told[f"{kind}_{name}:{key}" if key else f"{kind}_{name}"] = of_kind.get(name, {}).get(key)
        return told


def _split_columns(columns: list[tuple[CostWords, str]]) -> tuple[list[tuple[CostWords, str]], list[tuple[CostWords, str]]]:
    """The columns of costs before and behind the accuracies: what is counted, and what depends on the device."""
    return [column for column in columns if not column[0].by_device], [column for column in columns if column[0].by_device]


def paid_dimension(cheaper: Row, dearer: Row) -> str:
    """Which dimension pays for the step between two rows: "spatial", "temporal", "width" or "several" (paper, Fig. 18).

    Two widths with one signature are one network, so they count as a step in width only if nothing else differs.
    Raises ValueError for two rows of one configuration.
    """
    before, after = cheaper.configuration, dearer.configuration
    if before == after:
        raise ValueError(f"there is no step from {before} to itself")
    differing = [name for name in ("spatial", "temporal") if getattr(before, name) != getattr(after, name)]
    if cheaper.signature != dearer.signature or not differing:
        differing.append("width")
    return differing[0] if len(differing) == 1 else "several"


def metric_label(name: str) -> str:
    """How a metric is written for people, where no table says it."""
    return metric_words({}, name).label


def _told_of(row: AnyRow, words: CostWords, key: str) -> str:
    value = row.values(words.name)[key]
    if not isinstance(row, CascadeRow) or not words.adds:
        return _told(words, value, key)
    p99, worst = (costs[words.name][key] for costs in (row.p99, row.worst))
    return f"mean {_told(words, value, key)} (99 of 100 clips at most {words.number(p99)}, every clip {words.number(worst)})"


def _told(words: CostWords, value: float, key: str) -> str:
    """A cost in a sentence about its row: number, unit, what it is per, device."""
    where = f" on {key}" if key else ""
    return f"{words.number(value)} {words.full_unit}{where}"


def _cell(row: AnyRow, words: CostWords, key: str) -> str:
    values = row.values(words.name)
    return words.number(values[key]) if key in values else "-"


def round_up(value: float) -> float:
    """Four significant digits, never below `value`: a budget that is printed must work when it is typed in."""
    return float(decimal.Context(prec=4, rounding=decimal.ROUND_CEILING).create_decimal(value))


def _check_unchanged(data: Any) -> None:
    """DamagedFileError when a table that has a fingerprint does not have it any more; a table without one is a user's own."""
    told = data.get("fingerprint") if isinstance(data, dict) else None
    if told is not None and told != fingerprint({key: value for key, value in data.items() if key != "fingerprint"}):
        raise DamagedFileError(
            "it is damaged, or was changed after it was written (if that is meant, remove its entry 'fingerprint'); "
            f"{MEASURE_AGAIN}"
        )


def _checked_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in REQUIRED_PROVENANCE if provenance.get(name) is None]
    if missing:
        raise ValueError(f"the provenance lacks {', '.join(missing)}: accuracies mean nothing without")
    try:
        plain = simplejson.loads(simplejson.dumps(provenance, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the provenance must be plain strings, numbers, lists and dictionaries: {error}") from error
    for name in ("metric", "split"):
        if not isinstance(plain[name], str):
            raise ValueError(f"the provenance's {name} is {plain[name]!r:.80}: a text is needed")
    for name in ("num_views", "crop"):
        _cost(plain[name], f"the provenance's {name}")
    return plain


def _number(value: Any, name: str) -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # whole numbers of JSON know no end
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} is {value!r:.80}: a finite number is needed")


def _percent(value: Any, name: str) -> float:
    value = _number(value, name)
    if not 0 <= value <= 100:
        raise ValueError(f"{name} is {value:g}: it must be from 0 to 100 per cent")
    return value


def _cost(value: Any, name: str) -> float:
    value = _number(value, name)
    if value <= 0:
        raise ValueError(f"{name} is {value:g}: it must be above 0")
    return value


def _count(value: Any, name: str) -> int:
    number = _number(value, name)
    if number != int(number) or number < 0:
        raise ValueError(f"{name} is {value!r:.80}: a whole number, 0 or more, is needed")
    return int(number)


def _numbers(values: Any, name: str, check: Callable[[Any, str], _Value]) -> dict[str, _Value]:
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {values!r:.80}: a dictionary of numbers is needed")
    return {str(key): check(value, f"{name}['{key}']") for key, value in values.items()}


def _costs(costs: Any, configuration: str) -> dict[str, float | dict[str, float]]:
    """Further costs: a number each, or one for each device key."""
    if not isinstance(costs, dict):
        raise ValueError(f"{configuration}: costs is {costs!r:.80}: a dictionary is needed")
    found: dict[str, float | dict[str, float]] = {}
    for name, value in costs.items():
        if name in ROW_COSTS:
            raise ValueError(f"{configuration}: costs has {name}, which a row has a field of its own for")
        place = f"{configuration}: costs['{name}']"
        # Whole numbers stay whole.
        found[str(name)] = _numbers(value, place, _cost) if isinstance(value, dict) else value if type(value) is int and _cost(value, place) else _cost(value, place)
    return found
