"""The metrics by the words that data sets name them by."""

import functools
from collections.abc import Callable
from typing import Any

from mutual3d.metrics.average_precision import MeanAveragePrecision
from mutual3d.metrics.detection import DetectionAveragePrecision
from mutual3d.metrics.metrics import Metric, TopK

METRICS: dict[str, type[Metric]] = {
    "top_k": TopK,
    "mean_average_precision": MeanAveragePrecision,
    "detection_average_precision": DetectionAveragePrecision,
}


def build_metric(word: str, dataset: Any) -> Callable[[], Metric]:
    """A function that makes an empty metric, the one called `word`, for the samples of `dataset`, a `ClipDataset`.

    Raises ValueError, with the legal ones, for a word that nobody registered.
    """
    if word not in METRICS:
        raise ValueError(f"there is no metric {word!r}: choose among {', '.join(METRICS)}, or register one in METRICS")
    return functools.partial(METRICS[word].of_dataset, dataset)
