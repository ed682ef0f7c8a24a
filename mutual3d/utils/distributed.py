"""One process or many, without the caller having to know: rank, world size, gathering. Processes come from torchrun."""

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from .peers import Peers, ProcessLostError
from .stopping import StopRequestedError, deferred, request_stop
from .stopping import stop_reason as own_stop_reason

logger = logging.getLogger("mutual3d")

# What one exchange of tensors may take. Processes that are not at the same place yet wait before it, in `Peers.meet`: as
# long as the others live, for instance while the first one measures latency.
_EXCHANGE = datetime.timedelta(minutes=15)

# The other processes, while a `process_group` is open.
_peers: Peers | None = None


Value = TypeVar("Value")


class ProcessesDisagreeError(RuntimeError):
    """Processes of one run see different files."""


class MainProcessError(RuntimeError):
    """What the main process was to do for all of them failed there."""


def is_distributed() -> bool:
    """Whether this process is one of several of a run."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process among those of the run, from 0; 0 for one alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes the run has; 1 for one alone."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def choose_device(num_gpus: int) -> torch.device:
    """cpu when `num_gpus` is 0 or there is no GPU; otherwise this process's GPU."""
    if num_gpus == 0 or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


@contextlib.contextmanager
def process_group(device: torch.device, backend: str = "nccl", interval: float = 5.0, patience: float = 180.0) -> Iterator[None]:
    """Join the processes that torchrun started, for the length of the block; does nothing without torchrun, nor where
    something else has joined them, such as Ray Train, which then also sees to processes that are lost.

    interval, patience: as of `Peers`. Raises ProcessLostError when one of the others is killed or ends with an error.
    backend: torch's word for how GPUs exchange tensors; CPUs use gloo.
    """
    global _peers
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or is_distributed():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, own_rank, size = next(rendezvous("env://", timeout=_EXCHANGE))
    store.set_timeout(_EXCHANGE)
    # torchrun's store outlives its workers: what those of an earlier attempt left there is not for these.
    store = dist.PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}of{size}", store)
    _peers = Peers(dist.PrefixStore("peers", store), own_rank, size, interval, patience)
    try:
        dist.init_process_group(
            backend if device.type == "cuda" else "gloo", timeout=_EXCHANGE, store=dist.PrefixStore("group", store),
            rank=own_rank, world_size=size,
        )  # fmt: skip
        yield
        _peers.leave()
    except StopRequestedError as stop:
        _peers.leave(stop)
        raise
    except BaseException as error:
        reason = _peers.stop_reason_now() if _broke_off(error) else None
        if reason:
            _peers.leave(StopRequestedError(reason))
            raise StopRequestedError(reason) from error
        # Said before the others hear of it: torchrun ends this process as soon as another one ends.
        logger.error("rank %d ends: %s: %s", own_rank, type(error).__name__, error)
        _peers.leave(error)
        if _broke_off(error):
            raise ProcessLostError(
                f"the exchange with the other processes broke off ({str(error).splitlines()[0]}): one of them was killed or ended "
                "with an error, which it says itself; start the same command again: it goes on from what is saved"
            ) from error
        raise
    finally:
        _peers = None
        if dist.is_initialized():
            dist.destroy_process_group()


def _broke_off(error: BaseException) -> bool:
    """Whether torch says that another process is gone, or does not come."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)):
        return True
    return type(error) is RuntimeError and any(words in str(error) for words in ("gloo", "NCCL", "Connection closed by peer"))


def neighbours(count: int) -> "dist.ProcessGroup | None":
    """The group of this process and the others of its `count` consecutive ranks; None where it would be alone.

    Every process must call it, since all groups are made on all of them. Raises ValueError where the processes do not
    divide into such groups.
    """
    size = world_size()
    if size % count:
        raise ValueError(f"{size} processes do not divide into groups of {count}: start a multiple of {count}, or take fewer")
    if count == 1:
        return None
    groups = [dist.new_group(list(range(first, first + count))) for first in range(0, size, count)]
    own = groups[rank() // count]
    assert isinstance(own, dist.ProcessGroup), "torch gives a number instead of a group of other ranks alone"
    return own


def meet(what: str) -> None:
    """Wait until every process is here, for as long as all of them live; see `Peers.meet`.

    what: what is waited for, in the log and in errors.
    """
    if _peers is not None:
        _peers.meet(what)


def gather(value: Value, what: str = "results") -> list[Value]:
    """`value` of every process, in order of rank, on every process. Any object that pickles.

    what: what is gathered, as of `meet`.
    """
    if not is_distributed():
        return [value]
    meet(what)
    values: list[Any] = [None] * world_size()
    with deferred():  # who leaves an exchange in its midst breaks it off for all
        dist.all_gather_object(values, value)
    return values


def any_process(condition: object, device: torch.device) -> bool:
    """Whether `condition` holds on any process: all of them learn it, so that all act alike."""
    if not is_distributed():
        return bool(condition)
    flag = torch.tensor(float(bool(condition)), device=device)
    dist.all_reduce(flag)
    return flag.item() > 0


def stop_reason() -> str | None:
    """Why this run is to stop: this process was asked to, or another one was and has stopped; None where it is not."""
    reason = own_stop_reason() or (_peers.stop_reason() if _peers is not None else None)
    if reason:
        request_stop(reason)
    return reason


def everywhere(flags: torch.Tensor) -> torch.Tensor:
    """Of each of some flags, bools, whether it is true on every process: numbers on their device, 1 or 0, which are not waited for."""
    numbers = flags.float()
    if is_distributed():
        dist.all_reduce(numbers, op=dist.ReduceOp.MIN)
    return numbers


def agree(value: Value, what: str) -> Value:
    """`value`, if it is the same on every process; RuntimeError on all of them otherwise.

    what: the word for the value in the message.
    """
    values = gather(value, what)
    if any(other != value for other in values):
        raise ProcessesDisagreeError(f"{what} differs between processes ({values}): OUTPUT_DIR must be one shared directory")
    return value


def from_main(function: Callable[[], Value]) -> Value:
    """What `function` gives on the main process, on every process; where it raises there, every process raises.

    For what the others could not do alike, or need not do again: looking at the files of a network disk, for instance.
    """
    if not is_distributed():
        return function()
    error: Exception | None = None
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome = [function(), None]
        except Exception as raised:
            error, outcome = raised, [None, f"{type(raised).__name__}: {raised}"]
    meet("what the main process does for all")
    with deferred():
        dist.broadcast_object_list(outcome, src=0)
    value, words = outcome
    if words is not None:
        raise error or MainProcessError(f"the main process failed: {words}")
    return value


def average_gradients(module: torch.nn.Module) -> None:
    """The mean over processes of each gradient of a module that DistributedDataParallel does not wrap."""
    for parameter in module.parameters() if is_distributed() else ():
        assert parameter.grad is not None, "gradients are averaged after a backward that reaches every parameter"
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


def barrier(what: str = "the others") -> None:
    """Wait until every process is here; `what` says for what."""
    if is_distributed():
        meet(what)
        with deferred():
            dist.barrier()


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give every process the main process's buffers (running statistics drift apart in training)."""
    broadcast(module.buffers(), "the network's buffers")


def broadcast(tensors: Iterable[torch.Tensor], what: str) -> None:
    """Give every process the main process's values of `tensors`, in place; `what` says what they are."""
    if is_distributed():
        meet(what)
        with deferred():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)
