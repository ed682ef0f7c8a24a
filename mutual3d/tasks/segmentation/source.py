"""NYUDv2, and every set in its form: pictures with a map of classes each (datasets/NYUDv2.md)."""

import functools

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import Checked, CheckOptions, ListToCheck, SetCheck, check_samples
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources.facts import (
    CUTTING,
    ONE_VIEW,
    Source,
    Task,
    checked_names,
    crop_size,
    is_training,
    names_path,
    read_once,
    register_dataset,
)
from mutual3d.models.refinenet import MapNetwork

from .dataset import MapDataset
from .maps import NYUDV2_40, find_pictures, places_of

PIXEL_CLASSES = Task(
    "segmentation_iou", ("pixel_cross_entropy",),
    # What moves or mixes pixels would have to do so with their labels.
    {
        "DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "softmax", "AUG.ENABLE": False, "MIXUP.ENABLE": False,
        "DATA.NUM_FRAMES": 1, **ONE_VIEW,
    },
    gives=MapNetwork.gives,
)  # fmt: skip


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> MapDataset:
    root, size = str(user_path(cfg.DATA.PATH_TO_DATA_DIR)), crop_size(cfg, mode)
    pictures = read_once(places_of(root, split), functools.partial(find_pictures, root, split))
    if not is_training(mode):
        return MapDataset(pictures, num_classes=cfg.MODEL.NUM_CLASSES, crop_size=size, seed=cfg.RNG_SEED)
    return MapDataset(
        pictures, num_classes=cfg.MODEL.NUM_CLASSES, crop_size=size, training=True, seed=cfg.RNG_SEED,
        jitter_scales=cfg.DATA.TRAIN_JITTER_SCALES, inverse_uniform=cfg.DATA.INV_UNIFORM_SAMPLE,
        relative_scales=cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE, relative_aspects=cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE,
        padding=cfg.DATA.CROP_PADDING, flip=cfg.DATA.RANDOM_FLIP, color_jitter=cfg.DATA.COLOR_JITTER,
    )  # fmt: skip


def _class_names(cfg: CfgNode) -> list[str] | None:
    """Those of classes.txt beside the lists, or NYUDv2's 40."""
    path = names_path(cfg)
    if path.is_file():
        return checked_names(cfg, path)
    return list(NYUDV2_40) if cfg.MODEL.NUM_CLASSES == len(NYUDV2_40) else None


def _check(given: ListToCheck, how: CheckOptions) -> Checked:
    """`given.csv`: the folder of the set and the split, as in /data/nyudv2/train, with or without .txt."""
    path = user_path(given.csv)
    num_classes = given.num_classes or len(NYUDV2_40)
    return check_samples(MapDataset(find_pictures(path.parent, path.stem), num_classes=num_classes, crop_size=1), how)


register_dataset(
    Source(
        _open, PIXEL_CLASSES, is_image=True, reads=CUTTING, class_names=_class_names, test_resize=lambda crop: crop,
        check_files=SetCheck(_check),
        # Scores of single images are maps, too large to keep.
        wants={"TEST.SAVE_RESULTS_PATH": ""},
    ),
    "nyudv2",
)  # fmt: skip
