import pytest


@pytest.fixture(autouse=True)
def in_one_thread(one_thread):
    """All tests of this folder."""
