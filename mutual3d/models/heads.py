"""Heads of the video networks: from the last features of all pathways to logits of clips, or of boxes in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torchvision.ops import RoIAlign

from mutual3d.layers import Channels, FixedChannels, NormPairs, SlimmableBatchNorm3d, SlimmableLinear

from .blocks import conv3d


@dataclass(frozen=True)
class HeadOptions:
    """What a head is beside its channels. detection: None, or arguments of BoxPool: the network then classifies boxes."""

    num_classes: int
    dropout_rate: float = 0.5
    detection: dict | None = None


class BoxPool(nn.Module):
    """B, C, T, H, W and boxes N, 5 -> mean over time -> RoIAlign -> maximum over its grid -> N, C, 1, 1, 1.

    A box is its clip's position in the batch, which must exist, and x1, y1, x2, y2 normalised to the image. It is
    scaled by the height and width that the features have: a configuration's size need not divide by the network's
    stride (142 pixels give 9 cells), and pathways of different sizes look at the same place. resolution: cells on a side of
    RoIAlign's grid. aligned: whether its pixels' centres are shifted by a half, as in Detectron2.
    """

    def __init__(self, resolution: int = 7, aligned: bool = True) -> None:
        super().__init__()
        if resolution < 1:
            raise ValueError(f"DETECTION.ROI_XFORM_RESOLUTION is {resolution}: boxes are pooled to a grid of 1 or more")
        self.align = RoIAlign(resolution, spatial_scale=1.0, sampling_ratio=-1, aligned=aligned)

    def forward(self, x_BCTHW: torch.Tensor, boxes_N5: torch.Tensor) -> torch.Tensor:
        # RoIAlign has no bf16 kernel, and half precision cannot tell neighbouring places apart.
        dtype = torch.promote_types(x_BCTHW.dtype, torch.float32)
        features = x_BCTHW.mean(2, dtype=dtype)
        height, width = features.shape[2:]
        position, *sides = boxes_N5.to(dtype).unbind(1)
        # By numbers and not by a tensor of them, for which a GPU would be waited for.
        scaled = (side * size for side, size in zip(sides, (width, height, width, height)))
        grids = self.align(features, torch.stack([position, *scaled], 1))
        return grids.amax((2, 3))[:, :, None, None, None].to(x_BCTHW.dtype)


def make_pool(detection: dict | None) -> nn.Module:
    """The pool of a head. detection: None for the mean of a whole clip, or a dict of BoxPool's arguments."""
    return nn.AdaptiveAvgPool3d(1) if detection is None else BoxPool(**detection)


class BoxHead:
    """A head that may classify boxes: what an `AdaptiveNetwork` asks of its last stage. takes_boxes: whether this one does."""

    takes_boxes: bool


class LossHead:
    """A last stage that computes its losses itself, which an `AdaptiveNetwork` gives a batch's labels in training.

    `forward(features, labels=None)`: in training with labels {name: scalar loss}; without labels, as for calibration, it runs whatever
    has norms and gives nothing that is asked for. In evaluation a list, one entry for each image.
    """


class ResNetHead(nn.Module, BoxHead):
    """Pathways B, C_i, T_i, H_i, W_i -> pool of each -> concatenated -> dropout -> projection -> logits.

    The logits are B, K of the clips; with `detection` (see `make_pool`), N, K of the boxes N, 5 given beside the pathways.
    dropout_rate: share of the pooled features that training sets to zero.
    """

    def __init__(self, in_channels: Channels, num_classes: int, dropout_rate: float, detection: dict | None = None) -> None:
        super().__init__()
        self.pool = make_pool(detection)
        self.takes_boxes = detection is not None
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = SlimmableLinear(in_channels, num_classes)

    def forward(self, pathways: Sequence[torch.Tensor], *boxes_N5: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([self.pool(x, *boxes_N5) for x in pathways], 1).flatten(1)
        return self.projection(self.dropout(pooled))


class X3DHead(NormPairs, BoxHead):
    """B, C, T, H, W -> conv_5 -> norm -> ReLU -> pool -> lin_5 -> ReLU -> dropout -> projection -> logits.

    `lin_5` keeps all its outputs at every width, so that the classifier always reads the same features. The logits are
    B, K of the clips; with `detection` (see `make_pool`), N, K of the boxes N, 5 given beside the pathways. features:
    outputs of `lin_5`. dropout_rate: share of these that training sets to zero.
    """

    norm_pairs = (("conv_5", "conv_5_bn"),)

    def __init__(
        self,
        in_channels: Channels,
        inner_channels: Channels,
        features: int,
        num_classes: int,
        dropout_rate: float,
        detection: dict | None = None,
    ) -> None:
        super().__init__()
        self.conv_5 = conv3d(in_channels, inner_channels, 1)
        self.conv_5_bn = SlimmableBatchNorm3d(inner_channels)
        self.relu = nn.ReLU(inplace=True)
        self.pool = make_pool(detection)
        self.takes_boxes = detection is not None
        self.lin_5 = conv3d(inner_channels, FixedChannels(features), 1)
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = SlimmableLinear(features, num_classes)

    def forward(self, pathways: Sequence[torch.Tensor], *boxes_N5: torch.Tensor) -> torch.Tensor:
        (x,) = pathways
        x = self.pool(self.relu(self.conv_5_bn(self.conv_5(x))), *boxes_N5)
        x = self.relu(self.lin_5(x)).flatten(1)
        return self.projection(self.dropout(x))
