"""Images as clips of one frame: the public sets by name, and the samples made of them."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2

from mutual3d.data.clips.augment import ClipAugmentation
from mutual3d.data.clips.transforms import check_jitter_scales
from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample, stat_files
from mutual3d.data.datasets.kinetics import sample_generator
from mutual3d.data.datasets.lists import read_lines
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import read_image
from mutual3d.utils.files import read_json
from mutual3d.utils.fingerprint import fingerprint

# Side of the digits of scikit-learn, scaled up from 8 so that a network has something to reduce.
DIGIT_SIZE = 32
# Where test images are photographs of any size, the crop is taken from the middle 7/8 (ImageNet: 256, then 224).
_PHOTOGRAPHS = ("image_folder", "food101", "indoor67")
_SPLITS = ("train", "val", "test")


class ImageSet(torch.utils.data.Dataset):
    """Base class of image sets: map-style datasets of (PIL image, label), with `classes`, the names by label."""

    classes: list[str]

    def fingerprint(self) -> str:
        """Text that changes with the images and labels, equal for equal ones in every process."""
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        """What to call an image: its path. index: the position of the image."""
        return f"image {index}"


class ImageFiles(ImageSet):
    """Image files by path: gives (PIL image in RGB, label). Raises VideoError, with path and cause, where unreadable.

    labels: of the paths, from 0. classes: their names, by label.
    """

    def __init__(self, paths: Sequence[str | Path], labels: Sequence[int], classes: Sequence[str]) -> None:
        self.paths, self.labels, self.classes = [str(path) for path in paths], list(labels), list(classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.paths[index]), self.labels[index]

    def name_of(self, index: int) -> str:
        return self.paths[index]

    def fingerprint(self) -> str:
        """Changes with each path, label, class name and file (size, time of modification). Looks at every file."""
        return fingerprint(type(self).__name__, self.paths, self.labels, self.classes, stat_files(self.paths))


class ImageArray(ImageSet):
    """Images in memory, uint8 N, H, W, 3: gives (PIL image in RGB, label). classes: the names, by label."""

    def __init__(self, images_NHWC: np.ndarray, labels: Sequence[int] | np.ndarray, classes: Sequence[str] | np.ndarray) -> None:
        self.images_NHWC, self.labels = np.ascontiguousarray(images_NHWC), [int(label) for label in labels]
        self.classes = [str(name) for name in classes]

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images_NHWC[index]), self.labels[index]

    def name_of(self, index: int) -> str:
        """The position `index` of an image and the beginning of its pixels' fingerprint, so that no other is taken for it where they stand in another order."""
        return f"image {index} ({fingerprint(self.images_NHWC[index])[:8]})"

    def fingerprint(self) -> str:
        """Changes with each pixel, label and class name."""
        return fingerprint(type(self).__name__, self.images_NHWC, self.labels, self.classes)


# ---- Sets by name ----------------------------------------------------------------------------------------------------


def open_images(name: str, root: str | Path, split: str, num_classes: int | None = None) -> ImageFiles | ImageArray:
    """The images of a public set: a map-style dataset of (PIL image, label) with `classes`, the names by label.

    Args:
        name: a key of `IMAGE_SETS`; datasets/IMAGES.md says where the files of each go. "digits" needs none.
        root: the directory of the set (DATA.PATH_TO_DATA_DIR); for CIFAR also an npz file.
        split: "train", "val" or "test". The sets that have two parts take "val" and "test" for the same one;
            "image_folder" takes the name of any directory.
        num_classes: how many classes the set must have.

    Raises FileNotFoundError that says what to put where, and ValueError for an unknown name or split, an empty set, and
    another number of classes.
    """
    if name not in IMAGE_SETS:
        raise ValueError(f"there is no image set '{name}': choose among {', '.join(IMAGE_SETS)}")
    if name != "image_folder" and split not in _SPLITS:
        raise ValueError(f"{name} has no split '{split}': choose among {', '.join(_SPLITS)}")
    images = IMAGE_SETS[name].open(Path(root), split)
    if not len(images):
        raise ValueError(f"{name} in '{root}' has no image in its split '{split}'")
    if num_classes is not None and len(images.classes) != num_classes:
        raise ValueError(f"{name} in '{root}' has {len(images.classes)} classes and MODEL.NUM_CLASSES is {num_classes}")
    return images


def places_of_images(name: str, root: str | Path, split: str) -> list[Path]:
    """The files and folders that `open_images` reads: where a split has other images, or other classes, one of them has changed.

    Of class folders those themselves, whose times change with the names in them; not the folders in those. name, root, split: as there.
    """
    return IMAGE_SETS[name].places(Path(root), split) if name in IMAGE_SETS else []


def usual_test_resize(name: str, crop_size: int) -> int:
    """The short side that a test image of the set is resized to before the centre crop.

    round(256 / 224 of the crop) for photographs; the crop itself for CIFAR and digits, which are cut already. crop_size: in
    pixels.
    """
    return round(crop_size * 256 / 224) if name in _PHOTOGRAPHS else crop_size


def _open_image_folder(root: Path, split: str) -> ImageFiles:
    """A directory a split, in it one a class (ImageNet). Labels follow the sorted names of the classes."""
    folder = _existing(root / split, "put the images in a directory a class, such as train/cat/1.jpg and val/cat/2.jpg")
    try:
        found = datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"'{folder}' must hold one directory of images for each class: {error}") from None
    trained = root / "train"
    if trained.is_dir() and found.classes != datasets.folder.find_classes(trained)[0]:
        raise ValueError(f"'{folder}' and '{trained}' have other classes: the directories in them must have the same names")
    paths, labels = zip(*found.samples)
    return ImageFiles(paths, labels, found.classes)


def _open_cifar10(root: Path, split: str) -> ImageArray:
    return _open_cifar(datasets.CIFAR10, root, split)


def _open_cifar100(root: Path, split: str) -> ImageArray:
    return _open_cifar(datasets.CIFAR100, root, split)


def _open_cifar(kind: type[datasets.CIFAR10], root: Path, split: str) -> ImageArray:
    if root.suffix == ".npz":
        return _open_npz(root, split)
    try:
        found = kind(root, train=split == "train")
    except RuntimeError:
        raise FileNotFoundError(
            f"there is no whole '{kind.base_folder}' in '{root}': unpack {kind.filename} there, or give an npz file"
        ) from None
    return ImageArray(found.data, found.targets, found.classes)


def _open_npz(path: Path, split: str) -> ImageArray:
    """x_train and x_test, uint8 N, H, W, 3; y_train and y_test; perhaps classes, the names."""
    _existing(path, "give a directory or an npz file")
    part = "train" if split == "train" else "test"
    arrays = _read_npz(path)
    missing = {f"x_{part}", f"y_{part}"} - set(arrays)
    if missing:
        raise ValueError(f"'{path}' lacks {', '.join(sorted(missing))}: it has {', '.join(arrays) or 'nothing'}")
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if labels.dtype.kind not in "iu":
        raise ValueError(f"'{path}': y_{part} is of type {labels.dtype}; labels must be whole numbers")
    counts = (arrays[name].max(initial=-1) + 1 for name in ("y_train", "y_test") if name in arrays)
    classes = arrays["classes"] if "classes" in arrays else np.arange(max(counts))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"'{path}': x_{part} is {images.dtype} of shape {images.shape} and y_{part} has shape {labels.shape}; "
            "they must be uint8 N, H, W, 3 and N"
        )
    _check_labels(labels, len(classes), path)
    return ImageArray(images, labels, classes)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged file raises errors of any kind: BadZipFile, ValueError, EOFError, ...
        raise ValueError(f"'{path}' is not a readable npz file of arrays of numbers: {error}") from error


def _check_labels(labels: np.ndarray, num_classes: int, path: Path) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"'{path}' has labels from {labels.min()} to {labels.max()} and {num_classes} classes")


def _open_food101(root: Path, split: str) -> ImageFiles:
    """The directory food-101 as it is unpacked: images/ and meta/{train,test}.json, {class: [class/number, ...]}."""
    folder = root / "food-101" if (root / "food-101").is_dir() else root
    part = "train" if split == "train" else "test"
    listing = _existing(folder / "meta" / f"{part}.json", "unpack food-101.tar.gz, and name the directory it is in")
    names_of = read_json(listing)
    if not isinstance(names_of, dict):
        raise ValueError(f"'{listing}' must be {{class: [class/number, ...]}}, as it is published")
    _existing(folder / "images", "unpack food-101.tar.gz, and name the directory it is in")
    classes = sorted(names_of)
    rows = [(folder / "images" / f"{name}.jpg", label) for label, key in enumerate(classes) for name in names_of[key]]
    return _image_files(rows, classes)


def _open_indoor67(root: Path, split: str) -> ImageFiles:
    """Images/<class>/ and the lists TrainImages.txt and TestImages.txt, `class/file` a line."""
    folder = _existing(root / "Images", "unpack indoorCVPR_09.tar there")
    names_of = {part: _read_names(root / f"{part}Images.txt") for part in ("Train", "Test")}
    classes = sorted({name.split("/")[0] for names in names_of.values() for name in names})
    label_of = {name: label for label, name in enumerate(classes)}
    names = names_of["Train" if split == "train" else "Test"]
    return _image_files([(folder / name, label_of[name.split("/")[0]]) for name in names], classes)


def _read_names(path: Path) -> list[str]:
    path = _existing(path, "put TrainImages.txt and TestImages.txt beside Images/")
    return [text.strip() for _, text in read_lines(path) if text.strip()]


def _image_files(rows: Sequence[tuple[Path, int]], classes: Sequence[str]) -> ImageFiles:
    return ImageFiles([path for path, _ in rows], [label for _, label in rows], classes)


def _open_digits(root: Path, split: str) -> ImageArray:
    """scikit-learn's 1797 handwritten digits, 8x8 grey, scaled up to `DIGIT_SIZE`; the last fifth is the test part.

    Not a random fifth: digits of one hand follow each other, and a hand must not be in both parts.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the digits are part of scikit-learn: pip install scikit-learn") from None
    digits = load_digits()
    first_test = len(digits.target) * 4 // 5
    part = slice(first_test) if split == "train" else slice(first_test, None)
    grey_NHW = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)
    side = (DIGIT_SIZE, DIGIT_SIZE)
    images = [np.asarray(Image.fromarray(grey).resize(side, Image.Resampling.BILINEAR)) for grey in grey_NHW]
    return ImageArray(np.stack([images] * 3, axis=-1), digits.target[part], digits.target_names)


def _existing(path: Path, fix: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"there is no '{path}': {fix} (DATA.PATH_TO_DATA_DIR; datasets/IMAGES.md)")
    return path


def _places_of_folder(root: Path, split: str) -> list[Path]:
    folders = [root / part for part in dict.fromkeys((split, "train"))]
    classes = [Path(entry.path) for folder in folders if folder.is_dir() for entry in os.scandir(folder) if entry.is_dir()]
    return [*folders, *sorted(classes)]


def _places_of_cifar(kind: type[datasets.CIFAR10], root: Path, split: str) -> list[Path]:
    names = [name for name, _ in (*kind.train_list, *kind.test_list)]
    return [root, *(root / kind.base_folder / name for name in (*names, kind.meta["filename"]))]


def _places_of_food101(root: Path, split: str) -> list[Path]:
    return [folder / "meta" / f"{part}.json" for folder in (root, root / "food-101") for part in ("train", "test")]


class OpenedSet(NamedTuple):
    """How a set is opened, and the files and folders that are read for it: functions of (root, split)."""

    open: Callable[[Path, str], ImageFiles | ImageArray]
    places: Callable[[Path, str], list[Path]]


IMAGE_SETS: dict[str, OpenedSet] = {
    "image_folder": OpenedSet(_open_image_folder, _places_of_folder),
    "cifar10": OpenedSet(_open_cifar10, functools.partial(_places_of_cifar, datasets.CIFAR10)),
    "cifar100": OpenedSet(_open_cifar100, functools.partial(_places_of_cifar, datasets.CIFAR100)),
    "food101": OpenedSet(_open_food101, _places_of_food101),
    "indoor67": OpenedSet(_open_indoor67, lambda root, split: [root / "TrainImages.txt", root / "TestImages.txt"]),
    "digits": OpenedSet(_open_digits, lambda root, split: []),
}


# ---- Samples ---------------------------------------------------------------------------------------------------------


class ImageDataset(ClipDataset):
    """Clips of one frame, uint8 V, 3, 1, S, S, V being 1 unless said otherwise, of the images of a dataset. Indexed with (epoch, index).

    Gives a `Sample`, or a `BadVideo` where the image cannot be read. Training augments as `training_transform` says, with
    random numbers from (seed, epoch, index) alone: not from the worker, the rank or what was loaded before. Evaluation
    scales the short side to `test_resize` and crops the centre; the epoch has no influence.

    Args:
        images: a map-style dataset of (PIL image, label): an `ImageSet`, such as `open_images` gives; or one of
            torchvision's, which states no fingerprint, so that no `PartialResult` or cache can be kept for it.
        crop_size: side S of the crop.
        test_resize: short side in evaluation, not below the crop; None takes the crop's (see `usual_test_resize`).
        num_training_crops: random crops V of an image in training, each augmented on its own; one in evaluation.
        clip_augmentation: what happens to a training image beside. augmentation: arguments of `training_transform`, for training.
    """

    noun = "image"

    def __init__(
        self,
        images: Any,
        *,
        crop_size: int,
        training: bool = False,
        test_resize: int | None = None,
        seed: int = 0,
        num_training_crops: int = 1,
        clip_augmentation: ClipAugmentation | None = None,
        **augmentation: Any,
    ) -> None:
        test_resize = crop_size if test_resize is None else test_resize
        if crop_size < 1 or test_resize < crop_size:
            raise ValueError(f"crop_size is {crop_size} and test_resize {test_resize}: give 1 <= crop_size <= test_resize")
        if seed < 0:
            raise ValueError(f"the seed is {seed} and must not be negative (RNG_SEED)")
        if num_training_crops < 1:
            raise ValueError(f"num_training_crops is {num_training_crops}: give 1 or more")
        self.images, self.training, self.seed = images, training, seed
        self.num_training_crops, self.clip_augmentation = num_training_crops, clip_augmentation if training else None
        self._arguments: tuple = (crop_size, training, test_resize, seed, augmentation if training else None)
        if self.clip_augmentation is not None:
            self._arguments += (dataclasses.asdict(self.clip_augmentation),)
        if training and num_training_crops > 1:
            self._arguments += (num_training_crops,)
        if training:
            self.transform = training_transform(crop_size, **augmentation)
        else:
            self.transform = evaluation_transform(crop_size, test_resize)

    def __len__(self) -> int:
        return len(self.images)

    def name_of(self, index: int) -> str:
        return self.images.name_of(index) if isinstance(self.images, ImageSet) else f"image {index}"

    def fingerprint(self) -> str:
        """Changes with the images, labels and each argument. TypeError where the images are no `ImageSet`."""
        if not isinstance(self.images, ImageSet):
            raise TypeError(
                f"{type(self.images).__name__} does not say when its content changes: derive it from "
                "mutual3d.data.datasets.images.ImageSet and write fingerprint(self) -> str (mutual3d.utils.fingerprint)"
            )
        return fingerprint(type(self).__name__, self.images.fingerprint(), self._arguments)

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        epoch, index = key
        try:
            image, label = self.images[index]
        except (VideoError, OSError) as error:
            return _bad_image(index, error)
        image = image if image.mode == "RGB" else image.convert("RGB")
        if not self.training:
            return Sample(self.transform(image)[None, :, None], int(label), index)
        generator = sample_generator(self.seed, epoch, index)
        seeds = [int(generator.integers(2**63)) for _ in range(self.num_training_crops)]
        clips_VCTHW = torch.stack([self._augmented(image, seed) for seed in seeds])[:, :, None]
        if self.clip_augmentation is not None:
            clips_VCTHW = self.clip_augmentation(clips_VCTHW, int(generator.integers(2**63)))
        return Sample(clips_VCTHW, int(label), index)

    def _augmented(self, image: Image.Image, seed: int) -> torch.Tensor:
        # The transforms draw from PyTorch's CPU generator. torch.manual_seed would seed the GPUs' as well, for which
        # nothing puts the earlier state back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(image)


def _bad_image(index: int, error: VideoError | OSError) -> BadVideo:
    if isinstance(error, VideoError):
        return BadVideo(index, error.path, error.cause)
    return BadVideo(index, str(error.filename or f"image {index}"), str(error))


def evaluation_transform(crop_size: int, test_resize: int) -> v2.Compose:
    """PIL image -> uint8 3, S, S: short side to `test_resize`, centre crop. crop_size: S, in pixels."""
    return v2.Compose([v2.Resize(test_resize), v2.CenterCrop(crop_size), v2.PILToTensor()])


def training_transform(
    crop_size: int,
    *,
    jitter_scales: Sequence[int] | None = None,
    inverse_uniform: bool = False,
    relative_scales: Sequence[float] = (),
    relative_aspects: Sequence[float] = (),
    padding: int = 0,
    flip: bool = True,
    color_jitter: float = 0.0,
    map_fill: int = 0,
) -> v2.Compose:
    """PIL image -> uint8 3, S, S: a random crop, perhaps mirrored, perhaps in other colours; a map given beside it is cut alike.

    The crop is one of three: with `relative_scales` (min and max share of the area) and `relative_aspects` (min
    and max width over height; 3/4 to 4/3 by default) a part that is resized, as for ImageNet; with `padding` (black
    pixels on each side) a shifted image, as for CIFAR; else, as for videos, the short side uniform in `jitter_scales`
    (or, with `inverse_uniform`, one over it), and a place. `color_jitter`: brightness, contrast and saturation are
    multiplied by up to 1 +- this. Raises ValueError for values that mean nothing and for two kinds of crop at once.
    crop_size: S, in pixels. flip: whether half of the images are mirrored. map_fill: what a map (`tv_tensors.Mask`) has outside of the
    image, where padding shows that.
    """
    for key, value in (("COLOR_JITTER", color_jitter), ("CROP_PADDING", padding)):
        if value < 0:
            raise ValueError(f"DATA.{key} is {value}: it must be 0 or more")
    if relative_scales or relative_aspects:
        if padding:
            raise ValueError("DATA.TRAIN_JITTER_SCALES_RELATIVE and DATA.CROP_PADDING are two kinds of crop: leave one out")
        crop = [_resized_crop(crop_size, relative_scales, relative_aspects or (3 / 4, 4 / 3))]
    elif padding:
        fill = {tv_tensors.Mask: map_fill, "others": 0}
        crop = [v2.Resize(crop_size), v2.RandomCrop(crop_size, padding=padding, fill=fill)]
    else:
        low, high = check_jitter_scales((crop_size, crop_size) if jitter_scales is None else jitter_scales, crop_size)
        crop = [RandomShortSide(low, high, inverse_uniform), v2.RandomCrop(crop_size)]
    colors = [v2.ColorJitter(color_jitter, color_jitter, color_jitter)] if color_jitter else []
    return v2.Compose([*crop, *([v2.RandomHorizontalFlip()] if flip else []), *colors, v2.PILToTensor()])


def _resized_crop(crop_size: int, scales: Sequence[float], aspects: Sequence[float]) -> v2.Transform:
    if len(scales) != 2 or not 0 < scales[0] <= scales[1] <= 1:
        raise ValueError(f"DATA.TRAIN_JITTER_SCALES_RELATIVE is {list(scales)}: give [min, max] shares in (0, 1]")
    if len(aspects) != 2 or not 0 < aspects[0] <= aspects[1] < math.inf:
        raise ValueError(f"DATA.TRAIN_JITTER_ASPECT_RELATIVE is {list(aspects)}: give [min, max] ratios above 0")
    return v2.RandomResizedCrop(crop_size, scale=tuple(scales), ratio=tuple(aspects))


class RandomShortSide(torch.nn.Module):
    """Resize an image, and maps beside it alike, so that the short side is random: uniform from `min_size` to `max_size` pixels, or one
    over it is.

    torchvision's RandomShortestSize rounds down, and now and then ends one pixel below the crop. inverse_uniform: whether
    one over the size is uniform (DATA.INV_UNIFORM_SAMPLE).
    """

    def __init__(self, min_size: int, max_size: int, inverse_uniform: bool = False) -> None:
        super().__init__()
        self.min_size, self.max_size, self.inverse_uniform = min_size, max_size, inverse_uniform

    def forward(self, *images: Any) -> Any:
        """images: one, which is given back, or an image and its maps, all of one height and width, of which a tuple is."""
        draw = torch.rand(()).item()
        if self.inverse_uniform:
            side = 1 / (1 / self.max_size + draw * (1 / self.min_size - 1 / self.max_size))
        else:
            side = self.min_size + draw * (self.max_size - self.min_size)
        resized = tuple(v2.functional.resize(image, [round(side)]) for image in images)
        return resized if len(images) > 1 else resized[0]

    def extra_repr(self) -> str:
        return f"{self.min_size}, {self.max_size}, inverse_uniform={self.inverse_uniform}"
