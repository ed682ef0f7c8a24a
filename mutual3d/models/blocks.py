"""Parts that the video backbones share: a stage of pathways, the residual block, initialisation.

Names of children are PySlowFast's, so that its checkpoints load: `pathway0_res1.branch2.a_bn` and the like.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn as nn

from mutual3d.layers import AdaptsInput, Channels, OwnWidths, PairedSequential, SlimmableBatchNorm3d, SlimmableConv3d, Untie, tied
from mutual3d.sampling import SearchSpace


class PathwayStage(nn.Module):
    """Every pathway through its own chain: list of tensors -> list of tensors.

    pathways: for each pathway a dict of modules, run in order and registered as `pathway{i}_{name}`.
    """

    def __init__(self, pathways: Sequence[Mapping[str, nn.Module]]) -> None:
        super().__init__()
        self.names = [[f"pathway{i}_{name}" for name in modules] for i, modules in enumerate(pathways)]
        for names, modules in zip(self.names, pathways):
            for name, module in zip(names, modules.values()):
                self.add_module(name, module)

    def forward(self, pathways: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self._run(names, x) for names, x in zip(self.names, pathways)]

    def _run(self, names: Sequence[str], x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x


class ResidualBlock(AdaptsInput):
    """x -> adapter, if there is one -> relu(shortcut(x) + branch2(x)); the shortcut is `branch1`, `branch1_bn` where shapes change, else x.

    in_channels, out_channels: of the block. stride: in space, of the block as a whole.
    """

    def __init__(self, branch2: nn.Sequential, in_channels: Channels, out_channels: Channels, stride: int = 1) -> None:
        super().__init__(in_channels)
        self.has_projection = in_channels.full != out_channels.full or stride != 1
        if self.has_projection:
            self.branch1 = conv3d(in_channels, out_channels, 1, stride=(1, stride, stride))
            self.branch1_bn = SlimmableBatchNorm3d(out_channels)
            self.norm_pairs = (("branch1", "branch1_bn"),)
        self.branch2 = branch2
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.adapted(x)
        shortcut = self.branch1_bn(self.branch1(x)) if self.has_projection else x
        return self.relu(shortcut + self.branch2(x))


def untie_layers(space: SearchSpace) -> Untie:
    """What gives a layer's count a width of its own, where the space's `widths_by` is layer; with stage counts stay as they are.

    A network calls it for each layer whose outputs no residual sum, and no depthwise convolution, ties to others'.
    """
    return OwnWidths() if space.widths_by == "layer" else tied


def conv3d(
    in_channels: Channels,
    out_channels: Channels,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> SlimmableConv3d:
    """A slimmable 3D convolution without bias, padded to keep sizes at stride 1 (odd kernels).

    Numbers and triples are those of `nn.Conv3d`: kernel_size, stride, dilation in (time, height, width), and groups.
    """
    kernel_size = (kernel_size,) * 3 if isinstance(kernel_size, int) else tuple(kernel_size)
    padding = tuple(size // 2 * gap for size, gap in zip(kernel_size, dilation))
    return SlimmableConv3d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)


def chain(norm_pairs: Iterable[tuple[str, str]] = (), **parts: nn.Module | None) -> PairedSequential:
    """`nn.Sequential` with names; parts that are None are left out. norm_pairs: see `NormPairs`."""
    present = OrderedDict((name, part) for name, part in parts.items() if part is not None)
    return PairedSequential(present, norm_pairs=norm_pairs)


def initialize(network: nn.Module, *, fc_std: float = 0.01, zero_init_final_bn: bool = False) -> None:
    """MSRA fan-out for convolutions, N(0, fc_std) for linears, 0 for biases; if asked, 0 for each branch's last norm.

    zero_init_final_bn: whether each residual branch begins at zero.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=fc_std)
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if zero_init_final_bn:
        _zero_final_norms(network)


def _zero_final_norms(network: nn.Module) -> None:
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            last = block.branch2[-1]
            assert isinstance(last, nn.modules.batchnorm._BatchNorm)
            nn.init.zeros_(last.weight)
