"""VGG-16 with batch norm (Simonyan and Zisserman, ICLR 2015), with slimmable layers; children named as torchvision's `vgg16_bn`."""

from typing import Any

import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import (
    Channels,
    ExpandedChannels,
    PairedSequential,
    PixelChannels,
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    SlimmableLinear,
)
from mutual3d.sampling import SearchSpace

from .blocks import initialize
from .build import image_arguments
from .images import AdaptiveImageNetwork, gentle_strides, scaled_channels
from .registry import register_network

# (channels over those of the first stage, 3x3 convolutions) of each stage; a pooling by 2 follows each.
STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
# Side of the grid that features are pooled to before the linear layers.
GRID = 7


def build_vgg16(
    *,
    space: SearchSpace,
    num_classes: int,
    width_per_group: int = 64,
    dim_fc: int = 4096,
    dropout_rate: float = 0.5,
    fc_init_std: float = 0.01,
    small_images: bool = False,
) -> AdaptiveImageNetwork:
    """An adaptive VGG-16 with batch norm; `small_images` leaves out the first two poolings.

    At a width its convolutions and both hidden linear layers have that share of their channels; the first linear layer reads the 7 x 7
    cells of the channels that are there. width_per_group: channels of the first stage at width 1.0. dim_fc: features of the
    hidden linear layers at width 1.0. dropout_rate: after each of them. fc_init_std: standard deviation of the linear
    layers' first weights.
    """
    scaled = scaled_channels(space)
    inputs: Channels = PixelChannels(3)
    parts: list[nn.Module] = []
    pairs: list[tuple[str, str]] = []
    layer = 0
    for (factor, depth), stride in zip(STAGES, gentle_strides([2] * len(STAGES), small_images)):
        for _ in range(depth):
            # No sum ties two counts: each layer may have a width of its own.
            outputs = scaled(width_per_group * factor, layer=layer)
            pairs.append((str(len(parts)), str(len(parts) + 1)))
            # A bias before a norm changes nothing, and torchvision's weights hold one.
            parts += [SlimmableConv2d(inputs, outputs, 3, padding=1), SlimmableBatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs, layer = outputs, layer + 1
        parts.append(nn.MaxPool2d(2, 2) if stride == 2 else nn.Identity())
    hidden = [scaled(dim_fc, layer=layer), scaled(dim_fc, layer=layer + 1)]
    classifier = nn.Sequential(
        SlimmableLinear(ExpandedChannels(inputs, GRID * GRID), hidden[0]), nn.ReLU(inplace=True), nn.Dropout(dropout_rate),
        SlimmableLinear(hidden[0], hidden[1]), nn.ReLU(inplace=True), nn.Dropout(dropout_rate),
        SlimmableLinear(hidden[1], num_classes),
    )  # fmt: skip
    stages = {
        "features": PairedSequential(*parts, norm_pairs=pairs),
        "avgpool": nn.AdaptiveAvgPool2d((GRID, GRID)),
        "flatten": nn.Flatten(1),
        "classifier": classifier,
    }
    network = AdaptiveImageNetwork(stages, space)
    initialize(network, fc_std=fc_init_std)
    return network


@register_network("vgg16", words=("VGG16",), build=build_vgg16, classifier_name="classifier.6", takes="images")
def vgg16_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of every network of images, and the channels that VGG has of its own."""
    return {**image_arguments(cfg), "width_per_group": cfg.VGG.WIDTH_PER_GROUP, "dim_fc": cfg.VGG.DIM_FC}
