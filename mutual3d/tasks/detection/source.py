"""COCO, and every set in its form: instances_*.json beside a folder of images (datasets/COCO.md)."""

import functools
from pathlib import Path

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import Checked, CheckOptions, ListToCheck, SetCheck, check_samples
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources import Source, Task, register_dataset
from mutual3d.data.sources.facts import ONE_VIEW, Mistakes, crop_size, is_training, read_once
from mutual3d.models.mask_rcnn import MaskRCNN
from mutual3d.tasks.detection.coco import CocoInstances, read_instances
from mutual3d.tasks.detection.dataset import CocoDataset
from mutual3d.tasks.detection.loss import WORD as OWN_LOSSES
from mutual3d.tasks.detection.metric import WORD as AVERAGE_PRECISION

# What moves or mixes pixels would have to do so with the objects in them. What is found is no row of scores, which a file of them holds.
OBJECTS = Task(
    AVERAGE_PRECISION, (OWN_LOSSES,),
    {
        "DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "none", "AUG.ENABLE": False, "MIXUP.ENABLE": False,
        "TEST.SAVE_RESULTS_PATH": "", **ONE_VIEW,
    },
    gives=MaskRCNN.gives,
)  # fmt: skip


def _files(cfg: CfgNode, split: str) -> tuple[str, str]:
    """The annotations of a split and the folder of its images: TRAIN_* for `train`, VAL_* for every other one."""
    part, root = "TRAIN" if split == "train" else "VAL", user_path(cfg.DATA.PATH_TO_DATA_DIR)
    return str(root / cfg.COCO[f"{part}_ANNOTATIONS"]), str(root / cfg.COCO[f"{part}_IMAGES"])


def _instances(cfg: CfgNode, split: str) -> CocoInstances:
    """The annotations of a split, which are read once."""
    path, folder = _files(cfg, split)
    return read_once([path], functools.partial(read_instances, path, folder, num_classes=cfg.MODEL.NUM_CLASSES))


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> CocoDataset:
    return CocoDataset(
        _instances(cfg, split), crop_size(cfg, mode), cfg.COCO.MAX_LONG_SIDE, training=is_training(mode),
        flip=cfg.DATA.RANDOM_FLIP, seed=cfg.RNG_SEED,
    )  # fmt: skip


def _class_names(cfg: CfgNode) -> list[str]:
    """Those of what is trained on; ValueError where what is measured has others: a class would be measured as another one."""
    if not cfg.TRAIN.ENABLE:
        return list(_instances(cfg, "val").class_names)
    trained = _instances(cfg, "train")
    if Path(_files(cfg, "val")[0]).is_file():
        measured = _instances(cfg, "val")
        for number, names in enumerate(zip(trained.class_names, measured.class_names)):
            if names[0] != names[1]:
                raise ValueError(
                    f"'{trained.path}' and '{measured.path}' have other classes: in the order of their ids number {number} is '{names[0]}' and "
                    f"'{names[1]}'; give both files the same categories"
                )
    return list(trained.class_names)


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
    if any(scale != cfg.DATA.TRAIN_CROP_SIZE for scale in cfg.DATA.TRAIN_JITTER_SCALES):
        yield (
            ("DATA.TRAIN_JITTER_SCALES", "DATA.TRAIN_CROP_SIZE"),
            f"DATA.TRAIN_JITTER_SCALES is {cfg.DATA.TRAIN_JITTER_SCALES}: with TRAIN.DATASET {cfg.TRAIN.DATASET} the short side is always "
            f"DATA.TRAIN_CROP_SIZE; set it [{cfg.DATA.TRAIN_CROP_SIZE}, {cfg.DATA.TRAIN_CROP_SIZE}]",
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
