"""Slimmable convolutions whose weights and inputs are quantised, and the ordinary ones that are taken out of them.

Weights are quantised as a whole, with a basis for each output channel, and a width takes its first channels of the result: one set of
codes serves every width. Inputs are quantised by a quantiser for each size (`PrivateQuantizers`).
"""

from typing import Any, cast

import torch
import torch.nn as nn

from .channels import Width
from .quantizer import MOMENTUM, WHOLE_BITS, PrivateQuantizers, fit_weight_basis, qem_step, quantize, sorted_levels
from .slimmable import SlimmableConv2d, SlimmableConv3d, _SlimmableConv


class QuantizedConvolution(nn.modules.conv._ConvNd):
    """What convolutions of quantised weights and inputs share: x -> `inputs` -> convolution.

    weight_bits: that a weight is stored with; 32 for those that are left as they are. inputs: the quantiser of what the convolution
    takes, or `nn.Identity`.
    """

    weight_bits: int = WHOLE_BITS
    inputs: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.inputs(x))

    def stored_bits(self) -> int:
        """Bits of the weights, with the bases of their levels; without the bias."""
        bases = 0 if self.weight_bits == WHOLE_BITS else self.out_channels * self.weight_bits * WHOLE_BITS
        return self.weight.numel() * self.weight_bits + bases


class PlainQuantizedConv2d(QuantizedConvolution, nn.Conv2d):
    """`nn.Conv2d` of one configuration: its weights have the values of their levels."""


class PlainQuantizedConv3d(QuantizedConvolution, nn.Conv3d):
    """`nn.Conv3d` of one configuration: its weights have the values of their levels."""


class _QuantizedSlimmable(QuantizedConvolution, _SlimmableConv):
    """Before SlimmableConv2d or SlimmableConv3d among the bases of a class.

    The parameter `weight` is what training changes. The buffer `basis`, C, K, follows it: at the first call of training after each step
    of the optimizer, from the weights alone, so that it is the same in every process. There is none where weights stay as they are.
    """

    basis: torch.Tensor | None
    # Which version of the weight the basis has followed.
    _followed: int | None = None
    # (what it was computed of, the quantised weight) of calls without gradients; one for all modules that share the weight.
    _quantized: list[tuple[tuple[int, ...], torch.Tensor]]

    def take(self, layer: nn.modules.conv._ConvNd, weight_bits: int, inputs: nn.Module) -> None:
        """Become `layer`, with its own parameters, quantised. weight_bits, inputs: as of `QuantizedConvolution`."""
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_bits, self.inputs, self._quantized = weight_bits, inputs, []
        self.register_buffer("basis", None if weight_bits == WHOLE_BITS else fit_weight_basis(layer.weight, weight_bits))
        self.train(layer.training)

    def whole_weight(self) -> torch.Tensor:
        if self.basis is None:
            return self.weight
        if torch.is_grad_enabled():
            if self.training:
                self._follow(self.basis)
            return quantize(self.weight, sorted_levels(self.basis)[0], clips=False)
        if self.weight.is_inference() or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return quantize(self.weight, sorted_levels(self.basis)[0], clips=False)
        key, kept = self.version(), self._quantized[-1:]
        if not kept or kept[0][0] != key:
            kept = self._quantized[:] = [(key, quantize(self.weight, sorted_levels(self.basis)[0], clips=False))]
        return kept[0][1]

    def version(self) -> tuple[int, ...]:
        if self.basis is None:
            return super().version()
        return (*super().version(), self.basis._version, self.basis.data_ptr())

    @torch.no_grad()
    def _follow(self, basis: torch.Tensor) -> None:
        """Move the basis towards that of the weights, once for each of their versions."""
        if self._followed != self.weight._version:
            basis.lerp_(qem_step(self.weight.to(basis.dtype), basis), MOMENTUM)
            self._followed = self.weight._version

    def plain(self, width: Width) -> nn.Module:
        """The ordinary convolution of this width, with this layer's own quantisers of all sizes, of which the caller takes one."""
        with torch.no_grad():
            plain = super().plain(width)
        assert isinstance(plain, QuantizedConvolution)
        plain.weight_bits, plain.inputs = self.weight_bits, self.inputs
        return plain.train(self.training)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has weights of its own."""
        return {**super().__getstate__(), "_followed": None, "_quantized": []}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits}"


class QuantizedConv2d(_QuantizedSlimmable, SlimmableConv2d):
    """`SlimmableConv2d` with quantised weights and inputs; x is B, C, H, W."""

    _plain_type = PlainQuantizedConv2d


class QuantizedConv3d(_QuantizedSlimmable, SlimmableConv3d):
    """`SlimmableConv3d` with quantised weights and inputs; x is B, C, T, H, W."""

    _plain_type = PlainQuantizedConv3d


def quantize_convolution(
    layer: SlimmableConv2d | SlimmableConv3d, *, weight_bits: int, activation_bits: int, sizes: int
) -> QuantizedConv2d | QuantizedConv3d:
    """A convolution with the parameters of `layer` whose weights and inputs are quantised.

    weight_bits, activation_bits: that they have; 32 leaves them as they are. sizes: how many have a quantiser of inputs of their own.
    """
    made = QuantizedConv2d if isinstance(layer, SlimmableConv2d) else QuantizedConv3d
    # Without memory, and without a random number: the parameters are the layer's.
    with torch.device("meta"):
        convolution = made(
            layer.in_rule, layer.out_rule, layer.kernel_size, layer.stride, cast(Any, layer.padding), layer.dilation, layer.groups,
            bias=layer.bias is not None,
        )  # fmt: skip
    inputs: nn.Module = nn.Identity()
    if activation_bits != WHOLE_BITS:
        inputs = PrivateQuantizers(activation_bits, sizes).to(layer.weight.device, layer.weight.dtype)
    convolution.averages_inputs = layer.averages_inputs
    convolution.take(layer, weight_bits, inputs)
    return convolution


def stored_bits(network: nn.Module) -> int:
    """Bits that the parameters of a network take, where quantised weights are stored with theirs and all others with 32.

    Of running statistics and of activations' quantisers, some thousand numbers, nothing is counted.
    """
    quantized = [module for module in network.modules() if isinstance(module, QuantizedConvolution)]
    apart = {id(module.weight) for module in quantized}
    whole = sum(parameter.numel() for parameter in network.parameters() if id(parameter) not in apart)
    return whole * WHOLE_BITS + sum(module.stored_bits() for module in quantized)
