"""Slimmable layers in 2D and 3D, and channel arithmetic. Knows torch only: channels, not configurations."""

from .channels import (
    Channels,
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    ScaledChannels,
    SqueezedChannels,
    make_divisible,
)
from .fusion import AdaptiveFusion
from .norm import BNStatistics, SlimmableBatchNorm2d, SlimmableBatchNorm3d, slimmable_norms
from .slimmable import SlimmableConv2d, SlimmableConv3d, SlimmableLayer, SlimmableLinear
from .squeeze_excite import SqueezeExcite

__all__ = [
    "AdaptiveFusion",
    "BNStatistics",
    "Channels",
    "ExpandedChannels",
    "FixedChannels",
    "JoinedChannels",
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
