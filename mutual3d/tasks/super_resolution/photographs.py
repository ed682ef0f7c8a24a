"""A few photographs that come with scikit-learn and scikit-image: pairs without a download, for a try-out in minutes."""

import functools
import importlib.resources

import numpy as np

from mutual3d.data.video.stills import read_image

from .pairs import PairArrays

# (package, file in it). Those of scikit-image lie in its wheel: others it would download when asked for.
_CHINA, _FLOWER = ("sklearn.datasets.images", "china.jpg"), ("sklearn.datasets.images", "flower.jpg")
PHOTOGRAPHS = {
    "train": (
        _CHINA, ("skimage.data", "astronaut.png"), ("skimage.data", "coffee.png"), ("skimage.data", "motorcycle_left.png"),
        ("skimage.data", "rocket.jpg"), ("skimage.data", "hubble_deep_field.jpg"), ("skimage.data", "retina.jpg"),
    ),
    "val": (_FLOWER, ("skimage.data", "chelsea.png")),
}  # fmt: skip


@functools.lru_cache(maxsize=4)
def open_photographs(split: str, scale: int) -> PairArrays:
    """The pairs of a split, train or val; the large images are the photographs, the small ones are made of them.

    scale: how many times larger the sides of the large ones are. Raises ValueError for another split, and ModuleNotFoundError, which
    names the extra, without scikit-image.
    """
    if split not in PHOTOGRAPHS:
        raise ValueError(f"the photographs have no split '{split}': choose among {', '.join(PHOTOGRAPHS)} (GRID.SPLIT, TEST.SPLIT)")
    images = [_photograph(package, name) for package, name in PHOTOGRAPHS[split]]
    return PairArrays(images, [name for _, name in PHOTOGRAPHS[split]], scale)


def _photograph(package: str, name: str) -> np.ndarray:
    """uint8 H, W, 3."""
    try:
        folder = importlib.resources.files(package)
    except ModuleNotFoundError:
        raise ModuleNotFoundError("TRAIN.DATASET photographs needs scikit-image: pip install -e .[photographs]") from None
    with importlib.resources.as_file(folder / name) as path:
        return np.asarray(read_image(path))
