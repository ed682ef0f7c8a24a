"""Networks of ordinary layers, and how stages are run: what an adaptive network and the ones taken out of it share."""

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn

from mutual3d.layers import BNStatistics, NormPairs, PrivateParts, Shrink, ShrinksFeatures, SlimmablePart, Width
from mutual3d.utils.targets import Labels

Inputs = torch.Tensor | Sequence[torch.Tensor]
# What a network may take, see AdaptiveNetwork.
TAKES = ("clips", "pathways", "images")


class PlainNetwork(NormPairs, nn.Sequential):
    """Stages of ordinary layers; takes what AdaptiveNetwork.forward takes, at the size that it was made for.

    classifier_name: dotted name of the layer whose outputs are the classes. norm_pairs: see `NormPairs`, of the stages.
    """

    def __init__(
        self,
        stages: "OrderedDict[str, nn.Module]",
        takes: str = "clips",
        classifier_name: str | None = None,
        norm_pairs: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(stages)
        self.takes, self.classifier_name, self.norm_pairs = takes, classifier_name, tuple(norm_pairs)

    def forward(self, pathways: Inputs, boxes: torch.Tensor | None = None) -> Any:
        return run_stages(self, as_inputs(pathways, self.takes), boxes)


def replace_shrink(network: nn.Module, make: Callable[[], Shrink]) -> None:
    """Let every part that shrinks features use what `make` gives: exporters need a resize to fixed sizes."""
    for part in list(network.modules()):
        if isinstance(part, ShrinksFeatures):
            part.shrink = make()


def as_inputs(inputs: Inputs, takes: str) -> Inputs:
    """What the first stage takes; ValueError, with the right form, for anything else."""
    if isinstance(inputs, torch.Tensor):
        if takes == "images" and inputs.ndim == 4:
            return inputs
        if takes == "clips" and inputs.ndim == 5:
            return [inputs]
    elif takes != "images" and isinstance(inputs, (list, tuple)) and all(isinstance(x, torch.Tensor) for x in inputs):
        return inputs
    form = {
        "images": "images as one tensor B, 3, s, s",
        "clips": "a clip B, 3, t, s, s, or a list of one",
        "pathways": "a list of pathways, which network.fit_clip(clip) makes of a full-size clip",
    }[takes]
    given = f"a tensor {tuple(inputs.shape)}" if isinstance(inputs, torch.Tensor) else f"a {type(inputs).__name__}"
    raise ValueError(f"the network was given {given}: give {form}")


def run_stages(network: nn.Module, pathways: Inputs, boxes: torch.Tensor | None, labels: Labels | None = None) -> Any:
    """One stage after the other; the last, the head, is given the boxes, or the labels, too where there are some."""
    *stages, head = network.children()
    for stage in stages:
        pathways = stage(pathways)
    given = [each for each in (boxes, labels) if each is not None]
    return head(pathways, *given)


def plain_copy(module: nn.Module, width: Width, chosen: Mapping[type[PrivateParts], int]) -> nn.Module:
    """A copy of `module` in which every slimmable layer and norm is an ordinary one of that width.

    chosen: of each kind of parts of one's own, which one is taken.
    """
    if isinstance(module, PrivateParts):
        module = module.parts[chosen[type(module)]]
    if isinstance(module, SlimmablePart):
        shell = module.plain(width)
    else:
        shell = copy.copy(module)
        # Of its own: what is hooked to the copy must not run in the original, and in every other copy.
        shell.__dict__.update({name: OrderedDict() for name in vars(module) if name.startswith(("_forward_", "_backward_"))})
        shell._parameters, shell._buffers = copy.deepcopy(module._parameters), copy.deepcopy(module._buffers)
    children = shell._modules.items()
    shell._modules = OrderedDict(
        (name, None if child is None else plain_copy(child, width, chosen)) for name, child in children
    )
    return shell


def load_statistics(network: nn.Module, statistics: BNStatistics) -> None:
    """Put the statistics of a configuration, of the norms that it runs, into the ordinary norms of its network."""
    for name, mean in statistics.mean.items():
        norm = network.get_submodule(re.sub(r"\.norms\.\d+$", "", name))
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(statistics.variance[name])
