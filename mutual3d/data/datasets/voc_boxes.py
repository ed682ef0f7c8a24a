"""Boxes of objects in images, from xml files in the form of Pascal VOC, which ImageNet's annotations have."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import torch

from mutual3d.data.datasets.lists import existing_file, parse_decimal

# No annotation is that long: what is, is none, and is not parsed.
_LONGEST = 2**24


class ImageBoxes(NamedTuple):
    """The objects of an image. boxes_N4: float N, 4, normalised xyxy. names: N, of their classes (ImageNet's `n01440764`)."""

    boxes_N4: torch.Tensor
    names: tuple[str, ...]


def read_voc_boxes(path: str | Path) -> ImageBoxes:
    """The ImageBoxes of an annotation, in its order.

    Pixels count from 1, both ends included, as in Pascal VOC; ImageNet's, which count from 0, are off by one at most, and clipped to
    the image. Raises FileNotFoundError for a missing file, and ValueError, with the file and what is wrong, for one that is no such
    annotation, has no object, or a box without area.
    """
    path = existing_file(path, "annotation", "give the xml file of an image, as ImageNet's Annotations folder has them")
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"the annotation '{path}' has {path.stat().st_size} bytes: it is no annotation of one image")
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"'{path}' is no xml file: {error}") from error
    width, height = (_number(path, root, f"size/{name}") for name in ("width", "height"))
    if min(width, height) <= 0:
        raise ValueError(f"'{path}': the image is {width:g} x {height:g} pixels")
    boxes, names = [], []
    for found in root.iterfind("object"):
        x1, y1, x2, y2 = (_number(path, found, f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax"))
        box = [max(x1 - 1, 0) / width, max(y1 - 1, 0) / height, min(x2 / width, 1.0), min(y2 / height, 1.0)]
        if not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"'{path}': the box {x1:g}, {y1:g}, {x2:g}, {y2:g} has no area in an image of {width:g} x {height:g}")
        boxes.append(box)
        names.append((found.findtext("name") or "").strip())
    if not boxes:
        raise ValueError(f"'{path}' has no object: leave the image out")
    return ImageBoxes(torch.tensor(boxes), tuple(names))


def _number(path: Path, element: ElementTree.Element, name: str) -> float:
    text = (element.findtext(name) or "").strip()
    value = parse_decimal(text)
    if value is None:
        raise ValueError(f"'{path}': {name} is {text[:80]!r}, and must be a number")
    return value
