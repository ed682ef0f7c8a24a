"""What a configuration costs: GFLOPs and parameters by counting, latency by measuring."""

import contextlib
import platform
import statistics
import time
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """gflops: multiply-adds of convolutions and linears, in 1e9, of one view. parameters: of the sub-network."""

    gflops: float
    parameters: int


def count_cost(network, *inputs):
    """The Cost of a module called with tensors on the meta device, counted without computing anything.

    The module is one of ordinary layers, on the meta device (`model.to("meta").subnetwork(c)`): torch's counter knows
    convolutions and matrix products and counts two for each multiply-add, batch norm none.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(*inputs)
    return Cost(counter.get_total_flops() / 2e9, sum(p.numel() for p in network.parameters()))


def measure_latency(runs, device, *, repeats=10, warmup=1):
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


def latency_key(device, *, dtype="fp32", batch=1):
    """How a table names what a latency was measured on: `cpu-fp32-b1-t2`."""
    threads = f"-t{torch.get_num_threads()}" if device.type == "cpu" else ""
    name = str(device) if device.type == "cuda" else device.type
    return f"{name}-{dtype}-b{batch}{threads}"


def device_name(device):
    """What a device calls itself, for the record of a measurement."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def evaluation_mode(model):
    """`model.eval()` without gradients; mode and active configuration come back afterwards."""
    was_training, was_active = model.training, model.active
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)
        model.activate(was_active)
