"""What was learned from reading a whole file, kept between its openings for as long as the file stays as it is."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class FileCache(Generic[Value]):
    """Values of files, those used last first, of at most `max_bytes` together. A changed file has none.

    `num_bytes`: how much memory a value takes. Each process has its own.
    """

    def __init__(self, max_bytes: int, num_bytes: Callable[[Value], int]) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = num_bytes
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._total = 0

    def get(self, fingerprint: Hashable) -> Value | None:
        """The value of a file of this fingerprint, or None."""
        value = self._values.get(fingerprint)
        if value is not None:
            self._values.move_to_end(fingerprint)
        return value

    def put(self, fingerprint: Hashable, value: Value) -> None:
        """Keep a value; those that were not used for longest go where memory is short."""
        if fingerprint in self._values:
            self._total -= self._num_bytes(self._values.pop(fingerprint))
        self._values[fingerprint] = value
        self._total += self._num_bytes(value)
        while self._total > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._total -= self._num_bytes(oldest)

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
        self._total = 0


def file_fingerprint(path: str) -> Hashable:
    """Changes when the file does: its name, size, time of modification and place on the disk. Raises OSError."""
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev
