"""Mask R-CNN (He et al., ICCV 2017) with a feature pyramid (Lin et al., CVPR 2017) on slimmable backbones (paper, 4.4 and TPAMI, 6.4).

Pyramid, proposals, RoIAlign and heads are torchvision's, shared by all sub-networks; only the backbone is slimmable, and the pyramid's
lateral convolutions read the first channels of its features, as many as there are. At width 1.0 entries and outputs are those of
torchvision's `maskrcnn_resnet50_fpn`, whose names lack the `heads.` before `rpn` and `roi_heads`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from fvcore.common.config import CfgNode

from mutual3d.layers import SlimmableConv2d
from mutual3d.sampling import SearchSpace
from mutual3d.utils.targets import Targets

from .heads import LossHead
from .images import AdaptiveImageNetwork
from .mobilenet import build_mobilenet_v1, build_mobilenet_v2
from .objects import fitted, size_of
from .registry import register_network
from .resnet2d import build_resnet2d
from .taps import TappedBody
from .vgg import build_vgg16

if TYPE_CHECKING:
    from torchvision.models.detection.image_list import ImageList

# The features have a 4th, 8th, 16th and 32nd of the image's side.
LEVELS = (2, 3, 4, 5)
STRIDE = 2 ** LEVELS[-1]
# torchvision's, in pixels of the network's input, a size for each level of the pyramid.
ANCHOR_SIZES = (32, 64, 128, 256, 512)
ASPECT_RATIOS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Backbone:
    """A classifier that a detector is built on.

    build: its builder. own: the arguments of `build_mask_rcnn` that the builder takes too. taps: dotted names of what gives the features of strides 4,
    8, 16 and 32.
    """

    build: Any
    own: tuple[str, ...]
    taps: tuple[str, str, str, str]


# By the words of MODEL.ARCH. VGG's features are those after its poolings; MobileNet v2's last ones do not depend on the width.
BACKBONES = {
    "resnet": Backbone(build_resnet2d, ("depth", "width_per_group"), ("layer1", "layer2", "layer3", "layer4")),
    "mobilenet_v1": Backbone(build_mobilenet_v1, (), ("features.3", "features.5", "features.11", "features.13")),
    "mobilenet_v2": Backbone(build_mobilenet_v2, (), ("features.3", "features.6", "features.13", "features.18")),
    "vgg16": Backbone(build_vgg16, ("width_per_group",), ("features.13", "features.23", "features.33", "features.43")),
}


class Pyramid(NamedTuple):
    """features: {name of a level: B, C, h, w}, from fine to coarse. images: the padded batch, with the images' sizes in it."""

    features: dict[str, torch.Tensor]
    images: "ImageList"


class PyramidBackbone(nn.Module):
    """Images B, 3, H, W, normalised -> Pyramid. They are filled up with 0, the mean colour, to multiples of the last stride.

    body: gives the features. channels: of every level.
    """

    def __init__(self, body: TappedBody, channels: int) -> None:
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        super().__init__()
        self.body, self.out_channels = body, channels
        counts = body.tapped_channels()
        self.fpn = FeaturePyramidNetwork([count.full for count in counts], channels, extra_blocks=LastLevelMaxPool())
        for block, count in zip(self.fpn.inner_blocks, counts):
            assert isinstance(block, nn.Sequential)
            lateral = SlimmableConv2d(count, channels, 1)
            lateral.load_state_dict(block[0].state_dict())
            block[0] = lateral

    def forward(self, images_B3HW: torch.Tensor) -> Pyramid:
        from torchvision.models.detection.image_list import ImageList

        count, _, height, width = images_B3HW.shape
        padded = F.pad(images_B3HW, (0, -width % STRIDE, 0, -height % STRIDE))
        return Pyramid(self.fpn(self.body(padded)), ImageList(padded, [(height, width)] * count))


class MaskRCNNHeads(nn.Module, LossHead):
    """Proposals, boxes, classes and masks of a Pyramid.

    In training with labels, the `Objects` of each image: {name: loss} of torchvision's five losses; without labels: nothing, since no norm is in here. In
    evaluation a list with, for each image, {"boxes": float n, 4, xyxy normalised by the image; "labels": int64 n, classes from 0;
    "scores": n, descending; "masks": float n, 1, m, m, how sure each cell of the box is to be of the object}.
    """

    def __init__(self, rpn: nn.Module, roi_heads: nn.Module) -> None:
        from torchvision.ops.poolers import initLevelMapper

        super().__init__()
        self.rpn: Any = rpn
        self.roi_heads: Any = roi_heads
        pools: list[Any] = [roi_heads.box_roi_pool, roi_heads.mask_roi_pool]
        for pool in pools:
            # Else guessed from the sizes of the first images, wrongly where these are small and no multiples of the stride.
            pool.scales = [2.0**-level for level in LEVELS]
            pool.map_levels = initLevelMapper(LEVELS[0], LEVELS[-1], pool.canonical_scale, pool.canonical_level)

    def forward(self, pyramid: Pyramid, labels: Targets | None = None) -> Any:
        features, images = pyramid
        if images.tensors.is_meta:
            return self._count(features)
        if self.training:
            return {} if labels is None else self._losses(features, images, labels)
        proposals, _ = self.rpn(images, features)
        found, _ = self.roi_heads(features, proposals, images.image_sizes)
        return [self._normalised(result, *size) for result, size in zip(found, images.image_sizes)]

    def _losses(self, features: dict[str, torch.Tensor], images: "ImageList", labels: Targets) -> dict[str, torch.Tensor]:
        from torchvision.models.detection.image_list import ImageList

        objects = fitted(labels.samples, *images.image_sizes[0])
        # Where images differ in size, the batch is larger than some of them.
        images = ImageList(images.tensors, [size_of(each) for each in objects])
        # torchvision's class 0 is the background.
        targets = [{**each, "labels": each["labels"] + 1} for each in objects]
        proposals, losses = self.rpn(images, features, targets)
        _, more = self.roi_heads(features, proposals, images.image_sizes, targets)
        return {**losses, **more}

    @staticmethod
    def _normalised(result: Mapping[str, torch.Tensor], height: int, width: int) -> dict[str, torch.Tensor]:
        sides = result["boxes"].new_tensor([width, height, width, height])
        return {**result, "boxes": result["boxes"] / sides, "labels": result["labels"] - 1}

    def _count(self, features: dict[str, torch.Tensor]) -> list[Any]:
        """Run what costs, on the meta device, and give what comes out of it: heads of as many proposals and detections as there may be at most."""
        like, heads = next(iter(features.values())), self.roi_heads
        outputs: list[Any] = [self.rpn.head(list(features.values()))]
        for pool, layers, count in (
            (heads.box_roi_pool, (heads.box_head, heads.box_predictor), self.rpn._post_nms_top_n["testing"]),
            (heads.mask_roi_pool, (heads.mask_head, heads.mask_predictor), heads.detections_per_img),
        ):
            x = like.new_empty(len(like) * count, like.shape[1], *pool.output_size)
            for layer in layers:
                x = layer(x)
            outputs.append(x)
        return outputs


class MaskRCNN(AdaptiveImageNetwork):
    """Images -> what is found in each, see `MaskRCNNHeads`."""

    gives = "objects"


def build_mask_rcnn(
    *,
    space: SearchSpace,
    num_classes: int,
    backbone: str = "resnet",
    depth: int = 50,
    width_per_group: int = 64,
    pyramid_channels: int = 256,
    box_features: int = 1024,
    mask_channels: int = 256,
    anchor_sizes: Sequence[int] = ANCHOR_SIZES,
    num_proposals: int = 1000,
    num_detections: int = 100,
    sampled_boxes: int = 512,
) -> MaskRCNN:
    """An adaptive Mask R-CNN of `num_classes` classes of objects, the background not counted.

    backbone: a word of BACKBONES. depth: of a ResNet. width_per_group: channels of the first stage, of a ResNet or VGG. pyramid_channels: of every level of
    the pyramid. box_features: of the two linear layers that classify a box. mask_channels: of the convolutions that draw a mask. anchor_sizes: in
    pixels of the network's input, one for each of the five levels. num_proposals: boxes of an image that are looked at, at most; in training twice as
    many, of which `sampled_boxes` are learned from. num_detections: objects that are found in an image, at most. Raises ValueError, with the legal values, for another backbone and another
    number of anchor sizes.
    """
    from torchvision.models import detection
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    check_backbone(backbone)
    if len(anchor_sizes) != len(ANCHOR_SIZES):
        raise ValueError(f"MASK_RCNN.ANCHOR_SIZES is {list(anchor_sizes)}: give {len(ANCHOR_SIZES)} sizes in pixels, one for each level")
    facts, given = BACKBONES[backbone], {"depth": depth, "width_per_group": width_per_group}
    classifier = facts.build(space=space, num_classes=1, **{name: given[name] for name in facts.own})
    pyramid = PyramidBackbone(TappedBody(classifier, facts.taps), pyramid_channels)
    num_outputs = num_classes + 1
    parts = detection.MaskRCNN(
        pyramid,
        rpn_post_nms_top_n_train=2 * num_proposals,
        rpn_post_nms_top_n_test=num_proposals,
        box_detections_per_img=num_detections,
        box_batch_size_per_image=sampled_boxes,
        rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in anchor_sizes), (ASPECT_RATIOS,) * len(anchor_sizes)),
        box_head=detection.faster_rcnn.TwoMLPHead(pyramid_channels * 7 * 7, box_features),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(box_features, num_outputs),
        mask_head=detection.mask_rcnn.MaskRCNNHeads(pyramid_channels, (mask_channels,) * 4, 1),
        mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(mask_channels, mask_channels, num_outputs),
    )
    return MaskRCNN({"backbone": pyramid, "heads": MaskRCNNHeads(parts.rpn, parts.roi_heads)}, space)


def check_backbone(word: str) -> None:
    """Raise ValueError, with the legal ones, for a `word` of MODEL.ARCH that is no backbone of a detector."""
    if word not in BACKBONES:
        raise ValueError(f"MODEL.ARCH is '{word}': mutual3d's MaskRCNN is built on {', '.join(BACKBONES)}")


@register_network("mask_rcnn", words=("MaskRCNN",), build=build_mask_rcnn, classifier_name=None, takes="images", gives=MaskRCNN.gives)
def mask_rcnn_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The backbone, MODEL.ARCH with what it reads of RESNET and VGG, and the keys of MASK_RCNN."""
    check_backbone(cfg.MODEL.ARCH)
    own = cfg.MASK_RCNN
    return {
        "backbone": cfg.MODEL.ARCH,
        "depth": cfg.RESNET.DEPTH,
        "width_per_group": (cfg.VGG if cfg.MODEL.ARCH == "vgg16" else cfg.RESNET).WIDTH_PER_GROUP,
        "pyramid_channels": own.PYRAMID_CHANNELS,
        "box_features": own.BOX_FEATURES,
        "mask_channels": own.MASK_CHANNELS,
        "anchor_sizes": list(own.ANCHOR_SIZES),
        "num_proposals": own.NUM_PROPOSALS,
        "num_detections": own.NUM_DETECTIONS,
        "sampled_boxes": own.SAMPLED_BOXES,
    }
