"""Cascades of a table that was just measured, from the scores that were kept meanwhile."""

from collections.abc import Mapping

from mutual3d.evaluation.cascade import CascadeResult, CascadeScores, ClipConfidences, spread
from mutual3d.metrics.metrics import Metric
from mutual3d.metrics.recording import ConfidenceRecord, RecordingMetric
from mutual3d.sampling import Cascade, Configuration
from mutual3d.table.cascade_row import CascadeFacts
from mutual3d.table.query_table import QueryTable

# The most cascades of a table, over all of its costs.
_MOST = 16
# How far accuracies counted in two ways may lie apart, in points: of equal scores either class may be called the highest.
_TOLERANCE = 1.0


def add_cascades(table: QueryTable, metrics: Mapping[Configuration, Metric], *, num_stages: int) -> QueryTable:
    """The table with cascades of at most `num_stages` configurations that its single configurations do not beat.

    They are made of the Pareto fronts, over each cost that is drawn and adds up. The same table comes back where nothing was
    kept to compute them by (see `ConfidenceRecord`), or where its deciding number is not the share of the videos whose highest
    class is right.
    """
    columns = [(words.name, key) for words, key in table.cost_columns if words.is_drawn and words.adds]
    front = {row.configuration for name, key in columns for row in table.pareto_front(name, key or None)}
    clips = {
        c: ClipConfidences.of_record(metric.record)
        for c, metric in metrics.items()
        if c in front and isinstance(metric, RecordingMetric) and isinstance(metric.record, ConfidenceRecord)
    }
    if len(clips) < 2 or any(abs(each.accuracy - table.accuracy(table.row(c))) > _TOLERANCE for c, each in clips.items()):
        return table
    found: dict[Cascade, CascadeResult] = {}
    for name, key in columns:
        measured = {row.configuration: row.values(name)[key] for row in table.measured(name, key or None) if row.configuration in clips}
        if len(measured) > 1:
            results = CascadeScores({c: clips[c] for c in measured}, measured).search(num_stages=num_stages)
            found |= {result.cascade: result for result in spread(results, max(_MOST // len(columns), 2))}
    facts = [CascadeFacts(cascade, {table.metric: result.accuracy}, result.shares) for cascade, result in found.items()]
    return QueryTable(table.rows, table.provenance, facts)
