"""Shared set-up: two threads unless OMP_NUM_THREADS says otherwise, shared helpers and what the tools share importable."""

import os
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "tools")]
# Small networks on a busy machine are far slower with two threads that wait for each other than with one.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
