"""Networks of images (paper, 3 and 6.1): an adaptive network of one frame, and the parts that its backbones share."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn

from mutual3d.layers import Channels, PairedSequential, ScaledChannels, SlimmableBatchNorm2d, SlimmableConv2d
from mutual3d.sampling import Configuration, SearchSpace, fit_clips

from .adaptive import AdaptiveNetwork


class AdaptiveImageNetwork(AdaptiveNetwork):
    """A chain of stages that take and give a tensor: images B, 3, s, s at the active configuration's size -> logits.

    Raises ValueError when the space has clips of more than one frame. classifier_name, norm_pairs: as of AdaptiveNetwork.
    """

    takes = "images"

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        space: SearchSpace,
        *,
        classifier_name: str | None = None,
        norm_pairs: Iterable[tuple[str, str]] = (),
    ) -> None:
        if tuple(space.temporal_sizes) != (1,):
            raise ValueError(
                f"an image network has one frame and the temporal sizes are {list(space.temporal_sizes)}: "
                "set MUTUAL.TEMPORAL_SIZES to [1] and DATA.NUM_FRAMES to 1"
            )
        super().__init__(stages, space, classifier_name=classifier_name, norm_pairs=norm_pairs)

    def fit_clips(
        self, images: torch.Tensor, configurations: Iterable[Configuration]
    ) -> Iterator[tuple[Configuration, torch.Tensor]]:
        """Yield (configuration, images B, 3, s, s) of full-size images B, 3, H, W, or of clips B, 3, 1, H, W of them."""
        clips = images if images.ndim == 5 else images.unsqueeze(2)
        for configuration, fitted in fit_clips(clips, configurations, self.space):
            yield configuration, fitted.squeeze(2)


def scaled_channels(space: SearchSpace) -> Callable[..., ScaledChannels]:
    """Function of a channel count at width 1.0 (and `layer`) -> ScaledChannels with the space's divisor and widths."""
    return functools.partial(ScaledChannels, divisor=space.divisor, max_width=space.width_range[1])


def conv2d(
    in_channels: Channels, out_channels: Channels, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> SlimmableConv2d:
    """A slimmable 2D convolution without bias, padded to keep sizes at stride 1 (odd kernels).

    kernel_size, stride and groups are those of `nn.Conv2d`.
    """
    return SlimmableConv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


def conv_norm(
    in_channels: Channels,
    out_channels: Channels,
    kernel_size: int = 1,
    stride: int = 1,
    *,
    depthwise: bool = False,
    activation: Callable[[], nn.Module] | None = None,
    **norm: Any,
) -> PairedSequential:
    """Convolution, norm and, if given, activation (a function that makes one): children 0, 1, 2, as in torchvision.

    norm: what the norm has beside its channels. kernel_size and stride are those of `nn.Conv2d`; depthwise: each channel
    has a filter of its own.
    """
    groups = in_channels.full if depthwise else 1
    parts: list[nn.Module] = [conv2d(in_channels, out_channels, kernel_size, stride, groups), SlimmableBatchNorm2d(out_channels, **norm)]
    return PairedSequential(*parts, *([activation()] if activation else []), norm_pairs=[("0", "1")])


def global_pool() -> nn.Sequential:
    """B, C, H, W -> mean B, C, at every size."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def gentle_strides(strides: Sequence[int], small_images: bool) -> list[int]:
    """The strides, or, for small images (CIFAR's 32 pixels), the same without the first two halvings.

    small_images: whether the images are small.
    """
    halvings = [i for i, stride in enumerate(strides) if stride == 2]
    return [1 if small_images and i in halvings[:2] else stride for i, stride in enumerate(strides)]
