"""AVA's published files, v2.1 and v2.2: frame lists, boxes, the label map and the timestamps that do not count.

Boxes are rows of a csv without a header, normalised xyxy:

    video,second,x1,y1,x2,y2,action,person          drawn by people; without a box or an action where nothing is seen
    video,second,x1,y1,x2,y2,action,score           found by a detector; the action may be empty

A box with several actions has a row for each. Actions count from 1.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mutual3d.data.datasets.boxes import parse_box
from mutual3d.data.datasets.lists import (
    existing_file,
    parse_decimal,
    parse_row,
    parse_whole,
    place_of,
    read_lines,
    shown,
    tell,
    user_path,
)  # fmt: skip
from mutual3d.data.video.frame_list_reader import FrameListReader, read_frame_list
from mutual3d.utils.files import read_text
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import progress_bar

NUM_ACTIONS = 80
GROUND_TRUTH_ROW = "video,second,x1,y1,x2,y2,action,person"
DETECTION_ROW = "video,second,x1,y1,x2,y2,action,score"
# What stands for "no action": nothing, and -1 in some detectors' files.
_NO_ACTION = ("", "-1")
# What a video's first frame_id may be: AVA's lists count from 0, others from 1. A list that begins later lacks frames.
_FIRST_IDS = (0, 1)
# The longest film has some hours; what is beyond eleven days is no second.
_LAST_SECOND = 10**6


@dataclass(frozen=True)
class AvaFrames:
    """The extracted frames of a split and the clock that annotations count by.

    videos: {name: FrameList}; root: the folder that their paths start at; frame 0 of every video shows second
    `first_second`, and `fps` frames show a second.
    """

    videos: dict
    root: str
    fps: float = 30
    first_second: int = 900

    def keyframe(self, video: str, second: int) -> int:
        """Position of the frame that shows `second` of `video`; ValueError, in words, when there is none."""
        if video not in self.videos:
            raise ValueError(f"video '{video}' is in no frame list: add its frames (AVA.TRAIN_LISTS, AVA.TEST_LISTS)")
        frame, count = round((second - self.first_second) * self.fps), len(self.videos[video].paths)
        if not 0 <= frame < count:
            last = self.first_second + (count - 1) / self.fps
            raise ValueError(
                f"second {second} of video '{video}' has no frame: its {count} frames at {self.fps:g} a second show "
                f"{self.first_second} to {last:.1f} (AVA.FIRST_SECOND, AVA.FPS); extract the frames or remove the row"
            )
        return frame

    def open(self, video: str, frames: list[int] | None = None) -> FrameListReader:
        """A reader of the video, or of the frames at the positions `frames` alone."""
        paths = self.videos[video].paths
        return FrameListReader(paths if frames is None else [paths[i] for i in frames], self.fps, self.root)

    def fingerprint(self) -> str:
        """Changes with each video, path and the clock. The files are not looked at: a data set knows which it reads."""
        return fingerprint([(name, own.paths) for name, own in self.videos.items()], self.root, self.fps, self.first_second)


def read_ava_frames(
    csv_paths: Sequence[str | Path], frame_dir: str | Path, *, fps: float = 30, first_second: int = 900
) -> AvaFrames:
    """`AvaFrames` of one or more frame lists; each file is looked for in `frame_dir`.

    Raises FileNotFoundError for a missing list or folder and ValueError for a list that does not parse, a video that two
    lists name, and a clock that cannot run. fps: frames a second that were extracted. first_second: the second that frame 0
    shows.
    """
    if not 0 < fps < float("inf"):
        raise ValueError(f"AVA.FPS is {fps}: give the frames a second that were extracted, 30 for AVA")
    frame_dir = user_path(frame_dir)
    if not frame_dir.is_dir():
        raise FileNotFoundError(f"there is no folder of frames '{frame_dir}': set AVA.FRAME_DIR (see datasets/AVA.md)")
    videos = {}
    for path in csv_paths:
        found, _ = read_frame_list(path, _FIRST_IDS)
        twice = sorted(found.keys() & videos.keys())
        if twice:
            raise ValueError(f"'{path}' lists the video '{twice[0]}', which an earlier frame list has: leave one out")
        videos |= found
    if not videos:
        raise ValueError("there is no frame list to read: name one in AVA.TRAIN_LISTS and AVA.TEST_LISTS")
    return AvaFrames(videos, str(frame_dir), fps, first_second)


class BoxRow(NamedTuple):
    """A row of a box file. box: (x1, y1, x2, y2) or None; action: from 1, 0 for none; score: 1.0 in ground truth."""

    video: str
    second: int
    box: tuple | None
    action: int
    score: float


def scan_boxes(
    path: str | Path, *, detected: bool, num_classes: int = NUM_ACTIONS, frames: AvaFrames | None = None
) -> Iterator[tuple[str | None, BoxRow | None, str | None]]:
    """Yield (place, BoxRow, None) for each row of a csv, or (place, None, cause) where it is wrong.

    place: file, line and row in words. detected: the last column is a score. `frames` (AvaFrames), where given, must have
    the row's video and second. Raises FileNotFoundError for a missing file.
    """
    form = DETECTION_ROW if detected else GROUND_TRUTH_ROW
    path = existing_file(path, "file of boxes", f"write rows '{form}' (AVA.ANNOTATION_DIR)")
    for line, text in progress_bar(read_lines(path), path.name, unit="row"):
        if not text.strip(" \t,"):
            continue
        try:
            parsed = _parse_row(parse_row(text), detected, num_classes)
            if frames is not None:
                frames.keyframe(parsed.video, parsed.second)
            yield None, parsed, None
        except ValueError as error:
            yield f"{place_of(path, line)}, {shown(text)}", None, str(error)


def _parse_row(row: Sequence[str], detected: bool, num_classes: int) -> BoxRow:
    if len(row) != 8 and (detected or len(row) not in (2, 7)):
        form = DETECTION_ROW if detected else GROUND_TRUTH_ROW
        raise ValueError(f"it has {len(row)} columns: write '{form}'")
    video, second = row[0].strip(), _second(row[1])
    if not video:
        raise ValueError("the video has no name")
    if not detected and not "".join(row[2:6]).strip():
        return BoxRow(video, second, None, 0, 1.0)
    box = parse_box(row[2:6])
    return BoxRow(video, second, box, _action(row[6].strip(), num_classes), _score(row[7]) if detected else 1.0)


def _second(text: str) -> int:
    second = parse_whole(text)
    if second is None:
        raise ValueError(f"second is {shown(text)}: give a whole number")
    if not 0 <= second <= _LAST_SECOND:
        raise ValueError(f"second {second} is in no film: legal are 0 to {_LAST_SECOND}; give seconds from the film's beginning")
    return second


def _action(text: str, num_classes: int) -> int:
    if text in _NO_ACTION:
        return 0
    action = parse_whole(text)
    if action is None:
        raise ValueError(f"action is {shown(text)}: give a whole number")
    if not 1 <= action <= num_classes:
        raise ValueError(f"action {action} is unknown: legal are 1 to {num_classes} (MODEL.NUM_CLASSES {num_classes})")
    return action


def _score(text: str) -> float:
    score = parse_decimal(text)
    if score is None:
        raise ValueError(f"score is {shown(text)}: give a number")
    if not 0 <= score <= 1:
        raise ValueError(
            f"the score {score:g} leaves [0, 1]: if the file is ground truth, whose last column is a person, name it in "
            "AVA.TRAIN_GT_BOX_LISTS"
        )
    return score


def read_boxes(path: str | Path, **arguments: Any) -> Iterator[BoxRow]:
    """Yield the `BoxRow`s of a csv; ValueError, with file, line and row, for the first wrong one. See `scan_boxes`."""
    for place, row, cause in scan_boxes(path, **arguments):
        if row is None:
            raise ValueError(f"{place}: {cause}")
        yield row


class Keyframe(NamedTuple):
    """A second of a video. boxes_N4: float32, as annotated; labels_NK: bool, column a - 1 for action a."""

    video: str
    second: int
    boxes_N4: np.ndarray
    labels_NK: np.ndarray


class Keyframes:
    """The keyframes of a split that have boxes, sorted by video (in the order of the frame lists) and second.

    Indexed by position, gives a `Keyframe`. Kept in arrays, which worker processes share; identical boxes of a keyframe
    are one, with the actions of all of them.

    `names`: all (video, second). Args: boxes: {(video, second): {(x1, y1, x2, y2): set of actions}}, in the order wanted.
    """

    def __init__(self, boxes: Mapping[tuple[str, int], dict[tuple, set[int]]], num_classes: int = NUM_ACTIONS) -> None:
        self.names = list(boxes)
        counts = [len(own) for own in boxes.values()]
        self._ends = np.cumsum(counts)
        self._boxes_N4 = np.array([box for own in boxes.values() for box in own], np.float32).reshape(-1, 4)
        self._labels_NK = np.zeros((len(self._boxes_N4), num_classes), bool)
        for labels_K, actions in zip(self._labels_NK, (actions for own in boxes.values() for actions in own.values())):
            labels_K[[action - 1 for action in actions]] = True

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Keyframe:
        end = self._ends[index]
        start = self._ends[index - 1] if index else 0
        return Keyframe(*self.names[index], self._boxes_N4[start:end], self._labels_NK[start:end])

    @property
    def num_boxes(self) -> int:
        """The number of boxes in all keyframes together."""
        return len(self._boxes_N4)

    def fingerprint(self) -> str:
        """Changes with each keyframe, box and label."""
        return fingerprint(self.names, self._ends, self._boxes_N4, self._labels_NK)


def read_keyframes(
    frames: AvaFrames,
    *,
    ground_truth: Sequence[str | Path] = (),
    detected: Sequence[str | Path] = (),
    score_threshold: float = 0.0,
    num_classes: int = NUM_ACTIONS,
) -> Keyframes:
    """`Keyframes` of box files: all boxes of `ground_truth`, those of `detected` with at least `score_threshold`.

    For training both kinds, for evaluation detected boxes. Raises FileNotFoundError for a missing file and ValueError,
    with file, line and row, for a wrong row, for a file without rows, and where no box is left.
    """
    boxes = {}
    # PySlowFast's own settings name the ground truth among the detected boxes too: it is read once, as what it is.
    detected = [path for path in detected if path not in ground_truth]
    for path in (*ground_truth, *detected):
        is_empty = True
        for row in read_boxes(path, detected=path in detected, num_classes=num_classes, frames=frames):
            is_empty = False
            if row.box is not None and row.score >= score_threshold:
                actions = boxes.setdefault((row.video, row.second), {}).setdefault(row.box, set())
                actions |= {row.action} - {0}
        if is_empty:
            raise ValueError(f"the file of boxes '{path}' is empty: write rows '{DETECTION_ROW}'")
    if not boxes:
        names = ", ".join(f"'{path}'" for path in (*ground_truth, *detected)) or "no file"
        raise ValueError(
            f"there is no box with a score of at least {score_threshold} (AVA.DETECTION_SCORE_THRESH) in {names}: "
            "lower the threshold or name other files (AVA.TRAIN_GT_BOX_LISTS, AVA.TEST_PREDICT_BOX_LISTS)"
        )
    order = {video: position for position, video in enumerate(frames.videos)}
    return Keyframes({name: boxes[name] for name in sorted(boxes, key=lambda name: (order[name[0]], name[1]))}, num_classes)


def read_ground_truth(
    path: str | Path, *, num_classes: int = NUM_ACTIONS, frames: AvaFrames | None = None
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """What evaluation compares with: {(video, second): (boxes float64 n, 4, actions int64 n)}, one row an action of a box.

    A keyframe that is annotated as empty has n = 0. Raises as `read_keyframes`.
    """
    rows = {}
    for row in read_boxes(path, detected=False, num_classes=num_classes, frames=frames):
        own = rows.setdefault((row.video, row.second), [])
        if row.box is not None and row.action:
            own.append((*row.box, row.action))
    if not rows:
        raise ValueError(f"the ground truth '{path}' is empty: write rows '{GROUND_TRUTH_ROW}' (AVA.GROUNDTRUTH_FILE)")
    tables = {name: np.array(own, np.float64).reshape(-1, 5) for name, own in rows.items()}
    return {name: (table[:, :4], table[:, 4].astype(np.int64)) for name, table in tables.items()}


def read_excluded(path: str | Path) -> set[tuple[str, int]]:
    """{(video, second)} of the timestamps that do not count, from rows `video,second`; the file may be empty."""
    path = existing_file(path, "file of excluded timestamps", "name it in AVA.EXCLUSION_FILE; it may be empty")
    excluded = set()
    for number, line in read_lines(path):
        video, _, second = line.strip().rpartition(",")
        if not line.strip():
            continue
        number_of_second = parse_whole(second)
        if not video or number_of_second is None or not 0 <= number_of_second <= _LAST_SECOND:
            raise ValueError(f"{place_of(path, number)}: {shown(line)} is not 'video,second', as in '-5KQ66BBWC4,902'")
        excluded.add((video.strip().strip('"'), number_of_second))
    return excluded


# Two forms are published: `item { name: "..." id: 1 }` of the evaluated classes, `label { ... label_id: 1 ... }` of all.
_ITEM = re.compile(r"\b(?:item|label)\s*\{([^{}]*)\}")
_NAME = re.compile(r"\bname\s*:\s*(?:\"([^\"]*)\"|'([^']*)')")
_ID = re.compile(r"\b(?:label_)?id\s*:\s*(-?[0-9]{1,9})\b")


def read_label_map(path: str | Path, num_classes: int = NUM_ACTIONS) -> list[tuple[int, str]]:
    """The evaluated classes, [(id, name)] by id, from a pbtxt. Raises ValueError for ids outside 1 to `num_classes`."""
    path = existing_file(path, "label map", "name it in AVA.LABEL_MAP_FILE, in AVA.ANNOTATION_DIR")
    classes = {}
    for item in _ITEM.findall(read_text(path)):
        found_name, found_id = _NAME.search(item), _ID.search(item)
        if not found_name or not found_id:
            raise ValueError(f"'{path}': {shown(' '.join(item.split()))} has not both, a name and an id")
        number, name = int(found_id[1]), found_name[1] or found_name[2] or ""
        if not 1 <= number <= num_classes or number in classes:
            problem = "stands twice" if number in classes else f"is not in 1 to {num_classes} (MODEL.NUM_CLASSES)"
            raise ValueError(f"'{path}': the id {number} of {shown(name)} {problem}")
        classes[number] = name
    if not classes:
        raise ValueError(f"'{path}' has no class: write 'item {{ name: \"stand\" id: 12 }}' for each")
    return sorted(classes.items())


@dataclass(frozen=True)
class Reference:
    """What the detections of a split are compared with: see `read_ground_truth`, `read_excluded`, `read_label_map`."""

    ground_truth: dict
    excluded: frozenset
    classes: list

    def fingerprint(self) -> str:
        """Changes with each box, action, excluded timestamp and class."""
        return fingerprint(sorted(self.ground_truth.items(), key=itemgetter(0)), sorted(self.excluded), self.classes)


def read_reference(
    ground_truth: str | Path,
    excluded: str | Path,
    label_map: str | Path,
    *,
    num_classes: int = NUM_ACTIONS,
    frames: AvaFrames | None = None,
) -> Reference:
    """The `Reference` of three files. Warns where not one excluded timestamp is of a video of the ground truth."""
    truth, timestamps = read_ground_truth(ground_truth, num_classes=num_classes, frames=frames), read_excluded(excluded)
    if timestamps and not {video for video, _ in timestamps} & {video for video, _ in truth}:
        tell(f"'{excluded}' excludes nothing: not one of its videos is in '{ground_truth}' (AVA.EXCLUSION_FILE)")
    return Reference(truth, frozenset(timestamps), read_label_map(label_map, num_classes))
