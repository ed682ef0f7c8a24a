"""Slow and SlowFast (Feichtenhofer et al., ICCV 2019) with slimmable layers; children named as in PySlowFast."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn as nn

from mutual3d.layers import (
    AdaptiveFusion,
    Channels,
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    PairedSequential,
    ScaledChannels,
    SlimmableBatchNorm3d,
)
from mutual3d.sampling import SearchSpace, shrink_clip, temporal_indices

from .adaptive import AdaptiveNetwork
from .blocks import PathwayStage, ResidualBlock, chain, conv3d, initialize
from .heads import ResNetHead

STAGE_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Temporal kernels of the stem and of the `a` convolutions of res2 to res5.
SLOW_KERNELS = (1, 1, 1, 3, 3)
FAST_KERNELS = (5, 3, 3, 3, 3)


def resnet_stem(out_channels: Channels, temporal_kernel: int) -> PairedSequential:
    """kx7x7 convolution with stride 2 in space, norm, ReLU, 1x3x3 max-pool with stride 2 in space."""
    return chain(
        norm_pairs=[("conv", "bn")],
        conv=conv3d(FixedChannels(3), out_channels, (temporal_kernel, 7, 7), stride=(1, 2, 2)),
        bn=SlimmableBatchNorm3d(out_channels),
        relu=nn.ReLU(inplace=True),
        pool_layer=nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )


def bottleneck(
    in_channels: Channels, out_channels: Channels, temporal_kernel: int, stride: int, dilation: int
) -> ResidualBlock:
    """kx1x1 -> 1x3x3 (stride, dilation) -> 1x1x1, a quarter of the channels inside, each followed by a norm."""
    inner = ExpandedChannels(out_channels, 1 / 4)
    branch2 = chain(
        norm_pairs=[("a", "a_bn"), ("b", "b_bn"), ("c", "c_bn")],
        a=conv3d(in_channels, inner, (temporal_kernel, 1, 1)),
        a_bn=SlimmableBatchNorm3d(inner),
        a_relu=nn.ReLU(inplace=True),
        b=conv3d(inner, inner, (1, 3, 3), stride=(1, stride, stride), dilation=(1, dilation, dilation)),
        b_bn=SlimmableBatchNorm3d(inner),
        b_relu=nn.ReLU(inplace=True),
        c=conv3d(inner, out_channels, 1),
        c_bn=SlimmableBatchNorm3d(out_channels),
    )
    return ResidualBlock(branch2, in_channels, out_channels, stride)


def resnet_stage(
    in_channels: Channels,
    out_channels: Channels,
    depth: int,
    temporal_kernel: int,
    temporal_blocks: int,
    stride: int,
    dilation: int,
) -> dict[str, ResidualBlock]:
    """{name: block}; the first takes channels and stride, the first `temporal_blocks` the temporal kernel, others 1."""
    blocks = {}
    for i in range(depth):
        inputs, block_stride = (in_channels, stride) if i == 0 else (out_channels, 1)
        kernel = temporal_kernel if i < temporal_blocks else 1
        blocks[f"res{i}"] = bottleneck(inputs, out_channels, kernel, block_stride, dilation)
    return blocks


@dataclass(frozen=True)
class ResNetShape:
    """Depth, width and the stages res2 to res5 of a network: PySlowFast's `RESNET.*` keys.

    temporal_blocks: how many blocks of a stage, from its first, have the temporal kernel. Raises ValueError for an
    unknown depth and for strides and dilations below 1.
    """

    depth: int = 50
    width_per_group: int = 64
    temporal_blocks: tuple = (3, 4, 6, 3)
    strides: tuple = (1, 2, 2, 2)
    dilations: tuple = (1, 1, 1, 1)

    def __post_init__(self) -> None:
        if self.depth not in STAGE_DEPTHS:
            raise ValueError(f"RESNET.DEPTH is {self.depth}: choose among {', '.join(map(str, STAGE_DEPTHS))}")
        check_stages(self.strides, self.dilations)

    def stage(
        self, i: int, in_channels: Channels, out_channels: Channels, kernels: Sequence[int]
    ) -> dict[str, ResidualBlock]:
        """{name: block} of res2 (i = 0) to res5 (i = 3). kernels: temporal ones of the pathway, the stem's first."""
        blocks, temporal_blocks = STAGE_DEPTHS[self.depth][i], self.temporal_blocks[i]
        options = blocks, kernels[i + 1], temporal_blocks, self.strides[i], self.dilations[i]
        return resnet_stage(in_channels, out_channels, *options)


def read_shape(arguments: Mapping) -> ResNetShape:
    """A ResNetShape of arguments by name; ValueError for a name that it does not have."""
    legal = [field.name for field in fields(ResNetShape)]
    unknown = [name for name in arguments if name not in legal]
    if unknown:
        raise ValueError(f"the network has no argument '{unknown[0]}': of its shape there are {', '.join(legal)}")
    return ResNetShape(**arguments)


def check_stages(strides: Sequence[int], dilations: Sequence[int]) -> None:
    """Raises ValueError unless both give the four stages values of 1 or more."""
    for key, values in (("SPATIAL_STRIDES", strides), ("SPATIAL_DILATIONS", dilations)):
        if len(values) != 4 or min(values) < 1:
            raise ValueError(f"RESNET.{key} are {list(values)} for the stages res2 to res5: give four numbers, 1 or more")


def slow_channels(space: SearchSpace, width_per_group: int) -> tuple[Channels, list[ScaledChannels]]:
    """(stem, [res2, res3, res4, res5]) of the adaptive pathway; the stem is as wide as the inside of res2."""
    stages = [ScaledChannels(4 * width_per_group * 2**i, space.divisor, space.width_range[1]) for i in range(4)]
    return ExpandedChannels(stages[0], 1 / 4), stages


def build_slow(
    *, space: SearchSpace, num_classes: int, dropout_rate: float = 0.5, fc_init_std: float = 0.01,
    zero_init_final_bn: bool = True, detection: dict | None = None, **arguments: Any,
) -> AdaptiveNetwork:  # fmt: skip
    """An adaptive Slow network: one pathway, no stride in time.

    detection: None, or arguments of BoxPool: the network then classifies boxes. Other arguments are of ResNetShape.
    """
    shape = read_shape(arguments)
    stem, stages = slow_channels(space, shape.width_per_group)
    children: dict[str, nn.Module] = {"s1": PathwayStage([{"stem": resnet_stem(stem, SLOW_KERNELS[0])}])}
    for i, (inputs, outputs) in enumerate(zip([stem, *stages], stages)):
        children[f"s{i + 2}"] = PathwayStage([shape.stage(i, inputs, outputs, SLOW_KERNELS)])
    children["head"] = ResNetHead(stages[-1], num_classes, dropout_rate, detection)
    network = AdaptiveNetwork(children, space, classifier_name="head.projection")
    return _finished(network, fc_init_std, zero_init_final_bn)


def build_slowfast(
    *, space: SearchSpace, num_classes: int, alpha: int = 8, beta_inv: int = 8, fusion_ratio: int = 2,
    fusion_kernel: int = 5,
    dropout_rate: float = 0.5, fc_init_std: float = 0.01, zero_init_final_bn: bool = True,
    detection: dict | None = None, **arguments: Any,
) -> AdaptiveNetwork:  # fmt: skip
    """An adaptive SlowFast network: only the Slow pathway has configurations, the Fast one always runs whole.

    Takes [slow B, 3, t, s, s; fast B, 3, alpha T, S, S], which `fit_clip` makes of one clip at the Fast rate. The
    arguments are PySlowFast's `SLOWFAST.*` keys, and those of `build_slow`. Raises ValueError for a Fast pathway without
    channels.
    """
    shape = read_shape(arguments)
    stem, stages = slow_channels(space, shape.width_per_group)
    slow, fast = [stem, *stages], fast_channels([stem, *stages], beta_inv)
    children: dict[str, nn.Module] = {"s1": PathwayStage([{"stem": resnet_stem(c[0], k[0])} for c, k in _both(slow, fast)])}
    for i in range(len(stages)):
        fusion = AdaptiveFusion(
            fast[i].count, ratio=fusion_ratio, kernel_size=fusion_kernel, alpha=alpha, shrink=shrink_clip
        )
        children[f"s{i + 1}_fuse"] = fusion
        joined = [JoinedChannels(slow[i], fusion.out_channels), fast[i]]
        children[f"s{i + 2}"] = PathwayStage([
            shape.stage(i, inputs, c[i + 1], k) for inputs, (c, k) in zip(joined, _both(slow, fast))
        ])
    children["head"] = ResNetHead(JoinedChannels(slow[-1], fast[-1].count), num_classes, dropout_rate, detection)
    network = AdaptiveNetwork(
        children, space, functools.partial(slow_and_fast, alpha=alpha), alpha * space.temporal_sizes[-1],
        classifier_name="head.projection",
    )  # fmt: skip
    return _finished(network, fc_init_std, zero_init_final_bn)


def fast_channels(slow: Sequence[Channels], beta_inv: int) -> list[FixedChannels]:
    """Channels of the Fast pathway: a share 1 / beta_inv of the whole Slow one's, at every width."""
    least = min(channels.at(1.0) for channels in slow)
    if not 1 <= beta_inv <= least:
        raise ValueError(
            f"SLOWFAST.BETA_INV is {beta_inv}: it must be 1 or more, and at most RESNET.WIDTH_PER_GROUP ({least}), "
            "or the Fast pathway has no channels"
        )
    return [FixedChannels(channels.at(1.0) // beta_inv) for channels in slow]


def slow_and_fast(clip_BCTHW: torch.Tensor, alpha: int) -> list[torch.Tensor]:
    """[Slow, Fast] of a clip at the Fast rate: every alpha-th frame, spread from the first to the last, and all."""
    frames = clip_BCTHW.shape[2]
    if frames % alpha:
        raise ValueError(f"a clip of {frames} frames does not divide by SLOWFAST.ALPHA {alpha}")
    indices = temporal_indices(frames, frames // alpha).to(clip_BCTHW.device)
    return [clip_BCTHW.index_select(2, indices), clip_BCTHW]


def _both(slow, fast):
    return (slow, SLOW_KERNELS), (fast, FAST_KERNELS)


def _finished(network, fc_init_std, zero_init_final_bn):
    initialize(network, fc_std=fc_init_std, zero_init_final_bn=zero_init_final_bn)
    return network
