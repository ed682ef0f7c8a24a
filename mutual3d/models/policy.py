"""A policy and a value of pictures of a game, with slimmable layers: US-Net's network for control (US-Net, 5.1).

The convolutions and the linear layer are those of Mnih et al. (Nature 2015), with US-Net's channels. It has no batch norm, and so
nothing to calibrate.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import Channels, ExpandedChannels, PixelChannels, SlimmableConv2d, SlimmableLinear
from mutual3d.sampling import SearchSpace

from .blocks import untie_layers
from .images import AdaptiveImageNetwork, scaled_channels
from .registry import register_network


class PolicyNetwork(AdaptiveImageNetwork):
    """Observations B, C, s, s -> logits B, A of the actions; in training B, A + 1, whose last column is the value."""

    gives = "actions"
    gives_rows = True


class ActorCritic(nn.Module):
    """Features B, F -> `actor`: logits B, A; in training with the column of `critic`, the value, behind them: B, A + 1.

    Whoever plays needs the actor alone, which is what is counted, timed and deployed. num_actions: A.
    """

    def __init__(self, features: Channels, num_actions: int) -> None:
        super().__init__()
        self.critic = SlimmableLinear(features, 1)
        self.actor = SlimmableLinear(features, num_actions)

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        logits = self.actor(features_BF)
        return torch.cat([logits, self.critic(features_BF)], 1) if self.training else logits


def build_policy(
    *,
    space: SearchSpace,
    num_classes: int,
    in_channels: int = 4,
    channels: Sequence[int] = (32, 64, 32),
    kernel_sizes: Sequence[int] = (8, 4, 3),
    strides: Sequence[int] = (4, 2, 1),
    hidden_features: int = 512,
) -> PolicyNetwork:
    """An adaptive policy: a convolution and ReLU for each of `channels`, a linear layer and ReLU, then actor and critic.

    num_classes: actions. in_channels: of an observation. channels, hidden_features: at width 1.0. kernel_sizes, strides: of the
    convolutions, which are not padded. Raises ValueError for lists of several lengths, for a space of several sizes, and where an
    observation is smaller than the convolutions need.
    """
    if not channels or not len(channels) == len(kernel_sizes) == len(strides):
        raise ValueError(
            f"POLICY.CHANNELS is {list(channels)}, KERNEL_SIZES {list(kernel_sizes)} and STRIDES {list(strides)}: give as many numbers in "
            "each, one a convolution"
        )
    if len(space.spatial_sizes) > 1:
        raise ValueError(
            f"MUTUAL.SPATIAL_SIZES is {list(space.spatial_sizes)}: the linear layer of a policy reads every place of the picture; give one "
            "size, and adapt the width alone"
        )
    scaled, untie = scaled_channels(space), untie_layers(space)
    stages: dict[str, nn.Module] = {}
    inputs: Channels = PixelChannels(in_channels)
    side = space.spatial_sizes[0]
    for i, (count, kernel_size, stride) in enumerate(zip(channels, kernel_sizes, strides), 1):
        if stride < 1 or kernel_size < 1 or side < kernel_size:
            raise ValueError(
                f"convolution {i} of the policy has a kernel of {kernel_size} and a stride of {stride}, and {side} pixels come in: lower "
                "POLICY.KERNEL_SIZES or POLICY.STRIDES, or raise DATA.TRAIN_CROP_SIZE"
            )
        outputs = untie(scaled(count))
        stages[f"conv{i}"] = SlimmableConv2d(inputs, outputs, kernel_size, stride)
        stages[f"relu{i}"] = nn.ReLU(inplace=True)
        inputs, side = outputs, (side - kernel_size) // stride + 1
    hidden = untie(scaled(hidden_features))
    # The places of a channel lie side by side, so that the first channels are the first features.
    stages |= {
        "flatten": nn.Flatten(1), "fc": SlimmableLinear(ExpandedChannels(inputs, side * side), hidden), "relu": nn.ReLU(inplace=True),
        "head": ActorCritic(hidden, num_classes),
    }  # fmt: skip
    network = PolicyNetwork(stages, space)
    network.in_channels = in_channels
    _initialize(network)
    return network


def _initialize(network: nn.Module) -> None:
    """Orthogonal weights and biases of zero; a small actor, whose first policy tries every action alike."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            gain = {"head.actor": 0.01, "head.critic": 1.0}.get(name, nn.init.calculate_gain("relu"))
            nn.init.orthogonal_(module.weight, gain)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


@register_network("policy", words=("Policy",), build=build_policy, classifier_name="head.actor", takes="images", gives=PolicyNetwork.gives)
def policy_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `POLICY.*` keys, and the channels of its observations."""
    return {
        "in_channels": cfg.DATA.INPUT_CHANNEL_NUM[0],
        "channels": list(cfg.POLICY.CHANNELS),
        "kernel_sizes": list(cfg.POLICY.KERNEL_SIZES),
        "strides": list(cfg.POLICY.STRIDES),
        "hidden_features": cfg.POLICY.NUM_FEATURES,
    }
