"""Timelines of videos compared with the stretches that a list says are there, and the files of what that gives."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutual3d.data.datasets.kinetics import read_video_list, write_table
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.datasets.segments import VideoSegment
from mutual3d.deploy.scan_table import as_text
from mutual3d.deploy.timeline import Segment, check_background
from mutual3d.metrics.segments import IOUS, SegmentAveragePrecision, TrueSegment
from mutual3d.utils.files import write_json
from mutual3d.utils.text import printable

SUFFIXES = (".csv", ".json")
COLUMNS = ("iou", "class", "average_precision")


@dataclass(frozen=True)
class TrueTimelines:
    """What is there in videos: {absolute path: its segments}, by names of `classes`. source: the list that says it."""

    source: str
    by_video: Mapping[str, Sequence[TrueSegment]]
    classes: tuple[str, ...]


def read_true_timelines(path: str | os.PathLike, separator: str = " ", class_names: str | os.PathLike | None = None) -> TrueTimelines:
    """The stretches of a list of rows `path start end label`, as those that training reads.

    separator: as of `read_video_list`. class_names: a file of these; None is classes.txt beside the list, and where there is none, numbers
    are the names. Raises as `read_video_list` and `read_class_names`, and ValueError for a row without seconds, and for a number that no
    name has.
    """
    names_path = Path(class_names) if class_names is not None else Path(path).expanduser().parent / "classes.txt"
    names = read_class_names(names_path) if class_names is not None or names_path.is_file() else None
    listed = read_video_list(path, separator=separator, num_classes=None if names is None else len(names), class_names_path=class_names or "")
    by_video: dict[str, list[TrueSegment]] = {}
    for video in listed:
        if not isinstance(video, VideoSegment):
            raise ValueError(
                f"'{path}' has '{printable(video.path)}' with a label alone, and a timeline is compared with stretches: write rows 'path start end label', in seconds"
            )
        label = str(video.label) if names is None else names[video.label]
        by_video.setdefault(_key(video.path), []).append(TrueSegment(video.start, video.end, label))
    classes = [str(label) for label in sorted({video.label for video in listed})] if names is None else names
    return TrueTimelines(os.fspath(path), by_video, tuple(classes))


def _key(path: str) -> str:
    """By which a video of a table and one of a list are the same."""
    return os.path.abspath(as_text(path))


@dataclass(frozen=True)
class TimelineScore:
    """How good timelines are, in percent.

    values: as of `SegmentAveragePrecision.values`. per_class: {IoU: {class: average precision}}. num_videos: that were compared.
    num_true, num_found: segments there, and found. left_out: videos of the table of which the list says nothing. empty: videos of the list
    in which nothing was found.
    """

    values: Mapping[str, float]
    per_class: Mapping[float, Mapping[str, float]]
    num_videos: int
    num_true: int
    num_found: int
    left_out: tuple[str, ...]
    empty: tuple[str, ...]

    def format(self) -> str:
        """A line for each class, a column for each IoU."""
        names = list(next(iter(self.per_class.values())))
        width = max(len("mean"), *(len(printable(name)) for name in names))
        lines = [f"{'IoU':<{width}}" + "".join(f"  {iou:>6g}" for iou in self.per_class)]
        for name in names:
            lines.append(f"{printable(name):<{width}}" + "".join(f"  {values[name]:6.2f}" for values in self.per_class.values()))
        lines.append(f"{'mean':<{width}}" + "".join(f"  {self.values[f'map@{iou:g}']:6.2f}" for iou in self.per_class))
        return "\n".join([*lines, f"mAP {self.values['map']:.2f} %, the mean over {len(self.per_class)} IoUs: {self.describe()}"])

    def describe(self) -> str:
        """What was compared, in words."""
        return f"{self.num_found} segments found, {self.num_true} there, of {len(next(iter(self.per_class.values())))} classes in {self.num_videos} videos"

    def save(self, path: str | Path) -> None:
        """Write a csv, with a row for each IoU and class and a row without a class for their mean, or a json file.

        Raises ValueError for a name with another ending.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"'{path}' ends in '{suffix}': give a name that ends in {' or '.join(SUFFIXES)}")
        if suffix == ".json":
            per_class = {f"{iou:g}": dict(values) for iou, values in self.per_class.items()}
            counts = {"videos": self.num_videos, "segments": self.num_true, "found": self.num_found}
            write_json(path, {"values": dict(self.values), "per_class": per_class, **counts, "left_out": self.left_out, "empty": self.empty})
            return
        rows = [(f"{iou:g}", name, f"{value:.4f}") for iou, values in self.per_class.items() for name, value in values.items()]
        means = [(f"{iou:g}", "", f"{self.values[f'map@{iou:g}']:.4f}") for iou in self.per_class]
        write_table(path, COLUMNS, [*rows, *means, ("", "", f"{self.values['map']:.4f}")])


def compare_timelines(
    found: Sequence[tuple[str, Segment]], truth: TrueTimelines, *, ious: Sequence[float] = IOUS, background: Collection[str] = ()
) -> TimelineScore:
    """Compare segments, each with the path of its video, with what is there, by mean average precision at temporal IoUs.

    background: classes that do not count, found or there. Videos of which the list says nothing are left out; videos of the list without a
    segment count as ones in which nothing was found. Raises ValueError for IoUs and segments that cannot be, for a class, found or of the
    background, that the list does not know, and where the list says something of none of the videos.
    """
    metric = SegmentAveragePrecision(ious, tuple(background))
    check_background(background, truth.classes, "the list")
    by_video: dict[str, list[Segment]] = {}
    for path, segment in found:
        if segment.label not in truth.classes:
            known = ", ".join(map(printable, truth.classes[:50]))
            raise ValueError(
                f"'{printable(segment.label)}' was found in '{printable(path)}', and '{truth.source}' knows no such class, but {known}: name all classes in the "
                "order of their numbers in classes.txt beside it, or in a file of their own (--classes)"
            )
        by_video.setdefault(_key(path), []).append(segment)
    left_out = sorted(by_video.keys() - truth.by_video.keys())
    if left_out and len(left_out) == len(by_video):
        raise ValueError(
            f"'{truth.source}' says nothing of '{printable(left_out[0])}' or any other of the {len(by_video)} videos, but of '{printable(min(truth.by_video))}': "
            "give the list of these videos; relative paths of a table start at this folder, those of a list at its own"
        )
    for video, there in truth.by_video.items():
        metric.update(video, by_video.get(video, []), there)
    values = metric.values()
    counted = [segment.label not in metric.background for video in truth.by_video for segment in by_video.get(video, [])]
    num_true = sum(segment.label not in metric.background for there in truth.by_video.values() for segment in there)
    return TimelineScore(
        values, {iou: metric.per_class(iou) for iou in ious}, metric.num_videos, num_true, sum(counted), tuple(left_out),
        tuple(sorted(truth.by_video.keys() - by_video.keys())),
    )  # fmt: skip
