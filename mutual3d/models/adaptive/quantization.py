"""Quantised convolutions in an adaptive network: which there are, and which quantisers a configuration runs."""

import torch.nn as nn

from mutual3d.layers import (
    PixelChannels,
    SlimmableConv2d,
    SlimmableConv3d,
    SqueezeExcite,
    quantize_convolution,
)
from mutual3d.sampling import SearchSpace

from .private_norms import sizes_of

# A size in space and time.
Size = tuple[int, int]


def quantize_convolutions(
    network: nn.Module, space: SearchSpace, weight_bits: int, activation_bits: int, *, classifier_name: str | None
) -> list[Size]:
    """Quantise the convolutions of a network, in place; returns the sizes that have quantisers of their own, in order.

    Left as they are: what reads the pixels themselves (`PixelChannels`), and the layer called `classifier_name`, as LQ-Nets
    leave the first layer and the last; linear layers; and squeeze-excite, whose gates are few numbers that multiply whole channels.
    weight_bits, activation_bits: 32 leaves those as they are.
    Raises ValueError where no convolution is left to quantise.
    """
    chosen = _quantizable(network, classifier_name)
    if not chosen:
        raise ValueError(
            "MODEL.QUANTIZE asks for quantised convolutions, and this network has none that could be: none is a SlimmableConv2d or a "
            "SlimmableConv3d that reads other channels than pixels (PixelChannels)"
        )
    sizes = sizes_of(space)
    for name, layer in chosen.items():
        parent, _, child = name.rpartition(".")
        quantized = quantize_convolution(layer, weight_bits=weight_bits, activation_bits=activation_bits, sizes=len(sizes))
        setattr(network.get_submodule(parent), child, quantized)
    return sizes


def _quantizable(network: nn.Module, classifier_name: str | None) -> dict[str, SlimmableConv2d | SlimmableConv3d]:
    gates = {id(part) for module in network.modules() if isinstance(module, SqueezeExcite) for part in module.modules()}
    return {
        name: layer
        for name, layer in network.named_modules()
        # Of no subclass, which computes with other weights than its own.
        if isinstance(layer, (SlimmableConv2d, SlimmableConv3d)) and type(layer) in (SlimmableConv2d, SlimmableConv3d)
        and id(layer) not in gates and not isinstance(layer.in_rule, PixelChannels) and name != classifier_name
    }  # fmt: skip
