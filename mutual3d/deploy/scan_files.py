"""The files of a scan: parts that are written whole, so that a killed scan goes on, and the one table that they become.

Beside `found.parquet` lie `found.unreadable.csv`, `found.scan.json`, which says how it was made, and while the scan runs the
folder `found.parquet.parts`.
"""

import csv
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import simplejson

from mutual3d.data.datasets.dataset import stat_files
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.scan import ScanRow, ShardTable
from mutual3d.deploy.scan_table import as_text, check_format, row_writer, table_writer
from mutual3d.utils.files import atomic_write, ensure_directory, read_json, remove_leftovers, write_json
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger, progress_bar

# Size and time of modification of each video of a part: see `stat_files`.
States = list[list[int]]


@dataclass(frozen=True)
class ShareOfParts:
    """The `number`-th, from 1, of `count` jobs that share a scan; written `3/16`."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "ShareOfParts":
        """Read `3/16`. Raises ValueError, which shows the form."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        share = cls(int(match[1]), int(match[2])) if match else None
        if share is None or not 1 <= share.number <= share.count:
            raise ValueError(f"{text!r} is no share of a scan: write number/count, from 1/16 to 16/16 for sixteen jobs")
        return share

    def takes(self, part: int) -> bool:
        """Whether a part, by its number from 0, is in the share."""
        return part % self.count == self.number - 1


class Totals(NamedTuple):
    """What a finished scan came to. counts: as of `ShardTable`."""

    num_videos: int
    num_bad: int
    num_rows: int
    counts: list[int]


class ScanFiles:
    """The files of one scan, by the path of its table, whose ending says the format. top: classes of a row.

    Raises ValueError for another ending, ImportError for parquet where pyarrow is not installed.
    """

    def __init__(self, out: str | os.PathLike, top: int) -> None:
        self.out = Path(out)
        check_format(self.out)
        self.unreadable = self.out.with_name(f"{self.out.stem}.unreadable.csv")
        self.record = self.out.with_name(f"{self.out.stem}.scan.json")
        self.parts = self.out.with_name(f"{self.out.name}.parts")
        self._settings = self.parts / "scan.json"
        # What that says of the scan that is gone on with here.
        self._scan: dict[str, Any] | None = None
        self._top = top

    def find(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
        """What there is of a scan as it is requested: ("finished", "begun" or "nothing", what the scan runs as it was chosen).

        request: {what it depends on, in words: plain data}. Raises ValueError where the files are another scan's, with what is
        different.
        """
        for path, state in ((self._settings, "begun"), (self.record, "finished")):
            if not path.is_file() or (state == "finished" and not self.out.is_file()):
                continue
            told = read_json(path)
            if not isinstance(told, dict) or not isinstance(told.get("request"), dict):
                raise ValueError(f"'{path}' is no scan's: move it away, or begin anew (--anew)")
            different = sorted(key for key in {*told["request"], *request} if told["request"].get(key) != request.get(key))
            if different:
                raise ValueError(
                    f"'{self.parts if state == 'begun' else self.out}' is of a scan that was {state} with another {', another '.join(different)}: "
                    "give the same again to go on, name another --out, or begin anew (--anew)"
                )
            self._scan = told if state == "begun" else None
            return state, told["chosen"]
        if self.out.exists():
            raise ValueError(f"'{self.out}' is there already, and no scan's record beside it: name another --out, or replace it (--anew)")
        return "nothing", None

    def forget(self) -> None:
        """Remove what earlier scans left, to begin anew."""
        shutil.rmtree(self.parts, ignore_errors=True)
        for path in (self.record, self.out, self.unreadable):
            path.unlink(missing_ok=True)

    def begin(self, request: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Write down what is scanned and what it runs; where another job of the scan was first, what that one chose.

        request: as of `find`. chosen: plain data.
        """
        ensure_directory(self.parts)
        if not self._settings.exists():
            # Parts without it are of a scan that was joined, and may be another model's.
            for number in self._numbers():
                self._part(number).unlink(missing_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".scan.", dir=self.parts)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(simplejson.dumps({"request": request, "chosen": chosen}, indent=1) + "\n")
        os.chmod(temporary, 0o644)
        try:
            os.link(temporary, self._settings)
        except FileExistsError:
            pass  # another job was first, and what that one chose is read below
        except OSError:  # a file system without hard links
            if not self._settings.exists():
                os.replace(temporary, self._settings)
        Path(temporary).unlink(missing_ok=True)
        begun = self._scan = read_json(self._settings)
        return begun["chosen"]

    # ---- Parts -------------------------------------------------------------------------------------------------------

    def done(self, states: Mapping[int, States]) -> dict[int, int]:
        """{number of a part that is written: videos that it is of}, of those in `states`.

        states: {number: of its videos, now}. A part whose videos have changed since they were scanned is removed, which is told.
        """
        remove_leftovers(self.parts)
        found, changed = {}, 0
        for number in set(self._numbers()) & set(states):
            content = self._read(number)
            if content.get("files") == states[number]:
                found[number] = content["num_videos"]
                continue
            self._part(number).unlink(missing_ok=True)
            changed += sum(before != now for before, now in zip_longest(content.get("files") or (), states[number]))
        if changed:
            logger.warning("%d videos of '%s' have changed since they were scanned, or have come or gone: they are scanned again", changed, self.out)
        return found

    def write_part(self, number: int, table: ShardTable, states: States) -> None:
        """Keep the part of a number from 0. Raises OSError where the scan was joined, or begun anew, meanwhile.

        states: of its videos, before they were read.
        """
        if not self._settings.is_file():
            raise FileNotFoundError(f"'{self.parts}' is gone: another process joined this scan, or removed it")
        if read_json(self._settings) != self._scan:
            raise OSError(f"'{self.parts}' is of another scan by now, which was begun anew (--anew): start this one again, or name another --out")
        rows = [[as_text(row.path), row.start, row.end, row.labels, row.confidences] for row in table.rows]
        bad = [[as_text(error.path), as_text(error.cause)] for error in table.bad]
        with atomic_write(self._part(number)) as temporary:
            content = {"num_videos": table.num_videos, "counts": table.counts, "bad": bad, "files": states, "rows": rows}
            temporary.write_text(simplejson.dumps(content, allow_nan=False), encoding="utf-8")

    def join(self, num_parts: int, request: Mapping[str, Any], chosen: Mapping[str, Any]) -> Totals:
        """Make one table of all `num_parts` parts, and remove them. Raises ValueError where some are missing.

        request, chosen: kept beside it, see `begin`.
        """
        missing = sorted({*range(num_parts)} - {*self._numbers()})
        if missing:
            raise ValueError(f"{len(missing)} of the {num_parts} parts of '{self.parts}' are missing: the same scan without --join makes them")
        num_videos = num_bad = num_rows = 0
        counts: list[int] = []
        states: list[States] = []
        with atomic_write(self.unreadable) as listed, open(listed, "w", newline="", encoding="utf-8") as file, atomic_write(self.out) as table:
            write_cause = row_writer(file)
            write_cause(["path", "cause"])
            with table_writer(table, self._top, self.out.suffix) as write:
                for number in range(num_parts):
                    content = self._read(number)
                    write([ScanRow(*row) for row in content["rows"]])
                    for row in content["bad"]:
                        write_cause(row)
                    states.append(content["files"])
                    num_videos, num_bad, num_rows = num_videos + content["num_videos"], num_bad + len(content["bad"]), num_rows + len(content["rows"])
                    counts = [a + b for a, b in zip(counts, content["counts"])] if counts else content["counts"]
            file.flush()
        totals = Totals(num_videos, num_bad, num_rows, counts)
        write_json(self.record, {"request": request, "chosen": chosen, "totals": totals._asdict(), "files": fingerprint(states)})
        # First what says that the scan goes on: who is killed now has finished.
        self._settings.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)
        return totals

    def check_unchanged(self, states: Mapping[int, States]) -> None:
        """ValueError where the videos of a finished scan have changed since. states: as of `done`, of all parts."""
        if read_json(self.record).get("files") != fingerprint([states[number] for number in sorted(states)]):
            raise ValueError(f"videos of '{self.out}' have changed since they were scanned, or have come or gone: scan them again (--anew), or name another --out")

    def totals(self) -> Totals:
        """Of a finished scan."""
        return Totals(**read_json(self.record)["totals"])

    def bad(self) -> Iterator[VideoError]:
        """What a finished scan could not read."""
        with open(self.unreadable, newline="", encoding="utf-8") as file:
            yield from (VideoError(row["path"], row["cause"]) for row in csv.DictReader(file))

    def _part(self, number: int) -> Path:
        return self.parts / f"part-{number:06d}.json"

    def _read(self, number: int) -> dict[str, Any]:
        return read_json(self._part(number))

    def _numbers(self) -> list[int]:
        names = (re.fullmatch(r"part-(\d{6,})\.json", path.name) for path in self.parts.glob("part-*.json"))
        return sorted(int(match[1]) for match in names if match)


def write_parts(
    files: ScanFiles,
    parts: Sequence[Sequence[str]],
    share: ShareOfParts,
    scan: Callable[[Sequence[Sequence[str]]], Iterator[tuple[int, ShardTable]]],
) -> None:
    """Scan the parts of a share that are not written yet, each kept when it is finished, with a progress bar.

    scan: gives (place in what it was given, table) as they are finished, such as `Scanner.scan_as_ready`.
    """
    wanted = [number for number in range(len(parts)) if share.takes(number)]
    # Before anything is read: what changes from now on is known as changed.
    states = states_of(parts, wanted)
    done = files.done(states)
    left = [number for number in wanted if number not in done]
    total = sum(len(parts[number]) for number in wanted)
    with progress_bar(range(total), "scan", total, sum(done.values()), unit="video") as bar:
        for place, table in scan([parts[number] for number in left]):
            files.write_part(left[place], table, states[left[place]])
            bar.update(table.num_videos)


def states_of(parts: Sequence[Sequence[str]], numbers: Sequence[int]) -> dict[int, States]:
    """{number: the present states of its videos} of some of the parts."""
    found = iter(stat_files([path for number in numbers for path in parts[number]]).tolist())
    return {number: list(islice(found, len(parts[number]))) for number in numbers}
