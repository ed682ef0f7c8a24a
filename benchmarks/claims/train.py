"""Train what the database has no results of, one run after another or a few beside each other, until the minutes are spent."""

import fcntl
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import BinaryIO

import torch

from benchmarks.common import ROOT
from mutual3d.cost.complexity import counted_step_cost
from mutual3d.data.build import build_dataset
from mutual3d.models.build import build_model
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import atomic_write, read_json

from .database import Database, Result
from .plan import Run

TABLE = "query_table.json"
# What the processes of a run have spent, over all times that it was started.
SPENT = "cpu_seconds.json"
# Held by the trainer that a folder's process belongs to, so that another one on the same folders goes on with other runs.
LOCK = "trainer.lock"
# A run that is told to stop keeps its checkpoint first.
PATIENCE_SECONDS = 120.0


@dataclass
class _Process:
    run: Run
    folder: Path
    process: subprocess.Popen[bytes]
    lock: BinaryIO


class Trainer:
    """Runs as processes of one thread each.

    Args:
        database: gets what they give.
        folders: a folder a run, named after its key; what was stopped is resumed from there. Trainers that share it share the work.
        data: {name of a set: its folder}.
        jobs: how many run at a time.
    """

    def __init__(self, database: Database, folders: Path, data: dict[str, Path], jobs: int = 1) -> None:
        self.database, self.folders, self.data, self.jobs = database, folders, data, jobs
        self.failed: list[str] = []
        self._going: list[_Process] = []
        self._is_stopping = False

    def train(self, runs: Sequence[Run], minutes: float) -> int:
        """Train what is not in the database. Gives how many of `runs` are left, those that failed among them."""
        self._is_stopping, deadline = False, time.monotonic() + 60 * minutes
        waiting = list(self._missing(runs))
        for run in waiting:
            if run.data is not None and run.data not in self.data:
                raise ValueError(f"the plan {run.plan} needs the folder of {run.data!r}: --data {run.data}=FOLDER")
        try:
            while (waiting or self._going) and time.monotonic() < deadline:
                for run in list(waiting):
                    if run in self.database and not self._is_needed_here(run, waiting):
                        waiting.remove(run)  # another trainer has done it meanwhile
                    elif len(self._going) < self.jobs and self._is_ready(run) and (lock := self._locked(run)):
                        waiting.remove(run)
                        self._start(run, lock, f"{len(waiting)} more wait")
                if not self._going:
                    break  # all is done, or what waits starts from what failed or is another trainer's
                self._collect()
                time.sleep(0.5)
        finally:
            self._stop()
        return sum(run not in self.database for run in runs)

    def _missing(self, runs: Sequence[Run]) -> Iterator[Run]:
        """Runs without a result, each once, behind what it starts from where that has no folder here."""
        seen = set()
        for run in runs:
            for needed in self._with_starts(run) if run not in self.database else ():
                if needed.key not in seen:
                    seen.add(needed.key)
                    yield needed

    def _with_starts(self, run: Run) -> Iterator[Run]:
        for other in run.starts_from.values():
            if not self._is_done_here(other):
                yield from self._with_starts(other)
        yield run

    def _is_done_here(self, run: Run) -> bool:
        """Whether others may start from its folder: a process writes the table before the network."""
        return run in self.database and (self.folders / run.key / TABLE).is_file()

    def _is_ready(self, run: Run) -> bool:
        return all(map(self._is_done_here, run.starts_from.values()))

    def _is_needed_here(self, run: Run, waiting: Sequence[Run]) -> bool:
        """Whether one of those that wait starts from its folder, which is not here."""
        return not self._is_done_here(run) and any(run.key == needed.key for other in waiting for needed in other.starts_from.values())

    def _locked(self, run: Run) -> BinaryIO | None:
        """The lock of a run's folder, held; None where another trainer holds it."""
        folder = self.folders / run.key
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _start(self, run: Run, lock: BinaryIO, more: str) -> None:
        folder = self.folders / run.key
        print(f"{time.strftime('%H:%M')} {run.plan}: {run.describe()} ({more})", flush=True)
        with open(folder / "output.txt", "ab") as output:
            process = subprocess.Popen(
                self._command(run), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        self._going.append(_Process(run, folder, process, lock))

    def _command(self, run: Run) -> list[str]:
        """The words of a run's process."""
        return [sys.executable, "-m", "mutual3d", *run.command(self.folders, self.data.get(run.data) if run.data else None)]

    def _collect(self) -> None:
        """Keep the results of the processes that have ended."""
        for going in list(self._going):
            pid, status, usage = os.wait4(going.process.pid, os.WNOHANG)
            if pid == 0:
                continue
            self._going.remove(going)
            going.process.returncode = os.waitstatus_to_exitcode(status)
            seconds = _add_spent(going.folder, usage.ru_utime + usage.ru_stime)
            if going.process.returncode == 0 and (going.folder / TABLE).is_file():
                self.database.add(going.run, self._result(going.run, going.folder, seconds))
            elif not self._is_stopping:  # ended by itself, and not by us
                self.failed.append(f"{going.run.describe()}: see {going.folder / 'output.txt'}")
                print(f"failed: {self.failed[-1]}", flush=True)
            going.lock.close()

    def _stop(self) -> None:
        """Let what runs keep its checkpoint and end."""
        self._is_stopping = True
        for going in self._going:
            # Past Popen, whose own would take in the status of one that has ended meanwhile, and `_collect` would wait for it in vain.
            os.kill(going.process.pid, signal.SIGTERM)
        end = time.monotonic() + PATIENCE_SECONDS
        while self._going and time.monotonic() < end:
            self._collect()
            time.sleep(0.2)
        for going in self._going:
            going.process.kill()
            going.process.wait()

    def _result(self, run: Run, folder: Path, seconds: float) -> Result:
        table = QueryTable.load(folder / TABLE)
        command = ["mutual3d", *run.command(Path("RUNS"), Path(run.data.upper()) if run.data else None)]
        return Result(
            key=run.key, command=shlex.join(command), code=_code_version(), finished=date.today().isoformat(), cpu_seconds=round(seconds, 1),
            training_gflops=round(training_gflops(folder / "config.yaml"), 3), num_parameters=max(row.parameters for row in table.rows),
            num_videos=int(table.provenance["num_videos"]), machine=f"{platform.machine()}, one thread, torch {torch.__version__}",
            rows={str(row.configuration): {"gflops": row.gflops, **{name: round(value, 4) for name, value in row.accuracy.items()}} for row in table.rows},
        )  # fmt: skip


def training_gflops(config: Path) -> float:
    """Multiply-adds (1e9) of all forward passes of a training, as expected over what its sampling rules draw; 0 of a run that only measures."""
    cfg = load_config(config, [])
    if not cfg.TRAIN.ENABLE:
        return 0.0
    model = build_model(cfg)
    clips = len(build_dataset(cfg, "train", "train"))
    crop, mutual = cfg.DATA.TRAIN_CROP_SIZE, cfg.MUTUAL
    if not mutual.ENABLE:
        return clips * cfg.SOLVER.MAX_EPOCH * counted_step_cost(model, [], crop)
    whole = counted_step_cost(model, mutual.SUBNETS, crop, largest=mutual.LARGEST)
    first = min(mutual.SUBNETS_START_EPOCH, cfg.SOLVER.MAX_EPOCH) if mutual.LARGEST else 0.0
    alone = counted_step_cost(model, [], crop) if first else 0.0
    return clips * (first * alone + (cfg.SOLVER.MAX_EPOCH - first) * whole)


def _add_spent(folder: Path, seconds: float) -> float:
    path = folder / SPENT
    total = seconds + (read_json(path)["seconds"] if path.is_file() else 0.0)
    with atomic_write(path) as temporary:
        Path(temporary).write_text(json.dumps({"seconds": total}))
    return total


def _code_version() -> str:
    try:
        run = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # a machine without git
        return "unknown"
    return run.stdout.strip() or "unknown"
