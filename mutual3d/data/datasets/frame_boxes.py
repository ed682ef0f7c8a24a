"""Boxes of every frame of videos, in a csv: rows `path,frame,x1,y1,x2,y2`, which a header may name."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mutual3d.data.datasets.boxes import Box, parse_box
from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.datasets.lists import check_path, existing_file, parse_whole, place_of, read_table, shown

COLUMNS = ("path", "frame", "x1", "y1", "x2", "y2")
# Of a video, by frame, counted from 0.
FrameBoxes = dict[int, list[Box]]


def read_frame_boxes(path: str | Path) -> dict[str, FrameBoxes]:
    """{path of a video, absolute and without links: {frame: [(x1, y1, x2, y2), ...]}}, normalised; relative paths start at the csv's folder.

    Raises FileNotFoundError for a missing file and ValueError, with file, line and row, for a wrong row and for a file without rows.
    """
    path = existing_file(path, "file of boxes", f"write rows '{','.join(COLUMNS)}'")
    found: dict[str, FrameBoxes] = {}
    for line, row in read_table(path):
        if tuple(name.strip() for name in row) == COLUMNS:
            continue
        place = f"{place_of(path, line)}, {shown(','.join(row))}"
        video = os.path.realpath(path.parent / check_path(row[0], place))
        try:
            frame, box = _parse_row(row)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        found.setdefault(video, {}).setdefault(frame, []).append(box)
    if not found:
        raise ValueError(f"the file of boxes '{path}' is empty: write rows '{','.join(COLUMNS)}'")
    return found


def write_frame_boxes(path: str | Path, boxes: Mapping[str, Mapping[int, Iterable[Box]]]) -> None:
    """Write what `read_frame_boxes` reads, with a header. boxes: {path of a video, as it is written: {frame: boxes}}."""
    rows = (
        (video, frame, *(f"{side:.4f}" for side in box))
        for video, own in boxes.items()
        for frame in sorted(own)
        for box in own[frame]
    )
    write_lines(path, (_joined(row) for row in (COLUMNS, *rows)))


def _joined(row: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()


def _parse_row(row: list[str]) -> tuple[int, Box]:
    """The frame and the box."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"it has {len(row)} columns: write '{','.join(COLUMNS)}'")
    if not row[0].strip():
        raise ValueError("the video has no name")
    frame = parse_whole(row[1])
    if frame is None or frame < 0:
        raise ValueError(f"the frame is {shown(row[1])}: give a whole number, 0 for the first one")
    return frame, parse_box(row[2:])
