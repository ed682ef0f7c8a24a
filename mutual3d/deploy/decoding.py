"""How videos are read, and reading them in a process of their own: one that kills its decoder costs that video alone."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.video.reader import VideoError
from mutual3d.data.workers.pool import Settings, WorkerPool

T = TypeVar("T")


@dataclass(frozen=True)
class Decoding:
    """How videos are decoded. backend: pyav, decord, torchcodec or auto. timeout: seconds without progress after which a file is given up.

    timeout_option: what the user sets the timeout by, for messages. progress: show a bar meanwhile.
    """

    backend: str = "pyav"
    timeout: float = 600.0
    timeout_option: str = "timeout"
    progress: bool = True

    @property
    def settings(self) -> Settings:
        """What a pool of one worker tells the user where it fails."""
        return Settings(self.timeout_option, "the number of views", "")


def read_apart(function: Callable[..., T], path: str | Path, arguments: Iterable[tuple], decoding: Decoding) -> Iterator[T]:
    """`function(path, *each)` for each of the arguments, in order, from a process of its own that works ahead.

    The function is one of a module, and its results pickle. Raises VideoError where it does, and where the decoder dies or
    is silent for too long; ValueError and OSError as the function does.
    """
    pool = WorkerPool(_Calls(function, path), 1, timeout=decoding.timeout, settings=decoding.settings)
    try:
        for found in pool.map([each] for each in arguments):
            if isinstance(found, Exception):
                raise found
            yield cast(T, found)
    finally:
        pool.close()


class _Calls:
    """The `Job` of calling a function with a path and what a key holds. An error is an item like others."""

    def __init__(self, function: Callable[..., Any], path: str | Path) -> None:
        self._function, self._path = function, path

    def read(self, key: tuple) -> Any:
        try:
            return self._function(self._path, *key)
        except (ValueError, OSError) as error:  # VideoError is one
            return error
        except Exception as error:
            return VideoError(self._path, describe_failure(error))

    def join(self, items: list) -> Any:
        return items[0]

    def name(self, key: tuple) -> str:
        return str(self._path)

    def lost(self, key: tuple, cause: str) -> VideoError:
        return VideoError(self._path, cause)
