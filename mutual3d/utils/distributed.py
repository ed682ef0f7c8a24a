"""One process or many, without the caller having to know: rank, world size, gathering. Processes come from torchrun."""

import contextlib
import datetime
import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist


# Ranks wait for each other while one of them measures latency or decodes a slow video.
_PATIENCE = datetime.timedelta(hours=12)


Value = TypeVar("Value")


class ProcessesDisagreeError(RuntimeError):
    """Processes of one run see different files."""


class MainProcessError(RuntimeError):
    """What the main process was to do for all of them failed there."""


def is_distributed():
    return dist.is_available() and dist.is_initialized()


def rank():
    return dist.get_rank() if is_distributed() else 0


def world_size():
    return dist.get_world_size() if is_distributed() else 1


def is_main():
    """Whether this process writes the files."""
    return rank() == 0


def choose_device(num_gpus):
    """cpu when `num_gpus` is 0 or there is no GPU; otherwise this process's GPU."""
    if num_gpus == 0 or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


@contextlib.contextmanager
def process_group(device, backend="nccl"):
    """Join the processes that torchrun started, for the length of the block; does nothing without torchrun."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather(value):
    """`value` of every process, in order of rank, on every process. Any object that pickles."""
    if not is_distributed():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_process(condition, device):
    """Whether `condition` holds on any process: all of them learn it, so that all act alike."""
    if not is_distributed():
        return bool(condition)
    flag = torch.tensor(float(bool(condition)), device=device)
    dist.all_reduce(flag)
    return flag.item() > 0


def agree(value, what):
    """`value`, if it is the same on every process; RuntimeError on all of them otherwise."""
    values = gather(value)
    if any(other != value for other in values):
        raise ProcessesDisagreeError(f"{what} differs between processes ({values}): OUTPUT_DIR must be one shared directory")
    return value


def from_main(function: Callable[[], Value]) -> Value:
    """What `function` gives on the main process, on every process; where it raises there, every process raises.

    For what the others could not do alike, or need not do again: looking at the files of a network disk, for instance.
    """
    if not is_distributed():
        return function()
    error, outcome = None, [None, None]
    if is_main():
        try:
            outcome = [function(), None]
        except Exception as raised:
            error, outcome = raised, [None, f"{type(raised).__name__}: {raised}"]
    dist.broadcast_object_list(outcome, src=0)
    value, words = outcome
    if words is not None:
        raise error or MainProcessError(f"the main process failed: {words}")
    return value


def average_gradients(module):
    """The mean over processes of each gradient of a module that DistributedDataParallel does not wrap."""
    for parameter in module.parameters() if is_distributed() else ():
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


def barrier():
    """Wait until every process is here."""
    if is_distributed():
        dist.barrier()


def broadcast_buffers(module):
    """Give every process the main process's buffers (running statistics drift apart in training)."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
