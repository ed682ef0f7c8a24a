"""What tests of preparing sets share."""

import pytest
from scripts import load_script


@pytest.fixture(scope="session")
def lists_tool():
    """`datasets/write_lists.py`."""
    return load_script("datasets/write_lists.py")
