"""Lists of videos with any number of labels each, as Charades has them (Sigurdsson et al., ECCV 2016).

Three forms are read: a list of extracted frames with the labels of each (see `frame_list_reader`), Charades' own csv
with the times of its actions (`id,...,actions,...`, videos `id`.mp4), and rows `path label,label,...`. What comes of each is
an item of a `VideoDataset`, whose labels are float K, a 1 for each class: in training the classes seen from a clip's first
frame to its last, otherwise those of the whole video.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
import torch

from mutual3d.data.datasets.kinetics import path_in_list, read_rows, tell_doubles
from mutual3d.data.datasets.labels import LabelReader, parse_separator, split_row
from mutual3d.data.datasets.lists import first_line, parse_decimal, place_of, read_table, shown, tell, user_path
from mutual3d.data.video.decode import VideoReader, open_video
from mutual3d.data.video.frame_list_reader import FrameList, FrameListReader, is_frame_list, read_frame_list

NUM_ACTIONS = 157
_OFFICIAL_COLUMNS = ("id", "actions")


@dataclass(frozen=True)
class TimedVideo:
    """A video file and its `actions`: (label, first second, last second)."""

    path: str
    actions: tuple
    num_classes: int

    def open(self, backend: str, tolerate_short: bool = False) -> VideoReader:
        """The reader of the file. backend, tolerate_short: as of `open_video`, which says what it raises."""
        return open_video(self.path, backend, tolerate_short)

    def label_of(self, clips: Sequence[Sequence[int]] | None, time_of: Callable[[int], float]) -> torch.Tensor:
        """Float K: the actions that overlap one of `clips` (lists of ascending frame numbers), or all for None.

        `time_of`: the reader's, which knows at which second a frame is shown.
        """
        spans = [(-inf, inf)] if clips is None else [(time_of(clip[0]), time_of(clip[-1])) for clip in clips]
        labels = {
            label for label, start, end in self.actions for first, last in spans if start <= last and first <= end
        }
        return multi_hot(labels, self.num_classes)

    def content(self) -> tuple:
        """What its label depends on: path, actions and number of classes."""
        return self.path, self.actions, self.num_classes

    def files(self) -> Sequence[str]:
        """The video itself."""
        return (self.path,)


@dataclass(frozen=True, eq=False)
class FramesVideo:
    """A video in image files with the labels of each frame; `label_sets` are the tuples that `frames.labels` points at."""

    path: str
    frames: FrameList = field(repr=False)
    label_sets: list = field(repr=False)
    num_classes: int
    fps: float
    root: str

    def open(self, backend: str, tolerate_short: bool = False) -> VideoReader:
        """The reader of the images. backend, tolerate_short: without a meaning here, as of `open_video`."""
        return FrameListReader(self.frames.paths, self.fps, self.root, self.frames.lines)

    def label_of(self, clips: Sequence[Sequence[int]] | None, time_of: Callable[[int], float]) -> torch.Tensor:
        """Float K: the classes of the frames from first to last of each of `clips`, or of all frames for None.

        time_of: of the reader; the labels are of the frames themselves.
        """
        spans = [slice(None)] if clips is None else [slice(clip[0], clip[-1] + 1) for clip in clips]
        codes = np.unique(np.concatenate([self.frames.labels[span] for span in spans]))
        return multi_hot({label for code in codes for label in self.label_sets[code]}, self.num_classes)

    def content(self) -> tuple:
        """What its label depends on: the frame list and the label sets."""
        # Which code stands for which labels depends on the other videos of the list: the labels count, not the codes.
        codes, places = np.unique(self.frames.labels, return_inverse=True)
        labels = [self.label_sets[code] for code in codes]
        return self.path, self.frames.paths, places, labels, self.num_classes, self.fps, self.root

    def files(self) -> Sequence[str]:
        """The image of each frame."""
        return [os.path.join(self.root, os.fsdecode(path)) for path in self.frames.paths]


def multi_hot(labels: Iterable[int], num_classes: int) -> torch.Tensor:
    """Float `num_classes`: 1 at each of `labels`, else 0."""
    label_K = torch.zeros(num_classes)
    label_K[list(labels)] = 1
    return label_K


def read_charades(
    csv_path: str | os.PathLike,
    *,
    num_classes: int,
    path_prefix: str | os.PathLike = "",
    fps: float = 24,
    separator: str = " ",
    class_names_path: str | os.PathLike = "",
) -> list:
    """Read a list in any of the three forms: items for a `VideoDataset`.

    Relative paths start at `path_prefix` where one is given, else at the csv's own folder. `fps`: frames a second of
    extracted frames. `separator`: between path and labels in rows `path label,label`. Labels may be names of the classes in
    `class_names_path`, by default classes.txt beside the csv. Raises FileNotFoundError for a missing csv, and ValueError with
    file, line and row for what does not parse and for labels outside [0, num_classes).
    """
    csv_path = user_path(csv_path)
    if not 0 < fps < inf:
        raise ValueError(f"{fps} frames a second: give the rate of the extracted frames, 24 for Charades (DATA.TARGET_FPS)")
    labels = LabelReader(csv_path, num_classes, class_names_path)
    if csv_path.is_file() and is_frame_list(csv_path):
        root = user_path(path_prefix) if path_prefix else csv_path.parent
        return _read_frames(csv_path, root, labels, num_classes, fps)
    if csv_path.is_file() and is_official_csv(csv_path):
        return _read_official(csv_path, path_prefix, labels, num_classes)
    return _read_labelled(csv_path, path_prefix, labels, num_classes, separator)


def is_official_csv(csv_path: str | os.PathLike) -> bool:
    """Whether a csv begins with the header of Charades' own annotations."""
    columns = {column.strip('" ') for column in first_line(csv_path).split(",")}
    return bool({"actions", "script", "verified"} & columns)


def _read_frames(
    csv_path: str | os.PathLike, root: Path, labels: LabelReader, num_classes: int, fps: float
) -> list[FramesVideo]:
    videos, label_texts = read_frame_list(csv_path)
    label_sets = [_parse_labels(text, text, place_of(csv_path, line), labels) for text, line in label_texts]
    labels.check()
    return [FramesVideo(video, frames, label_sets, num_classes, fps, str(root)) for video, frames in videos.items()]


def _parse_labels(text: str, row: str, place: str, labels: LabelReader) -> tuple[int, ...]:
    """Labels separated by commas; none for an empty text."""
    text = text.strip().strip('"')
    return tuple(labels.parse(label.strip(), row, place) for label in text.split(",")) if text else ()


def _read_labelled(
    csv_path: Path, path_prefix: str | os.PathLike, labels: LabelReader, num_classes: int, separator: str
) -> list[TimedVideo]:
    separator = parse_separator(separator)
    if separator.strip() == ",":
        raise ValueError("DATA.PATH_LABEL_SEPARATOR is ',', which stands between the labels of a video: choose another one")
    videos, lines = [], []
    for line, row in read_rows(csv_path, f"path{separator}label,label,..."):
        place = place_of(csv_path, line)
        name, text = split_row(row, place, separator, 'label,label,... ("" for none)')
        actions = tuple((label, -inf, inf) for label in _parse_labels(text, row, place, labels))
        videos.append(TimedVideo(path_in_list(name, csv_path, path_prefix, place), actions, num_classes))
        lines.append(line)
    labels.check()
    tell_doubles(csv_path, videos, lines)
    return videos


def _read_official(csv_path: Path, path_prefix: str | os.PathLike, labels: LabelReader, num_classes: int) -> list[TimedVideo]:
    table = read_table(csv_path, spanning=True)
    _, header = next(table)
    header = [name.strip() for name in header]
    missing = [name for name in _OFFICIAL_COLUMNS if name not in header]
    if missing:
        raise ValueError(f"{place_of(csv_path, 1)}: the header has no column {', '.join(missing)}: {shown(','.join(header))}")
    videos, lines, reversed_lines = [], [], []
    for line, row in table:
        place, columns = place_of(csv_path, line), dict(zip(header, row))
        if len(row) != len(header) or not columns["id"].strip():
            raise ValueError(
                f"{place}: {shown(','.join(row))} has not the columns id and actions, or not {len(header)} columns as the header"
            )
        actions = [_parse_action(action, place, labels) for action in columns["actions"].split(";") if action.strip()]
        reversed_lines += [line for _, start, end in actions if end < start]
        in_order = tuple((label, min(times), max(times)) for label, *times in actions)
        videos.append(TimedVideo(path_in_list(f"{columns['id']}.mp4", csv_path, path_prefix, place), in_order, num_classes))
        lines.append(line)
    if not videos:
        raise ValueError(f"'{csv_path}' is empty: it has a header and no video")
    labels.check()
    if reversed_lines:
        place = place_of(csv_path, reversed_lines[0])
        tell(f"{place}: an action ends before it begins; {len(reversed_lines)} such actions are read from the earlier time on")
    tell_doubles(csv_path, videos, lines)
    return videos


def _parse_action(action: str, place: str, labels: LabelReader) -> tuple[int, float, float]:
    """(label, start, end) of `c092 11.90 21.20`."""
    code, *texts = action.split()
    times = [time for text in texts if (time := parse_decimal(text)) is not None]
    if len(texts) != 2 or len(times) != 2 or min(times) < 0:
        raise ValueError(f"{place}: the action {shown(action)} is not 'c000 start end' with times in seconds, 0 or more")
    start, end = times
    return labels.parse(code.removeprefix("c"), action, place), start, end
