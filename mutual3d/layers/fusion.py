"""Adaptive fusion of a whole Fast pathway into a Slow one of any size (paper, 4.2.2, Fig. 5 and 6)."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn as nn

from .norm import SlimmableBatchNorm3d
from .pairs import NormPairs
from .slimmable import SlimmableConv3d


class Shrink(Protocol):
    """Features B, C, T, H, W -> the same at `size` (height and width) and `temporal` frames."""

    def __call__(self, features: torch.Tensor, /, size: Sequence[int], temporal: int) -> torch.Tensor: ...


class ShrinksFeatures(nn.Module):
    """A part that shrinks features to what another tensor has, by its `shrink`, which an exporter replaces."""

    shrink: Shrink


class AdaptiveFusion(NormPairs, ShrinksFeatures):
    """[slow B, C, t, s, s; fast B, F, alpha T, S, S] -> [slow with 2 F more channels; fast].

    fast -> conv (kernel, 1, 1) with stride alpha in time -> norm -> ReLU: B, 2 F, T, S, S -> `shrink` to the Slow
    tensor's actual t, s, s -> behind the Slow channels. `shrink(features, size, temporal)` must choose the frames that
    the Slow input was given. Raises ValueError for an even kernel, which would shift the Fast features in time.
    fast_channels: F, channels of the Fast features. ratio: channels that the convolution makes of one, 2 in the papers.
    kernel_size: frames that it sees.
    """

    norm_pairs = (("conv_f2s", "bn"),)

    def __init__(
        self, fast_channels: int, *, ratio: int, kernel_size: int, alpha: int, shrink: Shrink
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the fusion kernel is {kernel_size} (SLOWFAST.FUSION_KERNEL_SZ): it must be odd")
        self.out_channels = fast_channels * ratio
        self.conv_f2s = SlimmableConv3d(
            fast_channels, self.out_channels, (kernel_size, 1, 1), (alpha, 1, 1), (kernel_size // 2, 0, 0), bias=False
        )
        self.bn = SlimmableBatchNorm3d(self.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shrink = shrink

    def forward(self, pathways: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        slow, fast = pathways
        features = self.relu(self.bn(self.conv_f2s(fast)))
        features = self.shrink(features, size=slow.shape[3:], temporal=slow.shape[2])
        return [torch.cat([slow, features], 1), fast]
