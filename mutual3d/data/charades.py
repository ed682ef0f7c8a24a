"""Lists of videos with any number of labels each, as Charades has them (Sigurdsson et al., ECCV 2016).

Three forms are read: a list of extracted frames with the labels of each (see `frame_list_reader`), Charades' own csv
with the times of its actions (`id,...,actions,...`, videos `id`.mp4), and rows `path label,label,...`. What comes of each is
an item of a `VideoDataset`, whose labels are float K, a 1 for each class: in training the classes seen from a clip's first
frame to its last, otherwise those of the whole video.
"""

import csv
import os
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
import torch

from mutual3d.data.decode import open_video
from mutual3d.data.frame_list_reader import FrameList, FrameListReader, is_frame_list, read_frame_list
from mutual3d.data.kinetics import parse_label, read_rows, split_row

_OFFICIAL_COLUMNS = ("id", "actions")


@dataclass(frozen=True)
class TimedVideo:
    """A video file and its `actions`: (label, first second, last second)."""

    path: str
    actions: tuple
    num_classes: int

    def open(self, backend):
        return open_video(self.path, backend)

    def label_of(self, clips, fps):
        """Float K: the actions that overlap one of `clips` (lists of ascending frame numbers), or all for None."""
        spans = [(-inf, inf)] if clips is None else [(clip[0] / fps, clip[-1] / fps) for clip in clips]
        labels = {
            label for label, start, end in self.actions for first, last in spans if start <= last and first <= end
        }
        return multi_hot(labels, self.num_classes)

    def content(self):
        return self.path, self.actions, self.num_classes

    def files(self):
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

    def open(self, backend):
        return FrameListReader(self.frames.paths, self.fps, self.root, self.frames.lines)

    def label_of(self, clips, fps):
        """Float K: the classes of the frames from first to last of each of `clips`, or of all frames for None."""
        spans = [slice(None)] if clips is None else [slice(clip[0], clip[-1] + 1) for clip in clips]
        codes = np.unique(np.concatenate([self.frames.labels[span] for span in spans]))
        return multi_hot({label for code in codes for label in self.label_sets[code]}, self.num_classes)

    def content(self):
        # Which code stands for which labels depends on the other videos of the list: the labels count, not the codes.
        codes, places = np.unique(self.frames.labels, return_inverse=True)
        labels = [self.label_sets[code] for code in codes]
        return self.path, self.frames.paths, places, labels, self.num_classes, self.fps, self.root

    def files(self):
        return [os.path.join(self.root, os.fsdecode(path)) for path in self.frames.paths]


def multi_hot(labels, num_classes):
    """Float `num_classes`: 1 at each of `labels`, else 0."""
    label_K = torch.zeros(num_classes)
    label_K[list(labels)] = 1
    return label_K


def read_charades(csv_path, *, num_classes, path_prefix="", fps=24, separator=" "):
    """Read a list in any of the three forms: items for a `VideoDataset`.

    Relative paths start at `path_prefix` where one is given, else at the csv's own folder. `fps`: frames a second of
    extracted frames. `separator`: between path and labels in rows `path label,label`. Raises FileNotFoundError for a
    missing csv, and ValueError with file, line and row for what does not parse and for labels outside [0, num_classes).
    """
    csv_path = Path(csv_path)
    root = Path(path_prefix) if path_prefix else csv_path.parent
    if csv_path.is_file() and is_frame_list(csv_path):
        return _read_frames(csv_path, root, num_classes, fps)
    if csv_path.is_file() and is_official_csv(csv_path):
        return _read_official(csv_path, root, num_classes)
    return _read_labelled(csv_path, root, num_classes, separator)


def is_official_csv(csv_path):
    """Whether a csv begins with the header of Charades' own annotations."""
    with open(csv_path, encoding="utf-8-sig", errors="replace") as file:
        return bool({"actions", "script", "verified"} & set(file.readline().strip().split(",")))


def _read_frames(csv_path, root, num_classes, fps):
    videos, label_texts = read_frame_list(csv_path)
    label_sets = [_parse_labels(text, f"'{csv_path}', line {line}", text, num_classes) for text, line in label_texts]
    return [FramesVideo(video, frames, label_sets, num_classes, fps, str(root)) for video, frames in videos.items()]


def _parse_labels(text, place, row, num_classes):
    """Labels separated by commas; none for an empty text."""
    text = text.strip().strip('"')
    return tuple(parse_label(label.strip(), row, place, num_classes) for label in text.split(",")) if text else ()


def _read_labelled(csv_path, root, num_classes, separator):
    if separator.strip() == ",":
        raise ValueError("DATA.PATH_LABEL_SEPARATOR is ',', which stands between the labels of a video: choose another one")
    videos = []
    for place, row in read_rows(csv_path, f"path{separator}label,label,..."):
        name, labels = split_row(row, place, separator, 'label,label,... ("" for none)')
        actions = tuple((label, -inf, inf) for label in _parse_labels(labels, place, row, num_classes))
        videos.append(TimedVideo(str(root / name), actions, num_classes))
    return videos


def _read_official(csv_path, root, num_classes):
    videos = []
    with open(csv_path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _OFFICIAL_COLUMNS if name not in reader.fieldnames]
        if missing:
            raise ValueError(f"'{csv_path}', line 1: the header has no column {', '.join(missing)}: {reader.fieldnames}")
        for row in reader:
            place = f"'{csv_path}', line {reader.line_num}"
            if not row["id"] or row["actions"] is None:
                raise ValueError(f"{place}: {list(row.values())} has not the columns id and actions")
            actions = tuple(_parse_action(action, place, num_classes) for action in row["actions"].split(";") if action)
            videos.append(TimedVideo(str(root / f"{row['id']}.mp4"), actions, num_classes))
    if not videos:
        raise ValueError(f"'{csv_path}' is empty: it has a header and no video")
    return videos


def _parse_action(action, place, num_classes):
    """(label, start, end) of `c092 11.90 21.20`."""
    try:
        code, *times = action.split()
        start, end = sorted(map(float, times))
    except ValueError:
        raise ValueError(f"{place}: the action {action!r} is not 'c000 start end' with times in seconds") from None
    return parse_label(code.removeprefix("c"), action, place, num_classes), start, end
