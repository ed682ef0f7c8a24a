"""Images as clips of one frame: a folder of class folders, and the public sets by name (datasets/IMAGES.md)."""

import functools

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import Checked, CheckOptions, ListToCheck, SetCheck, check_samples
from mutual3d.data.datasets.images import IMAGE_SETS, ImageDataset, ImageSet, open_images, places_of_images, usual_test_resize
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources.facts import (
    CUTTING,
    ONE_LABEL,
    ONE_VIEW,
    OWN_CROPS,
    Source,
    clip_augmentation,
    crop_size,
    is_training,
    read_once,
    register_dataset,
)


def _open_split(name: str, cfg: CfgNode, split: str) -> ImageSet:
    """The images of a split. A run needs its sets again and again, and listing the files of a large one takes minutes: it is done once."""
    root = str(user_path(cfg.DATA.PATH_TO_DATA_DIR)) if cfg.DATA.PATH_TO_DATA_DIR else ""
    return read_once(places_of_images(name, root, split), functools.partial(open_images, name, root, split, cfg.MODEL.NUM_CLASSES))


def _open(name: str, cfg: CfgNode, split: str, mode: str, num_views: int) -> ImageDataset:
    images, size = _open_split(name, cfg, split), crop_size(cfg, mode)
    if not is_training(mode):
        return ImageDataset(images, crop_size=size, test_resize=usual_test_resize(name, size), seed=cfg.RNG_SEED)
    return ImageDataset(
        images, crop_size=size, training=True, seed=cfg.RNG_SEED, jitter_scales=cfg.DATA.TRAIN_JITTER_SCALES,
        inverse_uniform=cfg.DATA.INV_UNIFORM_SAMPLE, relative_scales=cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE,
        relative_aspects=cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE, padding=cfg.DATA.CROP_PADDING, flip=cfg.DATA.RANDOM_FLIP,
        color_jitter=cfg.DATA.COLOR_JITTER, clip_augmentation=clip_augmentation(cfg),
        # One for each configuration of a step, which are then all sizes.
        num_training_crops=len(cfg.MUTUAL.SPATIAL_SIZES) if _has_own_crops(cfg, mode) else 1,
    )  # fmt: skip


def _has_own_crops(cfg: CfgNode, mode: str) -> bool:
    """Whether each size of a step is to see a crop of its own; calibration, like evaluation, has one for all."""
    return mode == "train" and cfg.MUTUAL.ENABLE and cfg.MUTUAL.OWN_CROPS


def _class_names(name: str, cfg: CfgNode) -> list[str]:
    return _open_split(name, cfg, "train" if cfg.TRAIN.ENABLE else cfg.TEST.SPLIT or "test").classes


def _check(name: str, given: ListToCheck, how: CheckOptions) -> Checked:
    """`given.csv`: the folder of the set and the split, as in /data/imagenet/train."""
    path = user_path(given.csv)
    return check_samples(ImageDataset(open_images(name, path.parent, path.name, given.num_classes), crop_size=1), how)


for _name in IMAGE_SETS:
    register_dataset(
        Source(
            functools.partial(_open, _name), ONE_LABEL, is_image=True, reads=(*CUTTING, OWN_CROPS), wants={"DATA.NUM_FRAMES": 1, **ONE_VIEW},
            class_names=functools.partial(_class_names, _name), test_resize=functools.partial(usual_test_resize, _name),
            check_files=SetCheck(functools.partial(_check, _name)),
        ),
        _name,
    )  # fmt: skip
