"""X3D (Feichtenhofer, CVPR 2020) with slimmable layers; children named as in PySlowFast."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import (
    Channels,
    ExpandedChannels,
    PairedSequential,
    PixelChannels,
    ScaledChannels,
    SlimmableBatchNorm3d,
    SqueezedChannels,
    SqueezeExcite,
    Untie,
    make_divisible,
    tied,
)
from mutual3d.sampling import SearchSpace

from .adaptive import AdaptiveNetwork
from .blocks import PathwayStage, ResidualBlock, chain, conv3d, initialize, untie_layers
from .build import of_all_pathways, video_arguments
from .heads import HeadOptions, X3DHead
from .registry import register_network
from .resnet3d import check_stages

BASE_DEPTHS = (1, 2, 5, 3)


def x3d_stem(out_channels: Channels) -> PairedSequential:
    """Spatial 1x3x3 with stride 2, then depthwise in time 5x1x1, norm, ReLU."""
    return chain(
        norm_pairs=[("conv", "bn")],
        conv_xy=conv3d(PixelChannels(3), out_channels, (1, 3, 3), stride=(1, 2, 2)),
        conv=conv3d(out_channels, out_channels, (5, 1, 1), groups=out_channels.full),
        bn=SlimmableBatchNorm3d(out_channels),
        relu=nn.ReLU(inplace=True),
    )


def x3d_block(
    in_channels: Channels,
    out_channels: Channels,
    bottleneck_factor: float,
    stride: int,
    dilation: int,
    with_se: bool,
    untie: Untie = tied,
) -> ResidualBlock:
    """1x1x1 -> depthwise 3x3x3 (stride, dilation) -> squeeze-excite -> Swish -> 1x1x1, each followed by a norm.

    bottleneck_factor: how many times wider the inside is than the outputs. stride and dilation are in space. with_se:
    whether it has the squeeze-excite. untie: see `untie_layers`; the depthwise convolution ties all of the inside.
    """
    inner = untie(ExpandedChannels(out_channels, bottleneck_factor))
    branch2 = chain(
        norm_pairs=[("a", "a_bn"), ("b", "b_bn"), ("c", "c_bn")],
        a=conv3d(in_channels, inner, 1),
        a_bn=SlimmableBatchNorm3d(inner),
        a_relu=nn.ReLU(inplace=True),
        b=conv3d(inner, inner, 3, (1, stride, stride), (1, dilation, dilation), groups=inner.full),
        b_bn=SlimmableBatchNorm3d(inner),
        se=SqueezeExcite(inner, SqueezedChannels(inner, 1 / 16)) if with_se else None,
        b_swish=nn.SiLU(inplace=True),
        c=conv3d(inner, out_channels, 1),
        c_bn=SlimmableBatchNorm3d(out_channels),
    )
    return ResidualBlock(branch2, in_channels, out_channels, stride)


def x3d_stage(
    in_channels: Channels,
    out_channels: Channels,
    depth: int,
    bottleneck_factor: float,
    stride: int,
    dilation: int,
    untie: Untie = tied,
) -> PathwayStage:
    """`depth` blocks; the first has the stride in space, every other one (0, 2, 4, ...) squeeze-excite.

    bottleneck_factor: how many times wider the inside of a block is than its outputs. stride and dilation are in space.
    untie: see `untie_layers`.
    """
    blocks: dict[str, nn.Module] = {}
    for i in range(depth):
        inputs, block_stride = (in_channels, stride) if i == 0 else (out_channels, 1)
        blocks[f"res{i}"] = x3d_block(
            inputs, out_channels, bottleneck_factor, block_stride, dilation, with_se=i % 2 == 0, untie=untie
        )
    return PathwayStage([blocks])


def stage_channels(dim_c1: int, width_factor: float, scale_res2: bool) -> list[int]:
    """Channels of the stem and of the four stages at width 1.0.

    dim_c1: channels of the stem before `width_factor`, which multiplies all of them. scale_res2: whether the first stage is
    twice as wide as the stem.
    """
    res2 = make_divisible(dim_c1 * 2) if scale_res2 else dim_c1
    bases = [res2, make_divisible(res2 * 2)]
    bases += [make_divisible(bases[1] * 2), make_divisible(bases[1] * 4)]
    return [make_divisible(base * width_factor) for base in (dim_c1, *bases)]


@dataclass(frozen=True)
class X3DShape:
    """Channels and depth of an X3D, M by default: PySlowFast's `X3D.*` keys.

    strides, dilations: in space, of the four stages. Raises ValueError for strides and dilations below 1.
    """

    width_factor: float = 2.0
    depth_factor: float = 2.2
    bottleneck_factor: float = 2.25
    dim_c1: int = 12
    dim_c5: int = 2048
    scale_res2: bool = False
    strides: Sequence[int] = (2, 2, 2, 2)
    dilations: Sequence[int] = (1, 1, 1, 1)

    def __post_init__(self) -> None:
        check_stages(self.strides, self.dilations)


def build_x3d(
    *,
    space: SearchSpace,
    head: HeadOptions,
    shape: X3DShape = X3DShape(),
    fc_init_std: float = 0.01,
    zero_init_final_bn: bool = True,
) -> AdaptiveNetwork:
    """An adaptive X3D for clips of 3 channels; every size and frame count runs.

    `space` (SearchSpace) says which widths and sizes it is trained for. fc_init_std: standard deviation of the classifier's
    first weights. zero_init_final_bn: whether each residual branch begins at zero.
    """
    max_width, factor, untie = space.width_range[1], shape.bottleneck_factor, untie_layers(space)
    counts = stage_channels(shape.dim_c1, shape.width_factor, shape.scale_res2)
    first, *stages = [ScaledChannels(base, space.divisor, max_width) for base in counts]
    # A first block without stride, and as wide, has the stem itself for its shortcut.
    stem = first if shape.strides[0] == 1 and first == stages[0] else untie(first)
    depths = [math.ceil(depth * shape.depth_factor) for depth in BASE_DEPTHS]
    children: dict[str, nn.Module] = {"s1": PathwayStage([{"stem": x3d_stem(stem)}])}
    for i, (inputs, outputs, depth) in enumerate(zip([stem, *stages], stages, depths)):
        children[f"s{i + 2}"] = x3d_stage(inputs, outputs, depth, factor, shape.strides[i], shape.dilations[i], untie)
    inner = untie(ExpandedChannels(stages[-1], factor))
    children["head"] = X3DHead(stages[-1], inner, shape.dim_c5, head.num_classes, head.dropout_rate, head.detection)
    network = AdaptiveNetwork(children, space)
    initialize(network, fc_std=fc_init_std, zero_init_final_bn=zero_init_final_bn)
    return network


# PyTorchVideo's is the same, but for the norm that it leaves out of shortcuts which keep the number of channels.
@register_network("x3d", words=("X3D", "PTVX3D"), build=build_x3d, classifier_name="head.projection")
def x3d_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `X3D.*` keys, and of the stages' in RESNET."""
    return {
        "width_factor": cfg.X3D.WIDTH_FACTOR,
        "depth_factor": cfg.X3D.DEPTH_FACTOR,
        "bottleneck_factor": cfg.X3D.BOTTLENECK_FACTOR,
        "dim_c1": cfg.X3D.DIM_C1,
        "dim_c5": cfg.X3D.DIM_C5,
        "scale_res2": cfg.X3D.SCALE_RES2,
        # RESNET.SPATIAL_STRIDES is a ResNet's by default: 1, 2, 2, 2. X3D has no max-pool, and its first stage always strides.
        "strides": [2, *of_all_pathways(cfg, "SPATIAL_STRIDES", pathways=1)[1:]],
        "dilations": of_all_pathways(cfg, "SPATIAL_DILATIONS", pathways=1),
        **video_arguments(cfg),
    }
