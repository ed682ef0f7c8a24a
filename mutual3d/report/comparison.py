"""Several query tables side by side: who is most accurate at equal cost (paper, Fig. 7, 8, 15, 16, 18 and 19)."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutual3d.report.advice import noun
from mutual3d.report.plots import comparison_figure, png_bytes
from mutual3d.table.query_table import QueryTable, Row, metric_label
from mutual3d.utils.files import atomic_write

# What must agree for two accuracies to be compared. The crop may differ: a network trained alone has its own.
CONDITIONS = ("metric", "split", "num_views", "num_videos")


@dataclass(frozen=True)
class ReferencePoint:
    """A published network: its cost, in the unit of the comparison, and its accuracy in per cent."""

    name: str
    cost: float
    accuracy: float


@dataclass(frozen=True)
class EqualCost:
    """The most accurate row of each table within `budget`; None where the table has nothing so cheap.

    point: the published network that the budget is the cost of.
    """

    budget: float
    best: dict[str, Row | None]
    point: ReferencePoint | None = None


class Comparison:
    """Query tables by name, on one axis of cost.

    Args:
        tables: {name: table}, in the order of the legend; the first one's Pareto front gives the budgets of `at_equal_cost`.
        points: published networks to draw beside them.
        cost: a name that the `costs` of every table have, such as "gflops", or "latency_ms" on `device`, a key of each.
        any_conditions: compare tables of different metric, split, number of views or of videos all the same.

    Raises ValueError without tables, for tables measured under other conditions, and for a latency that one lacks.
    """

    def __init__(
        self,
        tables: Mapping[str, QueryTable],
        *,
        points: Sequence[ReferencePoint] = (),
        cost: str = "gflops",
        device: str | None = None,
        any_conditions: bool = False,
    ) -> None:
        if not tables:
            raise ValueError("there is nothing to compare: give query tables as name=out/query_table.json")
        self.tables, self.points = dict(tables), tuple(points)
        self.cost, self.device = cost, device
        if not any_conditions:
            self._check_conditions()
        self._fronts = {name: table.pareto_front(cost, device) for name, table in self.tables.items()}
        self._cascades = {name: table.cascade_front(cost, device) for name, table in self.tables.items()}

    def _check_conditions(self) -> None:
        (first, reference), *others = self.tables.items()
        for name, table in others:
            differing = _differing(table, reference)
            if differing:
                words = "; ".join(f"{key}: {table.provenance[key]}, there {reference.provenance[key]}" for key in differing)
                raise ValueError(
                    f"'{name}' was measured under other conditions than '{first}' ({words}): measure one of them again, or "
                    "compare all the same with --any-conditions"
                )

    def at_equal_cost(self) -> list[EqualCost]:
        """The best row of every table within the cost of each row of the first one's Pareto front and of each point, ascending."""
        first = next(iter(self.tables))
        budgets: list[tuple[float, ReferencePoint | None]] = [(self._cost_of(first, row), None) for row in self._fronts[first]]
        budgets += [(point.cost, point) for point in self.points]
        return [
            EqualCost(budget, {name: self._best_within(name, budget) for name in self.tables}, point)
            for budget, point in sorted(budgets, key=lambda pair: pair[0])
        ]

    def _cost_of(self, name: str, row: Row) -> float:
        return self.tables[name].cost(row, self.cost, self.device)

    def _best_within(self, name: str, budget: float) -> Row | None:
        fitting = [row for row in self._fronts[name] if self._cost_of(name, row) <= budget]
        return fitting[-1] if fitting else None

    @property
    def unit(self) -> str:
        """The unit of the costs, in words."""
        table = next(iter(self.tables.values()))
        return table.words_of_cost(self.cost).heading(table.device(self.device, self.cost))

    def legend(self, name: str) -> str:
        """A table's name with the conditions that its accuracies were measured under; the metric too where they differ."""
        table = self.tables[name]
        videos = [f"{table.provenance['num_videos']} {noun(table)}s"] if table.provenance.get("num_videos") else []
        metric = [] if self._metric else [metric_label(table.metric)]
        return f"{name} ({', '.join([*metric, table.conditions, *videos])})"

    @property
    def _metric(self) -> str | None:
        """The one that all tables are measured by; None where they differ."""
        found = {table.metric for table in self.tables.values()}
        return next(iter(found)) if len(found) == 1 else None

    def format(self) -> str:
        """The table of `at_equal_cost` as text: a line a budget, a column a method, accuracy and configuration."""
        published = ["published"] if self.points else []
        lines = [[self.unit, *self.tables, *published], *map(self._cells, self.at_equal_cost())]
        widths = [max(map(len, column)) for column in zip(*lines)]
        body = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
        legend = [f"{self.legend(name)}: best within the budget, % ({table.metric})" for name, table in self.tables.items()]
        return "\n".join([*legend, *body])

    def _cells(self, line: EqualCost) -> list[str]:
        best = ((self.tables[name], row) for name, row in line.best.items())
        cells = ["-" if row is None else f"{table.accuracy(row):.2f} {row.configuration}" for table, row in best]
        published = [f"{line.point.accuracy:.2f} {line.point.name}" if line.point else ""] if self.points else []
        return [f"{line.budget:.4g}", *cells, *published]

    def save_csv(self, path: str | Path) -> None:
        """Every row of every table, and the points: name, configuration, cost, accuracy, whether it is on the front.

        Cascades that single configurations do not beat are there too, at their mean costs, which are no budgets of every clip.
        """
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "configuration", self.cost, "accuracy", "pareto", *CONDITIONS, "crop"])
            for name, table in self.tables.items():
                conditions = [table.provenance.get(key) for key in (*CONDITIONS, "crop")]
                for row in table.measured(self.cost, self.device):
                    is_best = row in self._fronts[name]
                    values = (row.configuration, self._cost_of(name, row), table.accuracy(row), is_best)
                    writer.writerow([name, *values, *conditions])
                for cascade in self._cascades[name]:
                    mean = table.cost(cascade, self.cost, self.device)
                    writer.writerow([name, cascade.configuration, mean, table.accuracy(cascade), False, *conditions])
            no_conditions = [""] * (2 + len(CONDITIONS))
            writer.writerows([point.name, "", point.cost, point.accuracy, *no_conditions] for point in self.points)

    def save_plot(self, path: str | Path) -> None:
        """The Pareto fronts and the points in one figure, costs on a log axis, as a png."""
        fronts = {
            self.legend(name): [(self._cost_of(name, row), self.tables[name].accuracy(row)) for row in front]
            for name, front in self._fronts.items()
        }
        for name, cascades in self._cascades.items():
            table = self.tables[name]
            if cascades:
                found = [(table.cost(row, self.cost, self.device), table.accuracy(row)) for row in cascades]
                fronts[f"{name}, cascades at their mean costs"] = found
        points = [(point.name, point.cost, point.accuracy) for point in self.points]
        words = next(iter(self.tables.values())).words_of_metric()
        accuracy = words.axis if self._metric else "accuracy, of the kind in the legend (%)"
        figure = comparison_figure(fronts, points=points, cost_label=self.unit, accuracy_label=accuracy)
        with atomic_write(path) as temporary:
            temporary.write_bytes(png_bytes(figure))


def _differing(table: QueryTable, other: QueryTable) -> list[str]:
    """The conditions that two tables do not share. Where one does not say its number of videos, nothing is known of that."""
    return [
        key for key in CONDITIONS
        if (key != "num_videos" or (table.provenance.get(key) and other.provenance.get(key)))
        and table.provenance.get(key) != other.provenance.get(key)
    ]  # fmt: skip
