"""Where the time of a training step goes: its parts in milliseconds, and a trace of a few steps."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from mutual3d.sampling import Configuration
from mutual3d.utils.files import atomic_write
from mutual3d.utils.logging import logger


class StepParts:
    """What a step and its loop tell of their parts; this one makes nothing of it."""

    def part(self, name: str, place: int = 0, configuration: Configuration | None = None) -> AbstractContextManager:
        """Open while a part of a step goes on.

        name: what is done, in words. place, configuration: of the network that it is done with, where it is one of several.
        """
        return contextlib.nullcontext()

    def step_done(self, waited: float, seconds: float) -> None:
        """A step is over. waited: the seconds of it in which data were waited for. seconds: all of it."""

    def close(self) -> None:
        """Tell what there is; no step follows."""


class StepProfile(StepParts):
    """Times the parts of some steps after a few that warm up, traces some more, and says where the time goes.

    On a GPU the timed steps wait for it at the end of every part, which is then what it takes alone; the traced ones do not. No
    result of the training changes.
    """

    def __init__(self, path: Path, device: torch.device, *, warmup: int = 3, timed: int = 8, traced: int = 3) -> None:
        """path: the trace's file, for chrome://tracing or ui.perfetto.dev. warmup, timed, traced: numbers of steps."""
        self.path, self.device = path, device
        self._first_timed, self._first_traced, self._end = warmup, warmup + timed, warmup + timed + traced
        self._step, self._is_told = 0, False
        self._seconds: dict[tuple[str, int], float] = {}
        self._steps: list[dict[tuple[str, int], float]] = []
        self._networks: dict[int, list[str]] = {}
        self._profiler: profile | None = None

    @contextlib.contextmanager
    def part(self, name: str, place: int = 0, configuration: Configuration | None = None) -> Iterator[None]:
        """Time the part, or name it in the trace. name, place, configuration: as of `StepParts`."""
        if configuration is not None:
            seen = self._networks.setdefault(place, [])
            if str(configuration) not in seen:
                seen.append(str(configuration))
        if self._profiler is not None:
            with record_function(f"{name} {configuration or ''}".strip()):
                yield
            return
        start = time.perf_counter()
        yield
        if self._first_timed <= self._step < self._first_traced:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds[name, place] = self._seconds.get((name, place), 0.0) + time.perf_counter() - start

    def step_done(self, waited: float, seconds: float) -> None:
        """A step is over; the trace begins, ends and is written here. waited, seconds: as of `StepParts`."""
        if self._first_timed <= self._step < self._first_traced:
            rest = seconds - waited - sum(self._seconds.values())
            self._steps.append({("waiting for data", 0): waited, **self._seconds, ("the rest", 0): rest})
        self._seconds = {}
        self._step += 1
        if self._step == self._first_traced:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
            self._profiler = profile(activities=activities)
            self._profiler.start()
        elif self._step == self._end:
            self.close()

    def close(self) -> None:
        """Write the trace and say where the time goes, once, of as many steps as there were."""
        if self._is_told:
            return
        self._is_told = True
        exchange = None
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            profiler.stop()
            exchange = _seconds_of_exchange(profiler) / max(1, self._step - self._first_traced)
            with atomic_write(self.path) as temporary:
                profiler.export_chrome_trace(str(temporary))
        if not self._steps:
            logger.warning("--profile has nothing to tell: training had %d steps, of which the first %d only warm up", self._step, self._first_timed)
            return
        logger.info("a training step by part, medians of %d steps:\n%s", len(self._steps), "\n".join(self._lines(exchange)))
        if exchange is not None:
            logger.info("a trace of %d steps: '%s' (open it at chrome://tracing or ui.perfetto.dev)", self._step - self._first_traced, self.path)

    def _lines(self, exchange: float | None) -> list[str]:
        keys = list(dict.fromkeys(key for step in self._steps for key in step))
        medians = {key: statistics.median(step.get(key, 0.0) for step in self._steps) for key in keys}
        total = statistics.median(sum(step.values()) for step in self._steps)
        lines = [
            f"  {1000 * seconds:9.2f} ms {100 * seconds / total:5.1f} %  {self._label(*key)}" for key, seconds in medians.items()
        ]
        lines.append(f"  {1000 * total:9.2f} ms          all of it")
        if exchange:
            lines.append(f"  {1000 * exchange:9.2f} ms          of the traced steps' exchange with other processes, in part during the last backward")
        return lines

    def _label(self, name: str, place: int) -> str:
        if not name.startswith(("forward", "backward")) or place not in self._networks:
            return name
        seen = self._networks[place]
        return f"{name}, {seen[0]}" if len(seen) == 1 else f"{name}, a network of its own each step, such as {seen[0]}"


def _seconds_of_exchange(profiler: profile) -> float:
    events = [event for event in profiler.key_averages() if event.key.startswith(("gloo:", "nccl:"))]
    return sum(max(event.cpu_time_total, event.device_time_total) for event in events) / 1e6
