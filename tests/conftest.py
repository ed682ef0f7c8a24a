"""Shared set-up: two threads unless OMP_NUM_THREADS says otherwise, and `tests/` itself importable for shared helpers."""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
# Small networks on a busy machine are far slower with two threads that wait for each other than with one.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
