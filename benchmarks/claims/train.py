"""Train what the database has no results of, one run after another or a few beside each other, until the minutes are spent."""

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
# A run that is told to stop keeps its checkpoint first.
PATIENCE_SECONDS = 120.0


@dataclass
class _Process:
    run: Run
    folder: Path
    process: subprocess.Popen[bytes]


class Trainer:
    """Runs as processes of one thread each.

    Args:
        database: gets what they give.
        folders: a folder a run, named after its key; what was stopped is resumed from there.
        data: {name of a set: its folder}.
        jobs: how many run at a time.
    """

    def __init__(self, database: Database, folders: Path, data: dict[str, Path], jobs: int = 1) -> None:
        self.database, self.folders, self.data, self.jobs = database, folders, data, jobs
        self.failed: list[str] = []
        self._going: list[_Process] = []

    def train(self, runs: Sequence[Run], minutes: float) -> int:
        """Train what is not in the database. Gives how many runs are left, those that failed among them."""
        deadline = time.monotonic() + 60 * minutes
        waiting = list(self._missing(runs))
        for run in waiting:
            if run.data is not None and run.data not in self.data:
                raise ValueError(f"the plan {run.plan} needs the folder of {run.data!r}: --data {run.data}=FOLDER")
        try:
            while (waiting or self._going) and time.monotonic() < deadline:
                while len(self._going) < self.jobs and (ready := next((run for run in waiting if self._is_ready(run)), None)):
                    waiting.remove(ready)
                    self._start(ready, f"{len(waiting)} more wait")
                if not self._going:
                    break  # what waits starts from what failed
                self._collect()
                time.sleep(0.5)
        finally:
            self._stop()
        return len(list(self._missing(runs)))

    def _missing(self, runs: Sequence[Run]) -> Iterator[Run]:
        """Runs without a result, each behind what it starts from where that has no folder here."""
        seen = set()
        for run in runs:
            if run in self.database:
                continue
            for needed in [*(other for other in run.starts_from.values() if not (self.folders / other.key / TABLE).is_file()), run]:
                if needed.key not in seen:
                    seen.add(needed.key)
                    yield needed

    def _is_ready(self, run: Run) -> bool:
        return all((self.folders / other.key / TABLE).is_file() for other in run.starts_from.values())

    def _start(self, run: Run, more: str) -> None:
        folder = self.folders / run.key
        folder.mkdir(parents=True, exist_ok=True)
        command = run.command(self.folders, self.data.get(run.data) if run.data else None)
        print(f"{time.strftime('%H:%M')} {run.plan}: {run.describe()} ({more})", flush=True)
        with open(folder / "output.txt", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mutual3d", *command], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        self._going.append(_Process(run, folder, process))

    def _collect(self) -> None:
        """Keep the results of the processes that have ended."""
        for going in list(self._going):
            pid, status, usage = os.wait4(going.process.pid, os.WNOHANG)
            if pid == 0:
                continue
            self._going.remove(going)
            going.process.returncode = os.waitstatus_to_exitcode(status)
            seconds = _add_spent(going.folder, usage.ru_utime + usage.ru_stime)
            if (going.folder / TABLE).is_file():
                self.database.add(going.run, self._result(going.run, going.folder, seconds))
            elif going.process.returncode != 0:
                self.failed.append(f"{going.run.describe()}: see {going.folder / 'output.txt'}")
                print(f"failed: {self.failed[-1]}", flush=True)

    def _stop(self) -> None:
        """Let what runs keep its checkpoint and end."""
        for going in self._going:
            going.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + PATIENCE_SECONDS
        failed = list(self.failed)
        while self._going and time.monotonic() < end:
            self._collect()
            time.sleep(0.2)
        self.failed = failed  # ended by us, and not by themselves
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
    """Multiply-adds (1e9) of all forward passes of a training, as expected over what its sampling rules draw."""
    cfg = load_config(config, [])
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
    run = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"
