"""Work in forked children with limits of memory and time; a child that dies or hangs is named and replaced."""

import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from mutual3d.utils.memory import limit_memory

_CONTEXT = multiprocessing.get_context("fork")


class Ended(NamedTuple):
    """A child that did not answer: `crashed` or `hung`, and with what."""

    outcome: str
    detail: str


class _Child:
    """A forked process that answers one task after the other."""

    def __init__(self, work: Callable[[Any], Any], memory: int):
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(work, theirs, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.task, self.deadline = None, float("inf")

    def give(self, task: Any, seconds: float) -> None:
        self.task, self.deadline = task, time.monotonic() + seconds
        self.connection.send(task)

    def kill(self) -> int:
        """End the child; its exit status."""
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def run_in_children(
    work: Callable[[Any], Any], tasks: Iterator[Any], *, processes: int, seconds: float, memory: int
) -> Iterator[tuple[Any, Any]]:
    """Yield (task, `work(task)`) as they come, or (task, `Ended`) where the child died or took over `seconds`.

    `memory`: bytes that a child may allocate beyond what it starts with.
    """
    children = [_Child(work, memory) for _ in range(processes)]
    try:
        tasks = iter(tasks)
        idle = list(children)
        while True:
            for child in list(idle):
                task = next(tasks, None)
                if task is None:
                    break
                child.give(task, seconds)
                idle.remove(child)
            busy = [child for child in children if child.task is not None]
            if not busy:
                return
            pause = min(child.deadline for child in busy) - time.monotonic()
            ready = wait([child.connection for child in busy], timeout=max(0.0, pause))
            for child in busy:
                if child.connection not in ready and time.monotonic() < child.deadline:
                    continue
                task, answer = child.task, _answer(child, child.connection in ready, seconds)
                if not child.process.is_alive():
                    children.remove(child)
                    child = _Child(work, memory)
                    children.append(child)
                child.task = None
                idle.append(child)
                yield task, answer
    finally:
        for child in children:
            child.kill()


def _answer(child: _Child, is_ready: bool, seconds: float) -> Any:
    if not is_ready:
        child.kill()
        return Ended("hung", f"no answer in {seconds:g} seconds")
    try:
        return child.connection.recv()
    except (EOFError, OSError):
        child.process.join()
        status = child.kill()
        return Ended("crashed", signal.Signals(-status).name if status < 0 else f"exit status {status}")


def _serve(work: Callable[[Any], Any], connection, memory: int) -> None:
    # Decoders write their complaints to the terminal directly.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    limit_memory(memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(work, task))


def _attempt(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Ended("crashed", f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})")
