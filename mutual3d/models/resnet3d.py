"""Slow and SlowFast (Feichtenhofer et al., ICCV 2019) with slimmable layers; children named as in PySlowFast."""

import functools

import torch
import torch.nn as nn

from mutual3d.layers import (
    AdaptiveFusion,
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    ScaledChannels,
    SlimmableBatchNorm3d,
    SlimmableLinear,
)
from mutual3d.sampling import shrink_clip, temporal_indices

from .adaptive import AdaptiveNetwork
from .blocks import PathwayStage, ResidualBlock, chain, conv3d, initialize

STAGE_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Temporal kernels of the stem and of the `a` convolutions of res2 to res5.
SLOW_KERNELS = (1, 1, 1, 3, 3)
FAST_KERNELS = (5, 3, 3, 3, 3)


class GlobalPoolHead(nn.Module):
    """Pathways B, C_i, T_i, H_i, W_i -> global mean of each -> concatenated -> dropout -> projection -> logits B, K."""

    def __init__(self, in_channels, num_classes, dropout_rate):
        super().__init__()
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = SlimmableLinear(in_channels, num_classes)

    def forward(self, pathways):
        pooled = torch.cat([x.mean((2, 3, 4)) for x in pathways], 1)
        return self.projection(self.dropout(pooled))


def resnet_stem(out_channels, temporal_kernel):
    """kx7x7 convolution with stride 2 in space, norm, ReLU, 1x3x3 max-pool with stride 2 in space."""
    return chain(
        conv=conv3d(FixedChannels(3), out_channels, (temporal_kernel, 7, 7), stride=(1, 2, 2)),
        bn=SlimmableBatchNorm3d(out_channels),
        relu=nn.ReLU(inplace=True),
        pool_layer=nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )


def bottleneck(in_channels, out_channels, temporal_kernel, stride, dilation):
    """kx1x1 -> 1x3x3 (stride, dilation) -> 1x1x1, a quarter of the channels inside, each followed by a norm."""
    inner = ExpandedChannels(out_channels, 1 / 4)
    branch2 = chain(
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


def resnet_stage(in_channels, out_channels, depth, temporal_kernel, temporal_blocks, stride, dilation):
    """{name: block}; the first takes channels and stride, the first `temporal_blocks` the temporal kernel, others 1."""
    blocks = {}
    for i in range(depth):
        inputs, block_stride = (in_channels, stride) if i == 0 else (out_channels, 1)
        kernel = temporal_kernel if i < temporal_blocks else 1
        blocks[f"res{i}"] = bottleneck(inputs, out_channels, kernel, block_stride, dilation)
    return blocks


def slow_channels(space, width_per_group):
    """(stem, [res2, res3, res4, res5]) of the adaptive pathway; the stem is as wide as the inside of res2."""
    stages = [ScaledChannels(4 * width_per_group * 2**i, space.divisor, space.width_range[1]) for i in range(4)]
    return ExpandedChannels(stages[0], 1 / 4), stages


def build_slow(
    *,
    space,
    num_classes,
    depth=50,
    width_per_group=64,
    temporal_blocks=(3, 4, 6, 3),
    strides=(1, 2, 2, 2),
    dilations=(1, 1, 1, 1),
    dropout_rate=0.5,
    fc_init_std=0.01,
    zero_init_final_bn=True,
):
    """An adaptive Slow network: one pathway, no stride in time. The arguments are PySlowFast's `RESNET.*` keys."""
    stem, stages = slow_channels(space, width_per_group)
    children = {"s1": PathwayStage([{"stem": resnet_stem(stem, SLOW_KERNELS[0])}])}
    inputs = [stem, *stages]
    for i, blocks in enumerate(_depths(depth)):
        options = blocks, SLOW_KERNELS[i + 1], temporal_blocks[i], strides[i], dilations[i]
        children[f"s{i + 2}"] = PathwayStage([resnet_stage(inputs[i], stages[i], *options)])
    children["head"] = GlobalPoolHead(stages[-1], num_classes, dropout_rate)
    return _finished(AdaptiveNetwork(children, space), fc_init_std, zero_init_final_bn)


def build_slowfast(
    *,
    space,
    num_classes,
    alpha=8,
    beta_inv=8,
    fusion_ratio=2,
    fusion_kernel=5,
    depth=50,
    width_per_group=64,
    temporal_blocks=(3, 4, 6, 3),
    strides=(1, 2, 2, 2),
    dilations=(1, 1, 1, 1),
    dropout_rate=0.5,
    fc_init_std=0.01,
    zero_init_final_bn=True,
):
    """An adaptive SlowFast network: only the Slow pathway has configurations, the Fast one always runs whole.

    Takes [slow B, 3, t, s, s; fast B, 3, alpha T, S, S], which `fit_clip` makes of one clip at the Fast rate. The
    arguments are PySlowFast's `RESNET.*` and `SLOWFAST.*` keys.
    """
    stem, stages = slow_channels(space, width_per_group)
    slow, fast = [stem, *stages], [FixedChannels(channels.at(1.0) // beta_inv) for channels in (stem, *stages)]
    children = {"s1": PathwayStage([{"stem": resnet_stem(c[0], k[0])} for c, k in _both(slow, fast)])}
    for i, blocks in enumerate(_depths(depth)):
        fusion = AdaptiveFusion(
            fast[i].count, ratio=fusion_ratio, kernel_size=fusion_kernel, alpha=alpha, shrink=shrink_clip
        )
        children[f"s{i + 1}_fuse"] = fusion
        joined = [JoinedChannels(slow[i], fusion.out_channels), fast[i]]
        children[f"s{i + 2}"] = PathwayStage([
            resnet_stage(inputs, c[i + 1], blocks, k[i + 1], temporal_blocks[i], strides[i], dilations[i])
            for inputs, (c, k) in zip(joined, _both(slow, fast))
        ])
    children["head"] = GlobalPoolHead(JoinedChannels(slow[-1], fast[-1].count), num_classes, dropout_rate)
    network = AdaptiveNetwork(
        children, space, functools.partial(slow_and_fast, alpha=alpha), alpha * space.temporal_sizes[-1]
    )
    return _finished(network, fc_init_std, zero_init_final_bn)


def slow_and_fast(clip_BCTHW, alpha):
    """[Slow, Fast] of a clip at the Fast rate: every alpha-th frame, spread from the first to the last, and all."""
    frames = clip_BCTHW.shape[2]
    if frames % alpha:
        raise ValueError(f"a clip of {frames} frames does not divide by SLOWFAST.ALPHA {alpha}")
    indices = temporal_indices(frames, frames // alpha).to(clip_BCTHW.device)
    return [clip_BCTHW.index_select(2, indices), clip_BCTHW]


def _both(slow, fast):
    return (slow, SLOW_KERNELS), (fast, FAST_KERNELS)


def _depths(depth):
    if depth not in STAGE_DEPTHS:
        raise ValueError(f"RESNET.DEPTH is {depth}: choose among {', '.join(map(str, STAGE_DEPTHS))}")
    return STAGE_DEPTHS[depth]


def _finished(network, fc_init_std, zero_init_final_bn):
    initialize(network, fc_std=fc_init_std, zero_init_final_bn=zero_init_final_bn)
    return network
