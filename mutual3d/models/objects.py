"""What is in an image, for a network to learn that finds objects: a dict of tensors, as torchvision's detectors take it.

`boxes`: float32 n, 4, xyxy in pixels of the image; `labels`: int64 n, classes from 0; `masks`: n, H, W, 1 where the object is (or the share of a
pixel that it covers). The image is H x W pixels, and may have no object. In a batch that is filled up a loader adds `canvas`, int64 2: height and width
of the batch, in whose upper left corner the image lies.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F

Objects = Mapping[str, torch.Tensor]


def size_of(objects: Objects) -> tuple[int, int]:
    """Height and width in pixels of the image that they are in."""
    height, width = objects["masks"].shape[1:]
    return height, width


def mirrored(objects: Objects) -> dict[str, torch.Tensor]:
    """Those of the image with left and right changed."""
    x1, y1, x2, y2 = objects["boxes"].unbind(1)
    _, width = size_of(objects)
    return {**objects, "boxes": torch.stack([width - x2, y1, width - x1, y2], 1), "masks": objects["masks"].flip(2)}


def resized(objects: Objects, height: int, width: int) -> dict[str, torch.Tensor]:
    """Those of the image resized to height x width pixels.

    Masks become float, the share of each pixel that the object covers, by the same resize as the image's; where that is the image's size they stay as
    they are.
    """
    own_height, own_width = size_of(objects)
    if (own_height, own_width) == (height, width):
        return dict(objects)
    scales = (width / own_width, height / own_height) * 2
    boxes = torch.stack([side * scale for side, scale in zip(objects["boxes"].unbind(1), scales)], 1)
    masks = objects["masks"].new_zeros((0, height, width), dtype=torch.float32)
    if len(boxes):
        own = objects["masks"][:, None].float()
        masks = F.interpolate(own, size=(height, width), mode="bilinear", antialias=True, align_corners=False)[:, 0]
    return {**objects, "boxes": boxes, "masks": masks}


def fitted(batch: Iterable[Objects], height: int, width: int) -> list[dict[str, torch.Tensor]]:
    """The objects of each image of a batch when that is shrunk to height x width pixels."""
    found = []
    for objects in batch:
        sides = size_of(objects)
        canvas = objects["canvas"].tolist() if "canvas" in objects else sides
        own_height, own_width = (max(1, round(side * to / whole)) for side, to, whole in zip(sides, (height, width), canvas))
        found.append(resized(objects, own_height, own_width))
    return found
