"""From a config to a loader: what all data sets share. What each reads of a config is in `mutual3d.data.sources`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.datasets.kinetics import Video, VideoDataset
from mutual3d.data.loader import ClipLoader, Reading, Share, TrainingLoader
from mutual3d.data.sources import SOURCES
from mutual3d.data.sources.facts import CUTTING, MODES, OWN_CROPS, Mistakes, checked_names, clip_augmentation
from mutual3d.utils.distributed import choose_device
from mutual3d.utils.words import unknown_word


def build_dataset(cfg: CfgNode, split: str, mode: str, num_views: int = 1) -> ClipDataset:
    """The dataset of a split in one of `MODES`, as TRAIN.DATASET (TEST.DATASET is the same) names it; see `build_loader`.

    split: as of `build_loader`, "" for that of the test. num_views: clips over time in evaluation by single views. mode:
    one of `MODES`.
    """
    if mode not in MODES:
        raise ValueError(f"unknown loader mode {mode!r}: choose one of {', '.join(MODES)}")
    return SOURCES[cfg.TRAIN.DATASET].open(cfg, split or test_split(cfg), mode, num_views)


def test_split(cfg: CfgNode) -> str:
    """The split of the multi-view test: TEST.SPLIT, or the data set's own."""
    return cfg.TEST.SPLIT or SOURCES[cfg.TRAIN.DATASET].test_split


vars(test_split)["__test__"] = False  # it is no test


def takes_images(name: str) -> bool | None:
    """Whether the data set of a TRAIN.DATASET gives images; None of an unknown one."""
    return SOURCES[name].is_image if name in SOURCES else None


def what_a_network_must_give(name: str) -> str | None:
    """What the task of a TRAIN.DATASET needs a network to give, in the network's word; None of an unknown one."""
    return SOURCES[name].task.gives if name in SOURCES else None


def gives_bgr(cfg: CfgNode) -> bool:
    """Whether the network sees BGR. Data are RGB here, and DATA.REVERSE_INPUT_CHANNEL turns them round, but for those that
    PySlowFast reads as BGR: there it turns them into RGB, which they are already."""
    return cfg.DATA.REVERSE_INPUT_CHANNEL and not SOURCES[cfg.TRAIN.DATASET].is_bgr_there


def check_data(cfg: CfgNode) -> Mistakes:
    """(keys, sentence) of whatever does not go with the data set."""
    name = cfg.TRAIN.DATASET
    unknown = [(key, unknown_word(key, cfg[key.split(".")[0]].DATASET, sorted(SOURCES))) for key in ("TRAIN.DATASET", "TEST.DATASET")]
    yield from (((key,), text) for key, text in unknown if text)
    if name not in SOURCES:
        return
    source = SOURCES[name]
    for key, value in {**source.task.wants, **source.wants}.items():
        section, own = key.split(".")
        if cfg[section][own] != value and (key != "TEST.SPLIT" or cfg.TEST.SPLIT):
            yield (key, "TRAIN.DATASET"), f"{key} is {cfg[section][own]!r}: with TRAIN.DATASET {name} it must be {value!r}"
    if cfg.MODEL.LOSS_FUNC not in source.task.losses:
        legal = " or ".join(source.task.losses)
        yield (
            ("MODEL.LOSS_FUNC", "TRAIN.DATASET"),
            f"MODEL.LOSS_FUNC is '{cfg.MODEL.LOSS_FUNC}': with TRAIN.DATASET {name} it must be {legal}",
        )
    if source.num_channels not in (None, *cfg.DATA.INPUT_CHANNEL_NUM):
        yield (
            ("DATA.INPUT_CHANNEL_NUM", "DATA.MEAN", "TRAIN.DATASET"),
            f"DATA.INPUT_CHANNEL_NUM is {cfg.DATA.INPUT_CHANNEL_NUM}: clips of TRAIN.DATASET {name} have {source.num_channels} channels",
        )
    for key in (*CUTTING, *([OWN_CROPS] if cfg.MUTUAL.ENABLE else [])):
        section, own = key.split(".")
        if cfg[section][own] and key not in source.reads:
            readers = ", ".join(word for word, other in sorted(SOURCES.items()) if key in other.reads)
            yield (
                (key, "TRAIN.DATASET"), f"{key} is {cfg[section][own]}: TRAIN.DATASET {name} does not read it ({readers} do); leave it at its default"
            )
    try:
        clip_augmentation(cfg)
    except ValueError as error:
        yield ("AUG.AA_TYPE",), str(error)
    if cfg.AUG.ENABLE and cfg.DETECTION.ENABLE:
        yield (
            ("AUG.ENABLE", "DETECTION.ENABLE"),
            "AUG.ENABLE is True: operations of RandAugment and erasing know nothing of boxes; set it False",
        )
    if cfg.DATA.CACHE and source.is_image:
        yield (
            ("DATA.CACHE", "TRAIN.DATASET"),
            f"DATA.CACHE is {cfg.DATA.CACHE!r}: it holds frames of videos, and TRAIN.DATASET {name} has images; leave it empty",
        )
    yield from source.check_config(cfg)


def video_files(cfg: CfgNode) -> list[str]:
    """The video files of the lists of a config's splits: of train, val and the test, those that are there.

    Raises ValueError for a data set that reads no video files, FileNotFoundError where none of the lists is there.
    """
    missing: FileNotFoundError | None = None
    files: dict[str, None] = {}
    for split in dict.fromkeys(("train", "val", test_split(cfg))):
        try:
            dataset = build_dataset(cfg, split, "single_view")
        except FileNotFoundError as error:
            missing = error
            continue
        if isinstance(dataset, VideoDataset):
            files.update((path, None) for video in dataset.videos for path in video.files() if path == video.path)
    if not files and missing is not None:
        raise missing
    if not files:
        raise ValueError(f"TRAIN.DATASET {cfg.TRAIN.DATASET} reads no video files: there is nothing to decode ahead")
    return list(files)


def build_loader(
    cfg: CfgNode,
    split: str,
    mode: str,
    rank: int = 0,
    world_size: int = 1,
    num_views: int = 1,
    lost: dict[str, str] | None = None,
    num_videos: int | None = None,
) -> ClipLoader:
    """The `ClipLoader` of a split for one rank.

    Args:
        split: name of the csv in DATA.PATH_TO_DATA_DIR, without its ending: "train", "val", "test".
        mode: "train": shuffled, one random clip a video, TRAIN.BATCH_SIZE.
            "single_view": list order, centre crop at DATA.TEST_CROP_SIZE: validation and the grid. The centre clip, or
            `num_views` clips spread over time.
            "multi_view": list order, TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views.
            All but "train" take as many videos as have TEST.BATCH_SIZE views, at least one.
        lost: the videos that are not read any more, shared by the loaders of a run (see `ClipLoader`).
        num_videos: so many, spread evenly over the list, in evaluation; None takes all.

    Raises ValueError for a batch size that the ranks cannot share, an unknown mode, and what the csv gets wrong. Rank
    `rank` of `world_size` is given its own share.
    """
    shuffle = mode == "train"
    section = "TRAIN" if shuffle else "TEST"
    batch_size = _batch_size_per_rank(f"{section}.BATCH_SIZE", cfg[section].BATCH_SIZE, world_size)
    dataset = build_dataset(cfg, split, mode, num_views)
    batch_size = max(1, batch_size // (dataset.num_views * dataset.num_crops))
    indices = None if num_videos is None else evenly_spread(len(dataset), num_videos)
    return _loader(cfg, dataset, batch_size, Share(rank, world_size), shuffle=shuffle, lost=lost, indices=indices)


def build_training_loader(
    cfg: CfgNode, model: Any, rank: int = 0, world_size: int = 1, lost: dict[str, str] | None = None
) -> TrainingLoader:
    """What a network trains on: the shuffled clips of the training list, or what its data set makes of what the network does.

    model: the network that is trained, which clips do not ask for. rank, world_size, lost: as of `build_loader`.
    """
    make = SOURCES[cfg.TRAIN.DATASET].training_loader
    if make is None:
        return build_loader(cfg, "train", "train", rank, world_size, lost=lost)
    batch_size = _batch_size_per_rank("TRAIN.BATCH_SIZE", cfg.TRAIN.BATCH_SIZE, world_size)
    return make(cfg, build_dataset(cfg, "train", "train"), model, batch_size, Share(rank, world_size))


def build_calibration_loader(
    cfg: CfgNode, rank: int = 0, world_size: int = 1, lost: dict[str, str] | None = None, num_clips: int | None = None
) -> ClipLoader:
    """`num_clips`, by default CALIBRATION.NUM_CLIPS, videos spread evenly over CALIBRATION.SPLIT, one clip each, in a fixed shuffled order.

    Shuffled, because lists are often sorted by class and a batch of one class has statistics of its own; where samples differ in size,
    those of one size follow each other. Batches hold CALIBRATION.BATCH_SIZE clips and go to the ranks in turns, so that they are the same
    for any number of ranks. rank,
    world_size, lost: as of `build_loader`.
    """
    mode = "train_augmentation_fixed" if cfg.CALIBRATION.TRANSFORM == "train" else "single_view"
    dataset = build_dataset(cfg, cfg.CALIBRATION.SPLIT, mode)
    wanted = cfg.CALIBRATION.NUM_CLIPS if num_clips is None else num_clips
    indices = evenly_spread(len(dataset), wanted or len(dataset))
    np.random.default_rng(cfg.RNG_SEED).shuffle(indices)
    batch_size, groups = cfg.CALIBRATION.BATCH_SIZE, dataset.groups
    if groups is not None:
        # Samples of several sizes share no batch: side by side, those of one size fill theirs.
        places = {group: place for place, group in enumerate(dict.fromkeys(groups[index] for index in indices))}
        indices.sort(key=lambda index: places[groups[index]])
    return _loader(cfg, dataset, batch_size, Share(rank, world_size), indices=indices, lost=lost)


def image_resize(cfg: CfgNode) -> int | None:
    """The short side that test images are resized to before the crop; None for videos."""
    resize = SOURCES[cfg.TRAIN.DATASET].test_resize
    return resize(cfg.DATA.TEST_CROP_SIZE) if resize else None


def metric_word(cfg: CfgNode) -> str:
    """The word of the metric that the data set is measured by."""
    return SOURCES[cfg.TRAIN.DATASET].task.metric


def find_class_names(cfg: CfgNode) -> list[str] | None:
    """Names from DATA.CLASS_NAMES_PATH, or as the data set has them; None when there are none."""
    if cfg.DATA.CLASS_NAMES_PATH:
        return checked_names(cfg, cfg.DATA.CLASS_NAMES_PATH)
    return SOURCES[cfg.TRAIN.DATASET].class_names(cfg)


def unused_classes(cfg: CfgNode, dataset: ClipDataset) -> str:
    """What to say where a list has no label of the last classes and nothing names them; empty where all is well."""
    videos = dataset.videos if isinstance(dataset, VideoDataset) else ()
    labels = {video.label for video in videos if isinstance(video, Video)}
    if not labels or max(labels) + 1 >= cfg.MODEL.NUM_CLASSES or find_class_names(cfg) is not None:
        return ""
    count = max(labels) + 1
    return (
        f"MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES} and the labels of the training list are {min(labels)} to {max(labels)}: the "
        f"network gets {cfg.MODEL.NUM_CLASSES - count} outputs that are never right; set MODEL.NUM_CLASSES {count} if there are no "
        "more classes (a classes.txt beside the list names them)"
    )


def _loader(
    cfg: CfgNode, dataset: ClipDataset, batch_size: int, share: Share, *, lost: dict[str, str] | None, shuffle: bool = False,
    indices: Sequence[int] | None = None,
) -> ClipLoader:  # fmt: skip
    reading = Reading(
        cfg.DATA_LOADER.NUM_WORKERS, cfg.DATA_LOADER.TIMEOUT, cfg.DATA_LOADER.PIN_MEMORY and cfg.NUM_GPUS > 0,
        choose_device(cfg.NUM_GPUS) if shuffle else None,
    )  # fmt: skip
    return ClipLoader(
        dataset, batch_size, shuffle=shuffle, seed=cfg.RNG_SEED, share=share, reading=reading, indices=indices, lost=lost
    )


def _batch_size_per_rank(key: str, batch_size: int, world_size: int) -> int:
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(f"{key} is {batch_size}: it must be a positive multiple of the {world_size} processes")
    return batch_size // world_size


def evenly_spread(length: int, count: int) -> list[int]:
    """`count` distinct positions spread evenly over a list of `length`; all of them when there are no more."""
    if count < 1:
        raise ValueError(f"the number of videos is {count} and must be positive")
    return (np.arange(min(count, length)) * length // min(count, length)).tolist()
