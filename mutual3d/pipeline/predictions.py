"""What single videos were taken for, at the best configurations of a table: files beside it, and what its page shows of them."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.datasets.kinetics import write_table
from mutual3d.metrics.average_precision import CollectingMetric
from mutual3d.metrics.metrics import Metric
from mutual3d.metrics.recording import RecordingMetric
from mutual3d.pipeline.examples import Candidate, candidates_of_one_label, candidates_of_several_labels
from mutual3d.report.classes import ClassPrecision, Predictions
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import read_json, write_json
from mutual3d.utils.logging import logger

PREDICTIONS = "predictions.csv"
PER_CLASS = "query_table_per_class.json"
# start, end: seconds, where a row is of a stretch of the video.
COLUMNS = ("configuration", "index", "video", "start", "end", "label", "predicted", "confidence", "label_name", "predicted_name")
# How far accuracies counted in two ways may lie apart, in points: of equal scores either class may be called the highest.
_TOLERANCE = 1.0


def save_predictions(
    output: Path, table: QueryTable, metrics: Mapping[Configuration, Metric], dataset: ClipDataset, class_names: Sequence[str] | None
) -> None:
    """Write predictions.csv, a row for each video and each configuration of the Pareto front; for average precision
    query_table_per_class.json, that of each class, and what the most accurate configuration saw in some videos."""
    front = {row.configuration: metrics[row.configuration] for row in table.pareto_front()}
    records = {c: metric for c, metric in front.items() if isinstance(metric, RecordingMetric)}
    if records:
        lines = [line for c, metric in records.items() for line in _lines(str(c), metric, dataset, class_names)]
        write_table(output / PREDICTIONS, COLUMNS, lines)
        return
    per_class = {str(c): values for c, metric in front.items() if (values := metric.per_class()) is not None}
    if per_class:
        best = list(front.values())[-1]
        candidates = candidates_of_several_labels(best, class_names or ()) if isinstance(best, CollectingMetric) else []
        examples = [candidate.to_dict() for candidate in candidates]
        of_table = {"fingerprint": table.provenance.get("fingerprint"), "of_class": best.facts.of_class}
        write_json(output / PER_CLASS, {**of_table, "per_class": per_class, "examples": examples})


def _lines(
    configuration: str, metric: RecordingMetric, dataset: ClipDataset, class_names: Sequence[str] | None
) -> Iterator[tuple[object, ...]]:
    rows = metric.record.rows()
    columns = (rows["indices"], rows["labels"], rows["predicted"], rows["scores"][:, 0])
    for index, label, predicted, confidence in zip(*(column.tolist() for column in columns)):
        names = (_class_name(class_names, label), _class_name(class_names, predicted))
        seconds = dataset.seconds_of(index) or ("", "")
        yield (configuration, index, dataset.name_of(index), *seconds, label, predicted, f"{confidence:.4f}", *names)


def _class_name(names: Sequence[str] | None, label: int) -> str:
    return names[label] if names is not None and label < len(names) else ""


def load_predictions(output: Path, table: QueryTable) -> tuple[Predictions, ...]:
    """What predictions.csv says of the table's Pareto front, cheapest first; () where it is missing or of another table."""
    path = output / PREDICTIONS
    if not path.is_file():
        return ()
    try:
        found = _read(path)
        expected = {str(row.configuration): table.accuracy(row) for row in table.pareto_front()}
        if found.keys() != expected.keys() or any(abs(found[c].accuracy - expected[c]) > _TOLERANCE for c in expected):
            raise ValueError("it is of another table")
        if len({tuple(sorted(one.indices.tolist())) for one in found.values()}) > 1:
            raise ValueError("its configurations did not see the same videos")
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        logger.warning("'%s' is not shown in the report: %s", path, error)
        return ()
    return tuple(found[c] for c in expected)


def _read(path: Path) -> dict[str, Predictions]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows: dict[str, list] = {}
        for row in csv.DictReader(file):
            numbers = (int(row["index"]), int(row["label"]), int(row["predicted"]), float(row["confidence"]))
            rows.setdefault(row["configuration"], []).append((row["video"], *numbers))
    columns = {c: list(zip(*lines)) for c, lines in rows.items()}
    return {c: Predictions(c, videos, *map(np.array, numbers)) for c, (videos, *numbers) in columns.items()}


def left_out(dataset: ClipDataset, predictions: Sequence[Predictions]) -> list[str]:
    """What the videos of the list are called that have no prediction, since they could not be read."""
    if not predictions:
        return []
    seen = set(predictions[0].indices.tolist())
    return [dataset.title_of(index) for index in range(len(dataset)) if index not in seen]


def load_per_class(output: Path, table: QueryTable, class_names: Sequence[str] | None) -> tuple[ClassPrecision, ...]:
    """Average precision, or what else the metric has, of each class at the configurations of the Pareto front, cheapest first; () where there is none."""
    content = _read_per_class(output, table)
    return tuple(
        ClassPrecision(c, {_name_of_class(name, class_names): value for name, value in values.items()}, content["of_class"])
        for c, values in content["per_class"].items()
    )


def load_candidates(output: Path, table: QueryTable, predictions: Sequence[Predictions], class_names: Sequence[str]) -> list[Candidate]:
    """The videos that the table's page may show, at its most accurate configuration."""
    if predictions:
        return candidates_of_one_label(predictions[-1], class_names)
    return _read_per_class(output, table)["examples"]


def _read_per_class(output: Path, table: QueryTable) -> dict[str, Any]:
    """{"per_class": {configuration: {class: percent}}, "of_class": what they are, "examples": [Candidate]}, empty where the file is missing, damaged or of another table."""
    path = output / PER_CLASS
    nothing: dict[str, Any] = {"per_class": {}, "of_class": "", "examples": []}
    if not path.is_file():
        return nothing
    try:
        content: Any = read_json(path)
        if content["fingerprint"] != table.provenance.get("fingerprint"):
            raise ValueError("it is of another table")
        per_class = {
            c: {str(name): float(value) for name, value in values.items()} for c, values in content["per_class"].items()
        }
        # Files of earlier versions say nothing of what they hold.
        of_class = str(content.get("of_class", ClassPrecision.what))
        return {"per_class": per_class, "of_class": of_class, "examples": [Candidate.from_dict(one) for one in content.get("examples", ())]}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        logger.warning("'%s' is not shown in the report: %s", path, error)
        return nothing


def _name_of_class(name: str, class_names: Sequence[str] | None) -> str:
    """Of several labels a class is a number; of boxes it has its name already."""
    number = int(name) if name.isdecimal() else None
    return class_names[number] if number is not None and class_names and number < len(class_names) else name
