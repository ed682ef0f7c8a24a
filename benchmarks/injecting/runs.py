"""Real runs of `mutual3d run` on a tiny set, each in a process forked from one that has imported everything."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import ROOT

from mutual3d.cli.run import main as run_net
from mutual3d.data.prepare.demo import make_demo
from mutual3d.utils.command_line import run_command
from mutual3d.utils.files import load_tensors

from .patches import kill_when_written

SETTINGS = {
    "RNG_SEED": 3, "NUM_GPUS": 0, "DATA_LOADER.NUM_WORKERS": 0, "MODEL.MODEL_NAME": "X3D", "MODEL.NUM_CLASSES": 8,
    "MODEL.DROPOUT_RATE": 0.1, "X3D.WIDTH_FACTOR": 1.0, "X3D.DEPTH_FACTOR": 0.5, "X3D.BOTTLENECK_FACTOR": 2.25,
    "X3D.DIM_C5": 32, "DATA.NUM_FRAMES": 4, "DATA.SAMPLING_RATE": 2, "DATA.TRAIN_JITTER_SCALES": [24, 28],
    "DATA.TRAIN_CROP_SIZE": 24, "DATA.TEST_CROP_SIZE": 24, "MUTUAL.ENABLE": True, "MUTUAL.WIDTH_RANGE": [0.5, 1.0],
    "MUTUAL.SPATIAL_SIZES": [16, 24], "MUTUAL.TEMPORAL_SIZES": [4], "TRAIN.BATCH_SIZE": 4, "TRAIN.CHECKPOINT_PERIOD": 1,
    "TEST.BATCH_SIZE": 4, "TEST.NUM_ENSEMBLE_VIEWS": 2, "TEST.NUM_SPATIAL_CROPS": 1, "SOLVER.MAX_EPOCH": 2,
    "SOLVER.BASE_LR": 0.05, "CALIBRATION.NUM_CLIPS": 8, "CALIBRATION.BATCH_SIZE": 4, "GRID.WIDTH_STEP": 0.5,
    "GRID.LATENCY_DEVICES": [], "PARTIAL_SAVE_SECONDS": 0,
}  # fmt: skip


def fresh_environment(changes: dict[str, str] | None = None) -> dict[str, str]:
    """Of a new interpreter: this copy of the project, and one thread, for small networks on a busy machine."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(changes or {})}


class NotSurvived(Exception):
    """What a run did wrong, in words."""


class Outcome(NamedTuple):
    """How a run ended: its exit status (negative: the signal; None: it was still running at the limit) and its output."""

    status: int | None
    text: str
    seconds: float = 0.0

    @property
    def last_lines(self) -> str:
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return " | ".join(lines[-2:])[:300] or "no output"


class Workshop:
    """A folder with the tiny set, and runs that are told apart by their output directories."""

    def __init__(self, directory: Path, seed: int = 0):
        self.directory, self.seed = directory, seed
        self.random = random.Random(seed)
        self.data = make_demo(directory / "data", num_train=12, num_val=8, num_test=8, num_workers=1)
        self.config = directory / "tiny.yaml"
        self.config.write_text("OUTPUT_DIR: out\n")
        self.number = 0
        self._whole: dict[str, Path] = {}

    # ---- Directories ----

    def new(self, name: str) -> Path:
        """A path in the workshop that nothing has used."""
        self.number += 1
        return self.directory / f"{self.number:04d}-{name}"

    def copy(self, source: Path) -> Path:
        target = self.new(source.name[5:])
        shutil.copytree(source, target)
        return target

    def other_data(self, *splits: str) -> Path:
        """A copy of the set in which the videos of `splits` are others, under the same names."""
        target = self.copy(self.data)
        other = self.directory / "other"
        make_demo(other, num_train=12, num_val=8, num_test=8, seed=1, num_workers=1)
        for split in splits:
            shutil.rmtree(target / split)
            shutil.copytree(other / split, target / split)
        return target

    # ---- Runs ----

    def words(self, output: Path, settings: dict[str, Any] | None = None) -> list[str]:
        """The arguments of `mutual3d run`."""
        values = {"DATA.PATH_TO_DATA_DIR": self.data, "OUTPUT_DIR": output, **SETTINGS, **(settings or {})}
        return ["--cfg", str(self.config), *(str(word) for pair in values.items() for word in pair)]

    def start(
        self, output: Path, settings: dict | None = None, fault: Callable[[], None] | None = None,
        main: Callable[[list[str]], Any] = run_net, words: list[str] | None = None,
    ) -> "ForkedRun":  # fmt: skip
        """Fork a run; `fault` is called in it before it begins."""
        return ForkedRun(main, words or self.words(output, settings), self.new("log"), fault)

    def run(self, output: Path, settings: dict | None = None, fault: Callable[[], None] | None = None, seconds: float = 60) -> Outcome:
        return self.start(output, settings, fault).wait(seconds)

    def fresh(self, output: Path, settings: dict | None = None, *, env: dict | None = None, seconds: float = 120, **streams: Any) -> Outcome:
        """A run in a new interpreter; `streams` as subprocess.Popen takes them (by default joined and kept)."""
        command = [sys.executable, "-m", "mutual3d", "run", *self.words(output, settings)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams}
        process = subprocess.Popen(command, env=fresh_environment(env), **streams)
        try:
            text = process.communicate(timeout=seconds)[0] or b""
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Outcome(None, "")
        return Outcome(process.returncode, text.decode(errors="replace"))

    def whole(self, settings: dict | None = None, fault: Callable[[], None] | None = None) -> Path:
        """The output of an undisturbed run with these settings and this fault, made once."""
        key = f"{settings} {fault and fault.__qualname__}"
        if key not in self._whole:
            output = self.new("whole")
            outcome = self.run(output, settings, fault)
            if outcome.status != 0:
                raise NotSurvived(f"the run to compare with ends with {outcome.status}: {outcome.last_lines}")
            self._whole[key] = output
        return self._whole[key]

    def killed_when_written(self, name: str) -> Path:
        """What a run leaves that is killed just after the first file whose name begins with `name` is in its place."""
        if name not in self._whole:
            output = self.new("killed")
            self.run(output, fault=kill_when_written(name))
            self._whole[name] = output
        return self._whole[name]

    # ---- What is expected ----

    def finished(self, outcome: Outcome, output: Path, whole: Path) -> str:
        """The run ended well, with the results of `whole`."""
        if outcome.status is None:
            raise NotSurvived("it hangs")
        _no_traceback(outcome)
        if outcome.status != 0:
            raise NotSurvived(f"exit status {outcome.status}: {outcome.last_lines}")
        different = compare(output, whole)
        if different:
            raise NotSurvived(f"exit status 0, and different: {', '.join(different)}")
        return "finished"

    def refused(self, outcome: Outcome, *words: str) -> str:
        """The run was refused in a sentence that holds one of `words`."""
        if outcome.status is None:
            raise NotSurvived("it hangs")
        _no_traceback(outcome)
        if outcome.status == 0:
            raise NotSurvived("it ends with status 0, and should not")
        if outcome.status < 0:
            raise NotSurvived(f"killed by {signal.Signals(-outcome.status).name}: {outcome.last_lines}")
        if words and not any(word in outcome.text for word in words):
            raise NotSurvived(f"the message names none of {', '.join(words)}: {outcome.last_lines}")
        return "refused"

    def finished_or_refused(self, outcome: Outcome, output: Path, whole: Path, *words: str) -> str:
        return self.finished(outcome, output, whole) if outcome.status == 0 else self.refused(outcome, *words)

    def goes_on(self, output: Path, whole: Path, settings: dict | None = None) -> str:
        """The same command, undisturbed, ends with the results of `whole`."""
        return self.finished(self.run(output, settings), output, whole)


def _no_traceback(outcome: Outcome) -> None:
    if "Traceback (most recent call last)" in outcome.text:
        raise NotSurvived(f"a traceback: {outcome.last_lines}")


class ForkedRun:
    """A run in a forked process, which leads a session of its own."""

    def __init__(self, main: Callable[[list[str]], Any], words: list[str], log: Path, fault: Callable[[], None] | None):
        self.log, self.began = log, time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _live(main, words, log, fault)
        self.status: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, seconds: float = 60) -> Outcome:
        """How it ended; it is killed after `seconds`, and so is what it left running."""
        while self.poll() is None and time.monotonic() - self.began < seconds:
            time.sleep(0.01)
        took, status = time.monotonic() - self.began, self.status
        self.kill()
        return Outcome(status, self.log.read_text(errors="replace"), took)

    def wait_for(self, text: str, seconds: float = 60) -> bool:
        """Whether the run printed `text` before it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.log.is_file() and text in self.log.read_text(errors="replace"):
                return True
            if self.poll() is not None:
                return False
            time.sleep(0.01)
        return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the run and its workers."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass
        while self.poll() is None:
            time.sleep(0.01)


def _live(main: Callable[[list[str]], Any], words: list[str], log: Path, fault: Callable[[], None] | None) -> None:
    """The life of a forked run; does not return."""
    status = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        if fault is not None:
            fault()
        run_command(lambda: main(words))
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            status = status or 120  # as the interpreter ends when standard output cannot be flushed
        os._exit(status)


# ---- Results ---------------------------------------------------------------------------------------------------------

def compare(output: Path, whole: Path) -> list[str]:
    """What differs between the results of two output directories, in words; nothing where they are equal to the bit."""
    different = []
    for name, read in RESULTS_OF_A_RUN.items():
        try:
            wanted = read(whole)
            if not equal(read(output), wanted):
                different.append(name)
        except Exception as error:
            different.append(f"{name} ({type(error).__name__}: {error})")
    wanted, there = _names(whole), _names(output)
    different += [f"{name} is missing" for name in sorted(wanted - there) if not (output / name).is_dir()]
    different += [f"{name} is left over" for name in sorted(there - wanted) if name.startswith((".", "checkpoints/."))]
    return different


def equal(a: Any, b: Any) -> bool:
    """Nested containers of tensors, equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def _names(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}


def _checkpoint(output: Path) -> Any:
    state = load_tensors(max((output / "checkpoints").glob("checkpoint_epoch_*.pyth")))
    return state["epoch"], state["model_state"], state["optimizer_state"]


def _table(output: Path) -> Any:
    return json.loads((output / "query_table.json").read_text())["rows"]


def _bundle(output: Path) -> Any:
    content = load_tensors(output / "adaptive.pyth")
    return content["model_state"], content["statistics"]


def _page(output: Path) -> Any:
    text = (output / "report.html").read_text(encoding="utf-8")
    return text.startswith("<!") and "</html>" in text and len(text) > 1000


RESULTS_OF_A_RUN: dict[str, Callable[[Path], Any]] = {
    "weights": _checkpoint,
    "statistics": lambda output: load_tensors(output / "statistics.pyth")["statistics"],
    "query_table.json": _table,
    "query_table.csv": lambda output: (output / "query_table.csv").read_bytes(),
    "accuracy_vs_gflops.png": lambda output: (output / "accuracy_vs_gflops.png").read_bytes(),
    "report.html": _page,
    "adaptive.pyth": _bundle,
    "test_results.json": lambda output: json.loads((output / "test_results.json").read_text()),
}
