"""Slimmable layers in 2D and 3D, and channel arithmetic. Knows torch only: channels, not configurations."""

from .adapter import Adapter, AdaptsInput, PrivateAdapters
from .channels import (
    Channels,
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    OwnChannels,
    OwnWidths,
    PixelChannels,
    ScaledChannels,
    SqueezedChannels,
    Untie,
    Width,
    make_divisible,
    tied,
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
from .private import PrivateParts
from .quantized import QuantizedConv2d, QuantizedConv3d, quantize_convolution, stored_bits
from .quantizer import LEGAL_BITS, WHOLE_BITS, ActivationQuantizer, PrivateQuantizers, check_bits
from .slimmable import SlimmableConv2d, SlimmableConv3d, SlimmableLayer, SlimmableLinear, SlimmablePart
from .squeeze_excite import SqueezeExcite
from .weight_norm import SlimmableWeightNormConv2d

__all__ = [
    "ActivationQuantizer",
    "Adapter",
    "AdaptiveFusion",
    "AdaptsInput",
    "BNStatistics",
    "Channels",
    "ExpandedChannels",
    "FixedChannels",
    "PixelChannels",
    "JoinedChannels",
    "LEGAL_BITS",
    "NormPairs",
    "OwnChannels",
    "OwnWidths",
    "PairedSequential",
    "PrivateAdapters",
    "PrivateNorms",
    "PrivateParts",
    "PrivateQuantizers",
    "QuantizedConv2d",
    "QuantizedConv3d",
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
    "Untie",
    "WHOLE_BITS",
    "Width",
    "batch_over",
    "check_bits",
    "fold_norms",
    "interpolated_norm",
    "make_divisible",
    "make_private",
    "quantize_convolution",
    "slimmable_norms",
    "stored_bits",
    "tied",
]
