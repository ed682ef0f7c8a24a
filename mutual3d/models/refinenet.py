"""RefineNet (Lin et al., CVPR 2017): a map of classes, from the four stages of a slimmable ResNet, refined from the coarsest one on.

    layer4 ------------------------------------> RefineNet-4 --+
    layer3 -------------------> RefineNet-3 <--(fusion)--------+
    layer2 ------> RefineNet-2 <--(fusion)---+     and so on to RefineNet-1, whose map, of a quarter of the image's sides, is classified

    RefineNet: 3x3 -> residual convolution units -> fusion with the coarser map, enlarged -> chained residual pooling -> units

The numbers of units and of poolings, and which convolutions have a bias, are those of the published networks of 118.1 million parameters
(Nekrasov et al., BMVC 2018, compare with them), which RS-Net's Table 7 counts; the figures of the paper show fewer.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from fvcore.common.config import CfgNode

from mutual3d.layers import Channels, FixedChannels, SlimmableConv2d, Untie, tied
from mutual3d.sampling import SearchSpace

from .blocks import untie_layers
from .build import image_arguments
from .images import AdaptiveImageNetwork, conv2d, scaled_channels
from .registry import register_network
from .resnet2d import build_resnet2d
from .taps import TappedBody

_STAGES = ("layer1", "layer2", "layer3", "layer4")
_UNITS_BEFORE, _POOLINGS, _UNITS_AFTER = 2, 4, 3


class ResidualConvUnit(nn.Module):
    """x -> x + conv2(relu(conv1(relu(x)))), without norms (paper, 3.2). untie: see `untie_layers`."""

    def __init__(self, channels: Channels, untie: Untie = tied) -> None:
        super().__init__()
        inner = untie(channels)
        self.conv1 = SlimmableConv2d(channels, inner, 3, padding=1)
        self.conv2 = conv2d(inner, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class ChainedResidualPooling(nn.Module):
    """relu(x), plus what each of several poolings in a row gives: 5x5, without stride, and a 3x3 convolution (paper, 3.2)."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convolutions = nn.ModuleList(conv2d(channels, channels, 3) for _ in range(_POOLINGS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = total = F.relu(x)
        for convolution in self.convolutions:
            pooled = convolution(self.pool(pooled))
            total = total + pooled
        return total


class MultiResolutionFusion(nn.Module):
    """A map and a coarser one -> the sum of a 3x3 convolution of each, the coarser one enlarged bilinearly (paper, 3.2)."""

    def __init__(self, channels: Channels, coarser_channels: Channels) -> None:
        super().__init__()
        self.fine = conv2d(channels, channels, 3)
        self.coarse = conv2d(coarser_channels, channels, 3)

    def forward(self, x: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        enlarged = F.interpolate(self.coarse(coarser), size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.fine(x) + enlarged


class RefineBlock(nn.Module):
    """RefineNet-m: the map of a stage and, but for the coarsest stage, the refined map of the next one -> a refined map.

    stage_channels: of the stage's map. coarser_channels: of the refined one, None for the coarsest stage. untie: see `untie_layers`.
    """

    def __init__(
        self, stage_channels: Channels, channels: Channels, coarser_channels: Channels | None, untie: Untie = tied
    ) -> None:
        super().__init__()
        self.reduce = conv2d(stage_channels, channels, 3)
        self.units = nn.Sequential(*(ResidualConvUnit(channels, untie) for _ in range(_UNITS_BEFORE)))
        self.fusion = None if coarser_channels is None else MultiResolutionFusion(channels, coarser_channels)
        self.pooling = ChainedResidualPooling(channels)
        self.output = nn.Sequential(*(ResidualConvUnit(channels, untie) for _ in range(_UNITS_AFTER)))

    def forward(self, x: torch.Tensor, coarser: torch.Tensor | None = None) -> torch.Tensor:
        x = self.units(self.reduce(x))
        if self.fusion is not None:
            assert coarser is not None, "only the coarsest stage is refined alone"
            x = self.fusion(x, coarser)
        return self.output(self.pooling(x))


class Refinement(nn.Module):
    """{name: map} of four stages, finest first -> the map of RefineNet-1, as fine as the first one.

    stage_channels: of the maps. channels: of RefineNets 1 to 3, and `coarsest_channels` of the fourth. dropout_rate: share of the
    values of the two coarsest maps that training sets to zero. untie: see `untie_layers`.
    """

    def __init__(
        self, stage_channels: Sequence[Channels], channels: Channels, coarsest_channels: Channels, dropout_rate: float,
        untie: Untie = tied,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dropout = nn.Dropout(dropout_rate)
        coarser: Channels | None = None
        # In the order in which they run: child 0 is RefineNet-4.
        self.blocks = nn.ModuleList()
        for number, own in reversed(list(enumerate(stage_channels, start=1))):
            refined = coarsest_channels if number == len(stage_channels) else channels
            self.blocks.append(RefineBlock(own, refined, coarser, untie))
            coarser = refined

    def forward(self, maps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        refined = None
        for place, (block, x) in enumerate(zip(self.blocks, reversed(list(maps.values())))):
            refined = block(self.dropout(x) if place < 2 else x, refined)
        assert refined is not None, "a network has stages"
        return refined


class MapHead(nn.Module):
    """B, C, h, w -> dropout -> 3x3 convolution -> logits of a map B, K, h, w; in training resized to `full_size` x `full_size`.

    RS-Net resizes the logits of all sizes to the largest input before it compares them with each other and with the labels (B). In
    evaluation the map stays as it is, for whoever knows the size of the photograph that was shrunk. full_size: pixels of the sides of
    training clips at the largest size. dropout_rate: share of the features that training sets to zero.
    """

    def __init__(self, channels: Channels, num_classes: int, full_size: int, dropout_rate: float) -> None:
        super().__init__()
        self.full_size = full_size
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = SlimmableConv2d(channels, FixedChannels(num_classes), 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.projection(self.dropout(x))
        if not self.training:
            return logits
        return F.interpolate(logits, size=(self.full_size, self.full_size), mode="bilinear", align_corners=False)


class MapNetwork(AdaptiveImageNetwork):
    """Images B, 3, h, w, of any shape, at the active configuration's size -> logits of maps, see `MapHead`."""

    gives = "maps of classes"


def build_refinenet(
    *,
    space: SearchSpace,
    num_classes: int,
    depth: int = 101,
    width_per_group: int = 64,
    refine_channels: int = 256,
    dropout_rate: float = 0.5,
    fc_init_std: float = 0.01,
    small_images: bool = False,
) -> MapNetwork:
    """An adaptive RefineNet on a ResNet of 18, 34, 50 or 101 layers: images B, 3, s, s -> logits of maps, see `MapHead`.

    refine_channels: of RefineNets 1 to 3; the fourth has twice as many. dropout_rate: of the two coarsest stages' maps, and before the
    classifier. fc_init_std: standard deviation of its first weights. depth, width_per_group, small_images: as of `build_resnet2d`, and
    so is the ValueError.
    """
    classifier = build_resnet2d(
        space=space, num_classes=1, depth=depth, width_per_group=width_per_group, small_images=small_images
    )
    body, scaled = TappedBody(classifier, _STAGES), scaled_channels(space)
    # A width of their own where widths are not uniform: the ResNet has stages of as many channels.
    channels, coarsest = scaled(refine_channels, layer=1), scaled(2 * refine_channels, layer=1)
    refinement = Refinement(body.tapped_channels(), channels, coarsest, dropout_rate, untie_layers(space))
    head = MapHead(channels, num_classes, space.spatial_sizes[-1], dropout_rate)
    _start_refinement(refinement)
    nn.init.normal_(head.projection.weight, std=fc_init_std)
    assert head.projection.bias is not None
    nn.init.zeros_(head.projection.bias)
    # Named as detectors name theirs: a classifier's weights begin both.
    backbone = nn.Sequential(OrderedDict(body=body))
    return MapNetwork({"backbone": backbone, "refine": refinement, "head": head}, space)


def _start_refinement(refinement: nn.Module) -> None:
    """Without norms, signals must keep their size: they do along the chain of maps, beside which units and poolings begin at zero."""
    for part in refinement.modules():
        if isinstance(part, ResidualConvUnit):
            nn.init.kaiming_normal_(part.conv1.weight, nonlinearity="relu")
            assert part.conv1.bias is not None
            nn.init.zeros_(part.conv1.bias)
            nn.init.zeros_(part.conv2.weight)
        elif isinstance(part, ChainedResidualPooling):
            for weight in part.convolutions.parameters():
                nn.init.zeros_(weight)
        elif isinstance(part, MultiResolutionFusion):
            nn.init.kaiming_normal_(part.fine.weight, nonlinearity="linear")
            nn.init.kaiming_normal_(part.coarse.weight, nonlinearity="linear")
        elif isinstance(part, RefineBlock):
            nn.init.kaiming_normal_(part.reduce.weight, nonlinearity="relu")


@register_network("refinenet", words=("RefineNet",), build=build_refinenet, classifier_name="head.projection", takes="images", gives=MapNetwork.gives)
def refinenet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Those of a config's `RESNET.*` and `REFINENET.*` keys that a RefineNet has."""
    return {
        **image_arguments(cfg),
        "depth": cfg.RESNET.DEPTH,
        "width_per_group": cfg.RESNET.WIDTH_PER_GROUP,
        "refine_channels": cfg.REFINENET.CHANNELS,
    }
