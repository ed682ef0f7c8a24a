"""From a config to a loader: the one place of this folder that reads a CfgNode."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from fvcore.common.config import CfgNode

from mutual3d.data.datasets.ava.annotations import read_ava_frames, read_keyframes, read_label_map, read_reference
from mutual3d.data.datasets.ava.dataset import AvaDataset
from mutual3d.data.datasets.charades import read_charades
from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.datasets.images import IMAGE_SETS, ImageDataset, open_images, usual_test_resize
from mutual3d.data.datasets.kinetics import ListedVideo, Video, VideoDataset, read_video_list
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.datasets.ssv2 import SegmentDataset, read_class_numbers, read_ssv2
from mutual3d.data.loader import ClipLoader
from mutual3d.utils.words import unknown_word

MODES = ("train", "single_view", "multi_view", "train_augmentation_fixed")


def build_dataset(cfg: CfgNode, split: str, mode: str, num_views: int = 1) -> ClipDataset:
    """The dataset of a split in one of `MODES`, as TRAIN.DATASET (TEST.DATASET is the same) names it; see `build_loader`."""
    if mode not in MODES:
        raise ValueError(f"unknown loader mode {mode!r}: choose one of {', '.join(MODES)}")
    return SOURCES[cfg.TRAIN.DATASET].open(cfg, split or test_split(cfg), mode, num_views)


def test_split(cfg: CfgNode) -> str:
    """The split of the multi-view test: TEST.SPLIT, or the data set's own."""
    return cfg.TEST.SPLIT or SOURCES[cfg.TRAIN.DATASET].test_split


test_split.__test__ = False  # it is no test


def _is_training(mode):
    return mode in ("train", "train_augmentation_fixed")


def _crop_size(cfg, mode):
    return cfg.DATA.TRAIN_CROP_SIZE if _is_training(mode) else cfg.DATA.TEST_CROP_SIZE


def _clip_arguments(cfg, mode):
    """What every dataset of videos is told alike."""
    return {
        "num_frames": cfg.DATA.NUM_FRAMES,
        "sampling_rate": cfg.DATA.SAMPLING_RATE,
        "target_fps": cfg.DATA.TARGET_FPS,
        "training": _is_training(mode),
        "crop_size": _crop_size(cfg, mode),
        "jitter_scales": cfg.DATA.TRAIN_JITTER_SCALES,
        "inverse_uniform": cfg.DATA.INV_UNIFORM_SAMPLE,
        "flip": cfg.DATA.RANDOM_FLIP,
        "seed": cfg.RNG_SEED,
    }


def _kinetics(cfg, split, mode, num_views):
    videos = read_video_list(
        _list_path(cfg, split), path_prefix=cfg.DATA.PATH_PREFIX, separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        num_classes=cfg.MODEL.NUM_CLASSES, class_names_path=cfg.DATA.CLASS_NAMES_PATH,
    )  # fmt: skip
    return video_dataset(cfg, videos, mode, num_views)


def _charades(cfg, split, mode, num_views):
    videos = read_charades(
        _list_path(cfg, split), path_prefix=cfg.DATA.PATH_PREFIX, separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        num_classes=cfg.MODEL.NUM_CLASSES, fps=cfg.DATA.TARGET_FPS, class_names_path=cfg.DATA.CLASS_NAMES_PATH,
    )  # fmt: skip
    return video_dataset(cfg, videos, mode, num_views)


def _list_path(cfg, split):
    return user_path(cfg.DATA.PATH_TO_DATA_DIR) / f"{split}.csv"


def _ssv2(cfg, split, mode, num_views):
    videos = read_ssv2(
        cfg.DATA.PATH_TO_DATA_DIR, split, num_classes=cfg.MODEL.NUM_CLASSES, path_prefix=cfg.DATA.PATH_PREFIX,
        fps=cfg.DATA.TARGET_FPS,
    )  # fmt: skip
    return video_dataset(cfg, videos, mode, num_views, SegmentDataset)


def video_dataset(
    cfg: CfgNode, videos: Sequence[ListedVideo], mode: str, num_views: int, kind: type[VideoDataset] = VideoDataset
) -> VideoDataset:
    """The clips of a list of videos, cut as a config and one of `MODES` say; for whoever reads another form of list."""
    is_multi_view = mode == "multi_view"
    return kind(
        videos,
        num_views=cfg.TEST.NUM_ENSEMBLE_VIEWS if is_multi_view else num_views,
        num_crops=cfg.TEST.NUM_SPATIAL_CROPS if is_multi_view else 1,
        offset_sampling=cfg.DATA.USE_OFFSET_SAMPLING,
        backend=cfg.DATA.DECODING_BACKEND,
        tolerate_short=cfg.DATA.TOLERATE_SHORT,
        **_clip_arguments(cfg, mode),
    )


def _ava(cfg, split, mode, num_views):
    """Keyframes and boxes: the split `train` is AVA.TRAIN_*, every other one AVA.TEST_*. A keyframe is one view."""
    for key in ("FRAME_DIR", "FRAME_LIST_DIR", "ANNOTATION_DIR"):
        if not cfg.AVA[key]:
            raise ValueError(f"AVA.{key} is empty: name the folder (datasets/AVA.md)")
    is_train_split = split == "train"
    frames = read_ava_frames(
        _in(cfg.AVA.FRAME_LIST_DIR, cfg.AVA.TRAIN_LISTS if is_train_split else cfg.AVA.TEST_LISTS), cfg.AVA.FRAME_DIR,
        fps=cfg.AVA.FPS, first_second=cfg.AVA.FIRST_SECOND,
    )  # fmt: skip
    detected = cfg.AVA.TRAIN_PREDICT_BOX_LISTS if is_train_split else cfg.AVA.TEST_PREDICT_BOX_LISTS
    keyframes = read_keyframes(
        frames,
        ground_truth=_in(cfg.AVA.ANNOTATION_DIR, cfg.AVA.TRAIN_GT_BOX_LISTS if is_train_split else []),
        detected=_in(cfg.AVA.ANNOTATION_DIR, detected),
        score_threshold=cfg.AVA.DETECTION_SCORE_THRESH,
        num_classes=cfg.MODEL.NUM_CLASSES,
    )
    reference = None if is_train_split else _ava_reference(cfg, frames)
    return AvaDataset(frames, keyframes, reference=reference, **_clip_arguments(cfg, mode))


def _ava_reference(cfg, frames):
    names = cfg.AVA.GROUNDTRUTH_FILE, cfg.AVA.EXCLUSION_FILE, cfg.AVA.LABEL_MAP_FILE
    return read_reference(*_in(cfg.AVA.ANNOTATION_DIR, names), num_classes=cfg.MODEL.NUM_CLASSES, frames=frames)


def _in(directory, names):
    return [str(user_path(directory) / name) for name in names]


# A run needs its sets again and again, and listing the files of a large one takes minutes.
_open_images = functools.lru_cache(maxsize=4)(open_images)


def _open_split(cfg, split):
    root = str(user_path(cfg.DATA.PATH_TO_DATA_DIR)) if cfg.DATA.PATH_TO_DATA_DIR else ""
    return _open_images(cfg.TRAIN.DATASET, root, split, cfg.MODEL.NUM_CLASSES)


def _images(cfg, split, mode, num_views):
    images = _open_split(cfg, split)
    crop_size = _crop_size(cfg, mode)
    common = {"crop_size": crop_size, "seed": cfg.RNG_SEED}
    if not _is_training(mode):
        return ImageDataset(images, test_resize=usual_test_resize(cfg.TRAIN.DATASET, crop_size), **common)
    return ImageDataset(
        images, training=True, jitter_scales=cfg.DATA.TRAIN_JITTER_SCALES, inverse_uniform=cfg.DATA.INV_UNIFORM_SAMPLE,
        relative_scales=cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE, relative_aspects=cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE,
        padding=cfg.DATA.CROP_PADDING, flip=cfg.DATA.RANDOM_FLIP, color_jitter=cfg.DATA.COLOR_JITTER, **common,
    )  # fmt: skip


def image_resize(cfg: CfgNode) -> int | None:
    """The short side that test images are scaled to before the crop; None for videos."""
    is_image = cfg.TRAIN.DATASET in IMAGE_SETS
    return usual_test_resize(cfg.TRAIN.DATASET, cfg.DATA.TEST_CROP_SIZE) if is_image else None


class Source(NamedTuple):
    """A word of TRAIN.DATASET: how its data are opened, and what they ask of a config.

    open: (cfg, split, mode, num_views) -> data set. is_image: it gives images, one frame each; else clips.
    losses: the legal MODEL.LOSS_FUNC. wants: {key: the one value that goes with it}. test_split: where labels are to test on.
    is_bgr_there: PySlowFast reads these data as BGR.
    """

    open: Callable
    is_image: bool
    losses: tuple[str, ...]
    wants: dict[str, object]
    test_split: str = "test"
    is_bgr_there: bool = False


# What a config must say where each clip has one label.
ONE_LABEL = {"DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "softmax"}
_IMAGES = Source(_images, True, ("cross_entropy",), {**ONE_LABEL, "DATA.NUM_FRAMES": 1})

SOURCES = {
    "kinetics": Source(_kinetics, False, ("cross_entropy",), ONE_LABEL),
    "charades": Source(
        _charades, False, ("bce_logit", "bce"), {"DATA.MULTI_LABEL": True, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "sigmoid"},
        test_split="val", is_bgr_there=True,
    ),
    # AVA has two splits and results files of its own.
    "ava": Source(
        _ava, False, ("bce_logit", "bce"),
        {
            "DATA.MULTI_LABEL": False, "DETECTION.ENABLE": True, "MODEL.HEAD_ACT": "sigmoid", "GRID.SPLIT": "val",
            "TEST.SPLIT": "val", "TEST.SAVE_RESULTS_PATH": "",
        },
        test_split="val",
    ),
    # Pushing from left to right is another class than from right to left: nothing is mirrored.
    "ssv2": Source(_ssv2, False, ("cross_entropy",), {**ONE_LABEL, "DATA.RANDOM_FLIP": False}, test_split="val", is_bgr_there=True),
    **dict.fromkeys(IMAGE_SETS, _IMAGES),
}  # fmt: skip
# PySlowFast's names of the same lists where PyTorchVideo reads them.
SOURCES |= {f"ptv{name}": SOURCES[name] for name in ("kinetics", "charades", "ssv2")}


def gives_bgr(cfg: CfgNode) -> bool:
    """Whether the network sees BGR. Data are RGB here, and DATA.REVERSE_INPUT_CHANNEL turns them round, but for those that
    PySlowFast reads as BGR: there it turns them into RGB, which they are already."""
    return cfg.DATA.REVERSE_INPUT_CHANNEL and not SOURCES[cfg.TRAIN.DATASET].is_bgr_there


def takes_images(name: str) -> bool | None:
    """Whether the data set of a TRAIN.DATASET gives images; None of an unknown one."""
    return SOURCES[name].is_image if name in SOURCES else None


def check_data(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys, sentence) of whatever does not go with the data set."""
    name = cfg.TRAIN.DATASET
    unknown = [(key, unknown_word(key, cfg[key.split(".")[0]].DATASET, SOURCES)) for key in ("TRAIN.DATASET", "TEST.DATASET")]
    yield from (((key,), text) for key, text in unknown if text)
    if name not in SOURCES:
        return
    source = SOURCES[name]
    for key, value in source.wants.items():
        section, own = key.split(".")
        if cfg[section][own] != value and (key != "TEST.SPLIT" or cfg.TEST.SPLIT):
            yield (key, "TRAIN.DATASET"), f"{key} is {cfg[section][own]!r}: with TRAIN.DATASET {name} it must be {value!r}"
    if cfg.MODEL.LOSS_FUNC not in source.losses:
        legal = " or ".join(source.losses)
        yield (
            ("MODEL.LOSS_FUNC", "TRAIN.DATASET"),
            f"MODEL.LOSS_FUNC is '{cfg.MODEL.LOSS_FUNC}': with TRAIN.DATASET {name} it must be {legal}",
        )
    for own in ("TRAIN_JITTER_SCALES_RELATIVE", "TRAIN_JITTER_ASPECT_RELATIVE", "COLOR_JITTER", "CROP_PADDING"):
        if cfg.DATA[own] and not source.is_image:
            yield (
                (f"DATA.{own}", "TRAIN.DATASET"), f"DATA.{own} is {cfg.DATA[own]}: mutual3d supports it for images, not for {name}"
            )
    if name == "ava":
        yield from _check_ava(cfg)


def _check_ava(cfg) -> Iterator[tuple[tuple[str, ...], str]]:
    """Whole frames differ in size, and a batch's statistics need one size."""
    if cfg.MUTUAL.ENABLE and cfg.CALIBRATION.ENABLE and cfg.CALIBRATION.TRANSFORM != "train":
        yield (
            ("CALIBRATION.TRANSFORM", "TRAIN.DATASET"),
            f"CALIBRATION.TRANSFORM is {cfg.CALIBRATION.TRANSFORM!r}: with TRAIN.DATASET ava it must be 'train'",
        )


def build_loader(
    cfg: CfgNode, split: str, mode: str, rank: int = 0, world_size: int = 1, num_views: int = 1, lost: dict[str, str] | None = None
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

    Raises ValueError for a batch size that the ranks cannot share, an unknown mode, and what the csv gets wrong.
    """
    shuffle = mode == "train"
    section = "TRAIN" if shuffle else "TEST"
    batch_size = _batch_size_per_rank(f"{section}.BATCH_SIZE", cfg[section].BATCH_SIZE, world_size)
    dataset = build_dataset(cfg, split, mode, num_views)
    batch_size = max(1, batch_size // (dataset.num_views * dataset.num_crops))
    return _loader(cfg, dataset, batch_size, shuffle=shuffle, rank=rank, world_size=world_size, lost=lost)


def build_calibration_loader(cfg: CfgNode, rank: int = 0, world_size: int = 1, lost: dict[str, str] | None = None) -> ClipLoader:
    """CALIBRATION.NUM_CLIPS videos spread evenly over CALIBRATION.SPLIT, one clip each, in a fixed shuffled order.

    Shuffled, because lists are often sorted by class and a batch of one class has statistics of its own. Batches hold
    CALIBRATION.BATCH_SIZE clips and go to the ranks in turns, so that they are the same for any number of ranks.
    """
    mode = "train_augmentation_fixed" if cfg.CALIBRATION.TRANSFORM == "train" else "single_view"
    dataset = build_dataset(cfg, cfg.CALIBRATION.SPLIT, mode)
    indices = evenly_spread(len(dataset), cfg.CALIBRATION.NUM_CLIPS or len(dataset))
    np.random.default_rng(cfg.RNG_SEED).shuffle(indices)
    batch_size = cfg.CALIBRATION.BATCH_SIZE
    return _loader(cfg, dataset, batch_size, rank=rank, world_size=world_size, indices=indices, lost=lost)


def find_class_names(cfg: CfgNode) -> list[str] | None:
    """Names from DATA.CLASS_NAMES_PATH, or as the data set has them; None when there are none.

    Videos: classes.txt beside the csv files. AVA: the label map; an action that it leaves out has its number. Images: the
    names of the set.
    """
    if cfg.DATA.CLASS_NAMES_PATH:
        return _checked_names(cfg, cfg.DATA.CLASS_NAMES_PATH)
    if cfg.TRAIN.DATASET == "ava":
        return _ava_class_names(cfg)
    if cfg.TRAIN.DATASET in IMAGE_SETS:
        split = "train" if cfg.TRAIN.ENABLE else test_split(cfg)
        return _open_split(cfg, split).classes
    if SOURCES[cfg.TRAIN.DATASET].open is _ssv2:
        return list(read_class_numbers(cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES))
    default = user_path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt"
    return _checked_names(cfg, default) if default.is_file() else None


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


def _checked_names(cfg, path):
    names = read_class_names(path)
    if len(names) != cfg.MODEL.NUM_CLASSES:
        raise ValueError(f"'{path}' names {len(names)} classes and MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}")
    return names


def _ava_class_names(cfg):
    known = dict(read_label_map(user_path(cfg.AVA.ANNOTATION_DIR) / cfg.AVA.LABEL_MAP_FILE, cfg.MODEL.NUM_CLASSES))
    return [known.get(number, str(number)) for number in range(1, cfg.MODEL.NUM_CLASSES + 1)]


def _loader(cfg, dataset, batch_size, *, rank, world_size, lost, shuffle=False, indices=None):
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
        timeout=cfg.DATA_LOADER.TIMEOUT,
        lost=lost,
    )


def _batch_size_per_rank(key, batch_size, world_size):
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(f"{key} is {batch_size}: it must be a positive multiple of the {world_size} processes")
    return batch_size // world_size


def evenly_spread(length: int, count: int) -> list[int]:
    """`count` distinct positions spread evenly over a list of `length`; all of them when there are no more."""
    if count < 1:
        raise ValueError(f"the number of videos is {count} and must be positive")
    return (np.arange(min(count, length)) * length // min(count, length)).tolist()
