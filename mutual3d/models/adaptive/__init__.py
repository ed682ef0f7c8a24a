"""What every adaptive network does: activate a configuration, evaluate at one from any thread, extract one as a plain module."""

from mutual3d.layers import ShrinksFeatures

from .extraction import TAKES, Inputs, PlainNetwork, replace_shrink
from .network import AdaptiveNetwork, OtherThreadError
from .statistics import NotCalibratedError
from .views import ConfigurationView

__all__ = [
    "AdaptiveNetwork", "ConfigurationView", "Inputs", "NotCalibratedError", "OtherThreadError", "PlainNetwork", "TAKES",
    "ShrinksFeatures", "replace_shrink",
]  # fmt: skip
