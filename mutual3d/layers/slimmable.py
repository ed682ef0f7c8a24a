"""Convolutions and linear layers that run with their first channels only.

Each is a subclass of PyTorch's own layer: parameters, initialisation, optimizer groups and state dict are those of the
full layer. The number of outputs is the attribute `active_out_channels`; the number of inputs is read from the tensor
that arrives, and nothing changes in `forward`. At full width the layer is the plain one, bit for bit.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn as nn
import torch.nn.functional as F

from . import depthwise
from .channels import Channels, Width, as_channels

Weighted = TypeVar("Weighted", bound=nn.Conv2d | nn.Conv3d | nn.Linear)


class SlimmablePart:
    """A layer or norm whose active part can be taken out as an ordinary one: `plain(width)`."""

    def plain(self, width: Width) -> nn.Module:
        """An ordinary PyTorch layer with a copy of this layer's parameters at `width`."""
        raise TypeError(f"{type(self).__name__} cannot be turned into a plain layer")


class SlimmableLayer(SlimmablePart):
    """What the slimmable layers share: the counts of their inputs and outputs, `settings(width)`, `plain(width)`."""

    in_rule: Channels
    out_rule: Channels
    # Whether outputs are averages over the inputs that are there, times the number of all (US-Net, section 6, which mimics a scale
    # of each sub-network's own). At full width nothing changes, nor where the number of an output's inputs never does (depthwise).
    averages_inputs = False

    def _averaged(self, weight: torch.Tensor, active: int, full: int) -> torch.Tensor:
        """The weight of `active` inputs, times `full` over that where this layer averages."""
        return weight * (full / active) if self.averages_inputs and active < full else weight

    def settings(self, width: Width) -> dict[str, int]:
        """The attributes that make the layer run at `width`."""
        return {"active_out_channels": self.out_rule.at(width)}


class _SlimmableConv(SlimmableLayer, nn.modules.conv._ConvNd):
    """Before nn.Conv2d or nn.Conv3d among the bases of a class, whose constructor and attributes it takes."""

    _plain_type: type[nn.Conv2d] | type[nn.Conv3d]
    # Whether evaluation keeps its slice of the weight from call to call: a copy of its own where inputs are left out.
    keeps_slice = True
    # Whether the slice of all channels is the weight itself, of which no copy need be kept.
    whole_is_weight = True
    # (what the slice was taken of and for, weight, bias, groups)
    _kept: tuple[tuple[int, ...], torch.Tensor, torch.Tensor | None, int] | None = None

    def __init__(
        self,
        in_channels: Channels | int,
        out_channels: Channels | int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        in_rule, out_rule = as_channels(in_channels), as_channels(out_channels)
        # The constructor that follows is nn.Conv2d's or nn.Conv3d's, not that of their common base.
        super().__init__(in_rule.full, out_rule.full, kernel_size, stride, padding, dilation, groups, bias)  # type: ignore[call-arg, arg-type]
        self.in_rule, self.out_rule = in_rule, out_rule
        self.active_out_channels = out_rule.full
        self._add_own_parameters()

    def _add_own_parameters(self) -> None:
        """Make what a subclass has beside weight and bias, which are initialised by then."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._convolve(x, *self._active_slice(x.shape[1]))

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int) -> torch.Tensor:
        """The convolution of x with a slice of this layer, with its strides, padding and dilation."""
        raise NotImplementedError

    def _active_slice(self, in_channels: int) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """`slice` at the active width. Without gradients it is kept while the weight stays what it was.

        A slice that leaves inputs out has gaps in memory, which every convolution with it would first copy together: up to a
        tenth of a small network's time.
        """
        own, outputs = self.weight, self.active_out_channels
        is_whole = self.whole_is_weight and outputs == self.out_channels and in_channels == self.in_channels
        if is_whole or not self.keeps_slice or torch.is_grad_enabled() or own.is_inference() or torch.jit.is_tracing():
            return self.slice(in_channels, outputs)
        key = in_channels, outputs, *self.version()
        kept = self._kept
        if kept is None or kept[0] != key:
            weight, bias, groups = self.slice(in_channels, outputs)
            kept = self._kept = key, _without_gaps(weight, like=own), bias, groups
        return kept[1:]

    def whole_weight(self) -> torch.Tensor:
        """The weight of all channels that slices are taken of: the layer's own, unless a subclass makes another one of it."""
        return self.weight

    def version(self) -> tuple[int, ...]:
        """Numbers that change whenever anything does that slices are made of."""
        return self.weight._version, self.weight.data_ptr()

    def __getstate__(self) -> dict[str, Any]:
        """A copy takes its own slices."""
        return {**vars(self), "_kept": None}

    def slice(self, in_channels: int, out_channels: int) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """Weight, bias and groups for the first channels. Groups keep their size, and so their number shrinks."""
        if in_channels > self.in_channels:
            raise ValueError(f"the input has {in_channels} channels; this layer has {self.in_channels}")
        groups = in_channels * self.groups // self.in_channels if self.groups > 1 else 1
        if groups * self.weight.shape[1] < in_channels:
            raise ValueError(f"{in_channels} channels do not divide into groups of {self.weight.shape[1]}")
        weight = self.whole_weight()
        bias: torch.Tensor | None = self.bias
        if (in_channels, out_channels) != (self.in_channels, self.out_channels):
            weight = self.out_rule.select(weight, out_channels, 0)
            if groups == 1:
                weight = self._averaged(self.in_rule.select(weight, in_channels, 1), in_channels, self.in_channels)
            bias = None if bias is None else self.out_rule.select(bias, out_channels, 0)
        return weight, bias, groups

    def plain(self, width: Width) -> nn.Module:
        in_channels, out_channels = self.in_rule.at(width), self.out_rule.at(width)
        weight, bias, groups = self.slice(in_channels, out_channels)
        plain = self._plain_type(
            in_channels, out_channels, self.kernel_size, self.stride, self.padding, self.dilation, groups,  # type: ignore[arg-type]  # tuples as long as the layer's own
            bias=bias is not None, device="meta",
        )  # fmt: skip
        return _with_parameters(plain, weight, bias)


# Inputs that fill a block of oneDNN's on any processor.
ONEDNN_BLOCK = 16


class SlimmableConv2d(_SlimmableConv, nn.Conv2d):
    """`nn.Conv2d` whose channel counts may be `Channels`; x is B, C, H, W. Dense, grouped or depthwise."""

    _plain_type = nn.Conv2d

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int) -> torch.Tensor:
        """`F.conv2d`, in two steps where oneDNN's gradient of the weight writes past its memory: of 1x1 convolutions with strides, in
        channels last, with fewer inputs than a block of its has (github.com/uxlfoundation/oneDNN/issues/6035; torch 2.14 and 2.15, CPU)."""
        stride, padding = self.stride, self.padding
        is_pointwise = tuple(weight.shape[2:]) == (1, 1) and groups == 1 and (padding == "valid" or not any(padding))
        if is_pointwise and x.device.type == "cpu" and max(stride) > 1 and weight.shape[1] < ONEDNN_BLOCK and torch.is_grad_enabled():
            x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
        return F.conv2d(x, weight, bias, stride, padding, self.dilation, groups)


class SlimmableConv3d(_SlimmableConv, nn.Conv3d):
    """`nn.Conv3d` whose channel counts may be `Channels`; x is B, C, T, H, W. Dense, grouped or depthwise."""

    _plain_type = nn.Conv3d

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int) -> torch.Tensor:
        """`depthwise.conv3d`, in float32 where oneDNN's bfloat16 cannot be relied on: of depthwise convolutions, and with fewer frames or
        pixels than taps, its gradient of the weight takes in memory that nothing has written (torch 2.14 and 2.15, CPU)."""
        stride, padding, dilation = self.stride, self.padding, self.dilation
        assert not isinstance(padding, str)
        is_wrong = groups > 1 or any(size < taps for size, taps in zip(x.shape[2:], weight.shape[2:]))
        if x.device.type != "cpu" or not is_wrong or not torch.is_autocast_enabled("cpu"):
            return depthwise.conv3d(x, weight, bias, stride, padding, dilation, groups)
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            return depthwise.conv3d(x.float(), weight.float(), bias, stride, padding, dilation, groups)


class SlimmableLinear(SlimmableLayer, nn.Linear):
    """`nn.Linear` whose feature counts may be `Channels`; x is ..., C. bias: whether it has one."""

    def __init__(self, in_features: Channels | int, out_features: Channels | int, bias: bool = True) -> None:
        in_rule, out_rule = as_channels(in_features), as_channels(out_features)
        super().__init__(in_rule.full, out_rule.full, bias)
        self.in_rule, self.out_rule = in_rule, out_rule
        self.active_out_channels = out_rule.full

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, *self.slice(x.shape[-1], self.active_out_channels))

    def slice(self, in_features: int, out_features: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias for the first features.

        Weight and bias for the first `in_features` and `out_features`. Raises ValueError for more inputs than the layer
        has.
        """
        if in_features > self.in_features:
            raise ValueError(f"the input has {in_features} features; this layer has {self.in_features}")
        if (in_features, out_features) == (self.in_features, self.out_features):
            return self.weight, self.bias
        weight = self.in_rule.select(self.weight[:out_features], in_features, 1)
        return self._averaged(weight, in_features, self.in_features), None if self.bias is None else self.bias[:out_features]

    def plain(self, width: Width) -> nn.Module:
        in_features, out_features = self.in_rule.at(width), self.out_rule.at(width)
        weight, bias = self.slice(in_features, out_features)
        plain = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
        return _with_parameters(plain, weight, bias)


def _without_gaps(weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The weight itself, or a copy of it in the memory format of `like`."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    is_plain = like.is_contiguous() or weight.ndim not in formats
    return weight.contiguous(memory_format=torch.contiguous_format if is_plain else formats[weight.ndim])


def _with_parameters(layer: Weighted, weight: torch.Tensor, bias: torch.Tensor | None) -> Weighted:
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer
