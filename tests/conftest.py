"""Shared set-up: two threads unless OMP_NUM_THREADS says otherwise; compiled networks are kept for the tests alone."""

import os

import pytest
import torch

# Small networks on a busy machine are far slower with two threads that wait for each other than with one.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A folder for compiled networks, and for the commands that tests run: not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUTUAL3D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
