"""Faults as functions that are called in a forked run before it begins: they change what the run's libraries do."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import av

Fault = Callable[[], None]


def kill_self(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def kill_at_replacement(number: int, when: str) -> Fault:
    """SIGKILL just before or just after the `number`-th file (from 0) is moved to its place."""
    return _at_replacement(lambda count, target: count == number, when)


def kill_when_written(name: str, count: int = 1) -> Fault:
    """SIGKILL just after the `count`-th file whose name begins with `name` is moved to its place."""
    seen = []

    def matches(_, target) -> bool:
        if Path(target).name.startswith(name):
            seen.append(target)
        return len(seen) == count

    return _at_replacement(matches, "after")


def _at_replacement(matches: Callable[[int, str], bool], when: str) -> Fault:
    def fault() -> None:
        count = 0

        def wrapped(real):
            def replace(source, target, **options):
                nonlocal count
                hit = matches(count, target)
                count += 1
                if hit and when == "before":
                    kill_self()
                real(source, target, **options)
                if hit:
                    kill_self()

            return replace

        os.replace, os.rename = wrapped(os.replace), wrapped(os.rename)

    return fault


def print_replacements() -> None:
    """Print a line for every file that is moved to its place."""
    real = os.replace

    def replace(source, target, **options):
        print(f"\nREPLACED {target}", flush=True)
        real(source, target, **options)

    os.replace = replace


def on_opening(name: str, act: Callable[[], None]) -> Fault:
    """`act` whenever PyAV opens the video with the file name `name`."""

    def fault() -> None:
        real = av.open

        def opened(file, *arguments, **options):
            if Path(os.fsdecode(file)).name == name:
                act()
            return real(file, *arguments, **options)

        av.open = opened

    return fault


def once(marker: Path, act: Callable[[], None]) -> Callable[[], None]:
    """`act` the first time in any process; `marker` remembers."""

    def acted() -> None:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        act()

    return acted


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def hang() -> None:
    time.sleep(3600)


def as_unreadable() -> None:
    """What an ordinary damaged video does."""
    raise av.error.InvalidDataError(errno.EINVAL, "Invalid data found when processing input")
