"""AVA: keyframes and boxes (datasets/AVA.md)."""

import functools
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.ava.annotations import (
    AvaFrames,
    Keyframes,
    Reference,
    read_ava_frames,
    read_keyframes,
    read_label_map,
    read_reference,
)  # fmt: skip
from mutual3d.data.datasets.ava.check import AVA_CHECK
from mutual3d.data.datasets.ava.dataset import AvaDataset
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.sources.facts import (
    LABELS_OF_BOXES,
    ONE_GRID_VIEW,
    Mistakes,
    Source,
    clip_sampling,
    crop_size,
    is_training,
    read_once,
    register_dataset,
    training_crop,
)  # fmt: skip


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> AvaDataset:
    """Keyframes and boxes: the split `train` is AVA.TRAIN_*, every other one AVA.TEST_*. A keyframe is one view."""
    for key in ("FRAME_DIR", "FRAME_LIST_DIR", "ANNOTATION_DIR"):
        if not cfg.AVA[key]:
            raise ValueError(f"AVA.{key} is empty: name the folder (datasets/AVA.md)")
    is_train_split = split == "train"
    part = "TRAIN" if is_train_split else "TEST"
    lists = _in(cfg.AVA.FRAME_LIST_DIR, cfg.AVA[f"{part}_LISTS"])
    truth = _in(cfg.AVA.ANNOTATION_DIR, cfg.AVA.TRAIN_GT_BOX_LISTS if is_train_split else [])
    detected = _in(cfg.AVA.ANNOTATION_DIR, cfg.AVA[f"{part}_PREDICT_BOX_LISTS"])
    compared = _in(cfg.AVA.ANNOTATION_DIR, () if is_train_split else _reference_files(cfg))
    read = functools.partial(
        _read, lists, cfg.AVA.FRAME_DIR, truth, detected, compared, clock=(cfg.AVA.FPS, cfg.AVA.FIRST_SECOND),
        score_threshold=cfg.AVA.DETECTION_SCORE_THRESH, num_classes=cfg.MODEL.NUM_CLASSES,
    )  # fmt: skip
    frames, keyframes, reference = read_once([*lists, *truth, *detected, *compared], read)
    return AvaDataset(
        frames, keyframes, clip_sampling(cfg), crop_size(cfg, mode), training=is_training(mode), crop=training_crop(cfg),
        seed=cfg.RNG_SEED, reference=reference,
    )  # fmt: skip


def _reference_files(cfg: CfgNode) -> tuple[str, str, str]:
    return cfg.AVA.GROUNDTRUTH_FILE, cfg.AVA.EXCLUSION_FILE, cfg.AVA.LABEL_MAP_FILE


def _read(
    lists: Sequence[str],
    frame_dir: str,
    truth: Sequence[str],
    detected: Sequence[str],
    compared: Sequence[str],
    *,
    clock: tuple[float, int],
    score_threshold: float,
    num_classes: int,
) -> tuple[AvaFrames, Keyframes, Reference | None]:
    """A split: its frames, its boxes, and what they are compared with, of three files or of none."""
    frames = read_ava_frames(lists, frame_dir, fps=clock[0], first_second=clock[1])
    keyframes = read_keyframes(
        frames, ground_truth=truth, detected=detected, score_threshold=score_threshold, num_classes=num_classes
    )
    if not compared:
        return frames, keyframes, None
    ground_truth, excluded, label_map = compared
    return frames, keyframes, read_reference(ground_truth, excluded, label_map, num_classes=num_classes, frames=frames)


def _in(directory: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(user_path(directory) / name) for name in names)


def _class_names(cfg: CfgNode) -> list[str]:
    """Those of the label map; an action that it leaves out has its number."""
    known = dict(read_label_map(user_path(cfg.AVA.ANNOTATION_DIR) / cfg.AVA.LABEL_MAP_FILE, cfg.MODEL.NUM_CLASSES))
    return [known.get(number, str(number)) for number in range(1, cfg.MODEL.NUM_CLASSES + 1)]


def _check_config(cfg: CfgNode) -> Mistakes:
    """Whole frames differ in size, and a batch's statistics need one size."""
    if cfg.MUTUAL.ENABLE and cfg.CALIBRATION.ENABLE and cfg.CALIBRATION.TRANSFORM != "train":
        yield (
            ("CALIBRATION.TRANSFORM", "TRAIN.DATASET"),
            f"CALIBRATION.TRANSFORM is {cfg.CALIBRATION.TRANSFORM!r}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be 'train'",
        )


register_dataset(
    Source(
        _open, LABELS_OF_BOXES, test_split="val", class_names=_class_names, check_config=_check_config, check_files=AVA_CHECK,
        # AVA has two splits and results files of its own. A keyframe is one view, whatever TEST's views are: PySlowFast's files for AVA
        # leave them as they are by default, 10 and 3.
        wants={**ONE_GRID_VIEW, "GRID.SPLIT": "val", "TEST.SPLIT": "val", "TEST.SAVE_RESULTS_PATH": ""},
    ),
    "ava",
)  # fmt: skip
