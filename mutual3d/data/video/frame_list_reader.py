"""Videos that were extracted to image files: lists of their frames, and a reader of such a video.

A list is a csv in the form of AVA and Charades, separated by spaces, with a header:

    original_vido_id video_id frame_id path labels
    YSKX3 7811 1 YSKX3/YSKX3-000001.jpg "79,76"

A video's frames are its rows in the order of the file, whose frame_id ascend by one: a position in a video is a time, and rows
that were sorted otherwise, stand twice or are missing would put labels and boxes on other images. Lists have millions of rows,
which worker processes share: they are kept in arrays, because counting references to millions of strings would copy them into
every worker.
"""

import math
import os
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from mutual3d.data.datasets.lists import (
    check_path,
    existing_file,
    first_line,
    parse_whole,
    place_of,
    read_table,
    shown,
    tell,
    user_path,
)
from mutual3d.data.video.reader import VideoError, VideoReader, check_file
from mutual3d.data.video.stills import read_image

COLUMNS = ("original_vido_id", "video_id", "frame_id", "path", "labels")
# The published lists misspell the first column; both spellings are read.
_FIRST_COLUMNS = (COLUMNS[0], "original_video_id")


class FrameListReader(VideoReader):
    """A video in image files, one a frame, in display order; only the frames that are asked for are opened.

    Frame k is shown at second k / `fps`.

    Args:
        paths: file names, str or bytes, in a list or an array.
        fps: frames a second.
        root: the folder that relative names start at.
        lines: for each frame its line in the frame list, which errors then tell.

    Raises VideoError, naming the image, for one that is missing or does not decode.
    """

    def __init__(
        self, paths: Sequence | np.ndarray, fps: float, root: str = "", lines: Sequence[int] | np.ndarray | None = None
    ) -> None:
        self._paths = paths
        self._lines = lines
        self._root = str(root)
        self.num_frames = len(paths)
        self.fps = float(fps)
        self.path = self._root
        if not self.num_frames:
            raise VideoError(self.path, "its list of frames is empty")
        self.path = os.path.dirname(self.path_of(0))

    def path_of(self, index: int) -> str:
        """The file of frame `index`."""
        return os.path.join(self._root, os.fsdecode(self._paths[index]))

    def frame_times(self) -> np.ndarray:
        return np.arange(self.num_frames) / self.fps

    def time_of(self, index: int) -> float:
        (index,) = self._check_indices([index])
        return index / self.fps

    def index_at(self, second: float) -> int:
        return math.floor(min(max(second * self.fps + 0.5, 0), self.num_frames - 1))

    @property
    def duration(self) -> float:
        return self.num_frames / self.fps

    def evenly(self, positions: Sequence[int]) -> list[int]:
        return [int(position) for position in positions]

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in self._check_indices(indices):
            with self._naming_line(index):
                image_HWC = np.array(read_image(self.path_of(index)))
            yield index, image_HWC

    def check_files(self) -> None:
        """Raise VideoError for the first frame whose file is missing or empty; no image is decoded."""
        for index in range(self.num_frames):
            with self._naming_line(index):
                check_file(self.path_of(index))

    @contextmanager
    def _naming_line(self, index: int) -> Iterator[None]:
        try:
            yield
        except VideoError as error:
            if self._lines is None:
                raise
            raise VideoError(error.path, f"{error.cause} (line {self._lines[index]} of its frame list)") from error


@dataclass(frozen=True, eq=False)
class FrameList:
    """The rows of one video: `paths` (array of bytes, as the list has them), and for each frame the position of its
    labels in `label_texts` of the whole list (int32) and its line in the file (int32)."""

    paths: np.ndarray
    labels: np.ndarray
    lines: np.ndarray


@dataclass
class _Rows:
    """What is gathered of a video's rows: what becomes a `FrameList`, and what `_Order` knows of it."""

    paths: list = field(default_factory=list)
    labels: array = field(default_factory=lambda: array("i"))
    lines: array = field(default_factory=lambda: array("i"))
    last_id: int | None = None
    # Lines whose frame_id is that of the row before, and whether the images of these rows count by one instead.
    repeats: array = field(default_factory=lambda: array("i"))
    counted_by_names: bool = True


def read_frame_list(
    csv_path: str | os.PathLike, first_ids: Collection[int] | None = None
) -> tuple[dict[str, FrameList], list[tuple[str, int]]]:
    """Read a frame list: ({video: FrameList} in order of appearance, label_texts).

    `label_texts` holds each distinct text of the labels column once, as (text, line where it stands first). `first_ids`:
    what a video's first frame_id may be (None: any number); rows of several videos may be mixed. Raises FileNotFoundError
    for a missing file, and ValueError with file, line and row for a wrong header, a row that has not its five columns,
    and videos whose frame_id do not ascend by one.
    """
    csv_path = existing_file(csv_path, "frame list", f"write rows '{' '.join(COLUMNS)}' with that header")
    codes, label_texts, videos, order = {}, [], {}, _Order(csv_path, first_ids)
    for line, (video, _, frame_id, path, labels) in _rows(csv_path):
        if labels not in codes:
            codes[labels] = len(codes)
            label_texts.append((labels, line))
        rows = videos.setdefault(video, _Rows())
        order.check(line, video, rows, frame_id, path)
        rows.paths.append(os.fsencode(path if path[0] != "~" else user_path(path)))
        rows.labels.append(codes[labels])
        rows.lines.append(line)
    if not videos:
        raise ValueError(f"the frame list '{csv_path}' is empty: write one row '{' '.join(COLUMNS)}' for each frame")
    order.finish(videos)
    lists = {video: FrameList(*map(np.array, (rows.paths, rows.labels, rows.lines))) for video, rows in videos.items()}
    return lists, label_texts


class _Order:
    """Whether the rows of a list are in the order of its frames. All places are counted before the list is refused."""

    def __init__(self, csv_path: str | os.PathLike, first_ids: Collection[int] | None) -> None:
        self._csv_path = csv_path
        self._first_ids = first_ids
        self._lines = array("i")
        self._first_line: int | None = None
        self._first_cause = ""
        self._counts = {"late at a video's beginning": 0, "missing": 0, "listed twice": 0, "out of order": 0}
        self._same_image = array("i")

    def check(self, line: int, video: str, rows: _Rows, frame_id: str, path: str) -> None:
        """Look at a row before it is added to the `rows` of its video."""
        number = parse_whole(frame_id)
        if number is None or number < 0:
            raise ValueError(
                f"{place_of(self._csv_path, line)}: frame_id {shown(frame_id)} of video {shown(video)} is not 0, 1, 2, ..."
            )
        if rows.last_id is None:
            self._check_first(line, video, number)
        else:
            self._check_next(line, video, rows, number, path)
        rows.last_id = number

    def _check_first(self, line: int, video: str, number: int) -> None:
        if self._first_ids is not None and number not in self._first_ids:
            legal = " or ".join(map(str, self._first_ids))
            cause = f"video {shown(video)} begins with frame_id {number}, where it must begin with {legal}"
            self._add(line, "late at a video's beginning", 1, cause)

    def _check_next(self, line: int, video: str, rows: _Rows, number: int, path: str) -> None:
        before, last_id = os.fsdecode(rows.paths[-1]), rows.last_id
        assert last_id is not None, "a row precedes this one"
        if before == path:
            self._same_image.append(line)
        if number == last_id:
            rows.repeats.append(line)
            rows.counted_by_names &= _count_by_names(before, path) == 1
        elif number != last_id + 1:
            kind = "missing" if number > last_id else "out of order"
            cause = f"frame_id {number} of video {shown(video)} follows {last_id} (line {rows.lines[-1]})"
            self._add(line, kind, max(number - last_id - 1, 1), cause)
        # Images that are numbered against the rows tell of frame_id that were counted over files in another order (sorted
        # as text, 10 precedes 9). Names of one length ascend as their numbers do, and nearly all are of one length.
        elif (before > path or len(before) != len(path)) and _count_by_names(before, path) < 0:
            self._add(line, "out of order", 1, f"the image {shown(path)} follows {shown(before)}")

    def _add(self, line: int, kind: str, count: int, cause: str) -> None:
        if self._first_line is None or line < self._first_line:
            self._first_line, self._first_cause = line, cause
        self._lines.append(line)
        self._counts[kind] += count

    def finish(self, videos: Mapping[str, _Rows]) -> None:
        """Raise ValueError for what was found; warn of frames that have the image of the frame before."""
        for video, rows in videos.items():
            # Some published lists have one number in the whole column: the names of the images tell the order.
            if not rows.counted_by_names or 0 < len(rows.repeats) < len(rows.lines) - 1:
                for line in rows.repeats:
                    self._add(line, "listed twice", 1, f"the frame_id of video {shown(video)} is that of its row before")
        if self._lines:
            self._refuse()
        if self._same_image:
            place, count = place_of(self._csv_path, self._same_image[0]), len(self._same_image)
            tell(f"{place}: the image is that of the frame before, and so in {count} rows of the list")

    def _refuse(self) -> NoReturn:
        lines = sorted(self._lines)
        counts = ", ".join(f"{count} {kind}" for kind, count in self._counts.items() if count)
        others = f"; further places at lines {', '.join(map(str, lines[1:6]))}" if lines[1:] else ""
        raise ValueError(
            f"{place_of(self._csv_path, lines[0])}: {self._first_cause}. A video's frame_id must ascend by one from row to row, "
            f"because the position of a row is its time; frames: {counts}{others}. Sort the rows of each video by frame_id, "
            "leave out what stands twice, and extract what is missing"
        )


_NUMBERED = re.compile(r"(.*?)([0-9]{1,15})(\.[A-Za-z0-9]+)?")


def _count_by_names(before: str, path: str) -> int:
    """How far apart two images are by the numbers that their names end in; 0 where the names differ otherwise."""
    first, second = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(path)
    if not first or not second or first[1] != second[1] or first[3] != second[3]:
        return 0
    return int(second[2]) - int(first[2])


def _rows(csv_path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """(line, the five columns) of each row."""
    table = read_table(csv_path, " ")
    for line, header in table:
        _check_header(csv_path, line, header)
        break
    for line, row in table:
        if len(row) != len(COLUMNS) or not row[0] or not row[3]:
            raise ValueError(
                f"{place_of(csv_path, line)}: {shown(' '.join(row))} has {len(row)} columns; "
                f"needed are the {len(COLUMNS)} columns '{' '.join(COLUMNS)}', labels in quotes (\"\" for none)"
            )
        check_path(row[3], place_of(csv_path, line))
        yield line, row


def is_frame_list(csv_path: str | os.PathLike) -> bool:
    """Whether a csv begins with the header of a frame list, or with one that was meant to be."""
    return bool({*_FIRST_COLUMNS, "frame_id"} & set(re.split(r'[\s,;"]+', first_line(csv_path))))


def _check_header(csv_path: str | os.PathLike, line: int, header: Sequence[str]) -> None:
    if header[0] not in _FIRST_COLUMNS or tuple(header[1:]) != COLUMNS[1:]:
        missing = [name for name in COLUMNS[1:] if name not in header]
        raise ValueError(
            f"{place_of(csv_path, line)}: {shown(' '.join(header))} is not the header of a frame list: "
            f"write '{' '.join(COLUMNS)}', separated by spaces" + (f"; {', '.join(missing)} is missing" if missing else "")
        )
