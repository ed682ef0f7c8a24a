"""Scores of single videos, kept beside the metric that they are for."""

from pathlib import Path
from typing import Any

import torch

from mutual3d.metrics.average_precision import CollectedRows
from mutual3d.metrics.metrics import Metric


class RecordingMetric(Metric):
    """A metric that also keeps the scores of every video, for whoever wants more than one number.

    What `metric` makes of the scores is in `self.metric`; processes and partial results carry both.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric, self.record = metric, ScoreRecord()
        self.names, self.primary = metric.names, metric.primary

    @property
    def num_videos(self) -> int:
        return self.metric.num_videos

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        self.metric.update(scores, batch)
        self.record.update(scores, batch)

    def merge(self, other: Any) -> None:
        self.metric.merge(other.metric)
        self.record.merge(other.record)

    def values(self) -> dict[str, float]:
        return self.metric.values()

    def per_class(self) -> dict[int, float] | None:
        return self.metric.per_class()

    def write_details(self, output: Path, configuration: str) -> None:
        self.metric.write_details(output, configuration)

    def state(self) -> dict[str, Any]:
        return {"metric": self.metric.state(), "record": self.record.state()}

    def load_state(self, state: Any) -> None:
        self.metric.load_state(state["metric"])
        self.record.load_state(state["record"])


class ScoreRecord(CollectedRows):
    """Rows of scores by the position of their video in its list; of boxes, one row for each box of a keyframe."""

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: B, K (of boxes N, K), on the CPU; batch: what the loader gave, with indices B and boxes N, 5 or None."""
        indices = batch.indices.clone() if batch.boxes is None else batch.indices[batch.boxes[:, 0].long()]
        self.append(indices=indices, scores=scores.float())

    def by_video(self, has_boxes: bool = False) -> dict[int, torch.Tensor]:
        """{position in the list: scores K; of boxes n, K}."""
        rows = self.rows()
        if not rows:
            return {}
        videos, counts = rows["indices"].unique_consecutive(return_counts=True)
        parts = rows["scores"].split(counts.tolist())
        return {video: part if has_boxes else part[0] for video, part in zip(videos.tolist(), parts)}
