"""Log lines on the screen and in the run's directory; json_stats lines in PySlowFast's form; progress bars."""

import logging
import sys
from pathlib import Path

import simplejson
from tqdm import tqdm

from . import distributed

logger = logging.getLogger("mutual3d")


class _ScreenHandler(logging.Handler):
    """Prints above a running progress bar instead of through it, to what is standard output at that moment."""

    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stdout)


def setup_logging(output_dir):
    """Log to the screen (main process only) and to `output_dir`/stdout.log."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    if not distributed.is_main():
        root.setLevel(logging.ERROR)
        return
    formatter = logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s", "%m/%d %H:%M:%S")
    for handler in (_ScreenHandler(), logging.FileHandler(Path(output_dir) / "stdout.log")):
        handler.setFormatter(formatter)
        root.addHandler(handler)


def log_json_stats(stats):
    """One `json_stats: {...}` line; numbers rounded to five decimals, as PySlowFast's users parse it."""
    rounded = {key: round(float(v), 5) if isinstance(v, float) else v for key, v in stats.items()}
    logger.info("json_stats: %s", simplejson.dumps(rounded, sort_keys=True, ignore_nan=True))


def progress_bar(iterable, description, total=None, initial=0, unit="batch"):
    """A tqdm bar with the time left, on the main process's terminal; a line at the end only when it is no terminal."""
    quiet = not distributed.is_main()
    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(
        iterable, desc=description, total=total, initial=initial, unit=unit, disable=quiet, leave=False,
        mininterval=interval, dynamic_ncols=True,
    )  # fmt: skip


def read_json_stats(log):
    """The json_stats of a run's stdout.log, in order; [] when there is no such file."""
    log = Path(log)
    if not log.is_file():
        return []
    marked = (line.partition("json_stats: ")[2] for line in log.read_text(encoding="utf-8").splitlines())
    return [simplejson.loads(text) for text in marked if text]
