"""The stages of tools/run_net.py: each takes a Run, what they all share."""

from .grid import calibrate, load_statistics, measure_grid, save_adaptive
from .multi_view import multi_view_test
from .run import Run, check_splits
from .train import train

__all__ = [
    "Run", "calibrate", "check_splits", "load_statistics", "measure_grid", "save_adaptive", "multi_view_test", "train",
]  # fmt: skip
