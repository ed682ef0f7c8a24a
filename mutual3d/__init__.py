"""mutual3d: one video network, trained once, that runs at any budget."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutual3d.deploy import AdaptiveModel


def load(path: str | os.PathLike) -> AdaptiveModel:
    """The AdaptiveModel in an `adaptive.pyth`: weights, statistics and query table. See mutual3d.deploy.

    FileNotFoundError or ValueError that names the file and the fix.
    """
    from mutual3d.deploy import AdaptiveModel

    return AdaptiveModel.load(path)
