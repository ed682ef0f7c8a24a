"""A small set in COCO's form, made in seconds: pictures of several shapes, each told by its outline and its stripes, with boxes and masks.

Shapes are striped as the demo set's actors are, on scenes like its. The class of one is how many bulges its outline has, two to five, and how wide its
stripes are: fine ones, which a small configuration cannot see, coarse, broad, or none. Shapes differ in size by three, stand in front of each other, and are
cut off at the border; pictures are landscapes, portraits and squares. Now and then many tiny ones stand close together, and are annotated as one
crowd.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mutual3d.data.prepare.demo import Actor, SetForm, draw_background, draw_colours, make_videos, paint_actor
from mutual3d.data.prepare.extraction import write_image
from mutual3d.utils.files import write_json

GENERATOR_VERSION = 2
SPLITS = ("train", "val")
# By the number of bulges, from 2.
CLASS_NAMES = ("oval", "triangle", "square", "star")
# Height and width of pictures, in turns.
SHAPES = ((96, 128), (128, 96), (112, 112), (96, 160))

_ARGUMENTS_FILE = "demo_coco.json"
_RADII = (7.0, 21.0)
# Waves of the outline, of the radius: enough to tell the classes apart, and no more than what leaves it one piece.
_AMPLITUDES = {2: 0.3, 3: 0.24, 4: 0.2, 5: 0.2}
# Pixels from stripe to stripe; so wide that none is seen.
_WAVELENGTHS = {2: (3.0, 4.0), 3: (5.5, 7.5), 4: (10.0, 14.0), 5: (1e6, 1e6)}
# Categories' numbers, which as COCO's leave some out.
CATEGORY_IDS = (1, 2, 4, 5)
# An object of which fewer pixels are seen is not annotated; in a pixel it is where it covers a half.
_LEAST_PIXELS = 30
_CROWD_RADIUS = 2.5
# Keeps these pictures apart from other demo sets' of the same seed.
_STREAM = 3


@dataclass(frozen=True)
class Picture:
    """image_HWC: uint8 RGB. masks: bool H, W, what is seen of each object; classes, from 0; crowds: whether it is one. unnamed_HW: bool, what
    is seen of objects of which too little is seen to be annotated."""

    image_HWC: np.ndarray
    masks: list[np.ndarray]
    classes: list[int]
    crowds: list[bool]
    unnamed_HW: np.ndarray


def make_demo_coco(
    directory: str | Path, *, num_train: int = 600, num_val: int = 150, seed: int = 0, num_workers: int | None = None
) -> Path:
    """Write train/ and val/ with jpg files, and annotations/instances_train.json and instances_val.json.

    Outlines are run lengths. A folder begun with the same arguments is completed, whole pictures being kept. `num_workers` processes (default: one a core) do
    not change the result. Returns the directory. Raises ValueError for a count below 1, and for a folder that holds something else. num_train,
    num_val: pictures of each split.
    """
    counts = dict(zip(SPLITS, (num_train, num_val)))
    form = SetForm("a demo set in COCO's form", _ARGUMENTS_FILE, GENERATOR_VERSION, _is_there, _write_picture)
    directory = make_videos(directory, form, counts, seed, num_workers)
    for split, count in counts.items():
        path = directory / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        write_json(path, _annotations(split, count, seed))
    return directory


def draw_picture(split: str, index: int, seed: int = 0) -> Picture:
    """One picture from its own random stream. split: one of SPLITS. index: number of the picture in it."""
    generator = np.random.default_rng([seed, SPLITS.index(split), index, _STREAM])
    height, width = SHAPES[index % len(SHAPES)]
    frame = draw_background(generator, max(height, width))[:height, :width].copy()
    actors, classes = [], []
    for _ in range(generator.integers(2, 6)):
        bulges = int(generator.integers(2, 6))
        actors.append([_draw_shape(bulges, generator.uniform(*_RADII), generator.uniform((0, 0), (width, height)), generator)])
        classes.append(bulges - 2)
    if generator.random() < 0.1:
        bulges, place = int(generator.integers(2, 6)), generator.uniform((15, 15), (width - 15, height - 15))
        spread = generator.uniform(-12, 12, (12, 2))
        # Behind the others.
        actors.insert(0, [_draw_shape(bulges, _CROWD_RADIUS, place + offset, generator) for offset in spread])
        classes.insert(0, bulges - 2)
    covers = []
    for group in actors:
        cover = np.zeros((1, height, width, 3))
        for actor in group:
            paint_actor(frame[None], actor, np.zeros((1, 2), int))
            # White on black: what is painted is how much of a pixel the shape covers.
            paint_actor(cover, replace(actor, colours=(np.ones(3), np.ones(3))), np.zeros((1, 2), int))
        covers.append(cover[0, :, :, 0] >= 0.5)
    frame += generator.normal(0, 0.01, (height, width, 1))
    masks = [cover & ~np.any(covers[number + 1 :], axis=0) for number, cover in enumerate(covers)]
    seen = [number for number, mask in enumerate(masks) if mask.sum() >= _LEAST_PIXELS]
    image = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    crowds = [len(group) > 1 for group in actors]
    unnamed = np.any([np.zeros((height, width), bool), *(mask for i, mask in enumerate(masks) if i not in seen)], axis=0)
    return Picture(image, [masks[i] for i in seen], [classes[i] for i in seen], [crowds[i] for i in seen], unnamed)


def _draw_shape(bulges: int, radius: float, place: np.ndarray, generator: np.random.Generator) -> Actor:
    """A still actor of the class whose outline has so many bulges. place: of its centre, x and y in pixels."""
    amplitudes = np.array([_AMPLITUDES[bulges] if number == bulges else 0.0 for number in range(2, 6)])
    still = (np.array([value]) for value in (*place, generator.uniform(0, 1)))
    return Actor(
        (amplitudes, generator.uniform(0, 2 * np.pi, 4)), draw_colours(generator), radius, generator.uniform(*_WAVELENGTHS[bulges]), *still
    )


def _annotations(split: str, count: int, seed: int) -> dict[str, Any]:
    """What instances_{split}.json holds."""
    pictures = [draw_picture(split, index, seed) for index in range(count)]
    objects = (row for index, picture in enumerate(pictures) for row in _rows(index, picture))
    sizes = [picture.image_HWC.shape[:2] for picture in pictures]
    return {
        "info": {"description": "shapes made by mutual3d"},
        "images": [
            {"id": index + 1, "file_name": _path(split, index).name, "height": height, "width": width}
            for index, (height, width) in enumerate(sizes)
        ],
        "annotations": [{"id": number, **row} for number, row in enumerate(objects, start=1)],
        "categories": [{"id": number, "name": name, "supercategory": "shape"} for number, name in zip(CATEGORY_IDS, CLASS_NAMES)],
    }  # fmt: skip


def _rows(index: int, picture: Picture) -> Iterator[dict[str, Any]]:
    for mask, label, is_crowd in zip(picture.masks, picture.classes, picture.crowds):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        y, x = int(rows[0]), int(columns[0])
        yield {
            "image_id": index + 1, "category_id": CATEGORY_IDS[label], "iscrowd": int(is_crowd), "area": int(mask.sum()),
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "segmentation": {"size": list(mask.shape), "counts": _run_lengths(mask)},
        }  # fmt: skip


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of pixels outside and inside, in turns, column by column; the first is outside, and may be 0."""
    flat = mask.flatten(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff([0, *changes.tolist(), flat.size]).tolist()


def _path(split: str, index: int) -> Path:
    return Path(split) / f"{index:05d}.jpg"


def _is_there(directory: Path, split: str, index: int) -> bool:
    return (directory / _path(split, index)).is_file()


def _write_picture(directory: Path, seed: int, picture: tuple[str, int]) -> None:
    path = directory / _path(*picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, draw_picture(*picture, seed).image_HWC)
