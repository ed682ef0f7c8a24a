"""MobileNet v1, v2 and v3-Large with slimmable layers; children of v2 and v3 named as in torchvision.

v1: Howard et al., arXiv:1704.04861. v2: Sandler et al., CVPR 2018. v3: Howard et al., ICCV 2019; all three in the paper's
6.1. v2's 1280 features, and v3's, keep their number at every width, so that the classifier always reads the same.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from fvcore.common.config import CfgNode

from mutual3d.layers import (
    Channels,
    ExpandedChannels,
    FixedChannels,
    PairedSequential,
    PixelChannels,
    SlimmableBatchNorm2d,
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

FEATURES = 1280
relu = functools.partial(nn.ReLU, inplace=True)
relu6 = functools.partial(nn.ReLU6, inplace=True)
hardswish = functools.partial(nn.Hardswish, inplace=True)

# ---- v1 ----------------------------------------------------------------------------------------------------------------

# (outputs, stride) of each depthwise separable convolution.
V1_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def separable(in_channels: Channels, out_channels: Channels, stride: int) -> nn.Sequential:
    """Depthwise 3x3 (stride), norm, ReLU, 1x1, norm, ReLU."""
    depthwise = conv_norm(in_channels, in_channels, 3, stride, depthwise=True, activation=relu)
    return nn.Sequential(depthwise, conv_norm(in_channels, out_channels, activation=relu))


def deepened(layers: Sequence[tuple[int, int]], depth_factor: float) -> list[tuple[int, int]]:
    """Layers (outputs, stride) with `depth_factor` times as many of each number of outputs, rounded up (EfficientNet, 3.3).

    The layers that are added follow the last one of their outputs, without stride.
    """
    deep = []
    for outputs, group in itertools.groupby(layers, key=lambda layer: layer[0]):
        stage = list(group)
        # A product such as 1.1 x 10 is a little above the whole number that it stands for.
        count = math.ceil(round(depth_factor * len(stage), 6))
        deep += [*stage[:count], *[(outputs, 1)] * (count - len(stage))]
    return deep


def build_mobilenet_v1(
    *,
    space: SearchSpace,
    num_classes: int,
    dropout_rate: float = 0.0,
    fc_init_std: float = 0.01,
    small_images: bool = False,
    depth_factor: float = 1.0,
) -> AdaptiveImageNetwork:
    """An adaptive MobileNet v1; `small_images` leaves out the first two halvings.

    dropout_rate: before the classifier. fc_init_std: standard deviation of its first weights. depth_factor: layers of each
    resolution, times the published ones, rounded up: 1.4 in EfficientNet's best scaling to 2.3 GFLOPs (paper, Table 5).
    """
    scaled, layers = scaled_channels(space), deepened(V1_LAYERS, depth_factor)
    strides = gentle_strides([2, *(stride for _, stride in layers)], small_images)
    # No sum ties two counts: each layer may have a width of its own.
    channels = [scaled(32), *(scaled(outputs, layer=i) for i, (outputs, _) in enumerate(layers, start=1))]
    stem = conv_norm(PixelChannels(3), channels[0], 3, strides[0], activation=relu)
    features = nn.Sequential(stem, *map(separable, channels, channels[1:], strides[1:]))
    classifier = nn.Sequential(nn.Dropout(dropout_rate), SlimmableLinear(channels[-1], num_classes))
    return _network(features, classifier, space, fc_init_std)


# ---- v2 ----------------------------------------------------------------------------------------------------------------

# (expansion, outputs, blocks, stride of the first block) of each stage.
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """x -> branch(x), plus x where nothing changes its shape. name: what torchvision calls the branch.

    stride: in space, of the branch.
    """

    def __init__(
        self, name: str, branch: nn.Sequential, in_channels: Channels, out_channels: Channels, stride: int
    ) -> None:
        super().__init__()
        self.name, self.has_shortcut = name, stride == 1 and in_channels == out_channels
        self.add_module(name, branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = getattr(self, self.name)(x)
        return x + y if self.has_shortcut else y


def v2_block(
    in_channels: Channels, out_channels: Channels, expansion: int, stride: int, untie: Untie = tied
) -> InvertedResidual:
    """1x1 to `expansion` times the inputs, depthwise 3x3 (stride), 1x1 without activation; a norm follows each.

    untie: see `untie_layers`; without the first convolution the depthwise one ties the inside to the inputs.
    """
    widened = ExpandedChannels(in_channels, expansion)
    inner = widened if expansion == 1 else untie(widened)
    expand = [] if expansion == 1 else [conv_norm(in_channels, inner, activation=relu6)]
    spatial = conv_norm(inner, inner, 3, stride, depthwise=True, activation=relu6)
    parts = [*expand, spatial, conv2d(inner, out_channels), SlimmableBatchNorm2d(out_channels)]
    branch = PairedSequential(*parts, norm_pairs=[(str(len(parts) - 2), str(len(parts) - 1))])
    return InvertedResidual("conv", branch, in_channels, out_channels, stride)


def build_mobilenet_v2(
    *,
    space: SearchSpace,
    num_classes: int,
    dropout_rate: float = 0.2,
    fc_init_std: float = 0.01,
    small_images: bool = False,
) -> AdaptiveImageNetwork:
    """An adaptive MobileNet v2; `small_images` leaves out the first two halvings.

    dropout_rate: before the classifier. fc_init_std: standard deviation of its first weights.
    """
    scaled, untie = scaled_channels(space), untie_layers(space)
    stem_stride, *strides = gentle_strides([2, *(stride for *_, stride in V2_STAGES)], small_images)
    channels = scaled(32)
    features: list[nn.Module] = [conv_norm(PixelChannels(3), channels, 3, stem_stride, activation=relu6)]
    for i, (expansion, outputs, depth, _) in enumerate(V2_STAGES):
        for j in range(depth):
            inputs, channels = channels, scaled(outputs, layer=i + 1)
            features.append(v2_block(inputs, channels, expansion, strides[i] if j == 0 else 1, untie))
    features.append(conv_norm(channels, FixedChannels(FEATURES), activation=relu6))
    classifier = nn.Sequential(nn.Dropout(dropout_rate), SlimmableLinear(FEATURES, num_classes))
    return _network(nn.Sequential(*features), classifier, space, fc_init_std)


# ---- v3-Large ----------------------------------------------------------------------------------------------------------


class V3Block(NamedTuple):
    """inner, outputs: channels at width 1.0. with_se: whether it squeezes and excites."""

    kernel: int
    inner: int
    outputs: int
    with_se: bool
    activation: Callable[[], nn.Module]
    stride: int


V3_STEM = 16
V3_BLOCKS = tuple(
    V3Block(*values)
    for values in (
        (3, 16, 16, False, relu, 1),
        (3, 64, 24, False, relu, 2),
        (3, 72, 24, False, relu, 1),
        (5, 72, 40, True, relu, 2),
        (5, 120, 40, True, relu, 1),
        (5, 120, 40, True, relu, 1),
        (3, 240, 80, False, hardswish, 2),
        (3, 200, 80, False, hardswish, 1),
        (3, 184, 80, False, hardswish, 1),
        (3, 184, 80, False, hardswish, 1),
        (3, 480, 112, True, hardswish, 1),
        (3, 672, 112, True, hardswish, 1),
        (5, 672, 160, True, hardswish, 2),
        (5, 960, 160, True, hardswish, 1),
        (5, 960, 160, True, hardswish, 1),
    )
)
# torchvision's norms of v3; those of the other networks are PyTorch's.
v3_conv_norm = functools.partial(conv_norm, eps=1e-3, momentum=0.01)


class HardSqueezeExcite(SqueezeExcite):
    """Squeeze-excite with a piecewise linear gate in the place of the sigmoid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean(self.pooled_dimensions, keepdim=True)
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(pooled))))


def v3_block(
    in_channels: Channels, inner: Channels, out_channels: Channels, block: V3Block, stride: int
) -> InvertedResidual:
    """1x1, depthwise kxk (stride), squeeze-excite with a quarter of the channels, 1x1 without activation."""
    expand = [] if inner == in_channels else [v3_conv_norm(in_channels, inner, activation=block.activation)]
    depthwise = v3_conv_norm(inner, inner, block.kernel, stride, depthwise=True, activation=block.activation)
    squeeze = [HardSqueezeExcite(inner, SqueezedChannels(inner, 1 / 4), dimensions=2)] if block.with_se else []
    branch = nn.Sequential(*expand, depthwise, *squeeze, v3_conv_norm(inner, out_channels))
    return InvertedResidual("block", branch, in_channels, out_channels, stride)


def build_mobilenet_v3(
    *,
    space: SearchSpace,
    num_classes: int,
    dropout_rate: float = 0.2,
    fc_init_std: float = 0.01,
    small_images: bool = False,
) -> AdaptiveImageNetwork:
    """An adaptive MobileNet v3-Large; `small_images` leaves out the first two halvings.

    The hidden width of each squeeze-excite is a quarter of its block's at every width (paper, 6.1). dropout_rate: before
    the classifier. fc_init_std: standard deviation of its first weights.
    """
    scaled = scaled_channels(space)
    stem_stride, *strides = gentle_strides([2, *(block.stride for block in V3_BLOCKS)], small_images)
    channels = scaled(V3_STEM)
    features: list[nn.Module] = [v3_conv_norm(PixelChannels(3), channels, 3, stem_stride, activation=hardswish)]
    for i, (block, stride) in enumerate(zip(V3_BLOCKS, strides), start=1):
        inputs, channels = channels, scaled(block.outputs)
        # Rounded on its own, as v3's authors do: not all are whole multiples of the inputs.
        inner = inputs if block.inner == inputs.base else scaled(block.inner, layer=i)
        features.append(v3_block(inputs, inner, channels, block, stride))
    last = untie_layers(space)(ExpandedChannels(channels, 6))
    features.append(v3_conv_norm(channels, last, activation=hardswish))
    classifier = nn.Sequential(
        SlimmableLinear(last, FEATURES), hardswish(), nn.Dropout(dropout_rate), SlimmableLinear(FEATURES, num_classes)
    )
    return _network(nn.Sequential(*features), classifier, space, fc_init_std)


def _network(
    features: nn.Sequential, classifier: nn.Sequential, space: SearchSpace, fc_init_std: float
) -> AdaptiveImageNetwork:
    network = AdaptiveImageNetwork({"features": features, "pool": global_pool(), "classifier": classifier}, space)
    initialize(network, fc_std=fc_init_std)
    return network


# ---- What is known of them ---------------------------------------------------------------------------------------------


@register_network(
    "mobilenet_v1", words=("MobileNetV1",), build=build_mobilenet_v1, classifier_name="classifier.1", takes="images"
)
def mobilenet_v1_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of every network of images, and a config's `MOBILENET.DEPTH_FACTOR`."""
    return {**image_arguments(cfg), "depth_factor": cfg.MOBILENET.DEPTH_FACTOR}


@register_network(
    "mobilenet_v2", words=("MobileNetV2",), build=build_mobilenet_v2, classifier_name="classifier.1", takes="images"
)
@register_network(
    "mobilenet_v3", words=("MobileNetV3",), build=build_mobilenet_v3, classifier_name="classifier.3", takes="images"
)
def mobilenet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of every network of images. Raises ValueError where a config asks for a depth that is v1's alone."""
    if cfg.MOBILENET.DEPTH_FACTOR != 1:
        raise ValueError(
            f"MOBILENET.DEPTH_FACTOR is {cfg.MOBILENET.DEPTH_FACTOR:g}: MobileNetV1 alone may be deeper; {cfg.MODEL.MODEL_NAME} has 1"
        )
    return image_arguments(cfg)
