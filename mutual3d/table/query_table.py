"""The query table: what each configuration costs and how accurate it is, measured once and asked at run time.

The paper's complexity-configuration table (3.4, 4.3), with measured latency beside the arithmetic.
"""

import contextlib
import csv
import decimal
import math
import numbers
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import simplejson

from mutual3d.sampling import Configuration
from mutual3d.utils.files import DamagedFileError, atomic_write, read_json, write_json
from mutual3d.utils.fingerprint import fingerprint

FORMAT = "mutual3d.query_table"
VERSION = 1
COSTS = ("gflops", "latency_ms")
REQUIRED_PROVENANCE = ("metric", "split", "num_views", "crop")
METRIC_LABELS = {"top1_acc": "top-1 accuracy", "top5_acc": "top-5 accuracy", "map": "mean average precision"}
ROW_FIELDS = ("configuration", "signature", "gflops", "parameters", "accuracy", "latency_ms")
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
    per cent. latency_ms: device key, such as `cpu-fp32-b1-t2` (device, dtype, batch, threads), to median milliseconds.
    Raises ValueError for a value that is no number, not finite, not above 0 where it is a cost, or not from 0 to 100 where
    it is an accuracy.
    """

    configuration: Configuration
    signature: tuple
    gflops: float
    parameters: int
    accuracy: dict
    latency_ms: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        configuration = Configuration.parse(self.configuration)
        plain = {
            "configuration": configuration,
            "signature": tuple(_count(channels, f"{configuration}: signature") for channels in self.signature),
            "gflops": _cost(self.gflops, f"{configuration}: gflops"),
            "parameters": _count(self.parameters, f"{configuration}: parameters"),
            "accuracy": _numbers(self.accuracy, f"{configuration}: accuracy", _percent),
            "latency_ms": _numbers(self.latency_ms, f"{configuration}: latency_ms", _cost),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: strings, numbers, lists and dictionaries."""
        return {
            "configuration": str(self.configuration),
            "signature": list(self.signature),
            "gflops": self.gflops,
            "parameters": self.parameters,
            "accuracy": dict(self.accuracy),
            "latency_ms": dict(self.latency_ms),
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
        return cls(**{name: entry[name] for name in ROW_FIELDS})


class QueryTable:
    """Measured rows, ascending by configuration, with the conditions they were measured under.

    provenance: plain data with at least metric (the name in `Row.accuracy` that decides), split, num_views and crop
    (pixels, of the largest configuration); further num_videos, checkpoint, dataset, date, versions and the like.
    Raises ValueError for no rows, a configuration given twice, a row without the metric, or missing provenance.
    """

    def __init__(self, rows: Iterable[Row], provenance: Mapping[str, Any]) -> None:
        self.rows = tuple(sorted(rows, key=lambda row: row.configuration))
        self.provenance = _checked_provenance(provenance)
        self._by_name = {str(row.configuration): row for row in self.rows}
        self._check_rows()

    def _check_rows(self):
        if not self.rows:
            raise ValueError("a query table needs at least one row")
        if len(self._by_name) < len(self.rows):
            names = [str(row.configuration) for row in self.rows]
            raise ValueError(f"measured twice: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
        for row in self.rows:
            if self.metric not in row.accuracy:
                legal = ", ".join(row.accuracy) or "none"
                raise ValueError(f"{row.configuration} has no accuracy under '{self.metric}'; it has: {legal}")

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        first, last = self.rows[0].configuration, self.rows[-1].configuration
        return f"QueryTable({len(self)} configurations, {first} to {last}, {metric_label(self.metric)}, {self.conditions})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueryTable) and self.to_dict() == other.to_dict()

    @property
    def metric(self) -> str:
        """The name of the metric that decides which row is better."""
        return self.provenance["metric"]

    @property
    def metrics(self) -> list[str]:
        """Every metric that some row has, the deciding one first."""
        names = {name for row in self.rows for name in row.accuracy}
        return [self.metric, *sorted(names - {self.metric})]

    @property
    def devices(self) -> list[str]:
        """Every key under which some row has a latency."""
        return sorted({key for row in self.rows for key in row.latency_ms})

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

    def accuracy(self, row: Row) -> float:
        """The deciding metric of a row, in per cent."""
        return row.accuracy[self.metric]

    def device(self, device: str | None = None) -> str:
        """The latency key to use; raises ValueError listing the keys when it is unknown, or None and ambiguous."""
        keys = self.devices
        if not keys:
            raise ValueError(
                "no latency was measured in this query table: give a budget in GFLOPs, "
                "or measure again with GRID.LATENCY_DEVICES set"
            )
        if device is None and len(keys) == 1:
            return keys[0]
        if device not in keys:
            asked = "latency was measured on several devices" if device is None else f"no latency on '{device}'"
            raise ValueError(f"{asked}: name one of {', '.join(keys)}")
        return device

    def cost(self, row: Row, cost: str = "gflops", device: str | None = None) -> float:
        """What a row costs: GFLOPs of one view, or median milliseconds on `device`.

        Raises ValueError when the row's latency was not measured there.
        """
        if cost not in COSTS:
            raise ValueError(f"'{cost}' is no cost: use {' or '.join(COSTS)}")
        if cost == "gflops":
            return row.gflops
        device = self.device(device)
        if device not in row.latency_ms:
            raise ValueError(f"the latency of {row.configuration} was not measured on {device}; {MEASURE_AGAIN}")
        return row.latency_ms[device]

    def measured(self, cost: str = "gflops", device: str | None = None) -> list[Row]:
        """The rows whose cost is known: all for GFLOPs, those timed on `device` for latency."""
        if cost == "latency_ms":
            device = self.device(device)
            return [row for row in self.rows if device in row.latency_ms]
        return list(self.rows)

    def pareto_front(self, cost: str = "gflops", device: str | None = None) -> list[Row]:
        """The rows that no other row beats: the best accuracy for each budget, ascending in cost and accuracy.

        Of rows with equal accuracy only the cheapest stays.
        """

        def cheapest_then_best(row):
            return self.cost(row, cost, device), -self.accuracy(row), row.configuration

        best = []
        for row in sorted(self.measured(cost, device), key=cheapest_then_best):
            if not best or self.accuracy(row) > self.accuracy(best[-1]):
                best.append(row)
        return best

    def select(self, gflops: float | None = None, latency_ms: float | None = None, device: str | None = None) -> Row:
        """The most accurate row within every budget given; of equals the cheapest.

        Raises BudgetTooSmall when no row fits, ValueError when no budget is given, a budget is not above 0, or the
        latency device is unknown or ambiguous.
        """
        budgets = self._budgets(gflops, latency_ms, device)
        device = self.device(device) if latency_ms is not None else None
        rows = self.measured("gflops" if latency_ms is None else "latency_ms", device)

        def costs(row):
            return tuple(self.cost(row, name, device) for name in budgets)

        fitting = [row for row in rows if all(map(operator.le, costs(row), budgets.values()))]
        if fitting:
            return min(fitting, key=lambda row: (-self.accuracy(row), *costs(row), row.configuration))

        def overshoot(row):
            return max(cost / budget for cost, budget in zip(costs(row), budgets.values())), -self.accuracy(row)

        nearest = min(rows, key=overshoot)
        raise _too_small(budgets, nearest, dict(zip(budgets, costs(nearest))), device)

    def _budgets(self, gflops, latency_ms, device):
        """The budgets that were given, latency first because a user who gives both waits for the latency."""
        budgets = {"latency_ms": latency_ms, "gflops": gflops}
        budgets = {name: _cost(value, f"the budget {name}") for name, value in budgets.items() if value is not None}
        if not budgets:
            raise ValueError("give a budget: gflops, latency_ms, or both")
        if device is not None and "latency_ms" not in budgets:
            raise ValueError(f"the device '{device}' says where latency was measured: give latency_ms with it")
        return budgets

    def describe(self, row: Row) -> str:
        """One row in words, each number with its unit and conditions."""
        words = [
            f"{row.configuration}: {metric_label(self.metric)} {self.accuracy(row):.2f} % ({self.conditions})",
            f"{row.gflops:.4g} GFLOPs per view",
            f"{row.parameters:,} parameters",
            *(f"{row.latency_ms[key]:.4g} ms on {key}" for key in sorted(row.latency_ms)),
        ]
        return ", ".join(words)

    def format(self, rows: Iterable[Row] | None = None) -> str:
        """A text table of `rows` (default: all) for a terminal, headed by the conditions and units."""
        rows = self.rows if rows is None else rows
        header = ["configuration", "GFLOPs", "parameters", *self.metrics, *(f"ms {key}" for key in self.devices)]
        lines = [header, *(self._cells(row) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
        return "\n".join([self.legend, *text])

    @property
    def legend(self) -> str:
        """What the columns of a printed table mean: conditions and units."""
        legend = f"Accuracy in % ({self.conditions}); GFLOPs: 1e9 multiply-adds per view"
        return f"{legend}; ms: median latency" if self.devices else legend

    def _cells(self, row):
        accuracies = [f"{row.accuracy[name]:.2f}" if name in row.accuracy else "-" for name in self.metrics]
        latencies = [f"{row.latency_ms[key]:.4g}" if key in row.latency_ms else "-" for key in self.devices]
        return [str(row.configuration), f"{row.gflops:.4g}", f"{row.parameters:,}", *accuracies, *latencies]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON or a checkpoint can hold."""
        rows = [row.to_dict() for row in self.rows]
        return {"format": FORMAT, "version": VERSION, "provenance": dict(self.provenance), "rows": rows}

    @classmethod
    def from_dict(cls, data: Any) -> "QueryTable":
        """The inverse of `to_dict`; raises ValueError that says what is missing or wrong."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"this is not a query table: its 'format' must be '{FORMAT}'; {MEASURE_AGAIN}")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')}, this mutual3d reads {VERSION}; {MEASURE_AGAIN}")
        if not isinstance(data.get("rows"), list) or not isinstance(data.get("provenance"), dict):
            raise ValueError(f"it needs 'rows' (a list) and 'provenance' (a dictionary); {MEASURE_AGAIN}")
        return cls([Row.from_dict(entry) for entry in data["rows"]], data["provenance"])

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
        """One line a row; a column for every metric (per cent), latency device (ms) and condition."""
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            lines = [self._csv_line(row) for row in self.rows]
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)

    def _csv_line(self, row):
        conditions = {name: self.provenance[name] for name in ("split", "num_views", "crop")}
        return {
            "configuration": str(row.configuration),
            "width": row.configuration.width,
            "spatial": row.configuration.spatial,
            "temporal": row.configuration.temporal,
            "gflops": row.gflops,
            "parameters": row.parameters,
            **{name: row.accuracy.get(name) for name in self.metrics},
            **{f"latency_ms:{key}": row.latency_ms.get(key) for key in self.devices},
            **conditions,
            "signature": " ".join(map(str, row.signature)),
        }


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
    """How a metric is written for people."""
    return METRIC_LABELS.get(name, name)


def round_up(value: float) -> float:
    """Four significant digits, never below `value`: a budget that is printed must work when it is typed in."""
    return float(decimal.Context(prec=4, rounding=decimal.ROUND_CEILING).create_decimal(value))


def _too_small(budgets, nearest, needed, device):
    units = {"gflops": "GFLOPs", "latency_ms": f"ms on {device}"}
    asked = " and ".join(f"{budget:g} {units[name]}" for name, budget in budgets.items())
    needs = " and ".join(f"{round_up(needed[name]):g} {units[name]}" for name in budgets)
    return BudgetTooSmall(
        f"no configuration fits {asked}; the nearest, {nearest.configuration}, needs {needs}", nearest, needed
    )


def _check_unchanged(data):
    """DamagedFileError when a table that has a fingerprint does not have it any more; a table without one is a user's own."""
    told = data.get("fingerprint") if isinstance(data, dict) else None
    if told is not None and told != fingerprint({key: value for key, value in data.items() if key != "fingerprint"}):
        raise DamagedFileError(
            "it is damaged, or was changed after it was written (if that is meant, remove its entry 'fingerprint'); "
            f"{MEASURE_AGAIN}"
        )


def _checked_provenance(provenance):
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


def _number(value, name):
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # whole numbers of JSON know no end
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} is {value!r:.80}: a finite number is needed")


def _percent(value, name):
    value = _number(value, name)
    if not 0 <= value <= 100:
        raise ValueError(f"{name} is {value:g}: it must be from 0 to 100 per cent")
    return value


def _cost(value, name):
    value = _number(value, name)
    if value <= 0:
        raise ValueError(f"{name} is {value:g}: it must be above 0")
    return value


def _count(value, name):
    number = _number(value, name)
    if number != int(number) or number < 0:
        raise ValueError(f"{name} is {value!r:.80}: a whole number, 0 or more, is needed")
    return int(number)


def _numbers(values, name, check):
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {values!r:.80}: a dictionary of numbers is needed")
    return {str(key): check(value, f"{name}['{key}']") for key, value in values.items()}
