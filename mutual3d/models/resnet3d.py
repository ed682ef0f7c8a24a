"""Slow and SlowFast (Feichtenhofer et al., ICCV 2019), C2D (Wang et al., CVPR 2018) and I3D (Carreira and Zisserman,
CVPR 2017) with slimmable layers; children named as in PySlowFast.

Slow, C2D and I3D are one residual network with other temporal kernels; the last two halve the frames after res2.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import (
    AdaptiveFusion,
    Channels,
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    PairedSequential,
    PixelChannels,
    ScaledChannels,
    SlimmableBatchNorm3d,
    Untie,
    tied,
)
from mutual3d.sampling import SearchSpace, shrink_clip, take_frames

from .adaptive import AdaptiveNetwork
from .blocks import PathwayStage, ResidualBlock, chain, conv3d, initialize, untie_layers
from .build import resnet_arguments
from .heads import HeadOptions, ResNetHead
from .registry import register_network

STAGE_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Temporal kernels of the stem, and of the `a` convolutions of res2 to res5: those of a stage's blocks, in turns.
SLOW_KERNELS = ((1,), (1,), (1,), (3,), (3,))
FAST_KERNELS = ((5,), (3,), (3,), (3,), (3,))
C2D_KERNELS = ((1,), (1,), (1,), (1,), (1,))
I3D_KERNELS = ((5,), (3,), (3, 1), (3, 1), (1, 3))


class FramePool(nn.Module):
    """The maximum over each two frames of B, C, T, H, W; an odd last frame is left out, and one frame alone stays."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool3d((2, 1, 1), stride=(2, 1, 1))

    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        return x_BCTHW if x_BCTHW.shape[2] == 1 else self.pool(x_BCTHW)


def resnet_stem(out_channels: Channels, temporal_kernel: int) -> PairedSequential:
    """kx7x7 convolution with stride 2 in space, norm, ReLU, 1x3x3 max-pool with stride 2 in space.

    temporal_kernel: k, frames that the convolution sees.
    """
    return chain(
        norm_pairs=[("conv", "bn")],
        conv=conv3d(PixelChannels(3), out_channels, (temporal_kernel, 7, 7), stride=(1, 2, 2)),
        bn=SlimmableBatchNorm3d(out_channels),
        relu=nn.ReLU(inplace=True),
        pool_layer=nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )


def bottleneck(
    in_channels: Channels, out_channels: Channels, temporal_kernel: int, stride: int, dilation: int, untie: Untie = tied
) -> ResidualBlock:
    """kx1x1 -> 1x3x3 (stride, dilation) -> 1x1x1, a quarter of the channels inside, each followed by a norm.

    temporal_kernel: k, frames that the first convolution sees. untie: see `untie_layers`.
    """
    inner = ExpandedChannels(out_channels, 1 / 4)
    first, second = untie(inner), untie(inner)
    branch2 = chain(
        norm_pairs=[("a", "a_bn"), ("b", "b_bn"), ("c", "c_bn")],
        a=conv3d(in_channels, first, (temporal_kernel, 1, 1)),
        a_bn=SlimmableBatchNorm3d(first),
        a_relu=nn.ReLU(inplace=True),
        b=conv3d(first, second, (1, 3, 3), stride=(1, stride, stride), dilation=(1, dilation, dilation)),
        b_bn=SlimmableBatchNorm3d(second),
        b_relu=nn.ReLU(inplace=True),
        c=conv3d(second, out_channels, 1),
        c_bn=SlimmableBatchNorm3d(out_channels),
    )
    return ResidualBlock(branch2, in_channels, out_channels, stride)


def resnet_stage(
    in_channels: Channels,
    out_channels: Channels,
    depth: int,
    temporal_kernels: Sequence[int],
    temporal_blocks: int,
    stride: int,
    dilation: int,
    untie: Untie = tied,
) -> dict[str, ResidualBlock]:
    """{name: block}; the first takes channels and stride, the first `temporal_blocks` the kernels in turns, others 1.

    depth: number of blocks. temporal_kernels: frames that their first convolutions see. stride and dilation are in space.
    untie: see `untie_layers`.
    """
    blocks = {}
    for i in range(depth):
        inputs, block_stride = (in_channels, stride) if i == 0 else (out_channels, 1)
        kernel = temporal_kernels[i % len(temporal_kernels)] if i < temporal_blocks else 1
        blocks[f"res{i}"] = bottleneck(inputs, out_channels, kernel, block_stride, dilation, untie)
    return blocks


@dataclass(frozen=True)
class ResNetShape:
    """Depth, width and the stages res2 to res5 of a network: PySlowFast's `RESNET.*` keys.

    temporal_blocks: how many blocks of a stage, from its first, have the temporal kernels; a stage of two pathways may give
    one number for each. Raises ValueError for an unknown depth and for strides and dilations below 1.
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
        self,
        i: int,
        in_channels: Channels,
        out_channels: Channels,
        kernels: Sequence[Sequence[int]],
        pathway: int = 0,
        untie: Untie = tied,
    ) -> dict[str, ResidualBlock]:
        """{name: block} of res2 (i = 0) to res5 (i = 3). kernels: temporal ones of the pathway, the stem's first.

        untie: see `untie_layers`.
        """
        temporal_blocks = self.temporal_blocks[i]
        if not isinstance(temporal_blocks, int):
            temporal_blocks = temporal_blocks[pathway]
        options = STAGE_DEPTHS[self.depth][i], kernels[i + 1], temporal_blocks, self.strides[i], self.dilations[i]
        return resnet_stage(in_channels, out_channels, *options, untie)


def check_stages(strides: Sequence[int], dilations: Sequence[int]) -> None:
    """Raises ValueError unless both give the four stages values of 1 or more. strides, dilations: in space, of res2 to res5."""
    for key, values in (("SPATIAL_STRIDES", strides), ("SPATIAL_DILATIONS", dilations)):
        if len(values) != 4 or min(values) < 1:
            raise ValueError(f"RESNET.{key} are {list(values)} for the stages res2 to res5: give four numbers, 1 or more")


def slow_channels(space: SearchSpace, width_per_group: int) -> tuple[Channels, list[ScaledChannels]]:
    """(stem, [res2, res3, res4, res5]) of the adaptive pathway; the stem is as wide as the inside of res2.

    width_per_group: channels of the stem at width 1.0.
    """
    stages = [ScaledChannels(4 * width_per_group * 2**i, space.divisor, space.width_range[1]) for i in range(4)]
    return ExpandedChannels(stages[0], 1 / 4), stages


@dataclass(frozen=True)
class FirstWeights:
    """How a network's first weights are drawn. fc_init_std: standard deviation of the classifier's. zero_init_final_bn:
    whether each residual branch begins at zero."""

    fc_init_std: float = 0.01
    zero_init_final_bn: bool = True

    def put_into(self, network: AdaptiveNetwork) -> AdaptiveNetwork:
        """Draw all weights of a network, which is returned."""
        initialize(network, fc_std=self.fc_init_std, zero_init_final_bn=self.zero_init_final_bn)
        return network


def build_slow(
    *,
    space: SearchSpace,
    head: HeadOptions,
    shape: ResNetShape = ResNetShape(),
    first: FirstWeights = FirstWeights(),
) -> AdaptiveNetwork:
    """An adaptive Slow network: one pathway, no stride in time."""
    return first.put_into(_one_pathway(space, head, shape, SLOW_KERNELS))


def build_c2d(
    *,
    space: SearchSpace,
    head: HeadOptions,
    shape: ResNetShape = ResNetShape(),
    temporal_pool: bool = True,
    first: FirstWeights = FirstWeights(),
) -> AdaptiveNetwork:
    """An adaptive C2D: `build_slow` without temporal kernels; time meets in the pool after res2 and in the head.

    temporal_pool: take the maximum of each two frames after res2. One frame stays.
    """
    return first.put_into(_one_pathway(space, head, shape, C2D_KERNELS, temporal_pool))


def build_i3d(
    *,
    space: SearchSpace,
    head: HeadOptions,
    shape: ResNetShape = ResNetShape(),
    temporal_pool: bool = True,
    first: FirstWeights = FirstWeights(),
) -> AdaptiveNetwork:
    """An adaptive I3D: `build_c2d` with temporal kernels in the stem and in every other block (in each of res2).

    temporal_pool: as of `build_c2d`.
    """
    return first.put_into(_one_pathway(space, head, shape, I3D_KERNELS, temporal_pool))


def _one_pathway(
    space: SearchSpace,
    head: HeadOptions,
    shape: ResNetShape,
    kernels: Sequence[Sequence[int]],
    temporal_pool: bool = False,
) -> AdaptiveNetwork:
    """A ResNet of one pathway. kernels: temporal ones, the stem's first."""
    untie = untie_layers(space)
    narrow, stages = slow_channels(space, shape.width_per_group)
    stem = untie(narrow)
    children: dict[str, nn.Module] = {"s1": PathwayStage([{"stem": resnet_stem(stem, kernels[0][0])}])}
    for i, (inputs, outputs) in enumerate(zip([stem, *stages], stages)):
        children[f"s{i + 2}"] = PathwayStage([shape.stage(i, inputs, outputs, kernels, untie=untie)])
        if i == 0 and temporal_pool:
            # Without weights: a checkpoint of PySlowFast, which has it beside its stages, has no entry for it.
            children["s2_pool"] = PathwayStage([{"pool": FramePool()}])
    children["head"] = ResNetHead(stages[-1], head.num_classes, head.dropout_rate, head.detection)
    return AdaptiveNetwork(children, space)


@dataclass(frozen=True)
class FastPathway:
    """The Fast pathway and its fusion: PySlowFast's `SLOWFAST.*` keys.

    alpha: frames of the Fast pathway for one of the Slow one's. beta_inv: its channels are one in so many. fusion_ratio:
    channels that the fusion makes of one. fusion_kernel: frames that the fusion's convolution sees; odd.
    """

    alpha: int = 8
    beta_inv: int = 8
    fusion_ratio: int = 2
    fusion_kernel: int = 5


def build_slowfast(
    *,
    space: SearchSpace,
    head: HeadOptions,
    shape: ResNetShape = ResNetShape(),
    options: FastPathway = FastPathway(),
    first: FirstWeights = FirstWeights(),
) -> AdaptiveNetwork:
    """An adaptive SlowFast network: only the Slow pathway has configurations, the Fast one always runs whole.

    Takes [slow B, 3, t, s, s; fast B, 3, alpha T, S, S], which `fit_clip` makes of one clip at the Fast rate. Raises
    ValueError for a Fast pathway without channels.
    """
    alpha, untie = options.alpha, untie_layers(space)
    narrow, stages = slow_channels(space, shape.width_per_group)
    stem = untie(narrow)
    slow, fast = [stem, *stages], fast_channels([stem, *stages], options.beta_inv)
    children: dict[str, nn.Module] = {"s1": PathwayStage([{"stem": resnet_stem(c[0], k[0][0])} for c, k in _both(slow, fast)])}
    for i in range(len(stages)):
        fusion = AdaptiveFusion(
            fast[i].count, ratio=options.fusion_ratio, kernel_size=options.fusion_kernel, alpha=alpha, shrink=shrink_clip
        )
        children[f"s{i + 1}_fuse"] = fusion
        joined = [JoinedChannels(slow[i], fusion.out_channels), fast[i]]
        children[f"s{i + 2}"] = PathwayStage([
            shape.stage(i, inputs, c[i + 1], k, pathway, untie)
            for pathway, (inputs, (c, k)) in enumerate(zip(joined, _both(slow, fast)))
        ])
    children["head"] = ResNetHead(JoinedChannels(slow[-1], fast[-1].count), head.num_classes, head.dropout_rate, head.detection)
    split = functools.partial(slow_and_fast, alpha=alpha)
    return first.put_into(AdaptiveNetwork(children, space, split, alpha * space.temporal_sizes[-1]))


def fast_channels(slow: Sequence[Channels], beta_inv: int) -> list[FixedChannels]:
    """Channels of the Fast pathway: a share 1 / beta_inv of the whole Slow one's, at every width."""
    narrowest = min(channels.at(1.0) for channels in slow)
    if not 1 <= beta_inv <= narrowest:
        raise ValueError(
            f"SLOWFAST.BETA_INV is {beta_inv}: it must be 1 or more, and at most RESNET.WIDTH_PER_GROUP ({narrowest}), "
            "or the Fast pathway has no channels"
        )
    return [FixedChannels(channels.at(1.0) // beta_inv) for channels in slow]


def slow_and_fast(clip_BCTHW: torch.Tensor, alpha: int) -> list[torch.Tensor]:
    """[Slow, Fast] of a clip at the Fast rate: every alpha-th frame, spread from the first to the last, and all."""
    frames = clip_BCTHW.shape[2]
    if frames % alpha:
        raise ValueError(f"a clip of {frames} frames does not divide by SLOWFAST.ALPHA {alpha}")
    return [take_frames(clip_BCTHW, frames // alpha), clip_BCTHW]


def _both(
    slow: Sequence[Channels], fast: Sequence[Channels]
) -> tuple[tuple[Sequence[Channels], tuple], tuple[Sequence[Channels], tuple]]:
    """(channels, temporal kernels) of the stem and the stages, of each pathway."""
    return (slow, SLOW_KERNELS), (fast, FAST_KERNELS)


# ---- What is known of them. PyTorchVideo's are the same networks. ----------------------------------------------------


@register_network(
    "slow", words=("ResNet", "PTVResNet"), architectures=("slow",), build=build_slow, classifier_name="head.projection"
)
def slow_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `RESNET.*` keys."""
    return resnet_arguments(cfg, pathways=1)


# PySlowFast says in the one or in the other word that there is no temporal pool.
_POOLED_WORDS = ("ResNet", "PTVResNet", "ResNet_nopool")


@register_network(
    "c2d", words=_POOLED_WORDS, architectures=("c2d", "c2d_nopool"), build=build_c2d, classifier_name="head.projection"
)
@register_network(
    "i3d", words=_POOLED_WORDS, architectures=("i3d", "i3d_nopool"), build=build_i3d, classifier_name="head.projection"
)
def pooled_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of `slow`, and whether there is no pool."""
    has_no_pool = "nopool" in cfg.MODEL.MODEL_NAME or "nopool" in cfg.MODEL.ARCH
    return {**resnet_arguments(cfg, pathways=1), **({"temporal_pool": False} if has_no_pool else {})}


@register_network(
    "slowfast", words=("SlowFast", "PTVSlowFast"), architectures=("slowfast",), build=build_slowfast,
    classifier_name="head.projection", takes="pathways",
)  # fmt: skip
def slowfast_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `SLOWFAST.*` and `RESNET.*` keys."""
    return {
        **resnet_arguments(cfg, pathways=2),
        "alpha": cfg.SLOWFAST.ALPHA,
        "beta_inv": cfg.SLOWFAST.BETA_INV,
        "fusion_ratio": cfg.SLOWFAST.FUSION_CONV_CHANNEL_RATIO,
        "fusion_kernel": cfg.SLOWFAST.FUSION_KERNEL_SZ,
    }
