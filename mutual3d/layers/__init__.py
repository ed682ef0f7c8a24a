"""Slimmable layers in 2D and 3D, and channel arithmetic. Knows torch only: channels, not configurations."""

from .channels import Channels, ExpandedChannels, FixedChannels, ScaledChannels, SqueezedChannels, make_divisible
from .norm import BNStatistics, SlimmableBatchNorm2d, SlimmableBatchNorm3d, slimmable_norms
from .slimmable import SlimmableConv2d, SlimmableConv3d, SlimmableLayer, SlimmableLinear
from .squeeze_excite import SqueezeExcite

__all__ = [
    "BNStatistics",
    "Channels",
    "ExpandedChannels",
    "FixedChannels",
    "ScaledChannels",
    "SlimmableBatchNorm2d",
    "SlimmableBatchNorm3d",
    "SlimmableConv2d",
    "SlimmableConv3d",
    "SlimmableLayer",
    "SlimmableLinear",
    "SqueezeExcite",
    "SqueezedChannels",
    "make_divisible",
    "slimmable_norms",
]
