"""The grid of configurations, and the query table that measuring it gives (paper, 3.4 and 4.3)."""

from collections.abc import Callable, Mapping
from typing import Any

from mutual3d.cost.flops import Cost
from mutual3d.metrics.metrics import Metric
from mutual3d.sampling import Configuration, SearchSpace
from mutual3d.table.query_table import QueryTable, Row


def grid_configurations(space: SearchSpace, step: float, signature: Callable[[float], tuple]) -> list[Configuration]:
    """The grid without repeats: of widths with one signature the least stays, but the greatest width always does."""
    chosen = {}
    for width in space.widths(step):
        chosen.setdefault(signature(width), width)
    chosen[signature(space.widths(step)[-1])] = space.widths(step)[-1]
    widths = set(chosen.values())
    return [c for c in space.grid(step) if c.width in widths]


def build_table(
    model: Any,
    metrics: Mapping[Configuration, Metric],
    costs: Mapping[Configuration, Cost],
    latencies: Mapping[str, Mapping[Configuration, float]],
    provenance: Mapping[str, Any],
) -> QueryTable:
    """A QueryTable of the measured configurations, ascending. latencies: {device key: {configuration: ms}}."""
    rows = [
        Row(
            configuration=c,
            signature=model.signature(c.width),
            gflops=costs[c].gflops,
            parameters=costs[c].parameters,
            accuracy=metrics[c].values(),
            latency_ms={key: values[c] for key, values in latencies.items()},
        )
        for c in sorted(metrics)
    ]
    return QueryTable(rows, provenance)
