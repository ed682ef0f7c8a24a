"""What a worker process does: it reads the items of its tasks, and says which one it begins before it does."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import torch

from mutual3d.data.workers.messages import send


class Job(Protocol):
    """What is to be read. Where the start method is not fork, it must pickle."""

    def read(self, key: Any) -> Any:
        """The item of a key. Raises nothing but what is to end the reading."""

    def join(self, items: list) -> Any:
        """What becomes of the items of a task, in the worker. Tensors in it are not copied on their way."""

    def name(self, key: Any) -> str:
        """The file of a key: what is called bad once is not read again."""

    def lost(self, key: Any, cause: str) -> Any:
        """The item that stands for one that cannot be read. key: of the item. cause: why it cannot be read, in words."""


# Seconds between two signs of life, each of which is a message.
_SECONDS_BETWEEN_SIGNS = 1.0
_sign_of_life: "_SignOfLife | None" = None


def show_life() -> None:
    """For a `Job` whose `read` takes long and gets on: called often from it, it begins the time of the pool's timeout anew.

    Does nothing outside a worker.
    """
    if _sign_of_life is not None:
        _sign_of_life.show()


class _SignOfLife:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._shown = time.monotonic()
        self.place = 0

    def show(self) -> None:
        now = time.monotonic()
        if now - self._shown > _SECONDS_BETWEEN_SIGNS:
            self._shown = now
            send(self._connection, At(self.place))


def has_fork_server() -> bool:
    """Whether processes can be forked from one that has nothing of this one, which then runs; not on Windows."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    from multiprocessing import forkserver

    try:
        forkserver.ensure_running()
    except ChildProcessError:  # this process was forked itself, from one that has such a process
        return False
    return True


def begin_to_fork(module: str) -> None:
    """Start the process that others are forked from, which then imports `module`, while this one does something else.

    There is one for the life of a program: what a later call names is imported in each process that is forked.
    """
    multiprocessing.set_forkserver_preload([module])
    has_fork_server()


class At(NamedTuple):
    """The item of its task that a worker begins; None where all are read."""

    place: int | None


class Result(NamedTuple):
    """What a worker made of the items of a task."""

    value: Any


class Failure(NamedTuple):
    """The items of a task could not be joined. is_memory: for want of it."""

    words: str
    num_samples: int
    is_memory: bool


def work(connection: Connection, job: Job | None, make: Callable[[], Job] | None = None) -> None:
    """What a worker process runs: it answers the tasks of the pool over `connection` until that is gone.

    make: makes the job here; None where it is handed over.
    """
    # What a forked process has of the main one's garbage is left alone: a tensor of a GPU that is freed here, where CUDA cannot be
    # used, ends the process.
    gc.freeze()
    # Terminals and schedulers send these to every process of a run. They are for the main process, which may need the batch at
    # hand to finish its step, and ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.name == "posix":  # they were held back until here
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    _write_no_core_file()
    # Each worker is one of many processes: more threads in it only contend.
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    global _sign_of_life
    _sign_of_life = _SignOfLife(connection)
    job = job if make is None else make()
    assert job is not None, "it is handed over, or made"
    try:
        send(connection, At(None))
        while True:
            _answer(connection, job, *connection.recv())
    except (EOFError, OSError):
        return  # the main process is gone


def _write_no_core_file() -> None:
    """A crash is told by the pool; the memory of a process that loaded torch would be gigabytes on the disk, and a minute of wait."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def _answer(connection: Connection, job: Job, keys: Sequence, known: dict[int, Any]) -> None:
    items = []
    for place, key in enumerate(keys):
        if place in known:
            items.append(known[place])
            continue
        assert _sign_of_life is not None, "`work` makes it before it answers"
        _sign_of_life.place = place
        send(connection, At(place))
        items.append(job.read(key))
    send(connection, At(None))
    try:
        send(connection, Result(job.join(items)))
    except (BrokenPipeError, ConnectionError):
        raise
    except Exception as error:
        is_memory = isinstance(error, (MemoryError, OSError))
        words = str(error) or "MemoryError" if is_memory else "".join(traceback.format_exception(error))
        send(connection, Failure(words, len(keys), is_memory))
