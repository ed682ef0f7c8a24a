"""The grid of configurations, and the query table that measuring it gives (paper, 3.4 and 4.3)."""

from collections.abc import Callable, Mapping
from typing import Any

from mutual3d.cost.axes import COSTS
from mutual3d.metrics.metrics import Metric
from mutual3d.sampling import Configuration, SearchSpace
from mutual3d.table.query_table import ROW_COSTS, QueryTable, Row


def grid_configurations(space: SearchSpace, step: float, signature: Callable[[float], tuple]) -> list[Configuration]:
    """The grid without repeats: of widths with one signature the min stays, but the max width always does."""
    chosen = {}
    for width in space.widths(step):
        chosen.setdefault(signature(width), width)
    chosen[signature(space.widths(step)[-1])] = space.widths(step)[-1]
    widths = set(chosen.values())
    return [c for c in space.grid(step) if c.width in widths]


def rows_of(
    model: Any, metrics: Mapping[Configuration, Metric], costs: Mapping[str, Mapping[str, Mapping[Configuration, float]]]
) -> list[Row]:
    """A row of each measured configuration, ascending. model, costs: as of `build_table`."""
    return [
        Row.of_costs(
            c, model.signature(c.width), metrics[c].values(),
            {name: {key: values[c] for key, values in by_key.items()} for name, by_key in costs.items()},
        )
        for c in sorted(metrics)
    ]  # fmt: skip


def build_table(
    model: Any,
    metrics: Mapping[Configuration, Metric],
    costs: Mapping[str, Mapping[str, Mapping[Configuration, float]]],
    provenance: Mapping[str, Any],
) -> QueryTable:
    """A QueryTable of the measured configurations, ascending. costs: of `mutual3d.cost.axes.measure_costs`.

    The provenance gets the words of metrics and costs, with which the table is read where nobody registered them. model:
    the adaptive network, for its signatures.
    """
    words = {"metrics": next(iter(metrics.values())).facts.to_dict()}
    of_its_own = {name: COSTS[name].to_dict() for name in costs if name not in ROW_COSTS}
    if of_its_own:
        words["costs"] = of_its_own
    return QueryTable(rows_of(model, metrics, costs), {**provenance, **words})
