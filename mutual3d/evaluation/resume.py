"""Partial results of a long stage on disk, so that a killed stage goes on where it was."""

import time
from pathlib import Path

from mutual3d.utils import distributed
from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.logging import logger


class PartialResult:
    """State of a loop over batches, saved at most every `interval` seconds and after the last batch.

    fingerprint: text that says what the result depends on (`utils.fingerprint`); a file with another one is started over.
    Every process has its own file. path None keeps nothing.
    """

    def __init__(self, path=None, fingerprint="", interval=20.0):
        self.path = None if path is None else Path(f"{path}.rank{distributed.rank()}of{distributed.world_size()}")
        self.fingerprint, self.interval = fingerprint, interval
        self.saved_at, self.seconds_of_a_save = time.monotonic(), 0.0

    def load(self):
        """(finished batches, state); (0, None) when there is nothing to go on from."""
        if self.path is None or not self.path.is_file():
            return 0, None
        content = load_tensors(self.path)
        if content["fingerprint"] != self.fingerprint:
            logger.info("'%s' belongs to other weights, data or settings: starting over", self.path)
            return 0, None
        logger.info("going on from '%s' at batch %d", self.path, content["done"])
        return content["done"], content["state"]

    def save(self, done, state, force=False):
        """Write `state()` if the interval has passed, and never so often that saving takes a tenth of the time.

        With interval 0 every call writes.
        """
        start = time.monotonic()
        pause = max(self.interval, 10 * self.seconds_of_a_save) if self.interval else 0.0
        if self.path is None or not force and start - self.saved_at < pause:
            return
        save_tensors(self.path, {"fingerprint": self.fingerprint, "done": done, "state": state()})
        self.saved_at = time.monotonic()
        self.seconds_of_a_save = self.saved_at - start

    def remove(self):
        """Delete the file: the result it led to is saved elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
