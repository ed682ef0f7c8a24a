"""The decoding backends as parameters of tests: one that does not work here is skipped, with the reason."""

import pytest

from mutual3d.data.video.decode import BACKENDS, what_is_missing


def backends(*names):
    """Parameters for `pytest.mark.parametrize`, by default of every backend."""
    missing = {name: what_is_missing(name) for name in names or BACKENDS}
    return [pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=reason)) for name, reason in missing.items()]


every_backend = pytest.mark.parametrize("backend", backends())
