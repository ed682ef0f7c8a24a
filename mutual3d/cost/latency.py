"""What a configuration costs in time, by measuring."""

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from mutual3d.cost.flops import whole_picture
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.sampling import Configuration, prepare_clip

Key = TypeVar("Key")
# Where the middle half of the calls is spread over more than this share of the median, something else had the machine.
NOISY = 0.2
# Rounds that are timed in any case.
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """What calls took: the 50th, 90th and 99th percentile in milliseconds, and how many were timed.

    spread: the distance between the quartiles, as a share of the median.
    """

    p50: float
    p90: float
    p99: float
    spread: float
    repeats: int

    @classmethod
    def of(cls, times: Sequence[float]) -> "Timing":
        """Of the milliseconds of each call, at least one."""
        first, p50, third, p90, p99 = np.percentile(times, [25, 50, 75, 90, 99]).tolist()
        return cls(p50, p90, p99, (third - first) / p50 if p50 else 0.0, len(times))

    @property
    def is_noisy(self) -> bool:
        return self.spread > NOISY


@dataclass(frozen=True)
class Repeating:
    """How often calls are timed.

    repeats: rounds in which each is timed once. warmup: untimed rounds before. attempts: how often what is noisy is timed in
    all; the quietest attempt counts. seconds: of an attempt, after which no further round begins; three are timed in any case.
    clock: gives seconds.
    """

    repeats: int = 20
    warmup: int = 2
    seconds: float = math.inf
    attempts: int = 3
    clock: Callable[[], float] = field(default=time.perf_counter, compare=False)


def time_in_turns(
    groups: Sequence[Mapping[Key, Callable[[], object]]], device: torch.device, how: Repeating = Repeating()
) -> dict[Key, Timing]:
    """{key: Timing} of functions, each called once in every round, so that drift meets all alike; the noisy ones again.

    Every function sets up what it needs outside the clock by returning the function that is timed. Functions of one group
    share what a switch to another group disturbs, such as the threads of a runtime: before a group is timed its first
    function runs once more, untimed.
    """
    found: dict[Key, Timing] = {}
    left = [dict(group) for group in groups if group]
    for _ in range(how.attempts):
        for key, times in _time_rounds(left, device, how).items():
            timing = Timing.of(times)
            if key not in found or timing.spread < found[key].spread:
                found[key] = timing
        left = [{key: run for key, run in group.items() if found[key].is_noisy} for group in left]
        left = [group for group in left if group]
        if not left:
            break
    return found


def _time_rounds(
    groups: Sequence[Mapping[Key, Callable[[], object]]], device: torch.device, how: Repeating
) -> dict[Key, list[float]]:
    times: dict[Key, list[float]] = {key: [] for group in groups for key in group}
    start = how.clock()
    for number in range(how.warmup + how.repeats):
        timed = number - how.warmup
        if timed >= _LEAST_ROUNDS and how.clock() - start > how.seconds:
            break
        for group in groups:
            if len(groups) > 1:
                _time(next(iter(group.values()))(), device, how.clock)
            for key, prepare in group.items():
                elapsed = _time(prepare(), device, how.clock)
                if timed >= 0:
                    times[key].append(elapsed)
    return times


def measure_latency(
    runs: Mapping[Key, Callable[[], object]], device: torch.device, *, repeats: int = 10, warmup: int = 1
) -> dict[Key, float]:
    """{key: median milliseconds of one call} of each function in `runs`, in turns, so that noise meets all alike.

    Every function sets up what it needs outside the clock by returning the function that is timed.
    """
    times = _time_rounds([runs], device, Repeating(repeats, warmup))
    return {key: statistics.median(values) for key, values in times.items()}


def _time(run: Any, device: torch.device, clock: Callable[[], float]) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else _nothing
    synchronize(device)
    start = clock()
    run()
    synchronize(device)
    return 1000 * (clock() - start)


def _nothing(device: torch.device) -> None:
    """A CPU finishes before it returns."""


@contextlib.contextmanager
def evaluation_mode(model: Any) -> Iterator[Any]:
    """`model.eval()` without gradients; mode and active configuration come back afterwards."""
    was_training, was_active = model.training, model.active
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)
        model.activate(was_active)


def measure_latencies(
    model: Any,
    configurations: Sequence[Configuration],
    crop: int,
    device: torch.device,
    *,
    repeats: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, dict[Configuration, float]]:
    """{device key: {configuration: median ms}} of one clip, from the uint8 clip at full size to the logits."""
    clip = torch.randint(0, 256, (1, model.in_channels, model.clip_frames, crop, crop), dtype=torch.uint8)
    model = copy.deepcopy(model).place(device)
    inputs = whole_picture(model, device)

    def runner(configuration: Configuration) -> Callable[[], Callable[[], object]]:
        def prepare_run() -> Callable[[], object]:
            model.activate(configuration)
            return lambda: model(model.fit_clip(prepare_clip(clip, device, mean, std, memory_format=model.memory_format)), *inputs)

        return prepare_run

    with evaluation_mode(model):
        runs = {c: runner(c) for c in configurations}
        return {str(LatencyKey.here(device)): measure_latency(runs, device, repeats=repeats)}
