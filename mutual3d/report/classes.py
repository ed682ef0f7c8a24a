"""What one configuration saw in each video, and what that says of each class."""

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Of the frames of an example, in pixels.
_THUMBNAIL, _GAP = 96, 2
_JPEG_QUALITY = 75


@dataclass(frozen=True)
class Predictions:
    """The top predictions of one configuration, a row for each of N videos.

    Args:
        configuration: as text.
        videos: what each video is called, such as its path.
        indices: int N, positions of the videos in their list.
        labels, predicted: int N, classes from 0.
        confidences: float N, the score of the predicted class, in [0, 1].

    Raises ValueError for columns of different length and for classes below 0.
    """

    configuration: str
    videos: tuple[str, ...]
    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray

    def __post_init__(self) -> None:
        columns = (self.videos, self.indices, self.labels, self.predicted, self.confidences)
        if len(set(map(len, columns))) > 1 or not len(self.videos):
            raise ValueError(f"{self.configuration}: columns of one length, a row for each video, are needed")
        if min(self.labels.min(), self.predicted.min()) < 0:
            raise ValueError(f"{self.configuration}: classes are counted from 0")

    @property
    def is_right(self) -> np.ndarray:
        """bool N."""
        return self.labels == self.predicted

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return 100.0 * float(self.is_right.mean())

    @property
    def num_classes(self) -> int:
        """One more than the highest class that stands here."""
        return 1 + int(max(self.labels.max(), self.predicted.max()))

    def confusion(self, num_classes: int) -> np.ndarray:
        """int K, K: of the videos of class i, how many were taken for class j."""
        counts = np.zeros((num_classes, num_classes), np.int64)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts


class ClassAccuracy(NamedTuple):
    """right of total videos of a class were recognised; confused: the class that the others were mostly taken for."""

    label: int
    right: int
    total: int
    confused: int | None

    @property
    def percent(self) -> float:
        return 100.0 * self.right / self.total


def class_accuracies(confusion_KK: np.ndarray) -> list[ClassAccuracy]:
    """The classes that have videos, the worst first."""
    found = []
    for label, row in enumerate(confusion_KK):
        if total := int(row.sum()):
            others = row.copy()
            others[label] = 0
            found.append(ClassAccuracy(label, int(row[label]), total, int(others.argmax()) if others.any() else None))
    return sorted(found, key=lambda entry: (entry.percent, entry.label))


def right_where_wrong(predictions: Sequence[Predictions]) -> np.ndarray:
    """float R, R, of R configurations: of all videos the share, in per cent, that the one of the column gets right and that of the row wrong.

    Where that is not 0 though the row's is the better one, the two complement each other (RS-Net, Table 1). Videos that one of them
    has not are left out; ValueError where none is left.
    """
    common = functools.reduce(np.intersect1d, [one.indices for one in predictions])
    if not len(common):
        raise ValueError("no video was seen by all these configurations")
    right_RN = np.stack([_right_of(one, common) for one in predictions])
    return 100.0 * (~right_RN).astype(float) @ right_RN.T.astype(float) / len(common)


def _right_of(predictions: Predictions, indices: np.ndarray) -> np.ndarray:
    """bool N: whether each of these videos, in ascending order, was recognised."""
    order = np.argsort(predictions.indices, kind="stable")
    return predictions.is_right[order][np.isin(predictions.indices[order], indices)]


@dataclass(frozen=True)
class ClassPrecision:
    """The average precision of each class, or `what` else, at one configuration, in per cent, by the class's name."""

    configuration: str
    percents: dict[str, float]
    what: str = "average precision"


@dataclass(frozen=True)
class Seen:
    """What was seen in a video or in a box. labels: names of the classes that hold. scores: (class, score in [0, 1]), the highest first."""

    labels: tuple[str, ...]
    scores: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `from_dict`."""
        return {"labels": list(self.labels), "scores": [[name, score] for name, score in self.scores]}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Seen":
        """The inverse of `to_dict`; ValueError, KeyError or TypeError for anything else."""
        return cls(tuple(map(str, entry["labels"])), tuple((str(name), float(score)) for name, score in entry["scores"]))


@dataclass(frozen=True)
class Example:
    """One video with what was seen in it, or in each of its boxes. strip_JPEG: of `frame_strip`, frames as the network sees them."""

    video: str
    is_right: bool
    seen: tuple[Seen, ...]
    strip_JPEG: bytes


def frame_strip(frames_THWC: np.ndarray, height: int = _THUMBNAIL) -> bytes:
    """uint8 frames beside each other as a small JPEG, 2 to 10 kB. height: of the frames in it, in pixels."""
    images = [Image.fromarray(frame) for frame in frames_THWC]
    images = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    joined = Image.new("RGB", (sum(image.width for image in images) + _GAP * (len(images) - 1), height), "white")
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + _GAP
    buffer = io.BytesIO()
    joined.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def choose_examples(predictions: Predictions, count: int) -> tuple[list[int], list[int]]:
    """Rows to show: (right ones, wrong ones), at most `count` of each.

    Wrong ones are those that the network was surest of, right ones the middle of the surest and the least sure; of each
    class one before any class has two.
    """
    order = np.argsort(-predictions.confidences, kind="stable")
    right = [int(row) for row in order if predictions.is_right[row]]
    wrong = [int(row) for row in order if not predictions.is_right[row]]
    return _one_of_each_class(predictions.labels, _from_the_middle(right))[:count], _one_of_each_class(predictions.labels, wrong)[:count]


def _from_the_middle(rows: Sequence[int]) -> list[int]:
    middle = (len(rows) - 1) / 2
    return [rows[place] for place in sorted(range(len(rows)), key=lambda place: abs(place - middle))]


def _one_of_each_class(labels: np.ndarray, rows: Sequence[int]) -> list[int]:
    seen: dict[int, int] = {}
    turns = []
    for row in rows:
        turn = seen.get(int(labels[row]), 0)
        seen[int(labels[row])] = turn + 1
        turns.append((turn, row))
    return [row for _, row in sorted(turns, key=lambda pair: pair[0])]
