"""Shared set-up: two threads, and `tests/` itself importable so that tests share their helpers."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(2)
