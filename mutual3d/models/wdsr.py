"""WDSR (Yu et al., "Wide activation for efficient and accurate image super-resolution", 2018) with slimmable layers.

The network of US-Net's experiment on super-resolution (US-Net, 5.1): no batch norm, weight normalisation of the channels
that run, and so nothing to calibrate.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from fvcore.common.config import CfgNode

from mutual3d.layers import Channels, ExpandedChannels, FixedChannels, PixelChannels, SlimmableWeightNormConv2d, Untie, tied
from mutual3d.sampling import SearchSpace

from .blocks import untie_layers
from .images import AdaptiveImageNetwork, scaled_channels
from .registry import register_network

COLOURS = 3


class SuperResolutionNetwork(AdaptiveImageNetwork):
    """Images B, 3, h, w of any size at the active configuration -> larger images in [0, 1]."""

    gives = "larger images"


class WideActivationBlock(nn.Module):
    """x + conv2(relu(conv1(x))): 3x3 to `expansion` times the channels, activation, 3x3 back (WDSR-A).

    What is added up stays narrow, and what is activated is wide: more information gets past the activation at equal cost.
    untie: see `untie_layers`.
    """

    def __init__(self, channels: Channels, expansion: int, untie: Untie = tied) -> None:
        super().__init__()
        inner = untie(ExpandedChannels(channels, expansion))
        self.conv1 = weight_norm_conv(channels, inner, 3)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = weight_norm_conv(inner, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.relu(self.conv1(x)))


class SubpixelUpscaling(nn.Module):
    """Images B, 3, h, w, normalised -> images B, 3, scale * h, scale * w in the range [0, 1] of pixels, as far as they keep it.

    `head` 3x3, the blocks of `body`, `tail` 3x3 to the sub-pixels of each pixel; beside them `skip` 5x5 from the image
    itself; their sum is shuffled into place (Shi et al., CVPR 2016), and the normalisation by `mean` and `std` undone. num_blocks, expansion:
    how many blocks, and how many times more channels are activated inside one. untie: see `untie_layers`.
    """

    def __init__(
        self, channels: Channels, num_blocks: int, expansion: int, scale: int, mean: Sequence[float], std: Sequence[float],
        untie: Untie = tied,
    ) -> None:  # fmt: skip
        super().__init__()
        colours, subpixels = PixelChannels(COLOURS), FixedChannels(COLOURS * scale**2)
        self.head = weight_norm_conv(colours, channels, 3)
        self.body = nn.Sequential(*(WideActivationBlock(channels, expansion, untie) for _ in range(num_blocks)))
        self.tail = weight_norm_conv(channels, subpixels, 3)
        self.skip = weight_norm_conv(colours, subpixels, 5)
        self.shuffle = nn.PixelShuffle(scale)
        # Given with the network's arguments, not with its weights.
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        subpixels = self.tail(self.body(self.head(images_B3HW))) + self.skip(images_B3HW)
        return self.shuffle(subpixels) * self.std + self.mean

    @torch.no_grad()
    def start_as_interpolation(self) -> None:
        """Make it bicubic interpolation at every width, until training changes it: that is the skip's, and the rest begins at zero.

        Cubic convolution (Keys, 1981, a = -0.5) reads four pixels along each side, which lie in the skip's five.
        """
        scale, reach = self.shuffle.upscale_factor, self.skip.kernel_size[0] // 2
        phases = [(place + 0.5) / scale - 0.5 for place in range(scale)]
        taps = torch.tensor([[_cubic(tap - phase) for tap in range(-reach, reach + 1)] for phase in phases])
        kernels = torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)
        weight = torch.zeros_like(self.skip.weight)
        for colour, own in enumerate(weight.split(scale**2)):
            own[:, colour] = kernels
        self.skip.weight.copy_(weight)
        self.skip.gain.copy_(weight.flatten(1).norm(dim=1))
        for zero in (self.skip.bias, self.tail.bias, self.tail.gain):
            assert zero is not None, "these convolutions have biases"
            zero.zero_()


def _cubic(distance: float) -> float:
    """The weight of a pixel at a distance, by cubic convolution with a = -0.5."""
    x = abs(distance)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def _per_channel(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def weight_norm_conv(in_channels: Channels, out_channels: Channels, kernel_size: int) -> SlimmableWeightNormConv2d:
    """A convolution with weight normalisation and bias that keeps sizes; kernel_size is odd."""
    return SlimmableWeightNormConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def build_wdsr(
    *,
    space: SearchSpace,
    num_classes: int = COLOURS,
    num_features: int = 64,
    num_blocks: int = 8,
    expansion: int = 4,
    scale: int = 2,
    bicubic_start: bool = False,
    mean: Sequence[float] = (0.45, 0.45, 0.45),
    std: Sequence[float] = (0.225, 0.225, 0.225),
) -> SuperResolutionNetwork:
    """An adaptive WDSR-A: low-resolution images B, 3, h, w of any size -> images B, 3, scale * h, scale * w in [0, 1].

    num_classes: channels of an image, 3. num_features: channels between the blocks at width 1.0. num_blocks: how many.
    expansion: how many times more are activated. scale: of each side. bicubic_start: whether it begins as bicubic interpolation.
    mean, std: what its inputs were normalised by.
    Raises ValueError for other than 3 channels, and for a space of several sizes: the image that is to be found has one.
    """
    if num_classes != COLOURS:
        raise ValueError(f"MODEL.NUM_CLASSES is {num_classes}: WDSR gives images of {COLOURS} channels, set it to {COLOURS}")
    if len(mean) != COLOURS or len(std) != COLOURS:
        raise ValueError(f"DATA.MEAN is {list(mean)} and DATA.STD {list(std)}: give {COLOURS} numbers for each")
    if len(space.spatial_sizes) > 1:
        raise ValueError(
            f"MUTUAL.SPATIAL_SIZES is {list(space.spatial_sizes)}: a smaller image in is a smaller image out; give one size, and adapt "
            "the width alone"
        )
    channels = scaled_channels(space)(num_features)
    upscaling = SubpixelUpscaling(channels, num_blocks, expansion, scale, mean, std, untie_layers(space))
    if bicubic_start:
        upscaling.start_as_interpolation()
    return SuperResolutionNetwork({"upscaling": upscaling}, space)


@register_network("wdsr", words=("WDSR",), build=build_wdsr, classifier_name="upscaling.tail", takes="images", gives=SuperResolutionNetwork.gives)
def wdsr_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `WDSR.*` keys, and what makes pixels of its outputs."""
    return {
        "num_features": cfg.WDSR.NUM_FEATURES,
        "num_blocks": cfg.WDSR.NUM_BLOCKS,
        "expansion": cfg.WDSR.EXPANSION,
        "scale": cfg.SUPER_RESOLUTION.SCALE,
        "bicubic_start": cfg.WDSR.BICUBIC_START,
        "mean": list(cfg.DATA.MEAN),
        "std": list(cfg.DATA.STD),
    }
