"""Examples for a run's page: which videos to show, and what was seen in them, with frames."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mutual3d.data.datasets.dataset import ClipDataset, Sample, read_sample
from mutual3d.deploy.draw import draw_on_frame, enlarge
from mutual3d.metrics.average_precision import CollectingMetric
from mutual3d.report.advice import class_name
from mutual3d.report.classes import Example, Predictions, Seen, choose_examples, frame_strip

_FRAMES = 4
_EXAMPLES = 4
# A video may be gone by the time that its frames are read.
_CANDIDATES = 3 * _EXAMPLES
_SCORES = 3
_BOXES = 6


@dataclass(frozen=True)
class Candidate:
    """A video that may be shown. index: its position in the list. seen: in it, or in each of its boxes.

    boxes: normalised xyxy of the whole frame, one for each of `seen`; none where whole clips are classified. label: what the
    list must still say of it, where it has one label.
    """

    index: int
    is_right: bool
    seen: tuple[Seen, ...]
    boxes: tuple[tuple[float, ...], ...] = ()
    label: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `from_dict`."""
        return {"index": self.index, "is_right": self.is_right, "seen": [one.to_dict() for one in self.seen], "boxes": self.boxes}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Candidate":
        """The inverse of `to_dict`; ValueError, KeyError or TypeError for anything else."""
        boxes = tuple(tuple(map(float, box)) for box in entry["boxes"])
        if boxes and (len(boxes) != len(entry["seen"]) or any(len(box) != 4 for box in boxes)):
            raise ValueError("each box has four sides and what was seen in it")
        return cls(int(entry["index"]), bool(entry["is_right"]), tuple(map(Seen.from_dict, entry["seen"])), boxes)


def candidates_of_one_label(predictions: Predictions, class_names: Sequence[str]) -> list[Candidate]:
    """Videos of one label to show, of each class one before any has two."""
    found = []
    for row in [row for rows in choose_examples(predictions, _CANDIDATES) for row in rows]:
        label, predicted = int(predictions.labels[row]), int(predictions.predicted[row])
        seen = Seen((class_name(label, class_names),), ((class_name(predicted, class_names), float(predictions.confidences[row])),))
        found.append(Candidate(int(predictions.indices[row]), label == predicted, (seen,), label=label))
    return found


def candidates_of_several_labels(metric: CollectingMetric, class_names: Sequence[str]) -> list[Candidate]:
    """Videos or keyframes to show, of each class one before any has two.

    A clip or box is right where a class that holds has the highest score, and a keyframe where all its boxes are. What no
    class holds of is shown beside others, and never for its own sake.
    """
    rows, truth = metric.rows_and_truth()
    if not rows or not truth.any():
        return []
    names = metric.class_names() or [class_name(label, class_names) for label in range(truth.shape[1])]
    scores = rows["scores"]
    confidences, predicted = scores.max(1)
    # The class that holds, as far as the network saw it.
    labels = torch.where(truth, scores, -torch.inf).argmax(1)
    labels = torch.where(truth.gather(1, predicted[:, None])[:, 0], predicted, labels)
    shown = _row_of_each_sample(rows["indices"], truth.any(1), labels == predicted, confidences)
    columns = (rows["indices"], labels, predicted, confidences)
    judged = Predictions("", ("",) * len(shown), *(column[shown].numpy() for column in columns))
    found = []
    for place in [place for places in choose_examples(judged, _CANDIDATES) for place in places]:
        own = (rows["indices"] == rows["indices"][shown[place]]).nonzero().flatten()[:_BOXES]
        boxes = tuple(map(tuple, rows["origins"][own].tolist())) if "origins" in rows else ()
        seen = tuple(_seen(scores[row], truth[row], names) for row in own)
        found.append(Candidate(int(judged.indices[place]), bool(judged.is_right[place]), seen, boxes))
    return found


def _row_of_each_sample(
    indices: torch.Tensor, has_label: torch.Tensor, is_right: torch.Tensor, confidences: torch.Tensor
) -> list[int]:
    """The row that stands for each sample: of those with a label a wrong one before a right one, then the surest."""
    best: dict[int, tuple[bool, float, int]] = {}
    kept = has_label.nonzero().flatten()
    columns = (indices[kept], is_right[kept], confidences[kept], kept)
    for index, right, confidence, row in zip(*(column.tolist() for column in columns)):
        best[index] = max(best.get(index, (False, -1.0, -1)), (not right, confidence, row))
    return [row for _, _, row in best.values()]


def _seen(scores_K: torch.Tensor, truth_K: torch.Tensor, names: Sequence[str]) -> Seen:
    values, classes = (part.tolist() for part in scores_K.topk(min(_SCORES, len(names))))
    labels = truth_K.nonzero().flatten().tolist()
    return Seen(tuple(names[k] for k in labels), tuple((names[k], value) for value, k in zip(values, classes)))


def read_examples(dataset: ClipDataset, candidates: Iterable[Candidate]) -> tuple[Example, ...]:
    """Some candidates that were recognised and some that were not, with frames; a video that cannot be read is left out."""
    found = []
    for is_right in (True, False):
        group = [one for one in candidates if one.is_right == is_right]
        found += [example for example, _ in zip(_read(dataset, group), range(_EXAMPLES))]
    return tuple(found)


def _read(dataset: ClipDataset, candidates: Iterable[Candidate]) -> Iterator[Example]:
    for one in candidates:
        # The list may be another one than when the videos were scored.
        if not 0 <= one.index < len(dataset):
            continue
        sample = read_sample(dataset, 0, one.index)
        if isinstance(sample, Sample) and (one.label is None or one.label == sample.label):
            frames = _keyframe(sample, one.boxes) if one.boxes else _frames(sample)
            yield Example(dataset.title_of(one.index), one.is_right, one.seen, frames)


def _frames(sample: Sample) -> bytes:
    """Some frames of the first clip."""
    clip_TCHW = sample.clips_VCTHW[0].transpose(0, 1)
    places = np.unique(np.linspace(0, len(clip_TCHW) - 1, _FRAMES).round().astype(int))
    return frame_strip(clip_TCHW[places.tolist()].permute(0, 2, 3, 1).numpy())


def _keyframe(sample: Sample, boxes: Sequence[Sequence[float]]) -> bytes:
    """The frame in the middle of the clip, which boxes are of, with these boxes and their numbers."""
    clip_CTHW = sample.clips_VCTHW[0]
    frame_HWC = enlarge(clip_CTHW[:, clip_CTHW.shape[1] // 2].permute(1, 2, 0).numpy())
    numbers = [str(1 + i) if len(boxes) > 1 else "" for i in range(len(boxes))]
    drawn = draw_on_frame(frame_HWC, torch.tensor(boxes), numbers)
    return frame_strip(drawn[None], height=len(drawn))
