"""pycocotools, which is an extra: COCO's own code for masks and for average precision."""

import contextlib
import importlib
import io
from collections.abc import Iterator
from typing import Any


def coco_tools(name: str) -> Any:
    """A module of pycocotools: `mask`, `coco` or `cocoeval`. Raises ModuleNotFoundError, with the extra's name, where it is not installed."""
    try:
        return importlib.import_module(f"pycocotools.{name}")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("boxes and masks in COCO's form need pycocotools: pip install -e .[detection]") from None


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """While it is open nothing is printed: pycocotools tells of every step, and there is one for each image."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
