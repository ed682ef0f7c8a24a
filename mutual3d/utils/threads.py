"""How many threads PyTorch computes with on a CPU."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def computing_threads(count: int | None) -> Iterator[None]:
    """While it is open, PyTorch computes with `count` threads; None and 0 leave what it has, and changes inside are taken back too."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
