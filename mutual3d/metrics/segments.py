"""Mean average precision of segments in untrimmed videos at several temporal IoUs: ActivityNet's and THUMOS' protocol.

For each class the segments that were found in all videos are ranked by their confidence. One is right when it overlaps a
segment of the ground truth, of its class and video, by the IoU or more, and none of a higher confidence had the same one; of several it
takes the one that it overlaps most. The average precision is the area under the curve of recall and the highest precision from there on.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mutual3d.metrics.average_precision import area_under_precision
from mutual3d.metrics.metrics import MetricFacts

# THUMOS'; ActivityNet's are 0.5 to 0.95 in steps of 0.05.
IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)


class TrueSegment(NamedTuple):
    """A stretch of a video that has a label: seconds, and the name of the class."""

    start: float
    end: float
    label: str


class FoundSegment(NamedTuple):
    """A stretch of a video in which a class was found: seconds, its name, and the confidence that ranks it."""

    start: float
    end: float
    label: str
    confidence: float


def temporal_iou(segment: tuple[float, float], others_N2: np.ndarray) -> np.ndarray:
    """Of a segment (start, end) with each of N others, in [0, 1]: the time that both last, of that in which one of them does."""
    start, end = segment
    both = (np.minimum(end, others_N2[:, 1]) - np.maximum(start, others_N2[:, 0])).clip(min=0)
    either = (end - start) + (others_N2[:, 1] - others_N2[:, 0]) - both
    return np.divide(both, either, out=np.zeros(len(others_N2)), where=either > 0)


class SegmentAveragePrecision:
    """Mean average precision of timelines, in percent. Adds up over videos, over processes (`merge`) and over kills (`state`).

    Classes without ground truth are left out of the means, as is done for ActivityNet. Raises ValueError for an IoU that is not
    above 0 and at most 1.

    Args:
        ious: the temporal IoUs from which on a segment is right.
        background: classes that do not count.
    """

    def __init__(self, ious: Sequence[float] = IOUS, background: Sequence[str] = ()) -> None:
        if not ious or not all(0 < iou <= 1 for iou in ious):
            raise ValueError(f"the IoUs are {list(ious)}: give one or more numbers above 0, at most 1")
        self.ious, self.background = tuple(ious), frozenset(background)
        self.facts = MetricFacts({"map": "mean average precision of segments", **{self._name(iou): f"at IoU {iou:g}" for iou in ious}}, "segments of videos")
        self._truth: dict[str, list[TrueSegment]] = {}
        self._found: dict[str, list[FoundSegment]] = {}

    def update(self, video: str, found: Sequence[tuple], truth: Sequence[tuple]) -> None:
        """Take what was found in a video, and what is there. A video counts once: what is given later replaces it.

        found: (start, end, label, confidence) of each segment, such as `Segment`s of a timeline. truth: (start, end, label).
        Raises ValueError for a segment that does not start before it ends, or whose confidence is no number.
        """
        own, there = [FoundSegment(*each) for each in found], [TrueSegment(*each) for each in truth]
        segments: list[FoundSegment | TrueSegment] = [*own, *there]
        for segment in segments:
            if not -math.inf < segment.start < segment.end < math.inf:
                raise ValueError(
                    f"'{video}' has a segment of '{segment.label}' from second {segment.start} to {segment.end}: give seconds, start before end"
                )
            if isinstance(segment, FoundSegment) and math.isnan(segment.confidence):
                raise ValueError(f"'{video}' has a segment of '{segment.label}' with the confidence NaN, by which it cannot be ranked: give a number")
        self._found[video] = [each for each in own if each.label not in self.background]
        self._truth[video] = [each for each in there if each.label not in self.background]

    def merge(self, other: "SegmentAveragePrecision") -> None:
        """Take the videos that another one has seen and this one has not."""
        for video in other._truth.keys() - self._truth.keys():
            self._truth[video], self._found[video] = other._truth[video], other._found[video]

    @property
    def num_videos(self) -> int:
        """Videos that were seen."""
        return len(self._truth)

    def per_class(self, iou: float) -> dict[str, float]:
        """{class that has ground truth: average precision in percent} at the IoU `iou`. ValueError where no class has."""
        labels = sorted({segment.label for segments in self._truth.values() for segment in segments})
        if not labels:
            raise ValueError(f"none of the {self.num_videos} videos that were evaluated has a segment")
        return {label: 100.0 * self._average_precision(label, iou) for label in labels}

    def values(self) -> dict[str, float]:
        """{"map": the mean over the IoUs, "map@0.5": at each, ...} in percent; raises what `per_class` raises."""
        by_iou = {self._name(iou): float(np.mean(list(self.per_class(iou).values()))) for iou in self.ious}
        return {"map": float(np.mean(list(by_iou.values()))), **by_iou}

    def state(self) -> dict[str, dict[str, list[list[Any]]]]:
        """What was seen so far, as plain data."""
        parts: dict[str, Mapping[str, Sequence[tuple]]] = {"found": self._found, "truth": self._truth}
        return {name: {video: [list(each) for each in segments] for video, segments in part.items()} for name, part in parts.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]) -> None:
        """Take what `state` gave."""
        self._found = {video: [FoundSegment(*each) for each in segments] for video, segments in state["found"].items()}
        self._truth = {video: [TrueSegment(*each) for each in segments] for video, segments in state["truth"].items()}

    @staticmethod
    def _name(iou: float) -> str:
        return f"map@{iou:g}"

    def _average_precision(self, label: str, iou: float) -> float:
        truth = {
            video: np.array([segment[:2] for segment in segments if segment.label == label], np.float64).reshape(-1, 2)
            for video, segments in self._truth.items()
        }  # fmt: skip
        found = [(each, video) for video, segments in self._found.items() for each in segments if each.label == label]
        found.sort(key=lambda pair: -pair[0].confidence)
        taken = {video: np.zeros(len(own), bool) for video, own in truth.items()}
        is_right = np.zeros(len(found), bool)
        for rank, (segment, video) in enumerate(found):
            overlaps = temporal_iou(segment[:2], truth[video])
            overlaps[taken[video]] = 0.0
            if len(overlaps) and overlaps.max() >= iou:
                taken[video][overlaps.argmax()] = is_right[rank] = True
        return area_under_precision(is_right, sum(map(len, truth.values())))
