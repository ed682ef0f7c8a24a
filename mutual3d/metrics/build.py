"""From a config to the metric of its task."""

import functools
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode

from mutual3d.metrics.average_precision import MeanAveragePrecision
from mutual3d.metrics.detection import DetectionAveragePrecision
from mutual3d.metrics.metrics import Metric, TopK


def build_metric(cfg: CfgNode, dataset: Any) -> Callable[[], Metric]:
    """A function that makes an empty metric for the samples of `dataset`: top-k, or mean average precision."""
    if cfg.DETECTION.ENABLE:
        return functools.partial(
            DetectionAveragePrecision, keyframes=dataset.keyframes, ground_truth=dataset.ground_truth,
            excluded=dataset.excluded, classes=dataset.classes,
        )  # fmt: skip
    return MeanAveragePrecision if cfg.DATA.MULTI_LABEL else TopK
