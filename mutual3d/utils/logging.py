"""Log lines on the screen and in the run's directory; json_stats lines in PySlowFast's form; progress bars."""

import contextlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

import simplejson
from tqdm import tqdm

from . import distributed
from .streams import ForgivingStream

logger = logging.getLogger("mutual3d")


_FILE_ALONE = "in_file_alone"
# `logger.info(..., extra=IN_FILE_ALONE)`: for what is long and belongs into stdout.log, not on the screen.
IN_FILE_ALONE = {_FILE_ALONE: True}


class _ScreenHandler(logging.Handler):
    """Prints above a running progress bar instead of through it, to what is standard output at that moment.

    It leaves the screen to the root logger's handlers where the program that uses this project has such, so that no line
    stands there twice.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not _root_shows_lines() and not getattr(record, _FILE_ALONE, False):
            tqdm.write(_formatted(self, record), file=ForgivingStream(sys.stdout))


def _root_shows_lines() -> bool:
    screens = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    handlers = logging.getLogger().handlers
    return any(isinstance(handler, logging.StreamHandler) and handler.stream in screens for handler in handlers)


class _FileHandler(logging.Handler):
    """Appends lines to a file. What the disk does not take is lost and counted, and told when it takes lines again."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._file = open(path, "ab", buffering=0)
        self._lost, self._cause, self._ends_in_half_a_line = 0, "", False

    def emit(self, record: logging.LogRecord) -> None:
        gap = f"[{self._lost} lines before this one are lost: {self._cause}]\n" if self._lost else ""
        line = ("\n" if self._ends_in_half_a_line else "") + gap + _formatted(self, record) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        try:
            written = self._file.write(data)
        except (OSError, ValueError) as error:
            self._lost, self._cause = self._lost + 1, str(error)
            return
        self._ends_in_half_a_line = written < len(data)
        self._lost = self._lost + 1 if self._ends_in_half_a_line else 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        super().close()


def _formatted(handler: logging.Handler, record: logging.LogRecord) -> str:
    """The line; a message whose arguments do not fit it as it is, rather than an error in the midst of a run."""
    try:
        return handler.format(record)
    except Exception:  # whatever an argument's own str() raises
        return f"{record.levelname}: {record.msg}"


# What `setup_logging` added to the logger, to be taken away by the next run of the process.
_handlers = []


def setup_logging(output_dir: str | Path) -> None:
    """Log to the screen (main process only) and to `output_dir`/stdout.log, whatever becomes of either.

    The handlers are those of the logger `mutual3d`: a program's own root logger stays as it is, and sees the lines too.
    """
    for handler in _handlers:
        logger.removeHandler(handler)
        handler.close()
    _handlers.clear()
    logger.setLevel(logging.INFO if distributed.is_main() else logging.ERROR)
    _add(_ScreenHandler())
    if distributed.is_main():
        path = Path(output_dir) / "stdout.log"
        try:
            _add(_FileHandler(path))
        except OSError as error:
            logger.warning("no log is kept in '%s': %s", path, error.strerror or error)


def _add(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s", "%m/%d %H:%M:%S"))
    logger.addHandler(handler)
    _handlers.append(handler)


def log_json_stats(stats: dict) -> None:
    """One `json_stats: {...}` line; numbers rounded to five decimals, as PySlowFast's users parse it.

    stats: {name: number or text}.
    """
    rounded = {key: round(float(v), 5) if isinstance(v, float) else v for key, v in stats.items()}
    logger.info("json_stats: %s", simplejson.dumps(rounded, sort_keys=True, ignore_nan=True))


def progress_bar(iterable: Iterable, description: str, total: int | None = None, initial: int = 0, unit: str = "batch") -> tqdm:
    """A tqdm bar with the time left, on the main process's terminal; a line at the end only when it is no terminal.

    description, total, initial, unit: as of tqdm, over the `iterable`.
    """
    quiet = not distributed.is_main()
    stream = ForgivingStream(sys.stderr)
    interval = 0.5 if stream.isatty() else 30
    return tqdm(
        iterable, desc=description, total=total, initial=initial, unit=unit, disable=quiet, leave=False,
        mininterval=interval, dynamic_ncols=True, file=stream,
    )  # fmt: skip


def read_json_stats(log: str | Path) -> list[dict]:
    """The json_stats of a run's stdout.log, in order; [] when there is no such file. Half lines of killed runs are left out."""
    try:
        text = Path(log).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            found.append(simplejson.loads(line.partition("json_stats: ")[2]))
    return [stats for stats in found if isinstance(stats, dict)]
