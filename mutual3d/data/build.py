"""From a config to a loader: the one place of this folder that reads a CfgNode."""

from pathlib import Path

import numpy as np

from mutual3d.data.kinetics import VideoDataset, read_class_names, read_video_list
from mutual3d.data.loader import ClipLoader

MODES = ("train", "single_view", "multi_view", "train_augmentation_fixed")


def build_dataset(cfg, split, mode, num_views=1):
    """The `VideoDataset` of a split (the csv's name in DATA.PATH_TO_DATA_DIR) in one of `MODES`; see `build_loader`."""
    if mode not in MODES:
        raise ValueError(f"unknown loader mode {mode!r}: choose one of {', '.join(MODES)}")
    videos = read_video_list(
        Path(cfg.DATA.PATH_TO_DATA_DIR) / f"{split}.csv",
        path_prefix=cfg.DATA.PATH_PREFIX,
        separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        num_classes=cfg.MODEL.NUM_CLASSES,
    )
    training = mode in ("train", "train_augmentation_fixed")
    is_multi_view = mode == "multi_view"
    return VideoDataset(
        videos,
        num_frames=cfg.DATA.NUM_FRAMES,
        sampling_rate=cfg.DATA.SAMPLING_RATE,
        target_fps=cfg.DATA.TARGET_FPS,
        training=training,
        crop_size=cfg.DATA.TRAIN_CROP_SIZE if training else cfg.DATA.TEST_CROP_SIZE,
        jitter_scales=cfg.DATA.TRAIN_JITTER_SCALES,
        inverse_uniform=cfg.DATA.INV_UNIFORM_SAMPLE,
        flip=cfg.DATA.RANDOM_FLIP,
        num_views=cfg.TEST.NUM_ENSEMBLE_VIEWS if is_multi_view else num_views,
        num_crops=cfg.TEST.NUM_SPATIAL_CROPS if is_multi_view else 1,
        offset_sampling=cfg.DATA.USE_OFFSET_SAMPLING,
        backend=cfg.DATA.DECODING_BACKEND,
        seed=cfg.RNG_SEED,
    )


def build_loader(cfg, split, mode, rank=0, world_size=1, num_views=1):
    """The `ClipLoader` of a split for one rank.

    Args:
        split: name of the csv in DATA.PATH_TO_DATA_DIR, without its ending: "train", "val", "test".
        mode: "train": shuffled, one random clip a video, TRAIN.BATCH_SIZE.
            "single_view": list order, centre crop at DATA.TEST_CROP_SIZE: validation and the grid. The centre clip, or
            `num_views` clips spread over time.
            "multi_view": list order, TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views.
            All but "train" take as many videos as have TEST.BATCH_SIZE views, at least one.

    Raises ValueError for a batch size that the ranks cannot share, an unknown mode, and what the csv gets wrong.
    """
    shuffle = mode == "train"
    section = "TRAIN" if shuffle else "TEST"
    batch_size = _batch_size_per_rank(f"{section}.BATCH_SIZE", cfg[section].BATCH_SIZE, world_size)
    dataset = build_dataset(cfg, split, mode, num_views)
    batch_size = max(1, batch_size // (dataset.num_views * dataset.num_crops))
    return _loader(cfg, dataset, batch_size, shuffle=shuffle, rank=rank, world_size=world_size)


def build_calibration_loader(cfg, rank=0, world_size=1):
    """CALIBRATION.NUM_CLIPS videos spread evenly over CALIBRATION.SPLIT, one clip each, in a fixed shuffled order.

    Shuffled, because lists are often sorted by class and a batch of one class has statistics of its own. Batches hold
    CALIBRATION.BATCH_SIZE clips and go to the ranks in turns, so that they are the same for any number of ranks.
    """
    mode = "train_augmentation_fixed" if cfg.CALIBRATION.TRANSFORM == "train" else "single_view"
    dataset = build_dataset(cfg, cfg.CALIBRATION.SPLIT, mode)
    indices = evenly_spread(len(dataset), cfg.CALIBRATION.NUM_CLIPS or len(dataset))
    np.random.default_rng(cfg.RNG_SEED).shuffle(indices)
    return _loader(cfg, dataset, cfg.CALIBRATION.BATCH_SIZE, rank=rank, world_size=world_size, indices=indices)


def find_class_names(cfg):
    """Names from DATA.CLASS_NAMES_PATH, or from classes.txt beside the csv files; None when there are none."""
    default = Path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt"
    if not cfg.DATA.CLASS_NAMES_PATH and not default.is_file():
        return None
    path = cfg.DATA.CLASS_NAMES_PATH or default
    names = read_class_names(path)
    if len(names) != cfg.MODEL.NUM_CLASSES:
        raise ValueError(f"'{path}' names {len(names)} classes and MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}")
    return names


def _loader(cfg, dataset, batch_size, *, rank, world_size, shuffle=False, indices=None):
    return ClipLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        seed=cfg.RNG_SEED,
        rank=rank,
        world_size=world_size,
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY and cfg.NUM_GPUS > 0,
        indices=indices,
    )


def _batch_size_per_rank(key, batch_size, world_size):
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(f"{key} is {batch_size}: it must be a positive multiple of the {world_size} processes")
    return batch_size // world_size


def evenly_spread(length, count):
    """`count` distinct positions spread evenly over a list of `length`; all of them when there are no more."""
    if count < 1:
        raise ValueError(f"the number of videos is {count} and must be positive")
    return (np.arange(min(count, length)) * length // min(count, length)).tolist()
