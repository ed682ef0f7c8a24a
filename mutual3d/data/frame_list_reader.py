"""Videos that were extracted to image files: lists of their frames, and a reader of such a video.

A list is a csv in the form of AVA and Charades, separated by spaces, with a header:

    original_vido_id video_id frame_id path labels
    YSKX3 7811 1 YSKX3/YSKX3-000001.jpg "79,76"

A video's frames are its rows in the order of the file. Lists have millions of rows, which worker processes share: they
are kept in arrays, because counting references to millions of strings would copy them into every worker.
"""

import csv
import os
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mutual3d.data.reader import VideoError, VideoReader, check_file

COLUMNS = ("original_vido_id", "video_id", "frame_id", "path", "labels")
# The published lists misspell the first column; both spellings are read.
_FIRST_COLUMNS = (COLUMNS[0], "original_video_id")


class FrameListReader(VideoReader):
    """A video in image files, one a frame, in display order; only the frames that are asked for are opened.

    Args:
        paths: file names, str or bytes, in a list or an array.
        fps: frames a second.
        root: the folder that relative names start at.
        lines: for each frame its line in the frame list, which errors then tell.

    Raises VideoError, naming the image, for one that is missing or does not decode.
    """

    def __init__(self, paths, fps, root="", lines=None):
        self._paths = paths
        self._lines = lines
        self._root = str(root)
        self.num_frames = len(paths)
        self.fps = float(fps)
        self.path = self._root
        if not self.num_frames:
            raise VideoError(self.path, "its list of frames is empty")
        self.path = os.path.dirname(self.path_of(0))

    def path_of(self, index):
        """The file of frame `index`."""
        return os.path.join(self._root, os.fsdecode(self._paths[index]))

    def frames(self, indices):
        for index in self._check_indices(indices):
            with self._naming_line(index):
                image_HWC = read_image(self.path_of(index))
            yield index, image_HWC

    def check_files(self):
        """Raise VideoError for the first frame whose file is missing or empty; no image is decoded."""
        for index in range(self.num_frames):
            with self._naming_line(index):
                check_file(self.path_of(index))

    @contextmanager
    def _naming_line(self, index):
        try:
            yield
        except VideoError as error:
            if self._lines is None:
                raise
            raise VideoError(error.path, f"{error.cause} (line {self._lines[index]} of its frame list)") from error


def read_image(path):
    """A uint8 RGB array H, W, 3. Raises VideoError, naming the file, when it is missing, cut short or no image."""
    check_file(path)
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError:
        raise VideoError(path, "it is not an image") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise VideoError(path, f"the image is damaged ({error})") from error


@dataclass(frozen=True, eq=False)
class FrameList:
    """The rows of one video: `paths` (array of bytes, as the list has them), and for each frame the position of its
    labels in `label_texts` of the whole list (int32) and its line in the file (int32)."""

    paths: np.ndarray
    labels: np.ndarray
    lines: np.ndarray


def read_frame_list(csv_path):
    """Read a frame list: ({video: FrameList} in order of appearance, label_texts).

    `label_texts` holds each distinct text of the labels column once, as (text, line where it stands first). Raises
    FileNotFoundError for a missing file, and ValueError with file, line and row for a wrong header or a row that has not
    its five columns.
    """
    codes, label_texts, rows_of_video = {}, [], {}
    for line, (video, _, _, path, labels) in _rows(Path(csv_path)):
        if labels not in codes:
            codes[labels] = len(codes)
            label_texts.append((labels, line))
        columns = rows_of_video.setdefault(video, ([], array("i"), array("i")))
        for column, value in zip(columns, (os.fsencode(path), codes[labels], line)):
            column.append(value)
    if not rows_of_video:
        raise ValueError(f"the frame list '{csv_path}' is empty: write one row '{' '.join(COLUMNS)}' for each frame")
    return {video: FrameList(*map(np.array, columns)) for video, columns in rows_of_video.items()}, label_texts


def _rows(csv_path):
    """(line, the five columns) of each row."""
    if not csv_path.is_file():
        raise FileNotFoundError(f"there is no frame list '{csv_path}': write rows '{' '.join(COLUMNS)}' with that header")
    with open(csv_path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=" ", skipinitialspace=True)
        _check_header(csv_path, next(reader, []))
        for row in filter(None, reader):
            if len(row) != len(COLUMNS) or not row[0] or not row[3]:
                raise ValueError(
                    f"'{csv_path}', line {reader.line_num}: {' '.join(row)!r} has {len(row)} columns; "
                    f"needed are the {len(COLUMNS)} columns '{' '.join(COLUMNS)}', labels in quotes (\"\" for none)"
                )
            yield reader.line_num, row


def is_frame_list(csv_path):
    """Whether a csv begins with the header of a frame list, or with one that was meant to be."""
    with open(csv_path, encoding="utf-8-sig", errors="replace") as file:
        return bool({*_FIRST_COLUMNS, "frame_id"} & set(file.readline().split()))


def _check_header(csv_path, header):
    if header and (header[0] not in _FIRST_COLUMNS or tuple(header[1:]) != COLUMNS[1:]):
        missing = [name for name in COLUMNS[1:] if name not in header]
        raise ValueError(
            f"'{csv_path}', line 1: {' '.join(header)!r} is not the header of a frame list: "
            f"write '{' '.join(COLUMNS)}'" + (f"; {', '.join(missing)} is missing" if missing else "")
        )
