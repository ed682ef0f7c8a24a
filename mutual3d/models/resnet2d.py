"""ResNets of images (He et al., CVPR 2016) with slimmable layers; children named as in torchvision."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import (
    Channels,
    ExpandedChannels,
    NormPairs,
    PixelChannels,
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    SlimmableLinear,
    SqueezedChannels,
    SqueezeExcite,
    Untie,
    tied,
)
from mutual3d.sampling import SearchSpace

from .blocks import initialize, untie_layers
from .build import image_arguments
from .images import AdaptiveImageNetwork, conv2d, conv_norm, gentle_strides, global_pool, scaled_channels
from .registry import register_network

# Blocks of the four stages, and how many times wider a block's outputs are than its inside.
DEPTHS = {18: ((2, 2, 2, 2), 1), 34: ((3, 4, 6, 3), 1), 50: ((3, 4, 6, 3), 4), 101: ((3, 4, 23, 3), 4)}


class ImageResidualBlock(NormPairs):
    """relu(shortcut(x) + branch(x)): convolutions conv1, conv2, ... each with its norm, a ReLU between two of them.

    The shortcut is `downsample` (1x1, norm) where shapes change, else x itself. stride: in space, of the block as a whole.
    se_reduction: the branch ends with a squeeze-excite of one in so many of its channels inside (SE-ResNet: Hu et al., CVPR
    2018); 0 for none.
    """

    def __init__(
        self, convolutions: Sequence[SlimmableConv2d], in_channels: Channels, out_channels: Channels, stride: int, se_reduction: int = 0
    ) -> None:
        super().__init__()
        self.depth = len(convolutions)
        for i, convolution in enumerate(convolutions, start=1):
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"bn{i}", SlimmableBatchNorm2d(convolution.out_rule))
        self.norm_pairs = tuple((f"conv{i}", f"bn{i}") for i in range(1, self.depth + 1))
        self.relu = nn.ReLU(inplace=True)
        hidden = SqueezedChannels(out_channels, 1 / se_reduction) if se_reduction else None
        self.se = None if hidden is None else SqueezeExcite(out_channels, hidden, dimensions=2)
        is_same = stride == 1 and in_channels == out_channels
        self.downsample = None if is_same else conv_norm(in_channels, out_channels, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth):
            x = self.relu(self._convolve(i, x))
        branch = self._convolve(self.depth, x)
        return self.relu(shortcut + (branch if self.se is None else self.se(branch)))

    def _convolve(self, i: int, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))

    def start_at_zero(self) -> None:
        """Make the block its shortcut, until training changes it (Goyal et al., arXiv:1706.02677)."""
        nn.init.zeros_(getattr(self, f"bn{self.depth}").weight)


def basic_block(
    in_channels: Channels, inner: Channels, out_channels: Channels, stride: int, untie: Untie = tied, se_reduction: int = 0
) -> ImageResidualBlock:
    """3x3 (stride), 3x3. untie: see `untie_layers`. se_reduction: as of ImageResidualBlock."""
    inner = untie(inner)
    convolutions = [conv2d(in_channels, inner, 3, stride), conv2d(inner, out_channels, 3)]
    return ImageResidualBlock(convolutions, in_channels, out_channels, stride, se_reduction)


def bottleneck(
    in_channels: Channels, inner: Channels, out_channels: Channels, stride: int, untie: Untie = tied, se_reduction: int = 0
) -> ImageResidualBlock:
    """1x1, 3x3 (stride), 1x1. untie: see `untie_layers`. se_reduction: as of ImageResidualBlock."""
    first, second = untie(inner), untie(inner)
    convolutions = [conv2d(in_channels, first), conv2d(first, second, 3, stride), conv2d(second, out_channels)]
    return ImageResidualBlock(convolutions, in_channels, out_channels, stride, se_reduction)


def resnet2d_stages(
    inputs: Channels,
    channels: Sequence[Channels],
    depths: Sequence[int],
    expansion: int,
    strides: Sequence[int],
    untie: Untie = tied,
    se_reduction: int = 0,
) -> dict[str, nn.Sequential]:
    """{layer1: blocks, ...}; the first block of a stage takes the stage's inputs and stride.

    depths, strides: one number for each stage, its blocks and its stride in space. expansion: how many times wider the
    outputs are than the inside. untie: see `untie_layers`. se_reduction: as of ImageResidualBlock.
    """
    make_block, stages = basic_block if expansion == 1 else bottleneck, {}
    for i, (outputs, depth, stride) in enumerate(zip(channels, depths, strides), start=1):
        blocks = []
        for j in range(depth):
            blocks.append(make_block(inputs, _inside(outputs, expansion), outputs, stride if j == 0 else 1, untie, se_reduction))
            inputs = outputs
        stages[f"layer{i}"] = nn.Sequential(*blocks)
    return stages


def _inside(outputs: Channels, expansion: int) -> Channels:
    return outputs if expansion == 1 else ExpandedChannels(outputs, 1 / expansion)


def build_resnet2d(
    *,
    space: SearchSpace,
    num_classes: int,
    depth: int = 50,
    width_per_group: int = 64,
    dropout_rate: float = 0.0,
    fc_init_std: float = 0.01,
    zero_init_final_bn: bool = False,
    small_images: bool = False,
    se_reduction: int = 0,
) -> AdaptiveImageNetwork:
    """An adaptive ResNet of images, of 18, 34, 50 or 101 layers; the stride of a bottleneck is its 3x3 convolution's.

    The stem is as wide as the inside of the first stage. small_images: a stem of 3x3 without stride and pooling. Raises
    ValueError for another depth. width_per_group: channels inside the first stage at width 1.0. dropout_rate: before the
    classifier. fc_init_std: standard deviation of its first weights. zero_init_final_bn: whether each residual branch
    begins at zero. se_reduction: 16 for an SE-ResNet, 0 for none (see ImageResidualBlock).
    """
    if depth not in DEPTHS:
        raise ValueError(f"RESNET.DEPTH is {depth}: choose among {', '.join(map(str, DEPTHS))}")
    (depths, expansion), scaled = DEPTHS[depth], scaled_channels(space)
    channels = [scaled(width_per_group * expansion * 2**i) for i in range(4)]
    untie, stem = untie_layers(space), _inside(channels[0], expansion)
    # Where it is as wide as the first stage, whose first shortcut is the stem itself, the two are tied.
    stem = stem if stem == channels[0] else untie(stem)
    stem_stride, pool_stride = gentle_strides([2, 2], small_images)
    stages = {
        "conv1": conv2d(PixelChannels(3), stem, 3 if small_images else 7, stem_stride),
        "bn1": SlimmableBatchNorm2d(stem),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.Identity() if small_images else nn.MaxPool2d(3, pool_stride, padding=1),
        **resnet2d_stages(stem, channels, depths, expansion, (1, 2, 2, 2), untie, se_reduction),
        "avgpool": global_pool(),
        "dropout": nn.Dropout(dropout_rate),
        "fc": SlimmableLinear(channels[-1], num_classes),
    }
    network = AdaptiveImageNetwork(stages, space, norm_pairs=[("conv1", "bn1")])
    initialize(network, fc_std=fc_init_std)
    if zero_init_final_bn:
        network.apply(_start_at_zero)
    return network


def _start_at_zero(module: nn.Module) -> None:
    if isinstance(module, ImageResidualBlock):
        module.start_at_zero()


@register_network("resnet2d", words=("ImageResNet",), build=build_resnet2d, classifier_name="fc", takes="images")
def resnet2d_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `RESNET.*` keys that a ResNet of images has."""
    return {
        **image_arguments(cfg),
        "depth": cfg.RESNET.DEPTH,
        "width_per_group": cfg.RESNET.WIDTH_PER_GROUP,
        "zero_init_final_bn": cfg.RESNET.ZERO_INIT_FINAL_BN,
        "se_reduction": cfg.RESNET.SE_REDUCTION,
    }
