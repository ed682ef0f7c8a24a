"""Labels in lists: rows `path label`, and the names of classes."""

import difflib
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from mutual3d.data.datasets.lists import check_path, existing_file, parse_decimal, parse_whole, place_of, read_lines, shown
from mutual3d.utils.files import read_json

_BLANKS = " \t"
# Labels become 64-bit numbers in tensors, and a network with that many outputs is none.
_LARGEST_LABEL = 2**31 - 1
_SEPARATOR = "DATA.PATH_LABEL_SEPARATOR (--separator)"
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
# `.mp4`, and no part of a number such as the end of `take 2.25`.
_FILE_ENDING = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{2,5}$")
_HEADER_WORDS = {
    "id", "index", "label", "labels", "label_id", "class", "classes", "class_id", "name", "class_name", "label_name", "target",
    "path", "file", "filename", "file_name", "video", "video_path", "file_path", "youtube_id", "category", "action",
    "time_start", "time_end", "split",
}  # fmt: skip


def parse_separator(text: str) -> str:
    r"""What stands between path and label; the two characters \t, as YAML and shells hand them over, are a tab.

    Raises ValueError for an empty one and for one that paths or labels are made of.
    """
    separator = text.replace("\\t", "\t")
    if not separator or re.search(r'[\w"/.\-\n\r\0]', separator):
        raise ValueError(f"{_SEPARATOR} is {text!r}: give what stands between path and label, such as ' ', ',' or '\\t'")
    return separator


def split_row(row: str, place: str, separator: str, last: str, labels: "LabelReader | None" = None) -> tuple[str, str]:
    """(path, the rest) of a row, split at its last separator, or before the name of a class that `labels` knows.

    Either may be quoted, as csv writers do with what holds a separator. `last` names the rest in errors: ValueError for a
    row that has no separator, another one, or more columns. place: file and line, for messages.
    """
    name, rest = _split_last(row, place, separator, last, labels)
    if not _QUOTED.fullmatch(name):
        _check_columns(name, row, place, separator, last)
    return _unquote(name), _unquote(rest)


def split_segment_row(
    row: str, place: str, separator: str, labels: "LabelReader | None" = None
) -> tuple[str, tuple[float, float] | None, str]:
    """(path, (start, end) in seconds, label) of a row `path start end label`, or (path, None, label) of a row `path label`.

    Two numbers before the label are seconds where what precedes them ends as the name of a file does, or stands in quotes. Raises
    ValueError as `split_row`, and for a stretch that ends before it begins. place, separator: as of that.
    """
    name, rest = _split_last(row, place, separator, "label", labels)
    path, *texts = (part.strip(_BLANKS) for part in name.rsplit(separator, 2))
    seconds = [second for second in map(parse_decimal, texts) if second is not None]
    if len(seconds) < 2 or not (_QUOTED.fullmatch(path) or _FILE_ENDING.search(path)):
        path, label = split_row(row, place, separator, "label", labels)
        return path, None, label
    start, end = seconds
    if not 0 <= start < end:
        raise ValueError(f"{place}: {shown(row)} is a stretch from second {start:g} to {end:g}: write path, start, end and label, start before end")
    return _unquote(path), (start, end), _unquote(rest)


def _split_last(row: str, place: str, separator: str, last: str, labels: "LabelReader | None") -> tuple[str, str]:
    """What stands before and behind the last separator of a row, or before a class's name, as they are written."""
    name, found, rest = row.rpartition(separator)
    # Before all else, because what follows looks at every separator of the row.
    check_path(name, place)
    name, rest = name.strip(_BLANKS), rest.strip(_BLANKS)
    if labels is not None and parse_whole(_unquote(rest)) is None:
        name, rest = labels.split_at_name(row, place, separator) or (name, rest)
    if not found or not name:
        raise ValueError(
            f"{place}: {shown(row)} is not 'path{separator}{last}'; {_SEPARATOR.partition(' ')[0]} is {separator!r}"
            f"{_other_separator(row, separator, labels)}"
        )
    return name, rest


def _check_columns(name: str, row: str, place: str, separator: str, last: str) -> None:
    """Raise ValueError where what precedes the label is more than a path."""
    if name[-1] in ",;|\t":
        raise ValueError(f"{place}: the path of {shown(row)} ends in {name[-1]!r}{_other_separator(row, separator)}")
    ends = [match.start() for match in re.finditer(re.escape(separator), name)]
    for front, extra in ((name[:end].strip(_BLANKS), name[end + len(separator) :]) for end in ends):
        is_path = _QUOTED.fullmatch(front) or _FILE_ENDING.search(front)
        if is_path and not _FILE_ENDING.search(name) and "/" not in extra:
            raise ValueError(
                f"{place}: {shown(row)} has more than two columns: write 'path{separator}{last}' alone; a path that holds the "
                "separator stands in quotes"
            )


def _other_separator(row: str, separator: str, labels: "LabelReader | None" = None) -> str:
    """What to do, in words, about a row that is `path<other separator>label`, or a header; "" for others."""
    if {word.strip('"').lower() for word in re.split(r"[\s,;|]+", row)} <= _HEADER_WORDS:
        return "; it looks like a header, which lists of videos have not: leave the line out"
    for other in (",", "\t", ";", "|", " "):
        name, _, label = row.rpartition(other)
        label = _unquote(label.strip(_BLANKS))
        is_label = parse_whole(label) is not None or labels is not None and labels.is_name(label)
        if other != separator and name.strip(_BLANKS) and is_label:
            return f"; it looks like {f'path{other}label'!r}: set {_SEPARATOR} to {other!r}"
    return ""


def _unquote(text: str) -> str:
    match = _QUOTED.fullmatch(text)
    return match[1].replace('""', '"') if match else text


def list_row(path: str, label: int, separator: str = " ", seconds: tuple[float, float] | None = None) -> str:
    """A row of a list that `split_segment_row` takes apart again, whatever the path holds.

    label: a number from 0. separator: as of `split_row`. seconds: start and end of a stretch.
    """
    rest = separator.join([*(f"{second:.6f}".rstrip("0").rstrip(".") for second in seconds or ()), str(label)])
    row = f"{path}{separator}{rest}"
    try:
        if split_segment_row(row.strip(_BLANKS), "", separator)[::2] == (path, str(label)):
            return row
    except ValueError:
        pass  # a path that a row does not hold as it is, with one quote in it for instance, is quoted
    doubled = path.replace('"', '""')
    return f'"{doubled}"{separator}{rest}'


class LabelReader:
    """Turns the labels of one list into numbers: whole numbers from 0, or names of classes.

    Names are looked up in `class_names_path`, by default classes.txt beside the list, which is read only when a label is no
    number. Whether numbers are below `num_classes` (None: any) is told by `check`, when all are known.
    """

    def __init__(
        self, list_path: str | os.PathLike, num_classes: int | None = None, class_names_path: str | os.PathLike = ""
    ) -> None:
        self._list_path = list_path
        self._num_classes = num_classes
        self._names_path = Path(class_names_path or Path(list_path).parent / "classes.txt")
        self._has_names = bool(class_names_path) or self._names_path.is_file()
        self._smallest: int | None = None
        self._largest: int | None = None
        self._wrong: str | None = None

    @cached_property
    def _names(self) -> dict[str, int | None]:
        """{name: label}; None for a name that several classes have."""
        names = read_class_names(self._names_path) if self._has_names else []
        return {name: None if names.count(name) > 1 else label for label, name in enumerate(names)}

    def is_name(self, text: str) -> bool:
        """Whether a text is the name of a class."""
        return self._has_names and text in self._names

    def split_at_name(self, row: str, place: str, separator: str) -> tuple[str, str] | None:
        """(path, name of a class) of a row that ends in one, which may hold the separator; None for other rows.

        place: file and line, for messages.
        """
        if not self._has_names:
            return None
        ends = [match.start() for match in re.finditer(re.escape(separator), row)]
        parts = [(row[:end].strip(_BLANKS), row[end + len(separator) :].strip(_BLANKS)) for end in ends]
        found = [(name, rest) for name, rest in parts if name and _unquote(rest) in self._names]
        if len(found) > 1:
            found = [(name, rest) for name, rest in found if _FILE_ENDING.search(_unquote(name))]
            if len(found) != 1:
                raise ValueError(f"{place}: {shown(row)} ends in several names of '{self._names_path}': put the path in quotes")
        return found[0] if found else None

    def parse(self, text: str, row: str, place: str) -> int:
        """A label as an int. Raises ValueError, with `place` and `row`, for one that is no number and no name."""
        label = parse_whole(text)
        if label is None and re.fullmatch(r"-?[0-9]+", text):
            label = _LARGEST_LABEL + 1
        if label is None:
            label = self._number_of(text, row, place)
        self._note(label, text, row, place)
        return label

    def _number_of(self, name: str, row: str, place: str) -> int:
        label = self._names.get(name)
        if label is None:
            raise ValueError(f"{place}: the label {shown(name)} in {shown(row)} is not a whole number{self._hint(name, row)}")
        return label

    def _hint(self, text: str, row: str) -> str:
        if text in self._names:
            return f", and '{self._names_path}' has this name more than once: write numbers"
        if re.fullmatch(r"-?[0-9]+\.0*", text):
            return f": write {text.partition('.')[0]}"
        if parse_whole(re.split(r"[\s,;|]", row, maxsplit=1)[0]) is not None and _FILE_ENDING.search(text):
            return ": the path comes first and the label last"
        other = _other_separator(row, "", self)
        if other:
            return other
        if not self._has_names:
            return f"; for names of classes instead of numbers, write the names, one a line, to '{self._names_path}'"
        close = difflib.get_close_matches(text[:100], self._names, n=1)
        return f", and no name in '{self._names_path}'" + (f": did you mean {close[0]!r}?" if close else "")

    def _note(self, label: int, text: str, row: str, place: str) -> None:
        self._smallest = label if self._smallest is None else min(self._smallest, label)
        self._largest = label if self._largest is None else max(self._largest, label)
        max_label = _LARGEST_LABEL if self._num_classes is None else self._num_classes - 1
        if not 0 <= label <= max_label and self._wrong is None:
            number = label if label <= _LARGEST_LABEL else shown(text)
            self._wrong = f"{place}: label {number} of {shown(row)} is out of range"

    def check(self) -> None:
        """Raise ValueError, with file, line and row, for the first label outside [0, num_classes)."""
        if self._wrong is None:
            return
        legal = f"0 to {self._num_classes - 1} (MODEL.NUM_CLASSES {self._num_classes})" if self._num_classes else f"0 to {_LARGEST_LABEL}"
        from_one = self._smallest == 1 and self._largest == self._num_classes
        fix = f"; the list's labels run from 1 to {self._largest}: they start at 0, so subtract 1 from each" if from_one else ""
        raise ValueError(f"{self._wrong}, legal are {legal}{fix}")

    @property
    def start_at_one(self) -> bool:
        """Whether labels were read, more than one, and 1 is the smallest."""
        return self._smallest == 1 and self._largest is not None and self._largest > 1


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Class names in the order of their labels.

    From a text file: one a line, which may begin with its label (`0,right`) or end in it (`right,0`), or with Charades'
    codes (`c000 Holding some clothes`); these are left out. Or from json: a list, {name: label} or {label: name}.

    Raises FileNotFoundError for a missing file and ValueError, naming it, for what it gets wrong.
    """
    path = existing_file(path, "file of class names", "write one name a line (DATA.CLASS_NAMES_PATH, --classes)")
    names = _names_of_json(path) if path.suffix.lower() == ".json" else _names_of_lines(path)
    if not names or not all(names):
        raise ValueError(f"the class names '{path}' are empty: write one name a line, a json list, or a json {{name: label}}")
    return names


def _names_of_json(path: Path) -> list[str]:
    value = read_json(path)
    if isinstance(value, dict):
        by_label = all(isinstance(name, str) and parse_whole(name) is None for name in value.values())
        pairs = value.items() if by_label else [(label, name) for name, label in value.items()]
        # Kinetics' own class file carries a second pair of quotes around some names.
        return _in_order(path, [(_json_label(path, label), name.strip('"')) for label, name in pairs])
    if not isinstance(value, list) or not all(isinstance(name, str) or type(name) in (int, float) for name in value):
        raise ValueError(f"the class names '{path}' must be one name a line, a json list of names, or a json {{name: label}}")
    return [str(name) for name in value]


def _json_label(path: Path, value: object) -> int:
    label = value if type(value) is int else parse_whole(value) if isinstance(value, str) else None
    if label is None:
        raise ValueError(f"the labels in '{path}' must be whole numbers from 0, each once; {shown(str(value))} is none")
    return label


def _in_order(path: Path, pairs: Sequence[tuple[int, str]]) -> list[str]:
    """The names of (label, name)."""
    labels = sorted(label for label, _ in pairs)
    if labels != list(range(len(pairs))):
        start = "; they start at 0, so subtract 1 from each" if labels == list(range(1, len(pairs) + 1)) else ""
        raise ValueError(f"the labels in '{path}' must be 0 to {len(pairs) - 1}, each once{start}")
    return [name for _, name in sorted(pairs)]


def _names_of_lines(path: Path) -> list[str]:
    lines = [(number, text.strip()) for number, text in read_lines(path) if text.strip()]
    if lines and re.match(r"c[0-9]{3} ", lines[0][1]):
        return _drop_codes(path, lines)
    columns = [_unquote(word.strip()).lower() for word in re.split(r"[,;\t]", lines[0][1])] if lines else []
    if len(columns) > 1 and set(columns) <= _HEADER_WORDS:
        lines = lines[1:]
    names = [_unquote(text) for _, text in lines]
    pairs = _numbered(names)
    return _in_order(path, pairs) if pairs else names


_LABEL_FIRST = re.compile(r'"?([0-9]{1,6})"?\s*([,;:\t ])\s*(.+)')
_LABEL_LAST = re.compile(r'(.+?)\s*([,;\t])\s*"?([0-9]{1,6})"?')


def _numbered(lines: Sequence[str]) -> list[tuple[int, str]] | None:
    """(label, name) of each line where all have both; None where they are names alone.

    Numbers before a space are labels only where they count the lines, since names may begin with one (`2 hands`).
    """
    first = [match for line in lines if (match := _LABEL_FIRST.fullmatch(line))]
    if len(first) == len(lines):
        labels = [int(match[1]) for match in first]
        counted = labels in (list(range(len(lines))), list(range(1, len(lines) + 1)))
        if counted or all(match[2] != " " for match in first):
            return [(label, _unquote(match[3])) for label, match in zip(labels, first)]
    last = [match for line in lines if (match := _LABEL_LAST.fullmatch(line))]
    return [(int(match[3]), _unquote(match[1])) for match in last] if len(last) == len(lines) else None


def _drop_codes(path: Path, lines: Sequence[tuple[int, str]]) -> list[str]:
    for label, (number, line) in enumerate(lines):
        if not line.startswith(f"c{label:03d} "):
            raise ValueError(
                f"{place_of(path, number)}: {shown(line)} must begin with 'c{label:03d} ', as others do with codes"
            )
    return [line.split(" ", 1)[1].strip() for _, line in lines]
