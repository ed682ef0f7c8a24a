"""Processes that read samples and may die of one: it is named, the others are read all the same, in the same order.

torch's DataLoader knows neither the sample that killed its worker nor how to start another one, and it keeps batches in
/dev/shm, which a container has 64 MB of. Here a worker says which sample it begins before it does. One that dies, or is
silent for too long, is started again, and its batch is made of the other samples. Batches travel in anonymous memory
(`messages`), which no mounted file system limits.
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

from mutual3d.data.workers.messages import receive
from mutual3d.data.workers.process import At, Failure, Job, has_fork_server, work

_logger = logging.getLogger(__name__)

# Tasks that a worker has in hand, so that it need not wait for the next one.
_TASKS_AHEAD = 2
# A worker that dies at a sample may have been killed from outside, or owe its death to the sample before: only the one
# at which it dies again is to blame.
_DEATHS_TOLERATED = 1
# Deaths in a row that no sample explains, before the reading is given up.
_UNEXPLAINED_TOLERATED = 3
_SECONDS_BETWEEN_LOOKS = 1.0
# A process that has not begun its first sample may still be starting, on a busy machine for long.
_STARTING_SECONDS = 60.0


class WorkerError(RuntimeError):
    """Workers fail at something that is no sample's fault."""


class _Task(NamedTuple):
    run: int
    number: int
    keys: Sequence


class Settings(NamedTuple):
    """By what the user of whoever reads sets a pool, for messages, and what else helps where memory runs out."""

    timeout: str
    num_workers: str
    more_fixes: str = ""


# Of commands that read with workers of their own.
OPTIONS = Settings("--timeout", "--num-workers")


class WorkerPool:
    """Runs a `Job` in `num_workers` processes, or in this one for 0, where nothing protects from a decoder's crash.

    timeout: seconds that one sample may take while it is waited for; 0 waits for ever. lost: {name: cause} of the samples
    that are not read any more; several pools may share one. finish: applied, in a thread, to each result that arrives.
    settings: what the user sets these by, for messages. start_method: of multiprocessing, how the processes are started; None is
    the program's own. A program that has threads and open connections takes `forkserver`: what is forked has copies of both.
    make: makes the job in a worker, which then is a new process that
    shares no memory with this one, for what does not outlive a fork, such as the threads of a runtime; it must pickle. None
    hands `job` over.
    """

    def __init__(
        self,
        job: Job,
        num_workers: int,
        *,
        timeout: float = 0.0,
        lost: dict[str, str] | None = None,
        finish: Callable[[Any], Any] | None = None,
        settings: Settings = OPTIONS,
        start_method: str | None = None,
        make: Callable[[], Job] | None = None,
    ) -> None:
        self._start_method, self._make = start_method, make
        self._job, self._num_workers, self._timeout, self._finish = job, num_workers, timeout, finish
        self._lost = {} if lost is None else lost
        self._settings = settings
        self._deaths: dict[str, int] = {}
        self._unexplained = 0
        self._run = 0
        self._workers: list[_Worker] = []
        self._thread = ThreadPoolExecutor(1) if finish and num_workers else None

    def map(self, tasks: Iterable[Sequence]) -> Iterator:
        """Yield `join` of the items of each task, a sequence of keys, in the order of the tasks.

        Starting another map ends the one before. Raises WorkerError where workers fail and no sample is to blame.
        """
        return (result for _, result in self._map(tasks, in_order=True))

    def map_as_ready(self, tasks: Iterable[Sequence]) -> Iterator[tuple[int, Any]]:
        """(number of the task from 0, `join` of its items) of each, as they are finished: none waits for a longer one before it.

        tasks: as of `map`, whose errors it raises.
        """
        return self._map(tasks, in_order=False)

    def _map(self, tasks: Iterable[Sequence], in_order: bool) -> Iterator[tuple[int, Any]]:
        self._run += 1
        if self._num_workers:
            return self._map_in_workers(self._run, enumerate(tasks), in_order)
        return ((number, self._read_here(keys)) for number, keys in enumerate(tasks))

    def close(self) -> None:
        """End the workers."""
        _end_all(self._workers)

    def __del__(self) -> None:
        self.close()

    def _read_here(self, keys: Sequence) -> Any:
        known = self._known(keys)
        items = [known[place] if place in known else self._job.read(key) for place, key in enumerate(keys)]
        result = self._job.join(items)
        return self._finish(result) if self._finish else result

    def _map_in_workers(self, run: int, tasks: Iterator[tuple[int, Sequence]], in_order: bool) -> Iterator[tuple[int, Any]]:
        finished: dict[int, Any] = {}
        waiting = 0
        for wanted in itertools.count():
            while waiting < self._num_workers * _TASKS_AHEAD:
                task = next(tasks, None)
                if task is None:
                    break
                self._hand_out(_Task(run, *task))
                waiting += 1
            if not waiting:
                return
            self._collect(run, finished, seconds=0)
            while wanted not in finished if in_order else not finished:
                self._collect(run, finished, self._seconds_of_a_look())
            waiting -= 1
            number = wanted if in_order else next(iter(finished))
            result = finished.pop(number)
            if isinstance(result, Failure):
                raise WorkerError(_words_of_failure(result, self._settings))
            yield number, result.result() if isinstance(result, Future) else result
            if self._run != run:
                return

    def _hand_out(self, task: _Task) -> None:
        if not self._workers:
            self._workers.extend(_Worker(self._job, self._start_method, self._make) for _ in range(self._num_workers))
            # With the program: Python's own way to end them is SIGTERM, which they leave to the main process.
            Finalize(self, _end_all, (self._workers,), exitpriority=1)
        worker = min(self._workers, key=lambda worker: len(worker.tasks))
        worker.tasks.append(task)
        self._send(worker, task)

    def _send(self, worker: "_Worker", task: _Task) -> None:
        worker.send(task, self._known(task.keys))

    def _known(self, keys: Sequence) -> dict[int, Any]:
        """{place: item} of the keys that are not read any more."""
        names = {place: self._job.name(key) for place, key in enumerate(keys)} if self._lost else {}
        return {place: self._job.lost(keys[place], self._lost[name]) for place, name in names.items() if name in self._lost}

    # ---- What comes back ----------------------------------------------------------------------------------------------

    def _seconds_of_a_look(self) -> float | None:
        return min(_SECONDS_BETWEEN_LOOKS, self._timeout / 4) if self._timeout else None

    def _collect(self, run: int, finished: dict[int, Any], seconds: float | None) -> None:
        """Take what workers have sent into `finished`, {number of the task: result}; wait for it up to `seconds`."""
        start = time.monotonic()
        handles: dict[Any, _Worker] = {
            handle: worker for worker in self._workers for handle in (worker.connection, worker.process.sentinel)
        }
        ready = {handles[handle] for handle in wait(handles, seconds)}
        passed = time.monotonic() - start
        for worker in list(self._workers):
            if worker in ready:
                self._take(worker, run, finished)
            elif worker.tasks and seconds:
                # Where this process was stopped and goes on, the workers were too: a look counts its own length only.
                worker.silent += min(passed, 2 * seconds)
                patience = self._timeout if worker.has_begun else max(self._timeout, _STARTING_SECONDS)
                if self._timeout and worker.silent > patience:
                    worker.process.kill()
                    self._replace(worker, f"it did not answer within {patience:g} s ({self._settings.timeout})")

    def _take(self, worker: "_Worker", run: int, finished: dict[int, Any]) -> None:
        """All that a worker has sent; where it died after that, another one takes its place."""
        worker.silent = 0.0
        try:
            while worker.connection.poll():
                message = worker.receive()
                if isinstance(message, At):
                    continue
                task, self._unexplained = worker.tasks.popleft(), 0
                if task.run == run:
                    finished[task.number] = message if isinstance(message, Failure) else self._finished(message.value)
        except (EOFError, OSError):
            self._replace(worker)
            return
        if not worker.process.is_alive() and not worker.connection.poll():
            self._replace(worker)

    def _finished(self, value: Any) -> Any:
        return self._thread.submit(self._finish, value) if self._thread and self._finish else value

    def _replace(self, worker: "_Worker", cause: str | None = None) -> None:
        """Start a worker in place of a dead one, or of one that was killed for `cause`, with what that had in hand."""
        words = _words_of_exit(worker.end(), self._settings)
        if worker.place is None or not worker.tasks:
            self._count_unexplained(cause or words)
        else:
            key = worker.tasks[0].keys[worker.place]
            name = self._job.name(key)
            self._deaths[name] = self._deaths.get(name, 0) + 1
            if cause or self._deaths[name] > _DEATHS_TOLERATED:
                self._lost[name] = cause or f"its decoder crashed ({words})"
            _logger.warning("a worker is started again: reading '%s', %s", name, cause or words)
        other = _Worker(self._job, self._start_method, self._make)
        other.tasks = worker.tasks
        self._workers[self._workers.index(worker)] = other
        for task in other.tasks:
            self._send(other, task)

    def _count_unexplained(self, words: str) -> None:
        self._unexplained += 1
        if self._unexplained > _UNEXPLAINED_TOLERATED:
            raise WorkerError(
                f"the workers fail again and again, at no video in particular ({words}): where memory runs out, lower "
                f"{self._settings.num_workers}{self._settings.more_fixes}"
            )
        _logger.warning("a worker is started again: %s", words)


def _end_all(workers: "list[_Worker]") -> None:
    for worker in workers:
        worker.end()
    workers.clear()


def _words_of_failure(failure: Failure, settings: Settings) -> str:
    if not failure.is_memory:
        return f"the samples of a batch do not fit together:\n{failure.words}"
    return (
        f"no memory for a batch of {failure.num_samples} samples ({failure.words}): lower "
        f"{settings.num_workers}{settings.more_fixes}; or give the container more memory"
    )


def _words_of_exit(code: int | None, settings: Settings) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        memory = f"; where memory runs out, the system kills: lower {settings.num_workers}" if name == "SIGKILL" else ""
        return f"the process died of {name}{memory}"
    return f"the process ended with status {code}"


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Signals wait meanwhile: a process that is forked has the handlers of this one until it sets its own (`work`)."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A new process would first import the program's own file, which begins the same again where nothing guards it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    """A process, its end of the line, the `tasks` that it has in hand, and the `place` in the first that it is at.

    has_begun: it has said something yet.
    """

    def __init__(self, job: Job, start_method: str | None, make: Callable[[], Job] | None) -> None:
        self.tasks: deque[_Task] = deque()
        self.place: int | None = None
        self.silent = 0.0
        self.has_begun = False
        self._owner = os.getpid()
        context: Any = multiprocessing.get_context(start_method if make is None else "forkserver" if has_fork_server() else "spawn")  # whose Process the types do not know
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, None if make else job, make), daemon=True)
        with _without_signals(), contextlib.nullcontext() if make is None else _without_main():
            self.process.start()
        theirs.close()

    def send(self, task: _Task, known: dict[int, Any]) -> None:
        """Hand the worker a task; `known` are the items, by place, that it need not read."""
        try:
            self.connection.send((task.keys, known))
        except OSError:
            pass  # it is dead, which is seen when its answer is waited for

    def receive(self) -> Any:
        """The next message; what it says of the place is kept. Raises EOFError or OSError from a dead worker."""
        message = receive(self.connection)
        self.has_begun = True
        self.place = message.place if isinstance(message, At) else None
        return message

    def end(self) -> int | None:
        """Kill the process, which keeps nothing; its exit status, or minus the signal that it died of."""
        if os.getpid() != self._owner:  # a copy of this object, in a process that was forked later
            return None
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode
