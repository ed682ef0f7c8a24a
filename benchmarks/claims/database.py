"""The database of results: a row a run, in SQLite."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .plan import Run

PATH = Path(__file__).parent / "results.sqlite"
COLUMNS = {
    "key": "TEXT PRIMARY KEY", "config": "TEXT", "data": "TEXT", "epochs": "INTEGER", "seed": "INTEGER", "changes": "TEXT",
    "starts_from": "TEXT", "command": "TEXT", "code": "TEXT", "finished": "TEXT", "cpu_seconds": "REAL", "training_gflops": "REAL",
    "num_parameters": "INTEGER", "num_videos": "INTEGER", "machine": "TEXT", "rows": "TEXT",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What one run gave.

    Args:
        key: of its Run.
        command: what was run, without the folders of this machine.
        code: the version of the code, as git names it.
        finished: the day.
        cpu_seconds: of all its processes.
        training_gflops: multiply-adds (1e9) of the forward passes of its training; a backward pass is about twice as much again.
        num_videos: that its rows were measured on.
        rows: {configuration: {"gflops": ..., each number of its metric: ...}}.
    """

    key: str
    command: str
    code: str
    finished: str
    cpu_seconds: float
    training_gflops: float
    num_parameters: int
    num_videos: int
    machine: str
    rows: dict[str, dict[str, float]]


class Database:
    """The rows of a file, which is made where there is none."""

    def __init__(self, path: Path = PATH) -> None:
        self.path = path
        self._connection = sqlite3.connect(path, timeout=60)
        self._connection.row_factory = sqlite3.Row
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        with self._connection:
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")

    def __contains__(self, run: Run) -> bool:
        return self._connection.execute("SELECT 1 FROM runs WHERE key = ?", (run.key,)).fetchone() is not None

    def add(self, run: Run, result: Result) -> None:
        """Keep what a run gave, in one transaction."""
        values: dict[str, Any] = {
            **vars(result), "config": run.method.config, "data": run.data, "epochs": run.epochs, "seed": run.seed,
            "changes": json.dumps({name: str(value) for name, value in run.changes.items()}),
            "starts_from": json.dumps({name: other.key for name, other in run.starts_from.items()}), "rows": json.dumps(result.rows),
        }  # fmt: skip
        with self._connection:
            places = ", ".join("?" for _ in COLUMNS)
            self._connection.execute(f"INSERT OR REPLACE INTO runs ({', '.join(COLUMNS)}) VALUES ({places})", [values[name] for name in COLUMNS])

    def result(self, run: Run) -> Result | None:
        """What a run gave; None where it has not been run."""
        row = self._connection.execute("SELECT * FROM runs WHERE key = ?", (run.key,)).fetchone()
        if row is None:
            return None
        names = Result.__dataclass_fields__
        return Result(**{**{name: row[name] for name in names}, "rows": json.loads(row["rows"])})

    def results(self, runs: Iterable[Run]) -> list[tuple[Run, Result]]:
        """The runs that have been run, with what they gave."""
        found = ((run, self.result(run)) for run in runs)
        return [(run, result) for run, result in found if result is not None]

    def totals(self) -> tuple[int, float, float]:
        """How many runs there are, hours of CPU time, and multiply-adds (1e15) of their trainings' forward passes."""
        count, seconds, gflops = self._connection.execute("SELECT COUNT(*), TOTAL(cpu_seconds), TOTAL(training_gflops) FROM runs").fetchone()
        return count, seconds / 3600, gflops / 1e6
