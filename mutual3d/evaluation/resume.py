"""Partial results of a long stage on disk, so that a killed stage goes on where it was."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mutual3d.utils import distributed
from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.logging import logger
from mutual3d.utils.stopping import StopRequestedError

T = TypeVar("T")

# What taking a state apart that is not what it should be may raise: whatever Python and torch say of a wrong type,
# a missing entry, a shape.
WRONG_CONTENT = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError)


class PartialResult:
    """State of a loop over batches, saved at most every `interval` seconds and after the last batch.

    fingerprint: text that says what the result depends on (`utils.fingerprint`); a file with another one is started over.
    Every process has its own file. path None keeps nothing.
    """

    def __init__(self, path: str | Path | None = None, fingerprint: str = "", interval: float = 20.0) -> None:
        self.base = None if path is None else Path(path)
        self.path = None if self.base is None else Path(f"{self.base}.rank{distributed.rank()}of{distributed.world_size()}")
        self.fingerprint, self.interval = fingerprint, interval
        self.saved_at, self.seconds_of_a_save = time.monotonic(), 0.0

    def load(self, restore: Callable[[object], T], num_batches: int | None = None) -> tuple[int, T]:
        """(finished batches, restored state); (0, restore(None)) when there is nothing to go on from.

        A file that is damaged, or that `restore` cannot use, is a cache that is lost: the loop starts over, and says so.
        num_batches: of the whole loop; a file that has finished more is not of it.
        """
        if self.path is None or not self.path.is_file():
            return 0, restore(None)
        try:
            content = load_tensors(self.path)
            if not isinstance(content, dict):
                raise ValueError("it holds no partial result")
            if content["fingerprint"] != self.fingerprint:
                logger.info("'%s' belongs to other data, weights or settings: starting over", self.path)
                return 0, restore(None)
            done = _checked_count(content["done"], num_batches)
            restored = restore(_checked_state(content["state"]))
        except WRONG_CONTENT as error:
            logger.warning("'%s' cannot be used (%s): starting over", self.path, describe(error, self.path))
            return 0, restore(None)
        logger.info("going on from '%s' at batch %d", self.path, done)
        return done, restored

    def save(self, done: int, state: Callable[[], dict], force: bool = False) -> None:
        """Write `state()` if the interval has passed, and never so often that saving takes a tenth of the time.

        With interval 0 every call writes. done: batches that are done. force: write whatever the time since the last one.
        Raises StopRequestedError, when it has written, where the run is asked to stop.
        """
        stop = distributed.stop_reason()
        start = time.monotonic()
        pause = max(self.interval, 10 * self.seconds_of_a_save) if self.interval else 0.0
        if self.path is not None and (force or stop or start - self.saved_at >= pause):
            save_tensors(self.path, {"fingerprint": self.fingerprint, "done": done, "state": state()})
            self.saved_at = time.monotonic()
            self.seconds_of_a_save = self.saved_at - start
        if stop:
            raise StopRequestedError(stop)

    def remove(self) -> None:
        """Delete the file, and those of a run with another number of processes: what they led to is saved elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if self.base is not None and distributed.is_main():
            for path in self.base.parent.glob(f"{self.base.name}.rank*of*"):
                path.unlink(missing_ok=True)


def describe(error: Exception, path: str | Path) -> str:
    """One line about what is wrong with the content of `path`, which it does not name; a KeyError alone would be a bare word."""
    if isinstance(error, KeyError):
        return f"it has no entry {error}"
    line = (str(error).splitlines() or [""])[0] or type(error).__name__
    named = f"'{path}' "
    return f"it {line.removeprefix(named)}" if line.startswith(named) else line


def _checked_count(done: object, num_batches: int | None) -> int:
    if type(done) is not int or done < 0 or num_batches is not None and done > num_batches:
        raise ValueError(f"it says that {done!r} of {num_batches} batches are done")
    return done


def _checked_state(state: object) -> dict:
    if not isinstance(state, dict) or not state:
        raise ValueError(f"its state is {state!r:.60}")
    return state
