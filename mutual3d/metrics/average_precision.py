"""Mean average precision of videos that have several labels (Charades), and what metrics over all videos share."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from mutual3d.metrics.metrics import Metric, MetricFacts, check_finite


class CollectedRows:
    """Rows of tensors, columns by name, one of them `indices`: positions of videos in their list.

    No video counts twice: `merge` takes the rows of videos that are new. The order in which videos were seen makes no
    difference.
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, torch.Tensor]] = []

    def append(self, **columns: torch.Tensor) -> None:
        """Take tensors of one row each. They must be copies: what a loader's workers send keeps a file open.

        Raises NotFiniteError for `scores` that are NaN or infinite.
        """
        check_finite(columns["scores"])
        self._parts.append(columns)

    def rows(self) -> dict[str, torch.Tensor]:
        """{name: tensor} of all rows by index, those of one index in the order they came; {} when nothing was seen."""
        rows = self.state()
        if not rows:
            return {}
        order = torch.argsort(rows["indices"], stable=True)
        return {name: column[order] for name, column in rows.items()}

    def merge(self, other: "CollectedRows") -> None:
        """Add the rows of another one, behind the own ones."""
        own, new = self.state(), other.state()
        if own and new:
            is_new = ~torch.isin(new["indices"], own["indices"])
            new = {name: column[is_new] for name, column in new.items()}
        if new:
            self.append(**new)

    @property
    def num_videos(self) -> int:
        """Videos that were seen; of boxes, keyframes."""
        return len(self.state().get("indices", torch.empty(0)).unique())

    def state(self) -> dict[str, torch.Tensor]:
        """The rows so far as {name: tensor}, for `load_state`; {} when nothing was seen."""
        if len(self._parts) > 1:
            self._parts = [{name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}]
        return dict(self._parts[0]) if self._parts else {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take what `state` gave; ValueError for anything else."""
        columns = dict(state)
        if columns and not {"indices", "scores"} <= columns.keys():
            raise ValueError(f"rows need the columns indices and scores, not {', '.join(map(str, columns))}")
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError("columns of one length are needed")
        self._parts = []
        if columns:
            self.append(**columns)


class CollectingMetric(CollectedRows, Metric):
    """Mean average precision, which needs the scores of all videos at once.

    A subclass writes `update`, `rows_and_truth` and `per_class`.
    """

    @abstractmethod
    def rows_and_truth(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """(what `rows` gives, bool rows, K: which classes, the columns of the scores, hold), of those that count alone."""

    def class_names(self) -> list[str] | None:
        """What the columns of the scores are called; None where that is the data set's affair."""
        return None

    @abstractmethod
    def per_class(self) -> dict[int, float]:
        """{class: average precision in percent}, without classes that have no positive; ValueError when all have none."""

    def values(self) -> dict[str, float]:
        """{"map": percent}, the mean of `per_class`; raises what that raises."""
        precisions = self.per_class().values()
        return {"map": sum(precisions) / len(precisions)}


class MeanAveragePrecision(CollectingMetric):
    """Mean over classes of the average precision of videos ranked by their scores, in percent.

    Average precision is scikit-learn's: the sum over the ranking of precision times the step in recall, without
    interpolation, videos of one score taken together. Classes without a positive are left out, as is done for Charades.
    """

    facts = MetricFacts({"map": "mean average precision"}, "several labels for each video")

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: B, K, on the CPU; batch: what the loader gave, with labels B, K (1 where a label holds) and indices B."""
        if batch.labels.shape != scores.shape:
            raise ValueError(
                f"labels of shape {tuple(batch.labels.shape)} for scores of shape {tuple(scores.shape)}: mean average "
                "precision needs a 0 or 1 for each class (DATA.MULTI_LABEL, MODEL.NUM_CLASSES)"
            )
        self.append(indices=batch.indices.clone(), scores=scores.float(), labels=batch.labels > 0.5)

    def rows_and_truth(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        rows = self.rows()
        return rows, rows["labels"] if rows else torch.zeros(0, 0, dtype=torch.bool)

    def per_class(self) -> dict[int, float]:
        # Imported late: it takes a second, and only this metric needs it.
        from sklearn.metrics import average_precision_score

        rows = self.rows()
        present = rows["labels"].any(0).nonzero().flatten().tolist() if rows else []
        if not present:
            raise ValueError(f"none of the {self.num_videos} videos that were evaluated has a label")
        labels, scores = rows["labels"].numpy(), rows["scores"].numpy()
        return {k: 100.0 * float(average_precision_score(labels[:, k], scores[:, k])) for k in present}


def area_under_precision(is_right: np.ndarray, num_positives: int) -> float:
    """In [0, 1]: the area under the curve of recall and the highest precision from there on (Pascal VOC, ActivityNet, AVA).

    is_right: bool N, of what was found, from the highest score down. num_positives: all that could be found.
    """
    precision = np.cumsum(is_right) / np.arange(1, len(is_right) + 1)
    highest_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest_from_here[is_right].sum()) / num_positives
