"""A classifier of images as the body of another network: features of several strides, under the classifier's own names."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
import torch.nn as nn

from mutual3d.layers import Channels, NormPairs, SlimmableConv2d

from .adaptive import AdaptiveNetwork


class TappedBody(NormPairs):
    """A classifier's stages up to the last tap: images B, 3, H, W -> {"0": features, "1": ...}, those of each tap.

    Names are the classifier's, so that its weights load. taps: dotted names of modules in it, in the order that they run.
    """

    def __init__(self, classifier: AdaptiveNetwork, taps: Sequence[str]) -> None:
        super().__init__()
        self.taps = tuple(taps)
        stages, (last, _, inside) = dict(classifier.named_children()), taps[-1].partition(".")
        for name, stage in stages.items():
            self.add_module(name, stage)
            if name == last:
                break
        if inside:
            stage = stages[last]
            assert isinstance(stage, nn.Sequential), "a tap inside a stage is one of its parts"
            del stage[int(inside) + 1 :]
        self.norm_pairs = classifier.norm_pairs

    def steps(self, module: nn.Module | None = None, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
        """(dotted name, module) of what runs, in order: stages, and in their place the parts of those that hold taps.

        module: whose children these are, None for this one; prefix: what their names begin with.
        """
        for name, child in (self if module is None else module).named_children():
            if any(tap.startswith(f"{prefix}{name}.") for tap in self.taps):
                yield from self.steps(child, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", child

    def tapped_channels(self) -> list[Channels]:
        """The channel counts of the features."""
        counts: list[Channels] = []
        last: Channels | None = None
        for name, module in self.steps():
            for layer in module.modules():
                last = layer.out_rule if isinstance(layer, SlimmableConv2d) else last
            if name in self.taps:
                assert last is not None, "features come out of a convolution"
                counts.append(last)
        return counts

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features: dict[str, torch.Tensor] = OrderedDict()
        for name, module in self.steps():
            x = module(x)
            if name in self.taps:
                features[str(len(features))] = x
        return features
