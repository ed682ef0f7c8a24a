"""Wide ResNets for images of about 32 pixels (Zagoruyko and Komodakis, BMVC 2016) with slimmable layers."""

from typing import Any

import torch
import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import Channels, NormPairs, PixelChannels, SlimmableBatchNorm2d, SlimmableLinear, Untie, tied
from mutual3d.sampling import SearchSpace

from .blocks import initialize, untie_layers
from .images import AdaptiveImageNetwork, conv2d, global_pool, scaled_channels
from .registry import register_network


class PreactivationBlock(NormPairs):
    """x -> bn1 -> ReLU -> conv1 (stride) -> bn2 -> ReLU -> dropout -> conv2 -> plus the shortcut.

    The shortcut is x, or, where shapes change, a 1x1 convolution of what conv1 takes. bn1 follows a sum and no
    convolution: folding leaves it. stride: in space. dropout_rate: share of the values between the convolutions that
    training sets to zero. untie: see `untie_layers`.
    """

    norm_pairs = (("conv1", "bn2"),)

    def __init__(
        self, in_channels: Channels, out_channels: Channels, stride: int, dropout_rate: float, untie: Untie = tied
    ) -> None:
        super().__init__()
        inner = untie(out_channels)
        self.bn1 = SlimmableBatchNorm2d(in_channels)
        self.conv1 = conv2d(in_channels, inner, 3, stride)
        self.bn2 = SlimmableBatchNorm2d(inner)
        self.dropout = nn.Dropout(dropout_rate)
        self.conv2 = conv2d(inner, out_channels, 3)
        is_same = stride == 1 and in_channels == out_channels
        self.shortcut = None if is_same else conv2d(in_channels, out_channels, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = self.relu(self.bn1(x))
        y = self.dropout(self.relu(self.bn2(self.conv1(inputs))))
        return self.conv2(y) + (x if self.shortcut is None else self.shortcut(inputs))


def build_wide_resnet(
    *,
    space: SearchSpace,
    num_classes: int,
    depth: int = 28,
    widen_factor: int = 10,
    dropout_rate: float = 0.0,
    fc_init_std: float = 0.01,
) -> AdaptiveImageNetwork:
    """An adaptive Wide ResNet: three stages of (depth - 4) / 6 blocks, `widen_factor` times 16, 32 and 64 channels.

    dropout_rate: inside the blocks. Raises ValueError for a depth that does not divide so. fc_init_std: standard deviation
    of the classifier's first weights.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"WIDERESNET.DEPTH is {depth}: it must be 4 more than a multiple of 6, as 10, 16, 22, 28 or 40")
    scaled, untie = scaled_channels(space), untie_layers(space)
    channels = scaled(16)
    stages: dict[str, nn.Module] = {"conv1": conv2d(PixelChannels(3), channels, 3)}
    for i, stride in enumerate((1, 2, 2)):
        blocks = []
        for j in range((depth - 4) // 6):
            inputs, channels = channels, scaled(16 * 2**i * widen_factor)
            blocks.append(PreactivationBlock(inputs, channels, stride if j == 0 else 1, dropout_rate, untie))
        stages[f"layer{i + 1}"] = nn.Sequential(*blocks)
    stages |= {"bn": SlimmableBatchNorm2d(channels), "relu": nn.ReLU(inplace=True), "pool": global_pool()}
    stages["fc"] = SlimmableLinear(channels, num_classes)
    network = AdaptiveImageNetwork(stages, space)
    initialize(network, fc_std=fc_init_std)
    return network


@register_network("wide_resnet", words=("WideResNet",), build=build_wide_resnet, classifier_name="fc", takes="images")
def wide_resnet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `WIDERESNET.*` keys."""
    return {
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
        "depth": cfg.WIDERESNET.DEPTH,
        "widen_factor": cfg.WIDERESNET.WIDEN_FACTOR,
    }
