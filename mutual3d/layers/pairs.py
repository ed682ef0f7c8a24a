"""Which norm takes exactly what which convolution gives, said by the module that runs both; and folding such pairs."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class NormPairs(nn.Module):
    """A module that declares its pairs: `norm_pairs`, (name of a convolution, name of a norm) of children of its own.

    A pair promises that the norm's only input is the convolution's output and that nothing else reads that output. Only
    declared pairs are folded: the order in which children are registered says nothing of the order in which they run
    (norm, ReLU, convolution is as common as convolution, norm, ReLU).
    """

    norm_pairs: tuple[tuple[str, str], ...] = ()


class PairedSequential(NormPairs, nn.Sequential):
    """`nn.Sequential` with declared pairs. parts: modules, or one OrderedDict of them, as there. norm_pairs: see `NormPairs`."""

    def __init__(self, *parts: nn.Module | OrderedDict, norm_pairs: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]  # nn.Sequential's two forms are overloads
        self.norm_pairs = tuple(norm_pairs)


def fold_norms(network: AnyModule) -> AnyModule:
    """Fold every declared norm of a network of ordinary layers, in evaluation, into its convolution; returns the network.

    A folded norm becomes `nn.Identity`. Raises ValueError, naming the module, for a pair that is none.
    """
    for module in list(network.modules()):
        if isinstance(module, NormPairs):
            _check_pairs(module)
            for convolution, norm in module.norm_pairs:
                layer, follower = module.get_submodule(convolution), module.get_submodule(norm)
                assert isinstance(layer, nn.modules.conv._ConvNd) and isinstance(follower, nn.modules.batchnorm._BatchNorm)
                setattr(module, convolution, fuse_conv_bn_eval(layer, follower))
                setattr(module, norm, nn.Identity())
    return network


def _check_pairs(module: NormPairs) -> None:
    children, names = dict(module.named_children()), [name for pair in module.norm_pairs for name in pair]
    for convolution, norm in module.norm_pairs:
        problem = None
        if not isinstance(children.get(convolution), nn.modules.conv._ConvNd):
            problem = f"its child '{convolution}' is no convolution"
        elif not isinstance(children.get(norm), nn.modules.batchnorm._BatchNorm):
            problem = f"its child '{norm}' is no batch norm"
        elif children[convolution].out_channels != children[norm].num_features:
            problem = f"they have {children[convolution].out_channels} and {children[norm].num_features} channels"
        elif names.count(convolution) > 1 or names.count(norm) > 1:
            problem = "one of them is in another pair too"
        if problem:
            raise ValueError(
                f"{type(module).__name__} declares the pair ('{convolution}', '{norm}') and {problem}: name in `norm_pairs` "
                "a convolution and the norm that alone takes its output"
            )
