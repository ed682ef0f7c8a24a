"""NYUDv2's form on disk: pictures, a map of each as numbers from 1 on, and which picture is in which split."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mutual3d.data.datasets.lists import read_lines
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import open_image

from .loss import IGNORED

# Of the 40 classes, by label from 1 on (Gupta et al., CVPR 2013).
NYUDV2_40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "blinds", "desk",
    "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refrigerator", "television",
    "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag",
    "other structure", "other furniture", "other prop",
)  # fmt: skip
# The set has two parts: `val` is `test` where nothing else is there.
_SAME_PART = {"val": "test"}
# Of files that keep every number as it was: JPEG makes other classes of some.
_WHOLE_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_PICTURES, _MAPS = ("RGB", "images"), ("Label", "labels")
# The entry of the .mat files that the authors of the 40 classes gave out.
_MAT_ENTRY = "segmentation"
_PAGE = "DATA.PATH_TO_DATA_DIR; datasets/NYUDv2.md"


class MappedPicture(NamedTuple):
    """The file of a picture, and that of the map of its pixels' classes."""

    image: str
    label: str


def find_pictures(root: str | Path, split: str) -> list[MappedPicture]:
    """The pictures of a split.

    `root` has a list `split`.txt, each line the paths of a picture and of its map, or one name, of RGB/name.jpg and Label/name.png; or,
    without a list, images/split/ and labels/split/ with files of the same names. The split `val` is that of `test` where it has neither.
    Raises FileNotFoundError that says what to put where, and ValueError, with file and line, for a row that is none, a picture without a
    map, a split without pictures, and two files of one name.
    """
    root = Path(root)
    pictures, maps = (_by_name(root, folders) for folders in (_PICTURES, _MAPS))
    for part in filter(None, (split, _SAME_PART.get(split))):
        path = root / f"{part}.txt"
        names = [name for name in pictures if name.startswith(f"{part}/")]
        if path.is_file():
            found = list(_of_list(root, path, pictures, maps))
        elif names:
            found = [_pair(name, pictures, maps, f"'{root}'") for name in names]
        else:
            continue
        if not found:
            raise ValueError(f"'{path}' lists no picture: each line is the path of a picture and that of its map, or one name ({_PAGE})")
        return found
    raise FileNotFoundError(
        f"there is no '{root / split}.txt', and no picture in '{root / _PICTURES[1] / split}': give a list of pictures and maps, or put "
        f"the pictures into that folder and the maps into '{root / _MAPS[1] / split}' ({_PAGE})"
    )


def places_of(root: str | Path, split: str) -> list[Path]:
    """The list and the folders that `find_pictures` looks at: where the pictures of a split are others, one of them has changed."""
    parts = [part for part in (split, _SAME_PART.get(split)) if part]
    folders = [Path(root) / name for name in (*_PICTURES, *_MAPS)]
    return [*(Path(root) / f"{part}.txt" for part in parts), *folders, *(folder / part for folder in folders for part in parts)]


def _by_name(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """{path in its folder, without its ending: path} of the files of the first of `folders` that is there, sorted."""
    folder = next((root / name for name in folders if (root / name).is_dir()), None)
    if folder is None:
        return {}
    found: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"'{found[name]}' and '{path}' are two files of one name: remove one of them ({_PAGE})")
        found[name] = str(path)
    return found


def _of_list(root: Path, path: Path, pictures: Mapping[str, str], maps: Mapping[str, str]) -> Iterator[MappedPicture]:
    for number, text in read_lines(path):
        words = [word.strip() for word in (text.split("\t") if "\t" in text else text.split()) if word.strip()]
        if len(words) > 2:
            raise ValueError(f"'{path}', line {number}: {text.strip()!r} is no row: give the paths of a picture and of its map, or one name")
        if len(words) == 2:
            yield MappedPicture(*(str(root / word) for word in words))
        elif words:
            yield _pair(words[0], pictures, maps, f"'{path}', line {number}")


def _pair(name: str, pictures: Mapping[str, str], maps: Mapping[str, str], place: str) -> MappedPicture:
    """The files of a name. place: where it stands, for the error of one that has none."""
    for what, files, folders in (("picture", pictures, _PICTURES), ("map", maps, _MAPS)):
        if name not in files:
            raise ValueError(f"{place}: there is no {what} {name!r} in {' or '.join(f'{folder}/' for folder in folders)} ({_PAGE})")
    return MappedPicture(pictures[name], maps[name])


def read_map(path: str | Path, num_classes: int) -> np.ndarray:
    """uint8 H, W: classes from 0, and IGNORED where the file has 0, of a PNG of one number a pixel, or a .mat file's `segmentation`.

    num_classes: how many there are, 254 at most. Raises VideoError, naming the file, for a file that cannot be read, one of colours, and
    a number above `num_classes`.
    """
    raw_HW = _read_mat(path) if Path(path).suffix == ".mat" else _read_picture(path)
    if raw_HW.ndim != 2 or raw_HW.dtype.kind not in "iu":
        raise VideoError(path, f"a map is a whole number for each pixel, and this is {raw_HW.dtype} of shape {raw_HW.shape}")
    largest = int(raw_HW.max(initial=0))
    if largest > num_classes or int(raw_HW.min(initial=0)) < 0:
        found = largest if largest > num_classes else int(raw_HW.min())
        raise VideoError(path, f"a pixel has the label {found}: legal are 1 to {num_classes} (MODEL.NUM_CLASSES), and 0 for none")
    return np.where(raw_HW == 0, IGNORED, raw_HW.astype(np.int64) - 1).astype(np.uint8)


def _read_picture(path: str | Path) -> np.ndarray:
    with open_image(path) as image:
        if image.format not in _WHOLE_FORMATS:
            raise VideoError(path, f"it is a {image.format} file, which may keep numbers nearly as they were: save the maps as PNG with one number a pixel")
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise VideoError(path, f"it is an image of colours ({image.mode}): save the maps as PNG with one number a pixel")
        # Of a palette the numbers, not the colours.
        return np.asarray(image).astype(np.int64)


def _read_mat(path: str | Path) -> np.ndarray:
    import scipy.io  # scikit-learn needs it

    if not Path(path).is_file():
        raise VideoError(path, "there is no such file")
    try:
        content = scipy.io.loadmat(str(path))
    except Exception as error:  # damaged files raise errors of any kind, and those of MATLAB 7.3 NotImplementedError
        raise VideoError(path, f"it is no .mat file that scipy reads, of a version before 7.3 ({error})") from error
    if _MAT_ENTRY not in content:
        names = ", ".join(name for name in content if not name.startswith("__"))
        raise VideoError(path, f"it has no entry '{_MAT_ENTRY}' (there are: {names or 'none'})")
    return np.asarray(content[_MAT_ENTRY])
