"""Something-Something v2 (Goyal et al., ICCV 2017): its json annotations and class list, and PySlowFast's lists of frames."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.datasets.lists import shown, user_path
from mutual3d.data.video.frame_list_reader import FrameList, FrameListReader, read_frame_list
from mutual3d.data.video.reader import VideoReader
from mutual3d.utils.files import read_json

LABELS = "something-something-v2-labels.json"
ANNOTATIONS = {"train": "something-something-v2-train.json", "val": "something-something-v2-validation.json"}


@dataclass(frozen=True, eq=False)
class FramesWithLabel:
    """A video in image files with one label: a `ListedVideo`. fps: of the extracted frames."""

    path: str
    frames: FrameList = field(repr=False)
    label: int
    fps: float
    root: str

    def open(self, backend: str, tolerate_short: bool = False) -> FrameListReader:
        """The reader of the images. backend, tolerate_short: without a meaning here, as of `open_video`."""
        return FrameListReader(self.frames.paths, self.fps, self.root, self.frames.lines)

    def label_of(self, clips: Sequence[Sequence[int]] | None, time_of: Callable[[int], float]) -> int:
        """Its one label, whatever `clips` and `time_of` are."""
        return self.label

    def content(self) -> tuple:
        """What its label depends on, and the names of its frames."""
        return self.path, self.frames.paths, self.label, self.fps, self.root

    def files(self) -> Iterable[str]:
        """The image of each frame."""
        return [os.path.join(self.root, os.fsdecode(path)) for path in self.frames.paths]


def read_class_numbers(directory: str | os.PathLike, num_classes: int | None = None) -> dict[str, int]:
    """{class: label} of the published class list. ValueError that names the file for labels outside [0, num_classes)."""
    path = user_path(directory) / LABELS
    content = read_json(path)
    try:
        classes = {str(name): int(label) for name, label in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"'{path}' is no class list: it must be a dict of {{class: label}}") from None
    if sorted(classes.values()) != list(range(len(classes))) or num_classes not in (None, len(classes)):
        raise ValueError(f"'{path}' names {len(classes)} classes, from 0 on, and MODEL.NUM_CLASSES is {num_classes}")
    return dict(sorted(classes.items(), key=lambda pair: pair[1]))


def read_ssv2(
    directory: str | os.PathLike, split: str, *, num_classes: int | None = None, path_prefix: str | os.PathLike = "", fps: float = 30
) -> list[FramesWithLabel]:
    """The labelled videos of the list of frames `directory`/`split`.csv, split train or val; items for a `SegmentDataset`.

    Beside the list lie the published annotations of the split and the class list. Image names start at `path_prefix` where
    one is given, else at the directory. fps: that the frames were extracted at. Raises FileNotFoundError for a missing file, ValueError, naming it, for an unknown
    split (the test set has no labels), a class that the list of classes lacks, and a video without annotation.
    """
    if split not in ANNOTATIONS:
        raise ValueError(f"Something-Something v2 has no labels for the split '{split}': choose among {', '.join(ANNOTATIONS)}")
    directory = user_path(directory)
    path = directory / ANNOTATIONS[split]
    labels = _read_labels(path, read_class_numbers(directory, num_classes))
    videos, _ = read_frame_list(directory / f"{split}.csv")
    lost = [name for name in videos if name not in labels]
    if lost:
        raise ValueError(
            f"'{path}' has no label of {len(lost)} of the {len(videos)} videos in '{split}.csv', the first is {shown(lost[0])}"
        )
    root = str(user_path(path_prefix) if path_prefix else directory)
    return [FramesWithLabel(name, frames, labels[name], fps, root) for name, frames in videos.items()]


def _read_labels(path: Path, classes: dict[str, int]) -> dict[str, int]:
    """{video: label} of the published annotations, whose templates put brackets around the things of a class."""
    labels = {}
    content = read_json(path)
    for number, entry in enumerate(content if isinstance(content, list) else [None]):
        if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
            raise ValueError(f"'{path}', entry {number}: {shown(str(entry))} is not a dict with 'id' and 'template'")
        template = str(entry["template"]).replace("[", "").replace("]", "")
        if template not in classes:
            raise ValueError(f"'{path}', entry {number}: the class {shown(template)} is not in {LABELS}")
        labels[str(entry["id"])] = classes[template]
    return labels


class SegmentDataset(VideoDataset):
    """A `VideoDataset` whose clips are one frame of each of `num_frames` equal segments of the whole video: a random one
    in training, the middle one otherwise, as PySlowFast samples Something-Something v2. The stride has no meaning."""

    def _random_places(self, reader: VideoReader, generator: np.random.Generator) -> list[int]:
        return segment_frames(reader.num_frames, self.sampling.num_frames, generator)

    def _view_places(self, reader: VideoReader, view: int) -> list[int]:
        return segment_frames(reader.num_frames, self.sampling.num_frames)

    def _is_padded(self, reader: VideoReader) -> bool:
        return reader.num_frames < self.sampling.num_frames


def segment_frames(video_frames: int, num_frames: int, generator: np.random.Generator | None = None) -> list[int]:
    """Frame numbers of a clip: of each of `num_frames` equal segments a random frame, or the middle one without generator.

    Neighbouring segments share the frame between them; a video that is shorter than the clip repeats frames. video_frames:
    the number of the video's frames.
    """
    borders = np.round((video_frames - 1) / num_frames * np.arange(num_frames + 1)).astype(int)
    if generator is None:
        return ((borders[:-1] + borders[1:]) // 2).tolist()
    return generator.integers(borders[:-1], borders[1:], endpoint=True).tolist()
