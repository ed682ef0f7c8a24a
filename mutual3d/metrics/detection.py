"""Mean average precision of scored boxes by AVA's protocol, which is ActivityNet's and Pascal VOC's at IoU 0.5.

For each class the boxes of all keyframes are ranked by their score. A box is right when the ground truth box of the class
that it overlaps most is overlapped by 0.5 or more, and no box of a higher score had the same one. The average precision is
the area under the curve of recall and the highest precision from there on. Excluded timestamps do not count at all.
"""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torchvision.ops import box_iou

from mutual3d.metrics.average_precision import CollectingMetric, area_under_precision
from mutual3d.metrics.metrics import MetricFacts
from mutual3d.utils.files import atomic_write
from mutual3d.utils.logging import progress_bar

MIN_IOU = 0.5
# Boxes travel as float32. Six decimals give back the numbers of the csv files, so that an IoU of exactly 0.5 stays one.
DECIMALS = 6


# {(video, second): (boxes N, 4, normalised xyxy; actions N)}
Annotations = Mapping[tuple[str, int], tuple[Any, Any]]


def detection_average_precision(
    ground_truth: Annotations,
    detections: Mapping[tuple[str, int], tuple],
    excluded: Collection[tuple[str, int]],
    classes: Sequence[tuple[int, str]],
) -> dict[int, float]:
    """{action: average precision in [0, 1]} of the `classes` that have ground truth; the others are no part of the mean.

    Args:
        ground_truth: {(video, second): (boxes n, 4; actions n)}, one row for each action of a box.
        detections: {(video, second): (boxes n, 4; actions n; scores n)}.
        excluded: (video, second) pairs that do not count.
        classes: (action, name) pairs.
    """
    truth = GroundTruth(ground_truth, excluded)
    boxes, found_actions, found_scores = ([found[i] for found in detections.values()] for i in range(3))
    keyframes = [keyframe for keyframe, own in zip(detections, boxes) for _ in own]
    matches = truth.match(keyframes, _join_boxes(boxes))
    actions, scores = _join(found_actions, np.int64), _join(found_scores, np.float64)
    rows = {action: np.flatnonzero(actions == action) for action in truth.annotated(classes)}
    return {action: matches.average_precision(action, scores[own], own) for action, own in rows.items()}


class GroundTruth:
    """The boxes that people drew, in arrays. Arguments as of `detection_average_precision`."""

    def __init__(self, annotations: Annotations, excluded: Collection[tuple[str, int]] = ()) -> None:
        self._excluded = set(excluded)
        counted = {keyframe: own for keyframe, own in annotations.items() if keyframe not in self._excluded}
        self._boxes = _join_boxes([boxes for boxes, _ in counted.values()])
        self._actions = _join([actions for _, actions in counted.values()], np.int64)
        self._numbers = {keyframe: number for number, keyframe in enumerate(counted)}
        # The last entry, which -1 finds, is for keyframes where nothing is annotated.
        self._counts = np.array([*(len(actions) for _, actions in counted.values()), 0])
        self._starts = np.cumsum(self._counts) - self._counts

    def annotated(self, classes: Sequence[tuple[int, str]]) -> list[int]:
        """The actions of `classes` that have a box."""
        present = set(self._actions.tolist())
        return [action for action, _ in classes if action in present]

    def match(self, keyframes: Sequence[tuple[str, int]], boxes_N4: np.ndarray) -> "Matches":
        """The Matches of detected boxes. keyframes: N (video, second) pairs."""
        numbers = np.array([self._numbers.get(keyframe, -1) for keyframe in keyframes], np.int64)
        counts = self._counts[numbers]
        # Each box beside each one of its own keyframe, as two long lists: a call for every keyframe takes far longer.
        detected = np.repeat(np.arange(len(boxes_N4)), counts)
        truth = np.arange(len(detected)) + np.repeat(self._starts[numbers] - np.cumsum(counts) + counts, counts)
        overlaps = _paired_iou(boxes_N4[detected], self._boxes[truth])
        best_first = np.lexsort((truth, -overlaps, detected))
        truth, detected = (pairs[best_first][overlaps[best_first] >= MIN_IOU] for pairs in (truth, detected))
        # A box without area is no detection, as in the official evaluation.
        counted = np.array([keyframe not in self._excluded for keyframe in keyframes], bool)
        counted &= (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(1)
        return Matches(counted, detected, truth, self._actions)


class Matches(NamedTuple):
    """Which boxes of N overlap which ground truth ones by 0.5 or more.

    counted: bool N, False for a box that is ignored. detected, truth: the pairs, by detected box, its best first.
    actions: of all ground truth boxes.
    """

    counted: np.ndarray
    detected: np.ndarray
    truth: np.ndarray
    actions: np.ndarray

    def average_precision(self, action: int, scores: np.ndarray, boxes: np.ndarray | slice = slice(None)) -> float:
        """In [0, 1], of an action that has ground truth. boxes: positions of the boxes that `scores` are of."""
        targets, counted = self._targets(action)[boxes], self.counted[boxes]
        ranking = np.argsort(-scores[counted], kind="stable")
        return area_under_precision(_first_on_target(targets[counted][ranking]), int((self.actions == action).sum()))

    def has_action(self, action: int) -> np.ndarray:
        """bool N: the box overlaps a ground truth box of the action by 0.5 or more."""
        return self._targets(action) >= 0

    def _targets(self, action: int) -> np.ndarray:
        """For each box the ground truth box of `action` that it overlaps most, -1 where there is none."""
        of_action = self.actions[self.truth] == action
        detected, first = np.unique(self.detected[of_action], return_index=True)
        targets = np.full(len(self.counted), -1)
        targets[detected] = self.truth[of_action][first]
        return targets


def _first_on_target(targets: np.ndarray) -> np.ndarray:
    """Of ranked boxes, which are right: the first on each target."""
    is_right = np.zeros(len(targets), bool)
    found, first = np.unique(targets, return_index=True)
    is_right[first[found >= 0]] = True
    return is_right


def _paired_iou(boxes_P4: np.ndarray, others_P4: np.ndarray) -> np.ndarray:
    """IoU of each box with its partner: P."""
    if not len(boxes_P4):
        return np.zeros(0)
    pairs = torch.from_numpy(boxes_P4)[:, None], torch.from_numpy(others_P4)[:, None]
    return torch.vmap(box_iou)(*pairs).flatten().numpy()


def _join_boxes(parts: Iterable[Any]) -> np.ndarray:
    boxes = np.concatenate([np.zeros((0, 4)), *(np.asarray(part, np.float64).reshape(-1, 4) for part in parts)])
    return boxes.round(DECIMALS)


def _join(parts: Iterable[Any], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype) for part in parts)])


class AnnotatedKeyframes(Protocol):
    """What the metric needs of a data set: the arguments of `DetectionAveragePrecision`."""

    @property
    def keyframes(self) -> Sequence[tuple[str, int]]:
        """(video, second) of each sample, by its index."""

    @property
    def ground_truth(self) -> Annotations:
        """{(video, second): (boxes N, 4, normalised xyxy; actions N)}."""

    @property
    def excluded(self) -> Collection[tuple[str, int]]:
        """(video, second) pairs that do not count."""

    @property
    def classes(self) -> Sequence[tuple[int, str]]:
        """(action, name) of each class."""


class DetectionAveragePrecision(CollectingMetric):
    """Mean average precision of boxes in keyframes by AVA's protocol, in percent.

    All annotated keyframes count, also those whose frames could not be read or that no box was given for.

    Args:
        keyframes: (video, second) of each index of the dataset.
        ground_truth, excluded, classes: as of `detection_average_precision`; action a has column a - 1 of the scores.
    """

    facts = MetricFacts({"map": "mean average precision"}, "boxes in keyframes, with several labels each")

    @classmethod
    def of_dataset(cls, dataset: AnnotatedKeyframes) -> "DetectionAveragePrecision":
        return cls(dataset.keyframes, dataset.ground_truth, dataset.excluded, dataset.classes)

    def __init__(
        self,
        keyframes: Sequence[tuple[str, int]],
        ground_truth: Annotations,
        excluded: Collection[tuple[str, int]],
        classes: Sequence[tuple[int, str]],
    ) -> None:
        super().__init__()
        self.keyframes, self.ground_truth = keyframes, ground_truth
        self.excluded, self.classes = excluded, list(classes)

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: N, K of the batch's boxes, on the CPU; batch: what the loader gave, with indices B, boxes and origins."""
        highest = max(action for action, _ in self.classes)
        if highest > scores.shape[1]:
            raise ValueError(
                f"the network gives {scores.shape[1]} scores (MODEL.NUM_CLASSES), and the label map has class {highest}"
            )
        columns = torch.tensor([action - 1 for action, _ in self.classes])
        indices = batch.indices[batch.boxes[:, 0].long()]
        self.append(indices=indices, origins=batch.origins.clone(), scores=scores[:, columns].float())

    def rows_and_truth(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """See the base class. A box's classes are those of the ground truth boxes that it overlaps by 0.5 or more."""
        rows = self.rows()
        if not rows:
            return rows, torch.zeros(0, len(self.classes), dtype=torch.bool)
        matches = self._matches(rows)
        truth = torch.from_numpy(np.stack([matches.has_action(action) for action, _ in self.classes], axis=1))
        counted = torch.from_numpy(matches.counted)
        return {name: column[counted] for name, column in rows.items()}, truth[counted]

    def class_names(self) -> list[str]:
        return [name for _, name in self.classes]

    def _matches(self, rows: Mapping[str, torch.Tensor]) -> Matches:
        truth = GroundTruth(self.ground_truth, self.excluded)
        return truth.match(self._keyframes_of(rows), _join_boxes([rows["origins"]]))

    def per_class(self) -> dict:
        rows, names = self.rows(), dict(self.classes)
        if not rows:
            raise ValueError("no box was evaluated")
        truth = GroundTruth(self.ground_truth, self.excluded)
        matches = truth.match(self._keyframes_of(rows), _join_boxes([rows["origins"]]))
        scores = dict(zip(names, rows["scores"].numpy().T))
        present = truth.annotated(self.classes)
        if not present:
            raise ValueError("the ground truth has no box of any class of the label map outside the excluded timestamps")
        return {names[action]: 100.0 * matches.average_precision(action, scores[action]) for action in present}

    def _keyframes_of(self, rows: Mapping[str, torch.Tensor]) -> list[tuple[str, int]]:
        return [self.keyframes[index] for index in rows.get("indices", torch.empty(0)).tolist()]

    def write_details(self, output: Path, configuration: str) -> None:
        self.write_results(output / f"detections_{configuration}.csv")

    def write_results(self, path: str | Path) -> None:
        """Write all scored boxes as csv `video,second,x1,y1,x2,y2,action,score`, AVA's own form.

        The official script keeps the 50 best rows of a keyframe as it reads such a file; here, as in PySlowFast, all count.
        """
        rows = self.rows()
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            keyframes = progress_bar(self._keyframes_of(rows), "write results", unit="box")
            for (video, second), box, scores in zip(keyframes, rows.get("origins", ()), rows.get("scores", ())):
                place = [video, f"{second:04d}", *(f"{side:.{DECIMALS}f}" for side in box.tolist())]
                scored = zip(self.classes, scores.tolist())
                # Nine digits are all that a float32 has: boxes keep their ranks.
                writer.writerows([*place, action, f"{score:.9g}"] for (action, _), score in scored)
