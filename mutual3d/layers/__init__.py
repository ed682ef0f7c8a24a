"""Slimmable layers in 2D and 3D, and channel arithmetic. Knows torch only: channels, not configurations."""

from .channels import (
    Channels,
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    ScaledChannels,
    SqueezedChannels,
    Width,
    make_divisible,
)
from .fusion import AdaptiveFusion, Shrink, ShrinksFeatures
from .norm import (
    BNStatistics,
    PrivateNorms,
    SlimmableBatchNorm2d,
    SlimmableBatchNorm3d,
    SlimmableNorm,
    batch_over,
    interpolated_norm,
    make_private,
    slimmable_norms,
)
from .pairs import NormPairs, PairedSequential, fold_norms
from .slimmable import SlimmableConv2d, SlimmableConv3d, SlimmableLayer, SlimmableLinear, SlimmablePart
from .squeeze_excite import SqueezeExcite
from .weight_norm import SlimmableWeightNormConv2d

__all__ = [
    "AdaptiveFusion",
    "BNStatistics",
    "Channels",
    "ExpandedChannels",
    "FixedChannels",
    "JoinedChannels",
    "NormPairs",
    "PairedSequential",
    "PrivateNorms",
    "ScaledChannels",
    "Shrink",
    "ShrinksFeatures",
    "SlimmableBatchNorm2d",
    "SlimmableBatchNorm3d",
    "SlimmableConv2d",
    "SlimmableConv3d",
    "SlimmableLayer",
    "SlimmableLinear",
    "SlimmableNorm",
    "SlimmablePart",
    "SlimmableWeightNormConv2d",
    "SqueezeExcite",
    "SqueezedChannels",
    "Width",
    "batch_over",
    "fold_norms",
    "interpolated_norm",
    "make_divisible",
    "make_private",
    "slimmable_norms",
]
