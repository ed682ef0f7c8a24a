"""A run that is asked to stop: by SIGTERM, by Ctrl-C, by its own time limit, or by another of its processes.

Where nothing is lost by it, the run stops at once. Inside `deferred` it stops where the loop at hand asks: when a step is done
and saved.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# EX_TEMPFAIL of sysexits.h: what was asked for is not finished, and trying again is right. 128 + 15 would be the status of
# every program that dies of SIGTERM, whether it has saved or not; this one says that it has.
REQUEUE_STATUS = 75

# A terminal sends Ctrl-C to all its processes, and torchrun passes it on to those that have had it: within this many seconds
# two are one.
_SAME_SIGNAL_SECONDS = 1.0


class StopRequestedError(KeyboardInterrupt):
    """A run stops because it was asked to, with everything saved; says why. Like Ctrl-C, it is no Exception that a loop may
    take for the fault of a video."""


class _Requests:
    """What this process was asked, while a `stoppable` is open."""

    def __init__(self, minutes: float) -> None:
        self.reason: str | None = None
        self.signalled_at: float | None = None
        self.depth = 0
        self.minutes = minutes
        self.end = time.monotonic() + 60 * minutes if minutes else None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        now, first = time.monotonic(), self.signalled_at
        self.signalled_at = now if first is None else first
        if first is not None:
            if number == signal.SIGINT and now - first > _SAME_SIGNAL_SECONDS:
                raise KeyboardInterrupt
            return
        self.reason = self.reason or signal.Signals(number).name
        if not self.depth:
            raise StopRequestedError(self.reason)
        if int(os.environ.get("RANK", 0)) == 0:
            # Not through the log, in whose midst the signal may have come.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{self.reason}: saving, then stopping; Ctrl-C once more ends this run at once\n".encode())

    def look_at_the_time(self) -> None:
        if self.reason is None and self.end is not None and time.monotonic() > self.end:
            self.reason = f"TRAIN.MAX_MINUTES {self.minutes:g} are over"


_requests: _Requests | None = None


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """SIGTERM and Ctrl-C have at the end of the block the handlers that they had before it: around libraries that set their own and leave them.

    Only the main thread can have handlers of signals; in others nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # a generator may be closed in another one
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def handled_signals(
    handler: Callable[[int, FrameType | None], object], numbers: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
) -> Iterator[None]:
    """`handler` gets these signals until the end of the block, which puts back the handlers that were there.

    For commands that end in a way of their own; in the main thread alone, as Python asks for.
    """
    with kept_handlers():
        for number in numbers:
            signal.signal(number, handler)
        yield


@contextlib.contextmanager
def stoppable(minutes: float = 0.0) -> Iterator[None]:
    """While it is open, SIGTERM and Ctrl-C ask this process to stop, and so does the time after `minutes`; 0 sets no limit.

    A signal that has a handler already, or is ignored, stays with it: that of a program which runs this one, for instance,
    which may call `request_stop`. Only the main thread can have handlers of signals.
    """
    global _requests
    outer, _requests = _requests, _Requests(minutes)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _requests.on_signal)
    try:
        yield
    finally:
        _requests = outer
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """While it is open, a signal only leaves its request, for `stop_reason`; one that is left at the end stops the run there.

    For loops that look at `stop_reason` themselves, when they have saved.
    """
    if _requests is None:
        yield
        return
    requests = _requests
    requests.depth += 1
    try:
        yield
    finally:
        requests.depth -= 1
    if requests.reason is not None and not requests.depth:
        raise StopRequestedError(requests.reason)


def stop_reason() -> str | None:
    """Why this process is to stop, in words; None where it is not."""
    if _requests is None:
        return None
    _requests.look_at_the_time()
    return _requests.reason


def request_stop(reason: str) -> None:
    """Ask this process to stop where its loop next looks; without effect outside `stoppable`, or where it was asked before.

    reason: why, in words, such as the name of a signal.
    """
    if _requests is not None and _requests.reason is None:
        _requests.reason = reason
