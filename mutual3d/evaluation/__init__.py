"""Calibration, cost, accuracy of every configuration, and the query table with its plots."""

from .average_precision import MeanAveragePrecision
from .calibration import calibrate
from .cost import Cost, count_cost, measure_latency
from .detection import DetectionAveragePrecision, detection_average_precision
from .grid import grid_configurations
from .measure import measure
from .metrics import NotFiniteError, TopK, topk_correct
from .query_table import BudgetTooSmall, QueryTable, Row
from .recording import RecordingMetric
from .resume import PartialResult
from .unreadable import UnreadableVideos, UnreadableVideosError

__all__ = [
    "BudgetTooSmall",
    "Cost",
    "DetectionAveragePrecision",
    "MeanAveragePrecision",
    "NotFiniteError",
    "PartialResult",
    "QueryTable",
    "RecordingMetric",
    "Row",
    "TopK",
    "UnreadableVideos",
    "UnreadableVideosError",
    "calibrate",
    "count_cost",
    "detection_average_precision",
    "grid_configurations",
    "measure",
    "measure_latency",
    "topk_correct",
]
