"""COCO, and every set in its form: instances_*.json beside a folder of images (datasets/COCO.md)."""

import functools
from pathlib import Path

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import Checked, CheckOptions, ListToCheck, SetCheck, check_samples
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources import Source, Task, register_dataset
from mutual3d.data.sources.facts import Mistakes, crop_size, is_training, read_once
from mutual3d.tasks.detection.coco import CocoInstances, read_instances
from mutual3d.tasks.detection.dataset import CocoDataset
from mutual3d.tasks.detection.loss import WORD as OWN_LOSSES
from mutual3d.tasks.detection.metric import WORD as AVERAGE_PRECISION

OBJECTS = Task(
    AVERAGE_PRECISION, (OWN_LOSSES,), {"DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "none"}
)


def _instances(cfg: CfgNode, split: str) -> CocoInstances:
    """The annotations of a split: TRAIN_* for `train`, VAL_* for every other one. They are read once."""
    part, root = "TRAIN" if split == "train" else "VAL", user_path(cfg.DATA.PATH_TO_DATA_DIR)
    path, folder = (str(root / cfg.COCO[f"{part}_{name}"]) for name in ("ANNOTATIONS", "IMAGES"))
    return read_once([path], functools.partial(read_instances, path, folder, num_classes=cfg.MODEL.NUM_CLASSES))


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> CocoDataset:
    return CocoDataset(
        _instances(cfg, split), crop_size(cfg, mode), cfg.COCO.MAX_LONG_SIDE, training=is_training(mode),
        flip=cfg.DATA.RANDOM_FLIP, seed=cfg.RNG_SEED,
    )  # fmt: skip


def _class_names(cfg: CfgNode) -> list[str]:
    return list(_instances(cfg, "train" if cfg.TRAIN.ENABLE else "val").class_names)


def _check_config(cfg: CfgNode) -> Mistakes:
    """What the network learns from, and what its statistics are computed on."""
    objective = cfg.MUTUAL.OBJECTIVE
    if cfg.MUTUAL.ENABLE and objective != "labels":
        yield (
            ("MUTUAL.OBJECTIVE", "TRAIN.DATASET"),
            f"MUTUAL.OBJECTIVE is {objective!r}: with TRAIN.DATASET {cfg.TRAIN.DATASET} every sub-network learns from the labels; set it 'labels'",
        )
    if cfg.MUTUAL.ENABLE and cfg.CALIBRATION.ENABLE and cfg.CALIBRATION.TRANSFORM != "train":
        yield (
            ("CALIBRATION.TRANSFORM", "TRAIN.DATASET"),
            f"CALIBRATION.TRANSFORM is {cfg.CALIBRATION.TRANSFORM!r}: images of evaluation share a batch with those of their size alone, and a "
            f"batch's statistics need more; with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be 'train'",
        )
    if cfg.COCO.MAX_LONG_SIDE < max(cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE):
        yield (
            ("COCO.MAX_LONG_SIDE", "DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE"),
            f"COCO.MAX_LONG_SIDE is {cfg.COCO.MAX_LONG_SIDE}: the short sides, DATA.TRAIN_CROP_SIZE {cfg.DATA.TRAIN_CROP_SIZE} and "
            f"DATA.TEST_CROP_SIZE {cfg.DATA.TEST_CROP_SIZE}, are at most that",
        )


def _check(given: ListToCheck, how: CheckOptions) -> Checked:
    """`given.csv`: the json file; `given.path_prefix`: the folder of its images, by default the file's own."""
    path = user_path(given.csv)
    folder = user_path(given.path_prefix) if given.path_prefix else Path(path).parent
    return check_samples(CocoDataset(read_instances(path, folder, given.num_classes), 32, 1024), how)


def _fits(csv: str) -> int:
    return int(Path(csv).name.startswith("instances_") and csv.endswith(".json"))


register_dataset(
    Source(
        _open, OBJECTS, is_image=True, wants={"DATA.NUM_FRAMES": 1}, test_split="val", class_names=_class_names, check_config=_check_config,
        check_files=SetCheck(_check, _fits),
    ),
    "coco",
)  # fmt: skip
