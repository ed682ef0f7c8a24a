"""A small set in NYUDv2's form, made in seconds: the pictures of the demo set in COCO's form, and maps of which class each pixel shows.

As in NYUDv2, 0 is what nobody labelled: here the pixels where one shape ends and another, or the ground, begins, crowds of tiny shapes, and
shapes of which too little is seen.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.prepare.demo import SetForm, make_videos
from mutual3d.data.prepare.demo_coco import CLASS_NAMES, SPLITS, draw_picture
from mutual3d.data.prepare.extraction import write_image
from mutual3d.utils.files import atomic_write

GENERATOR_VERSION = 2
# By label from 1 on.
MAP_CLASSES = ("ground", *CLASS_NAMES)

_ARGUMENTS_FILE = "demo_nyudv2.json"


def make_demo_nyudv2(
    directory: str | Path, *, num_train: int = 600, num_val: int = 150, seed: int = 0, num_workers: int | None = None
) -> Path:
    """Write RGB/ with JPEGs, Label/ with the map of each as PNG, the lists train.txt and val.txt, and classes.txt.

    A folder begun with the same arguments is completed, whole pictures being kept. `num_workers` processes (default: one a core) do not
    change the result. Returns the directory. Raises ValueError for a count below 1, and for a folder that holds something else.
    num_train, num_val: pictures of each split.
    """
    counts = dict(zip(SPLITS, (num_train, num_val)))
    form = SetForm("a demo set in NYUDv2's form", _ARGUMENTS_FILE, GENERATOR_VERSION, _is_whole, _write_picture)
    directory = make_videos(directory, form, counts, seed, num_workers)
    for split, count in counts.items():
        pairs = (_paths(split, index) for index in range(count))
        write_lines(directory / f"{split}.txt", (f"{image.as_posix()} {label.as_posix()}" for image, label in pairs))
    write_lines(directory / "classes.txt", MAP_CLASSES)
    return directory


def draw_labelled(split: str, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One picture: (uint8 RGB H, W, 3; its map uint8 H, W: 0 is unlabelled, n is MAP_CLASSES[n - 1]).

    split: one of SPLITS. index: number of the picture in it.
    """
    picture = draw_picture(split, index, seed)
    # The ground, then the shapes, which share no pixel.
    owners_HW = np.zeros(picture.image_HWC.shape[:2], int)
    for number, mask in enumerate(picture.masks, start=1):
        owners_HW[mask] = number
    map_HW = np.array([1, *(2 + label for label in picture.classes)], np.uint8)[owners_HW]
    crowds = [mask for mask, is_crowd in zip(picture.masks, picture.crowds) if is_crowd]
    for left_out in (_is_border(owners_HW), picture.unnamed_HW, *crowds):
        map_HW[left_out] = 0
    return picture.image_HWC, map_HW


def _is_border(owners_HW: np.ndarray) -> np.ndarray:
    """bool H, W: the pixel above or to the left shows something else."""
    is_border = np.zeros(owners_HW.shape, bool)
    is_border[1:] |= owners_HW[1:] != owners_HW[:-1]
    is_border[:, 1:] |= owners_HW[:, 1:] != owners_HW[:, :-1]
    return is_border


def _paths(split: str, index: int) -> tuple[Path, Path]:
    """Of the image and of its map, in the folder of the set."""
    name = f"{split}_{index:05d}"
    return Path("RGB") / f"{name}.jpg", Path("Label") / f"{name}.png"


def _is_whole(directory: Path, split: str, index: int) -> bool:
    return all((directory / path).is_file() for path in _paths(split, index))


def _write_picture(directory: Path, seed: int, picture: tuple[str, int]) -> None:
    image_HWC, map_HW = draw_labelled(*picture, seed)
    image_path, map_path = (directory / path for path in _paths(*picture))
    image_path.parent.mkdir(parents=True, exist_ok=True)
    write_image(image_path, image_HWC)
    with atomic_write(map_path) as temporary:
        Image.fromarray(map_HW).save(temporary, "PNG")
