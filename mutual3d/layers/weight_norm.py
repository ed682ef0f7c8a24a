"""Convolutions with weight normalisation (Salimans and Kingma, NeurIPS 2016) over the channels that run.

Networks without batch norm have nothing that depends on a configuration's statistics (US-Net, 5.1), if what is normalised
is the part of a weight that runs: the norm of the full weight would leave a narrow convolution with less than its gain, by
as much as the channels that are left out weigh. `torch.nn.utils.parametrizations.weight_norm` takes the full one.
"""


import torch
import torch.nn as nn

from .slimmable import SlimmableConv2d

# Below this a direction has no length to divide by: the weight is then 0 and not NaN.
_MIN_NORM = 1e-12


class SlimmableWeightNormConv2d(SlimmableConv2d):
    """`nn.Conv2d` whose weight for output o is gain_o * v_o / |v_o|; x is B, C, H, W, and channel counts may be `Channels`.

    |v_o| is the Euclidean norm over the inputs that run and the kernel's places. `weight` holds the directions v of all
    channels, `gain` the lengths, one for each output, which begin as those of the first weights: the untrained layer is
    `SlimmableConv2d` at its full width. The bias is not normalised. `plain(width)` is an ordinary convolution with the
    normalised weight. kernel_size, stride, padding, dilation, groups, bias: as of `nn.Conv2d`.
    """

    whole_is_weight = False

    def _add_own_parameters(self) -> None:
        self.gain = nn.Parameter(_lengths(self.weight.detach()).flatten())

    def slice(self, in_channels: int, out_channels: int) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """The normalised weight, bias and groups for the first `in_channels` and `out_channels`.

        Groups keep their size, and so their number shrinks.
        """
        direction, bias, groups = super().slice(in_channels, out_channels)
        scale = self.gain[:out_channels].view(-1, 1, 1, 1) / _lengths(direction).clamp(min=_MIN_NORM)
        return direction * scale, bias, groups

    def version(self) -> tuple[int, ...]:
        """Of the directions and of the gains."""
        return *super().version(), self.gain._version, self.gain.data_ptr()


def _lengths(weight_OIKK: torch.Tensor) -> torch.Tensor:
    """O, 1, 1, 1: the norm of each output's weights."""
    return torch.linalg.vector_norm(weight_OIKK, dim=(1, 2, 3), keepdim=True)
