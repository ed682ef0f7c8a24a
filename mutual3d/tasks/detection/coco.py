"""Annotations in COCO's form (Lin et al., ECCV 2014): instances_*.json beside a folder of images."""

import logging
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mutual3d.data.datasets.dataset import stat_files
from mutual3d.tasks.detection.tools import coco_tools
from mutual3d.utils.files import read_json
from mutual3d.utils.fingerprint import fingerprint

logger = logging.getLogger("mutual3d")

# instances_train2017.json has 449 million bytes.
_MAX_BYTES = 4_000_000_000
_LARGEST_SIDE = 65_535
# Of whole numbers, which json has of any size and arrays have not.
_TOO_LARGE = 2**62
# A box that is rounded reaches a little beyond the image; one of which less than this share is inside was made for another image.
_LEAST_INSIDE = 0.5


@dataclass(frozen=True, eq=False)
class CocoInstances:
    """N images, and M objects in them, in the order of the images: those of image i are `starts[i]` to `starts[i + 1]`.

    path: the file. image_paths, image_ids, sizes_N2: of each image, its file, its number there, height and width in pixels.
    class_names, category_ids: by class, from 0, in ascending order of the numbers that categories have there. boxes_M4: x, y, width, height in pixels,
    as annotated. classes_M: from 0. areas_M: in pixels, as annotated. crowds_M: whether it is a group that was not told apart. masks: run lengths of each, as
    pycocotools compresses them.
    """

    path: str
    image_paths: list[str]
    image_ids: np.ndarray
    sizes_N2: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    starts: np.ndarray
    boxes_M4: np.ndarray
    classes_M: np.ndarray
    areas_M: np.ndarray
    crowds_M: np.ndarray
    masks: list[bytes]

    def __len__(self) -> int:
        return len(self.image_paths)

    def objects_of(self, image: int) -> range:
        """Numbers of the objects of image number `image`."""
        return range(int(self.starts[image]), int(self.starts[image + 1]))

    def encoded(self, number: int, image: int) -> dict[str, Any]:
        """The mask of object `number`, which is in image number `image`, as pycocotools takes it."""
        height, width = self.sizes_N2[image].tolist()
        return {"size": [height, width], "counts": self.masks[number]}

    def decoded(self, objects: Sequence[int], image: int) -> np.ndarray:
        """uint8 n, H, W: 1 where the object is, for each of these objects of image number `image`."""
        height, width = self.sizes_N2[image].tolist()
        if not len(objects):
            return np.zeros((0, height, width), np.uint8)
        return coco_tools("mask").decode([self.encoded(number, image) for number in objects]).transpose(2, 0, 1)

    def boxes_inside(self, objects: Sequence[int], image: int) -> np.ndarray:
        """float64 n, 4: the boxes of these objects of image number `image`, xyxy in pixels, as far as they are inside it."""
        height, width = self.sizes_N2[image].tolist()
        x, y, w, h = self.boxes_M4[list(objects)].reshape(-1, 4).T
        return np.stack([np.clip(side, 0, limit) for side, limit in ((x, width), (y, height), (x + w, width), (y + h, height))], 1)

    def fingerprint(self) -> str:
        """Changes with each image (its file's size and time of modification), size, box, class and mask."""
        arrays = self.image_ids, self.sizes_N2, self.starts, self.boxes_M4, self.classes_M, self.areas_M, self.crowds_M
        return fingerprint(self.image_paths, stat_files(self.image_paths), *arrays, self.class_names, self.category_ids, self.masks)


def read_instances(path: str | Path, image_dir: str | Path, num_classes: int | None = None) -> CocoInstances:
    """The images and objects of a file in the form of COCO's instances_*.json.

    image_dir: the folder of its images. num_classes: how many categories it must have; None for any number. Outlines may be polygons or run lengths,
    compressed or not. Raises FileNotFoundError where there is no such file, and ValueError, naming it, the entry, the value and what is legal,
    for anything that it gets wrong: missing images, categories and images that it does not list, sizes, boxes that are not in their image,
    outlines that are none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no file '{path}': give annotations and images in COCO's form (DATA.PATH_TO_DATA_DIR, COCO.TRAIN_ANNOTATIONS, "
            "COCO.VAL_ANNOTATIONS; datasets/COCO.md, which makes a small set in seconds too)"
        )
    content = read_json(path, _MAX_BYTES)
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        raise ValueError(f"'{path}' has no list of {', '.join(missing)}: give a file in the form of COCO's instances_*.json")
    numbers_of = _read_categories(content["categories"], path, num_classes)
    images = _read_images(content["images"], path)
    paths = [str(Path(image_dir) / image["file_name"]) for image in images]
    _check_files(paths, path, image_dir)
    of_image: list[list[_Object]] = [[] for _ in images]
    place_of = {image["id"]: place for place, image in enumerate(images)}
    crossing = 0
    for position, entry in enumerate(content["annotations"]):
        where = _where(path, "annotation", position, entry)
        if not isinstance(entry, Mapping) or not _is_whole(entry.get("image_id")) or entry["image_id"] not in place_of:
            image_id = entry.get("image_id") if isinstance(entry, Mapping) else entry
            raise ValueError(f"{where}: its image_id is {image_id!r:.60}, and no image of the file has that id")
        place = place_of[entry["image_id"]]
        made = _read_object(entry, images[place], numbers_of, where)
        crossing += made.crosses
        of_image[place].append(made)
    if crossing:
        logger.info("'%s': %d boxes reach beyond their images, where they are cut off", path, crossing)
    objects = [each for own in of_image for each in own]
    return CocoInstances(
        path=str(path), image_paths=paths,
        image_ids=np.array([image["id"] for image in images], np.int64),
        sizes_N2=np.array([(image["height"], image["width"]) for image in images], np.int64).reshape(-1, 2),
        class_names=tuple(name for name, _ in numbers_of.values()), category_ids=tuple(numbers_of),
        starts=np.cumsum([0, *map(len, of_image)]),
        boxes_M4=np.array([each.box for each in objects], np.float64).reshape(-1, 4),
        classes_M=np.array([each.class_index for each in objects], np.int64),
        areas_M=np.array([each.area for each in objects], np.float64),
        crowds_M=np.array([each.is_crowd for each in objects], bool),
        masks=[each.mask for each in objects],
    )  # fmt: skip


@dataclass(frozen=True)
class _Object:
    box: tuple[float, ...]
    class_index: int
    area: float
    is_crowd: bool
    mask: bytes
    crosses: bool


def _where(path: str | Path, noun: str, position: int, entry: object) -> str:
    number = f" (id {entry['id']!r:.40})" if isinstance(entry, Mapping) and "id" in entry else ""
    return f"'{path}', {noun} {position}{number}"


def _read_categories(entries: list, path: str | Path, num_classes: int | None) -> dict[int, tuple[str, int]]:
    """{category's number: (name, class from 0)}, ascending."""
    names: dict[int, str] = {}
    for position, entry in enumerate(entries):
        where = _where(path, "category", position, entry)
        if not isinstance(entry, Mapping) or not _is_whole(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise ValueError(f"{where}: it is {entry!r:.80}; give it an id, a whole number, and a name")
        if entry["id"] in names:
            raise ValueError(f"{where}: the id is that of '{names[entry['id']]}' too; each category has its own")
        names[entry["id"]] = entry["name"]
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(f"'{path}' has {len(names)} categories and MODEL.NUM_CLASSES is {num_classes}: set it to {len(names)}")
    return {number: (names[number], index) for index, number in enumerate(sorted(names))}


def _read_images(entries: list, path: str | Path) -> list[Mapping[str, Any]]:
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        where = _where(path, "image", position, entry)
        if not isinstance(entry, Mapping) or not _is_whole(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            raise ValueError(f"{where}: it is {entry!r:.80}; give it an id, a whole number, and a file_name")
        for key in ("height", "width"):
            if not _is_whole(entry.get(key)) or not 1 <= entry[key] <= _LARGEST_SIDE:
                raise ValueError(f"{where}: its {key} is {entry.get(key)!r:.40}; give whole pixels from 1 to {_LARGEST_SIDE}")
        if entry["id"] in seen:
            raise ValueError(f"{where}: another image has the same id; each has its own")
        seen.add(entry["id"])
    if not entries:
        raise ValueError(f"'{path}' lists no image")
    return entries


def _check_files(paths: Sequence[str], path: str | Path, image_dir: str | Path) -> None:
    absent = [name for name, (size, _) in zip(paths, stat_files(paths)) if size < 0]
    if absent:
        raise ValueError(
            f"'{path}': {len(absent)} of the {len(paths)} images that it lists are not in '{image_dir}', such as '{absent[0]}'; name their folder "
            "(COCO.TRAIN_IMAGES, COCO.VAL_IMAGES; datasets/COCO.md)"
        )


def _read_object(entry: Mapping[str, Any], image: Mapping[str, Any], numbers_of: Mapping[int, tuple[str, int]], where: str) -> _Object:
    category: Any = entry.get("category_id")
    crowd = entry.get("iscrowd", 0)
    if not _is_whole(category) or category not in numbers_of:
        raise ValueError(f"{where}: its category_id is {category!r:.40}, and no category of the file has that id")
    if crowd not in (0, 1):
        raise ValueError(f"{where}: its iscrowd is {crowd!r:.40}; give 0 or 1")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)) or min(box[2:]) < 0:
        raise ValueError(f"{where}: its bbox is {box!r:.80}; give x, y, width and height in pixels")
    mask = _read_outline(entry.get("segmentation"), image, where)
    area = entry.get("area")
    if area is None:
        area = float(coco_tools("mask").area({"size": [image["height"], image["width"]], "counts": mask}))
    # Above it is no size that an object has, and the metric would leave the object out.
    if not _is_finite(area) or not 0 <= area <= _LARGEST_SIDE**2:
        raise ValueError(f"{where}: its area is {area!r:.40}; give a number of pixels, 0 or more, or leave it out")
    crosses = _crosses(box, image, where)
    return _Object(tuple(map(float, box)), numbers_of[category][1], float(area), bool(crowd), mask, crosses)


def _crosses(box: Sequence[float], image: Mapping[str, Any], where: str) -> bool:
    """Whether a box reaches more than a pixel beyond its image; ValueError where most of it does."""
    x, y, width, height = box
    right, bottom = x + width, y + height
    inside = [max(0.0, min(right, image["width"]) - max(x, 0.0)), max(0.0, min(bottom, image["height"]) - max(y, 0.0))]
    if inside[0] < _LEAST_INSIDE * width or inside[1] < _LEAST_INSIDE * height:
        raise ValueError(
            f"{where}: its bbox {list(box)} (x, y, width, height) is outside its image, which is {image['width']} x {image['height']} pixels: give "
            "pixels of the image as it is listed"
        )
    return min(x, y) < -1 or right > image["width"] + 1 or bottom > image["height"] + 1


def _read_outline(outline: object, image: Mapping[str, Any], where: str) -> bytes:
    """Compressed run lengths of polygons, or of run lengths in either form."""
    tools, size = coco_tools("mask"), [image["height"], image["width"]]
    if isinstance(outline, list) and outline:
        for polygon in outline:
            is_one = isinstance(polygon, list) and len(polygon) >= 6 and not len(polygon) % 2 and all(map(_is_finite, polygon))
            # pycocotools walks along each edge, for minutes where that leads far away, and its whole numbers overflow.
            if not is_one or max(map(abs, polygon)) > 2 * _LARGEST_SIDE:
                raise ValueError(f"{where}: a polygon of its segmentation is {polygon!r:.80}; give x, y, x, y, ... in pixels, of three corners or more")
        return tools.merge(tools.frPyObjects(outline, *size))["counts"]
    if not isinstance(outline, Mapping) or not {"size", "counts"} <= outline.keys():
        raise ValueError(f"{where}: its segmentation is {outline!r:.80}; give polygons, or run lengths as a dict of size and counts")
    if outline["size"] != size:
        raise ValueError(f"{where}: its segmentation has the size {outline['size']!r:.60}, and its image is {size} (height, width)")
    counts = outline["counts"]
    if isinstance(counts, list):
        if not all(_is_whole(count) and count >= 0 for count in counts) or sum(counts) != math.prod(size):
            raise ValueError(f"{where}: the run lengths of its segmentation are not those of {size[0]} x {size[1]} pixels")
        return tools.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else b""
    # Of run lengths that end too early pycocotools makes a mask as well; one pixel less is too few for those that do not.
    if not data or not _fills(data, math.prod(size)) or _fills(data, math.prod(size) - 1):
        raise ValueError(f"{where}: the counts of its segmentation, {counts!r:.60}, are no run lengths of {size[0]} x {size[1]} pixels")
    return data


def _fills(data: bytes, pixels: int) -> bool:
    """Whether so many pixels have room for the compressed run lengths."""
    try:
        coco_tools("mask").decode({"size": [pixels, 1], "counts": data})
    except ValueError:
        return False
    return True


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(int(value)) < _TOO_LARGE


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and (math.isfinite(value) if isinstance(value, float) else _is_whole(value))
