"""Images in two sizes: folders of DIV2K's form, checked, and arrays in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mutual3d.data.datasets.dataset import stat_files
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import has_image_name, open_image, read_image
from mutual3d.utils.fingerprint import fingerprint

# The parts of DIV2K whose large images are published, by the words of splits.
DIV2K_PARTS = {"train": "train", "val": "valid"}
_FORM = "DIV2K_train_HR/0001.png beside DIV2K_train_LR_bicubic/X2/0001x2.png (datasets/DIV2K.md)"
_NAMES_TOLD = 4


class ImagePair(NamedTuple):
    """uint8 h, w, 3 and the same scene, uint8 scale * h, scale * w, 3."""

    low_HWC: np.ndarray
    high_HWC: np.ndarray


class ImagePairs:
    """Base class of sets of pairs. scale: how many times larger the sides of the large image are."""

    scale: int

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> ImagePair:
        """The pair at a position. Raises VideoError, with path and cause, for one that cannot be read. index: the position."""
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        """What to call a pair where it cannot be read. index: its position."""
        raise NotImplementedError

    def low_size(self, index: int) -> tuple[int, int]:
        """Width and height of the small image at a position, without reading its pixels. index: the position."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Text that changes with the pairs, equal for equal ones in every process."""
        raise NotImplementedError


@dataclass(frozen=True)
class FilePair:
    """The files of a pair. low_size: width and height of the small image, as its file begins with it."""

    low: str
    high: str
    low_size: tuple[int, int]


class PairFiles(ImagePairs):
    """Pairs of image files, see `find_pairs`. scale: as of `ImagePairs`."""

    def __init__(self, pairs: Sequence[FilePair], scale: int) -> None:
        self.pairs, self.scale = list(pairs), scale

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> ImagePair:
        pair = self.pairs[index]
        low, high = (np.asarray(read_image(path)) for path in (pair.low, pair.high))
        # A file may have been replaced since its size was looked at, or be turned by its EXIF data.
        if (low.shape[1], low.shape[0]) != pair.low_size or high.shape[:2] != (self.scale * low.shape[0], self.scale * low.shape[1]):
            raise VideoError(pair.low, _wrong_sizes((low.shape[1], low.shape[0]), pair.high, (high.shape[1], high.shape[0]), self.scale))
        return ImagePair(low, high)

    def name_of(self, index: int) -> str:
        return self.pairs[index].low

    def low_size(self, index: int) -> tuple[int, int]:
        return self.pairs[index].low_size

    def fingerprint(self) -> str:
        """Changes with each path and file (size, time of modification), and the scale. Looks at every file."""
        files = [path for pair in self.pairs for path in (pair.low, pair.high)]
        return fingerprint(type(self).__name__, self.scale, files, stat_files(files))


def find_pairs(high_folder: Path, low_folder: Path, suffix: str, scale: int) -> PairFiles:
    """The pairs of two folders: `0001.png` of the one, `0001{suffix}.png` of the other; sorted by name.

    scale: how many times larger the sides of the first folder's images are. Only the beginnings of files are read. Raises
    FileNotFoundError for a folder that is missing, ValueError, which names files, for images without a partner and sizes that do not
    fit, and VideoError for a file that is no image.
    """
    high, low = _images_of(high_folder), _images_of(low_folder)
    wanted = {f"{stem}{suffix}": stem for stem in high}
    alone = [high[stem] for name, stem in wanted.items() if name not in low] + [path for name, path in low.items() if name not in wanted]
    if alone:
        more = f" and {len(alone) - _NAMES_TOLD} more" if len(alone) > _NAMES_TOLD else ""
        told = ", ".join(f"'{path}'" for path in alone[:_NAMES_TOLD])
        raise ValueError(
            f"{told}{more}: no partner in '{low_folder}' or '{high_folder}'; every image is there in both sizes, as {_FORM}: unpack both "
            "archives whole, or remove what stands alone"
        )
    if not high:
        raise ValueError(f"'{high_folder}' and '{low_folder}' hold no image: they must hold pairs such as {_FORM}")
    return PairFiles([_checked_pair(low[name], high[stem], scale) for name, stem in sorted(wanted.items())], scale)


def _images_of(folder: Path) -> dict[str, Path]:
    """{name without its ending: file} of the images in a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}': unpack the set so that there is {_FORM}, and name its folder in DATA.PATH_TO_DATA_DIR")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if has_image_name(path) and path.stem in found:
            raise ValueError(f"'{found[path.stem]}' and '{path}' are two images of one name: remove one of them")
        if has_image_name(path):
            found[path.stem] = path
    return found


def _checked_pair(low: Path, high: Path, scale: int) -> FilePair:
    sizes = []
    for path in (low, high):
        with open_image(path) as image:
            sizes.append(image.size)
    (width, height), large = sizes
    if large != (scale * width, scale * height):
        raise ValueError(f"'{low}': {_wrong_sizes((width, height), str(high), large, scale)}")
    return FilePair(str(low), str(high), (width, height))


def _wrong_sizes(low: tuple[int, int], high_path: str, high: tuple[int, int], scale: int) -> str:
    return (
        f"it has {low[0]} x {low[1]} pixels and '{high_path}' has {high[0]} x {high[1]}, which must be {scale * low[0]} x {scale * low[1]}: "
        f"give images whose sides are {scale} times as long (SUPER_RESOLUTION.SCALE)"
    )


def div2k_folders(root: str | Path, split: str, scale: int) -> tuple[Path, Path]:
    """The folders of large and of small images of a split of DIV2K, made smaller by bicubic interpolation.

    root: the folder of DIV2K_train_HR. split: train or val. scale: as in the names of the folders X2, X3 and X4. Raises ValueError for
    another split: the large images of DIV2K's test set are not published.
    """
    if split not in DIV2K_PARTS:
        raise ValueError(
            f"DIV2K has no split '{split}' with both sizes: choose among {', '.join(DIV2K_PARTS)} (GRID.SPLIT, TEST.SPLIT, CALIBRATION.SPLIT)"
        )
    part, root = DIV2K_PARTS[split], Path(root)
    return root / f"DIV2K_{part}_HR", root / f"DIV2K_{part}_LR_bicubic" / f"X{scale}"


def open_div2k(root: str | Path, split: str, scale: int) -> PairFiles:
    """The pairs of a split of DIV2K (Agustsson and Timofte, CVPR Workshops 2017); see `div2k_folders` and `find_pairs`.

    root, split, scale: as of `div2k_folders`.
    """
    return find_pairs(*div2k_folders(root, split, scale), f"x{scale}", scale)


class PairArrays(ImagePairs):
    """Large images in memory, and smaller ones made of them (`shrink`). names: of the images. scale: as of `ImagePairs`."""

    def __init__(self, images: Sequence[np.ndarray], names: Sequence[str], scale: int) -> None:
        self.scale, self.names = scale, list(names)
        self._pairs = [make_pair(image, scale) for image in images]

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> ImagePair:
        return self._pairs[index]

    def name_of(self, index: int) -> str:
        return self.names[index]

    def low_size(self, index: int) -> tuple[int, int]:
        height, width, _ = self._pairs[index].low_HWC.shape
        return width, height

    def fingerprint(self) -> str:
        """Changes with each pixel and name, and the scale."""
        return fingerprint(type(self).__name__, self.scale, self.names, [pair.high_HWC for pair in self._pairs])


def make_pair(image_HWC: np.ndarray, scale: int) -> ImagePair:
    """An image, cut at its right and bottom to sides that divide by `scale`, and the same made smaller by `resize_bicubic`."""
    height, width = (side // scale * scale for side in image_HWC.shape[:2])
    high_HWC = np.ascontiguousarray(image_HWC[:height, :width])
    return ImagePair(resize_bicubic(high_HWC, (width // scale, height // scale)), high_HWC)


def resize_bicubic(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image, uint8, at another size (width, height), by cubic convolution (Keys, a = -0.5); antialiased where it shrinks."""
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BICUBIC))

