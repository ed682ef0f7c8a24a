"""What all lists have in common: lines, rows of a csv, numbers and paths, read strictly, and named where they are wrong.

A line ends with a line feed, or with a carriage return and a line feed. What else Unicode calls the end of a line (U+2028,
U+0085, vertical tab, form feed) stands in titles of videos and is part of its row.
"""

import codecs
import csv
import functools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mutual3d.utils.files import read_text

# No row of a list is that long: a file without line ends is no list, and is not read into memory to find that out.
LONGEST_LINE = 2**17
# The longest path that an operating system opens.
_LONGEST_PATH = 4096
_BLANKS = " \t"
_UNCLOSED = "a quote is opened and not closed in the same line"

_logger = logging.getLogger(__name__)


def user_path(path: str | os.PathLike) -> Path:
    """A path as a user writes it: `~` is the home folder."""
    return Path(os.path.expanduser(path))


def existing_file(path: str | os.PathLike, kind: str, fix: str) -> Path:
    """The path, `~` resolved, of a file that is there. `kind` ("video list") and `fix` say in errors what to do.

    Raises FileNotFoundError where there is none, IsADirectoryError for a folder, and ValueError for a pipe or a device,
    which lists are not read from, because they are read more than once.
    """
    path = user_path(path)
    if path.is_dir():
        raise IsADirectoryError(f"the {kind} '{path}' is a folder: name a file; {fix}")
    if not path.exists():
        raise FileNotFoundError(f"there is no {kind} '{path}': {fix}")
    if not path.is_file():
        raise ValueError(f"the {kind} '{path}' is a pipe or a device: name a file; {fix}")
    return path


def place_of(path: str | os.PathLike, line: int) -> str:
    """Where something stands, in words. line: its number, from 1."""
    return f"'{path}', line {line}"


def shown(text: str) -> str:
    """A text for an error message: in quotes, its middle left out when it is long."""
    return repr(text) if len(text) <= 200 else f"{text[:100]!r}...{text[-50:]!r} ({len(text)} characters)"


@functools.cache
def tell(message: str) -> None:
    """Warn of something in a list, once in this process: a run reads its lists again and again. message: a whole sentence."""
    _logger.warning(message)


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """(number, text without its end) of each line of a text file: UTF-8, or UTF-16 with its mark.

    Raises ValueError, with file and line, for bytes that are not text, for a carriage return within a line (which files
    of old Macs have for line ends, and which would join rows), and for a line longer than any row is.
    """
    with open(path, "rb") as file:
        lines: Iterator[bytes]
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            lines = (line.encode() for line in read_text(path).split("\n"))
        else:
            file.seek(0)
            lines = iter(functools.partial(file.readline, LONGEST_LINE + 2), b"")
        for number, line in enumerate(lines, start=1):
            yield number, _decode_line(path, number, line)


def _decode_line(path: str | os.PathLike, number: int, line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        raise ValueError(f"{place_of(path, number)}: the line is longer than {LONGEST_LINE:,} bytes: this is no list")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place_of(path, number)}: {line[:100]!r} is not UTF-8 ({error.reason}): save the file as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{place_of(path, number)}: {shown(text)} holds a NUL character: this is no text; save the file as UTF-8")
    if "\r" in text:
        raise ValueError(
            f"{place_of(path, number)}: {shown(text)} holds a carriage return: end each line with a line feed (\\n or \\r\\n)"
        )
    return text


def first_line(path: str | os.PathLike) -> str:
    """The first line of a text file; "" when it has none. Raises as `existing_file` and `read_lines`."""
    path = existing_file(path, "list", "see datasets/README.md")
    return next((text for _, text in read_lines(path)), "")


def read_table(path: str | os.PathLike, delimiter: str = ",", *, spanning: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, columns) of each row of a csv that is not blank.

    A quoted column ends in its own line unless `spanning`: one quote that is not closed would make one column of all rows
    up to the next one. Raises ValueError with file, line and row, as `read_lines` and `parse_row` do. delimiter: what
    stands between columns.
    """
    begun = None
    for number, text in read_lines(path):
        number, text = (begun[0], f"{begun[1]}\n{text}") if begun else (number, text)
        begun = None
        if not text.strip(_BLANKS):
            continue
        try:
            row = parse_row(text, delimiter)
        except ValueError as error:
            if not spanning or str(error) != _UNCLOSED or len(text) > LONGEST_LINE:
                raise ValueError(f"{place_of(path, number)}: {shown(text)}: {error}") from None
            begun = number, text
            continue
        yield number, row
    if begun:
        raise ValueError(f"{place_of(path, begun[0])}: {shown(begun[1])}: a quote is opened and never closed")


def parse_row(text: str, delimiter: str = ",") -> list[str]:
    """The columns of one row of a csv; ValueError, in words, for quotes that do not fit.

    delimiter: what stands between columns.
    """
    try:
        return next(csv.reader((text.rstrip(_BLANKS),), delimiter=delimiter, skipinitialspace=delimiter == " ", strict=True), [])
    except csv.Error as error:
        raise ValueError(_UNCLOSED if str(error) == "unexpected end of data" else f"the quotes do not fit ({error})") from None


_WHOLE = re.compile(r"-?[0-9]{1,15}")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")


def parse_whole(text: str) -> int | None:
    """A whole number of ASCII digits, at most 15; None for all else, such as 1_0, 3.0 or Arabic digits."""
    return int(text) if _WHOLE.fullmatch(text.strip(_BLANKS)) else None


def parse_decimal(text: str) -> float | None:
    """A finite decimal number of ASCII digits; None for all else, such as nan, inf or 1_0."""
    number = float(text) if _DECIMAL.fullmatch(text.strip(_BLANKS)) else float("inf")
    return number if abs(number) < float("inf") else None


def check_path(name: str, place: str) -> str:
    """The name of a file as a list has it; ValueError, with its place, for one that no file can have."""
    if len(name) > _LONGEST_PATH:
        raise ValueError(f"{place}: the path {shown(name)} is longer than {_LONGEST_PATH} characters: no file has such a name")
    return name


def check_line(text: str, path: str | os.PathLike) -> str:
    """A text that becomes one line of the list `path`; ValueError for one that would not come back as it is."""
    if set(text) & {"\n", "\r", "\0"}:
        raise ValueError(f"{shown(text)} cannot stand in the list '{path}': it holds a line end; rename the file")
    try:
        text.encode()
    except UnicodeEncodeError:
        name = os.fsencode(text)
        raise ValueError(f"the name {name!r} cannot stand in the list '{path}': it is not UTF-8; rename the file") from None
    return text
