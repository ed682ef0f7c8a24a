"""Shared set-up: two threads unless OMP_NUM_THREADS says otherwise."""

import os

import torch

# Small networks on a busy machine are far slower with two threads that wait for each other than with one.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
