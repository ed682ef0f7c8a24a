"""What a configuration costs in time, by measuring."""

import contextlib
import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch

from mutual3d.cost.flops import whole_picture
from mutual3d.sampling import Configuration, prepare_clip

Key = TypeVar("Key")


def measure_latency(
    runs: Mapping[Key, Callable[[], object]], device: torch.device, *, repeats: int = 10, warmup: int = 1
) -> dict[Key, float]:
    """{key: median milliseconds of one call} of each function in `runs`, in turns, so that noise meets all alike.

    Every function sets up what it needs outside the clock by returning the function that is timed.
    """
    times = {key: [] for key in runs}
    for repeat in range(warmup + repeats):
        for key, prepare in runs.items():
            elapsed = _time(prepare(), device)
            if repeat >= warmup:
                times[key].append(elapsed)
    return {key: statistics.median(values) for key, values in times.items()}


def _time(run, device):
    synchronize = torch.cuda.synchronize if device.type == "cuda" else _nothing
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return 1000 * (time.perf_counter() - start)


def _nothing(device):
    """A CPU finishes before it returns."""


def latency_key(device: torch.device, *, dtype: str = "fp32", batch: int = 1) -> str:
    """How a table names what a latency was measured on: `cpu-fp32-b1-t2`."""
    threads = f"-t{torch.get_num_threads()}" if device.type == "cpu" else ""
    name = str(device) if device.type == "cuda" else device.type
    return f"{name}-{dtype}-b{batch}{threads}"


def device_name(device: torch.device) -> str:
    """What a device calls itself, for the record of a measurement."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


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
    clip = torch.randint(0, 256, (1, 3, model.clip_frames, crop, crop), dtype=torch.uint8)
    model = copy.deepcopy(model).place(device)
    inputs = whole_picture(model, device)

    def runner(configuration):
        def prepare_run():
            model.activate(configuration)
            return lambda: model(model.fit_clip(prepare_clip(clip, device, mean, std)), *inputs)

        return prepare_run

    with evaluation_mode(model):
        runs = {c: runner(c) for c in configurations}
        return {latency_key(device): measure_latency(runs, device, repeats=repeats)}
