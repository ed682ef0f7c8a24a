"""One directory, one run: a file that says which process writes there, for as long as it lives."""

import _thread
import contextlib
import datetime
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import simplejson

from . import distributed
from .logging import logger
from .processes import ProcessName, this_process

NAME = "run.lock"


class DirectoryInUseError(RuntimeError):
    """Another run writes in the directory."""


@contextlib.contextmanager
def run_lock(
    directory: str | Path, interval: float = 15.0, patience: float = 90.0, instead: str = "another OUTPUT_DIR"
) -> Iterator[str | None]:
    """Hold `directory` for this run, the main process for all; yields what was said of a lock that was left, or None.

    While it is held, the file `run.lock` there names host and process, and is touched every `interval` seconds. A lock whose
    process is gone, after SIGKILL or a power cut, is taken over: at once when it ran on this machine, otherwise when nothing
    touched it for `patience` seconds, which is waited for. Raises DirectoryInUseError, on every process, when its process
    lives. Not seen are a run that a network file system hides for longer than `patience`, and a machine that sleeps for so
    long; such a run stops itself as soon as it sees that its lock was taken. instead: what to choose where the directory is in use.
    """
    lock = _Lock(Path(directory) / NAME, interval, patience, instead)
    with _interruptible(lock):
        try:
            yield distributed.from_main(lock.acquire)
        finally:
            lock.release()


class _Lock:
    def __init__(self, path: Path, interval: float, patience: float, instead: str) -> None:
        self.path, self.interval, self.patience, self.instead = path, interval, patience, instead
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self.content = simplejson.dumps({**asdict(this_process()), "since": since, "token": uuid.uuid4().hex})
        self.released, self.is_held, self.is_lost = threading.Event(), False, False

    def acquire(self) -> str | None:
        said = None
        while not self._create():
            said = self._clear_stale() or said
        if said:
            time.sleep(0.2)  # two that take over at the same moment: the one whose file is there afterwards has it
            if _read(self.path) != self.content:
                return self.acquire()
        self.is_held = True
        threading.Thread(target=self._keep_alive, daemon=True).start()
        return said

    def release(self) -> None:
        self.released.set()
        if self.is_held and _read(self.path) == self.content:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _create(self) -> bool:
        """Put the file there with its content at once; False when one is there."""
        descriptor, temporary = tempfile.mkstemp(prefix=f".{NAME}.", dir=self.path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(self.content)
            os.link(temporary, self.path)
            return True
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._create_exclusively()
        finally:
            os.unlink(temporary)

    def _create_exclusively(self) -> bool:
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(self.content)
            return True
        except FileExistsError:
            return False

    def _clear_stale(self) -> str | None:
        """Remove a lock that nobody holds and say so; DirectoryInUseError when somebody does; None when it is gone."""
        seen = _read(self.path)
        if seen is None:
            return None
        owner, name = _owner(seen)
        alive = owner and owner.is_alive()
        if alive is None:
            alive = self._is_touched(name)
        if alive:
            raise DirectoryInUseError(
                f"'{self.path.parent}' is in use by {name}: two runs in one directory would mix their results. Wait until it "
                f"ends, stop it, or choose {self.instead}; if no such process exists, remove '{self.path}'"
            )
        with _alone_in(self.path.parent):
            # Looked at again: of several that found it, another one may have taken over since.
            if _read(self.path) != seen:
                return None
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        return f"a lock was left in '{self.path.parent}' by {name}, which is gone: it is taken over"

    def _is_touched(self, name: str) -> bool:
        """Watch a lock of another machine until it is touched (True), goes away, or is too old (False)."""
        first, end = _touched_at(self.path), time.monotonic() + self.patience
        if first is not None and self._age(first) > self.patience:
            return False
        logger.warning("'%s' is locked by %s: watching for up to %.0f s whether it lives", self.path.parent, name, self.patience)
        while time.monotonic() < end:
            now = _touched_at(self.path)
            if now is None:
                return False
            if now != first:
                return True
            time.sleep(min(1.0, self.patience / 20))
        return False

    def _age(self, touched_at: float) -> float:
        """Seconds since then by the clock of the file system, which may be another machine's."""
        with tempfile.TemporaryFile(dir=self.path.parent) as file:
            return os.fstat(file.fileno()).st_mtime - touched_at

    def _keep_alive(self) -> None:
        while not self.released.wait(self.interval):
            try:
                if self.path.read_text(encoding="utf-8") == self.content:
                    os.utime(self.path)
                elif not self.released.is_set():
                    return self._stop()
            except FileNotFoundError:
                with contextlib.suppress(OSError):
                    if not self.released.is_set() and not self._create():
                        return self._stop()
            except (OSError, ValueError):
                pass  # a network disk that does not answer now

    def _stop(self) -> None:
        _, name = _owner(_read(self.path) or "")
        logger.error("the lock of '%s' was taken by %s: this run stops, so that the two do not mix", self.path.parent, name)
        self.is_lost = True
        _interrupt()


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """One process, or thread, of a directory at a time, as far as its file system has locks; a killed one leaves none behind."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _interruptible(lock: _Lock) -> Iterator[None]:
    """Lets `_interrupt` through at once, whatever becomes of Ctrl-C: a run that saves on it must not save here any more.

    Where SIGINT is ignored, as shells start the background jobs of scripts, Ctrl-C stays without effect. Only the main thread
    can have handlers of signals.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:  # None: not Python's own
        yield
        return

    def stop_if_lost(number: int, frame: FrameType | None) -> None:
        if lock.is_lost:
            raise KeyboardInterrupt
        if callable(before):
            before(number, frame)

    if before != signal.SIG_DFL:
        signal.signal(signal.SIGINT, stop_if_lost)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt() -> None:
    """What Ctrl-C does, also to a main thread that sleeps or waits."""
    if os.name == "posix":
        main = threading.main_thread().ident
        assert main is not None, "the main thread has begun"
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _touched_at(path: Path) -> float | None:
    # Opened anew each time: a network file system then asks its server.
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def _owner(content: str) -> tuple[ProcessName | None, str]:
    """(ProcessName, the words for it) of a lock's text; (None, ...) when it was cut short or is of another kind."""
    try:
        told = simplejson.loads(content)
        owner = ProcessName(str(told["host"]), str(told["place"]), int(told["pid"]), int(told["started"]))
        return owner, f"{owner} since {told['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "a process that the lock does not name"
