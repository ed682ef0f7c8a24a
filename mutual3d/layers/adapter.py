"""Adapters: what a residual block is given goes through a depthwise 1x1x1 filter first, one for each of several uses of the block.

FFN (Frame Flexible Network, CVPR 2023) has one for each number of frames, by which one set of weights fits features of all of them (its
weight alteration). Nothing in here knows of frames.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .channels import Channels
from .pairs import NormPairs
from .private import PrivateParts
from .slimmable import SlimmableConv3d

# Standard deviation of a new filter's weights: near 0, so that a new adapter changes its input by a hundredth.
_FIRST_STD = 0.01


def _multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A depthwise 1x1x1 convolution without bias, as the product that it is: on a CPU 10 to 40 times as fast as `F.conv3d`, bit for bit.

    On the meta device, where costs are counted, it is the convolution. The product has the weight's precision, and the result x's own:
    rounded to bfloat16, a weight near 1 would be 1.
    """
    if x.device.type == "meta":
        return F.conv3d(x, weight.to(x.dtype), groups=len(weight))
    return (x * weight.reshape(1, -1, 1, 1, 1)).to(x.dtype)


class PlainAdapter(nn.Conv3d):
    """`Adapter` of one width: a depthwise 1x1x1 convolution whose weight is 1 and the filter's, computed as a product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _multiply(x, self.weight)


class Adapter(SlimmableConv3d):
    """x -> x + filter(x): the filter depthwise, 1x1x1, without bias; x is B, C, T, H, W.

    `weight`, C, 1, 1, 1, 1, is the filter's, which begins near 0 and decays to it: at 0 x stays as it is, bit for bit. Of fewer channels
    the filter has the ones that `channels` selects. What runs is one product with 1 + weight.
    """

    _plain_type = PlainAdapter
    whole_is_weight = False

    def __init__(self, channels: Channels | int) -> None:
        full = channels.full if isinstance(channels, Channels) else channels
        super().__init__(channels, channels, 1, groups=full, bias=False)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int) -> torch.Tensor:
        assert bias is None
        return _multiply(x, weight)

    def reset_parameters(self) -> None:
        """Draw the filter's weights near 0."""
        nn.init.normal_(self.weight, std=_FIRST_STD)

    def whole_weight(self) -> torch.Tensor:
        """1 + the filter's weight, of all channels."""
        return 1 + self.weight


class PrivateAdapters(PrivateParts):
    """Adapters of one place in the network, of which the active one runs."""

    list_name = "filters"

    def __init__(self, channels: Channels | int, count: int) -> None:
        """channels: of x. count: how many there are."""
        super().__init__()
        self.filters = nn.ModuleList(Adapter(channels) for _ in range(count))


class AdaptsInput(NormPairs):
    """A block whose input may go through an adapter: it calls `adapted(x)` before anything else.

    in_channels: the count of its input. Without `add_adapters` there is none, and nothing of it in a state dict.
    """

    def __init__(self, in_channels: Channels) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.register_module("adapter", None)

    def add_adapters(self, count: int) -> None:
        """Give the block `count` adapters of its own, of which one runs at a time."""
        self.adapter = PrivateAdapters(self.in_channels, count)

    def adapted(self, x: torch.Tensor) -> torch.Tensor:
        """x as the active adapter leaves it; x itself where there is none."""
        return x if self.adapter is None else self.adapter(x)
