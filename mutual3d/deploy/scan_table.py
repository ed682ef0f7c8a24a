"""The table of a scan, as parquet or csv: rows as they are written, and the segments of one of events as they are read again."""

import contextlib
import csv
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mutual3d.data.datasets.lists import parse_decimal, place_of, read_table, shown
from mutual3d.deploy.scan import ScanRow
from mutual3d.deploy.timeline import Segment
from mutual3d.utils.text import printable

SUFFIXES = (".parquet", ".csv")
# Rows of a group in a parquet file, which readers take at a time.
_GROUP = 65_536


def as_text(name: str) -> str:
    """A file's name as UTF-8, its other bytes written as `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def columns_of(top: int) -> list[str]:
    """The columns of a table with the `top` best classes of each row: path, start, end, label, confidence, label_2, ..."""
    names = [name + ("" if place == 1 else f"_{place}") for place in range(1, top + 1) for name in ("label", "confidence")]
    return ["path", "start", "end", *names]


# What writes rows into a file.
Write = Callable[[Sequence[ScanRow]], None]


def row_writer(file: TextIO) -> Callable[[Sequence[str]], None]:
    """A function that writes a row into an open csv."""
    plain, quoted = (csv.writer(file, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))

    def write(row: Sequence[str]) -> None:
        # A carriage return in a file's name ends a row for those who read it, and Python's writer leaves it unquoted here.
        (quoted if any("\r" in word for word in row) else plain).writerow(row)

    return write


def table_writer(path: Path, top: int, suffix: str) -> contextlib.AbstractContextManager[Write]:
    """A block in which rows are written into a new table, whose format `suffix` says. top: classes of a row, at most."""
    return _write_csv(path, top) if suffix.lower() == ".csv" else _write_parquet(path, top)


def check_format(path: Path) -> None:
    """ValueError for a name of a table whose ending is no format's, ImportError for parquet where pyarrow is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"'{path}' ends in '{path.suffix}': give a name that ends in {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        _import_parquet()


@contextlib.contextmanager
def _write_csv(path: Path, top: int) -> Iterator[Write]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        write_row = row_writer(file)
        write_row(columns_of(top))

        def write(rows: Sequence[ScanRow]) -> None:
            for row in rows:
                best = [word for label, value in zip(row.labels, row.confidences) for word in (label, f"{value:.6f}")]
                seconds = ["" if second is None else f"{second:.3f}" for second in (row.start, row.end)]
                write_row([row.path, *seconds, *best, *[""] * (2 * top - len(best))])

        yield write


def _import_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("parquet needs pyarrow: pip install -e .[scan]; or name a csv, --out found.csv") from error
    return pyarrow


@contextlib.contextmanager
def _write_parquet(path: Path, top: int) -> Iterator[Write]:
    arrow = _import_parquet()
    kinds = {"path": arrow.string(), "start": arrow.float64(), "end": arrow.float64(), "label": arrow.string(), "confidence": arrow.float32()}
    schema = arrow.schema([(name, kinds[name.partition("_")[0]]) for name in columns_of(top)])
    waiting: list[ScanRow] = []

    def put(rows: Sequence[ScanRow]) -> None:
        columns: list[list[Any]] = [[row.path for row in rows], [row.start for row in rows], [row.end for row in rows]]
        for place in range(top):
            columns += [[row.labels[place] if place < len(row.labels) else None for row in rows],
                        [row.confidences[place] if place < len(row.confidences) else None for row in rows]]  # fmt: skip
        writer.write_table(arrow.table(columns, schema=schema))

    def write(rows: Sequence[ScanRow]) -> None:
        waiting.extend(rows)
        while len(waiting) >= _GROUP:
            put(waiting[:_GROUP])
            del waiting[:_GROUP]

    with arrow.parquet.ParquetWriter(path, schema) as writer:
        yield write
        put(waiting)


# ---- Reading a table ---------------------------------------------------------------------------------------------------


def read_segments(path: str | os.PathLike) -> list[tuple[str, Segment]]:
    """(path of the video, segment) of each row of a table of events, a csv or parquet file: columns path, start, end, label, confidence.

    Raises FileNotFoundError for no file, ImportError for parquet without pyarrow, and ValueError for another ending, a table of windows or
    whole videos, and, with its line, a row that is no segment.
    """
    path = Path(path).expanduser()
    check_format(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table '{path}': `mutual3d scan --events --out {path}` writes one")
    found = []
    for place, (name, start, end, label, confidence) in _rows_of_csv(path) if path.suffix.lower() == ".csv" else _rows_of_parquet(path):
        begin, last, mean = _numbers(place, start, end, confidence)
        found.append((str(name), Segment(begin, last, str(label), mean)))
    return found


def _rows_of_csv(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    """(place, columns) of each row behind the header, which is checked."""
    rows = read_table(path, spanning=True)
    _check_columns(path, next((row for _, row in rows), []))
    for line, row in rows:
        if len(row) != len(columns_of(1)):
            raise ValueError(f"{place_of(path, line)}: {len(row)} columns, and the header has {len(columns_of(1))}")
        yield place_of(path, line), row


def _rows_of_parquet(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    arrow = _import_parquet()
    try:
        table = arrow.parquet.read_table(path)
    except Exception as error:  # what pyarrow raises on a damaged file is of several kinds
        raise ValueError(f"'{path}' is no parquet file, or a damaged one: {error}") from error
    _check_columns(path, table.column_names)
    for number, row in enumerate(zip(*(column.to_pylist() for column in table.columns)), start=1):
        yield f"'{path}', row {number}", row


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """ValueError for a table that is none of events."""
    if list(names) == columns_of(1):
        return
    is_scan = len(names) > len(columns_of(1)) and list(names) == columns_of((len(names) - 3) // 2)
    what = "is a table of windows or of whole videos" if is_scan else f"has the columns {', '.join(map(printable, names))[:200] or 'of an empty file'}"
    raise ValueError(f"'{path}' {what}, and one of events has {', '.join(columns_of(1))}: `mutual3d scan --window TIME --events` writes it")


def _numbers(place: str, *values: Any) -> tuple[float, ...]:
    """ValueError, with the place, for what is no number."""
    read = [parse_decimal(value) if isinstance(value, str) else value for value in values]
    numbers = [number for number in read if isinstance(number, float) and math.isfinite(number)]
    if len(numbers) < len(values):
        told = ", ".join("nothing" if value in ("", None) else shown(str(value)) for value in values)
        raise ValueError(f"{place}: start, end and confidence are {told}: a table of events has numbers there")
    return tuple(numbers)
