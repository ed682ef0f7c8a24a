"""Boxes of every frame of videos, in a csv: rows `path,frame,x1,y1,x2,y2`, which a header may name."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mutual3d.data.datasets.ava.annotations import box_problem
from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.datasets.lists import check_path, existing_file, parse_decimal, parse_whole, place_of, read_table, shown

COLUMNS = ("path", "frame", "x1", "y1", "x2", "y2")
# A normalised xyxy box.
Box = tuple[float, float, float, float]
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
        if len(row) != len(COLUMNS):
            raise ValueError(f"{place}: it has {len(row)} columns: write '{','.join(COLUMNS)}'")
        video = os.path.realpath(path.parent / check_path(row[0], place))
        found.setdefault(video, {}).setdefault(_frame(row[1], place), []).append(_box(row[2:], place))
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


def _frame(text: str, place: str) -> int:
    frame = parse_whole(text)
    if frame is None or frame < 0:
        raise ValueError(f"{place}: the frame is {shown(text)}: give a whole number, 0 for the first one")
    return frame


def _box(texts: list[str], place: str) -> Box:
    numbers = [number for text in texts if (number := parse_decimal(text)) is not None]
    if len(numbers) != 4:
        raise ValueError(f"{place}: {shown(','.join(texts))} are not four numbers x1,y1,x2,y2")
    x1, y1, x2, y2 = numbers
    problem = box_problem(x1, y1, x2, y2)
    if problem:
        raise ValueError(f"{place}: {problem}")
    return x1, y1, x2, y2
