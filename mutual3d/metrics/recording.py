"""What is kept of single videos beside the metric that it is for: all their scores, or the class that scored highest."""

from pathlib import Path
from typing import Any

import torch

from mutual3d.metrics.average_precision import CollectedRows
from mutual3d.metrics.metrics import Metric, check_finite
from mutual3d.sampling.cascade import TEMPERATURES, log_scores


class VideoRecord(CollectedRows):
    """Rows that are kept of each video. A subclass writes `update`, which takes what `Metric.update` takes."""

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """Take the scores of a batch, rows, K, on the CPU. batch: what the loader gave."""
        raise NotImplementedError


class RecordingMetric(Metric):
    """A metric that also keeps rows of every video, for whoever wants more than one number.

    What `metric` makes of the scores is in `self.metric`; processes and partial results carry both.

    Args:
        record: what to keep, empty; all scores for None.
    """

    def __init__(self, metric: Metric, record: "VideoRecord | None" = None) -> None:
        self.metric, self.record = metric, ScoreRecord() if record is None else record
        self.facts = metric.facts

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


class ScoreRecord(VideoRecord):
    """Rows of scores by the position of their video in its list; of boxes, one row for each box of a keyframe."""

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: B, K (of boxes N, K), on the CPU; batch: what the loader gave, with indices B and boxes N, 5 or None."""
        indices = batch.indices.clone() if batch.boxes is None else batch.indices[batch.boxes[:, 0].long()]
        self.append(indices=indices, scores=scores.float())

    def by_video(self, has_boxes: bool = False) -> dict[int, torch.Tensor]:
        """{position in the list: scores K; of boxes n, K}. has_boxes: whether the scores are of boxes."""
        rows = self.rows()
        if not rows:
            return {}
        videos, counts = rows["indices"].unique_consecutive(return_counts=True)
        parts = rows["scores"].split(counts.tolist())
        return {video: part if has_boxes else part[0] for video, part in zip(videos.tolist(), parts)}


class TopPredictionRecord(VideoRecord):
    """The class that scored highest of each video that has one label, beside that label: 16 bytes a video.

    Columns: indices int32 N, labels and predicted int32 N, scores float32 N, 1, the score of the predicted class.
    """

    columns: tuple[str, ...] = ("indices", "labels", "predicted", "scores")

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: B, K, on the CPU; batch: what the loader gave, with indices and labels B. NotFiniteError as in a metric."""
        self.append(**self.row(scores, batch))

    def row(self, scores: torch.Tensor, batch: Any) -> dict[str, torch.Tensor]:
        """The columns of a batch; see `update`."""
        check_finite(scores)
        best, predicted = scores.float().max(1, keepdim=True)
        columns = {"indices": batch.indices, "labels": batch.labels, "predicted": predicted[:, 0]}
        return {**{name: column.to(torch.int32, copy=True) for name, column in columns.items()}, "scores": best}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        if state and set(state) != set(self.columns):
            raise ValueError(f"columns of top predictions are needed, not {', '.join(map(str, state))}")
        super().load_state(state)


class ConfidenceRecord(TopPredictionRecord):
    """Of each video also what its confidence and its label's likelihood at each of `TEMPERATURES` need: 56 bytes a video.

    So cascades are computed of a grid without another pass over the videos, in memory that does not grow with the classes:
    all scores of 20 000 videos of Kinetics at 144 configurations would take 4.6 GB, and these take 160 MB.

    Further columns, float32, of logarithms of scores: top_logs N, of the predicted class; label_logs N, of the label;
    log_sums N, one a temperature: log of the sum over classes of the scores to the power 1 / temperature.
    """

    columns = (*TopPredictionRecord.columns, "top_logs", "label_logs", "log_sums")

    def row(self, scores: torch.Tensor, batch: Any) -> dict[str, torch.Tensor]:
        found, logs = super().row(scores, batch), log_scores(scores)
        label_logs = logs.gather(1, batch.labels.long()[:, None])[:, 0]
        log_sums = torch.stack([(logs / temperature).logsumexp(1) for temperature in TEMPERATURES], 1)
        return {**found, "top_logs": logs.amax(1).float(), "label_logs": label_logs.float(), "log_sums": log_sums.float()}
