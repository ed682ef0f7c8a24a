"""What a data set says of itself, the registry of its words, and what several sets read of a config alike."""

import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fvcore.common.config import CfgNode

from mutual3d.data.clips.augment import AUTO_AUGMENT, ClipAugmentation, RandAugmentation, RandomErasing
from mutual3d.data.clips.frames import ClipSampling, Views
from mutual3d.data.clips.transforms import TrainingCrop
from mutual3d.data.datasets.check import SetCheck
from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.datasets.kinetics import ListedVideo, VideoDataset
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.loader import Share, TrainingLoader
from mutual3d.data.video.decode import VideoOpening
from mutual3d.data.video.file_cache import FileCache, file_fingerprint
from mutual3d.data.video.frame_cache import ARGUMENTS, INDEX, FrameCache

T = TypeVar("T")

_logger = logging.getLogger(__name__)
_told: set[str] = set()

# What does not fit in a config: its keys, and a sentence.
Mistakes = Iterator[tuple[tuple[str, ...], str]]


@dataclass(frozen=True)
class Task:
    """What is to be said of a sample, and what that asks of a config.

    metric: the word of the metric that measures it (`mutual3d.metrics`). losses: the legal MODEL.LOSS_FUNC. wants: {key: the
    one value that goes with it}. gives: what a network must give for it, in the network's own word (`AdaptiveNetwork.gives`).
    """

    metric: str
    losses: tuple[str, ...]
    wants: Mapping[str, object]
    gives: str = "classes"


# Of sets whose samples are seen whole, once: other numbers of views would do nothing, and nobody would notice.
ONE_GRID_VIEW: Mapping[str, object] = {"GRID.NUM_VIEWS": 1}
ONE_VIEW: Mapping[str, object] = {**ONE_GRID_VIEW, "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1}

ONE_LABEL = Task(
    "top_k", ("cross_entropy", "soft_cross_entropy"), {"DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "softmax"}
)
SEVERAL_LABELS = Task(
    "mean_average_precision", ("bce_logit", "bce"),
    {"DATA.MULTI_LABEL": True, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "sigmoid"},
)  # fmt: skip
LABELS_OF_BOXES = Task(
    "detection_average_precision", ("bce_logit", "bce"),
    {"DATA.MULTI_LABEL": False, "DETECTION.ENABLE": True, "MODEL.HEAD_ACT": "sigmoid"},
)  # fmt: skip


def names_beside_the_list(cfg: CfgNode) -> list[str] | None:
    """The class names in classes.txt beside the lists; None where there is none."""
    path = user_path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt"
    return checked_names(cfg, path) if path.is_file() else None


# How pictures of training are drawn, by keys that only some sets read: with another set they would do nothing, and nobody would notice.
CUTTING = ("DATA.TRAIN_JITTER_SCALES_RELATIVE", "DATA.TRAIN_JITTER_ASPECT_RELATIVE", "DATA.COLOR_JITTER", "DATA.CROP_PADDING")
OWN_CROPS = "MUTUAL.OWN_CROPS"


def _nothing(cfg: CfgNode) -> Mistakes:
    return iter(())


@dataclass(frozen=True)
class Source:
    """The facts of a data set, a word of TRAIN.DATASET. Nobody else knows it by name.

    open: (cfg, split, mode, number of views) -> data set; mode: one of `MODES`. task: what its labels are. is_image: it gives
    images, one frame each; else clips. reads: of `CUTTING` and OWN_CROPS the keys that it goes by; others are refused. wants: {key: the
    one value} beside those of the task. test_split: where labels are to test on. class_names: names by label, as the set has them, None without any. test_resize: crop size -> short side that
    test images are resized to before the crop. check_config: what else does not go with the set. check_files: how
    `mutual3d check-data` looks at a copy of it. is_bgr_there: PySlowFast reads these data as BGR. num_channels: of its clips; None
    where `open` looks at that. training_loader: where batches of training come of what the network does, what makes them, of (cfg, the
    opened data set, the network, samples of this process's batch, which process it is).
    """

    open: Callable[[CfgNode, str, str, int], ClipDataset]
    task: Task
    is_image: bool = False
    reads: tuple[str, ...] = ()
    wants: Mapping[str, object] = field(default_factory=dict)
    test_split: str = "test"
    class_names: Callable[[CfgNode], list[str] | None] = names_beside_the_list
    test_resize: Callable[[int], int] | None = None
    check_config: Callable[[CfgNode], Mistakes] = _nothing
    check_files: SetCheck | None = None
    is_bgr_there: bool = False
    num_channels: int | None = 3
    training_loader: Callable[[CfgNode, ClipDataset, Any, int, Share], TrainingLoader] | None = None


SOURCES: dict[str, Source] = {}


def register_dataset(source: Source, *words: str) -> None:
    """Make a data set known under a word of TRAIN.DATASET, and others that mean the same. ValueError for one that is taken."""
    for word in words:
        if word in SOURCES:
            raise ValueError(f"the data set '{word}' is there already: choose another name")
        SOURCES[word] = source


# ---- What sets read alike --------------------------------------------------------------------------------------------

MODES = ("train", "single_view", "multi_view", "train_augmentation_fixed")


def is_training(mode: str) -> bool:
    """Whether clips of a mode are drawn at random, as for training."""
    return mode in ("train", "train_augmentation_fixed")


def crop_size(cfg: CfgNode, mode: str) -> int:
    """Pixels of a crop of a mode."""
    return cfg.DATA.TRAIN_CROP_SIZE if is_training(mode) else cfg.DATA.TEST_CROP_SIZE


def clip_sampling(cfg: CfgNode) -> ClipSampling:
    """The frames of a clip."""
    return ClipSampling(cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TARGET_FPS)


def training_crop(cfg: CfgNode) -> TrainingCrop:
    """How crops of training are drawn."""
    return TrainingCrop(cfg.DATA.TRAIN_JITTER_SCALES, cfg.DATA.INV_UNIFORM_SAMPLE, cfg.DATA.RANDOM_FLIP)


def clip_augmentation(cfg: CfgNode) -> ClipAugmentation | None:
    """What happens to a training clip beside crop and flip; None where that is nothing."""
    if not cfg.AUG.ENABLE:
        return None
    policy = cfg.AUG.AA_TYPE if cfg.AUG.AA_TYPE in AUTO_AUGMENT else ""
    rand_augment = RandAugmentation.parse(cfg.AUG.AA_TYPE) if cfg.AUG.AA_TYPE and not policy else None
    erasing = RandomErasing(cfg.AUG.RE_PROB, cfg.AUG.RE_MODE) if cfg.AUG.RE_PROB else None
    return ClipAugmentation(rand_augment, erasing, cfg.DATA.MEAN, cfg.DATA.STD, policy, cfg.AUG.CUTOUT)


def list_path(cfg: CfgNode, split: str) -> Path:
    """The csv of a split."""
    return user_path(cfg.DATA.PATH_TO_DATA_DIR) / f"{split}.csv"


def checked_names(cfg: CfgNode, path: str | Path) -> list[str]:
    """The class names of a file; ValueError where there are more or fewer than the network has classes."""
    names = read_class_names(path)
    if len(names) != cfg.MODEL.NUM_CLASSES:
        raise ValueError(f"'{path}' names {len(names)} classes and MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}")
    return names


# A run reads its lists again in every stage: one of 240 000 videos takes 2.5 s each time.
_lists: FileCache[Any] = FileCache(4, lambda value: 1)


def read_once(files: Iterable[str | Path], read: "functools.partial[T]") -> T:
    """What `read()` makes of `files`, made once for as long as its arguments, and each file's size and time, stay as they are.

    What is made is shared by those who ask, who leave it as it is. Four lists, those used last, are kept.
    """
    state = (read.func, read.args, tuple(read.keywords.items()), tuple(_state_of(path) for path in files))
    made = _lists.get(state)
    if made is None:
        made = read()
        _lists.put(state, made)
    return made


def _state_of(path: str | Path) -> Hashable:
    try:
        return file_fingerprint(str(path))
    except OSError:  # its reader says what is wrong, or does without
        return None


def names_path(cfg: CfgNode) -> Path:
    """The file of class names that labels of a list may be looked up in; it need not be there."""
    return Path(cfg.DATA.CLASS_NAMES_PATH or user_path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt")


def video_dataset(
    cfg: CfgNode, videos: Sequence[ListedVideo], mode: str, num_views: int, kind: type[VideoDataset] = VideoDataset
) -> VideoDataset:
    """The clips of a list of videos, cut as a config and one of `MODES` say; for whoever reads another form of list.

    mode: one of `MODES`. num_views: clips over time in evaluation by single views.
    """
    views = Views(num_views, 1, cfg.DATA.USE_OFFSET_SAMPLING)
    if mode == "multi_view":
        views = Views(cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS, cfg.DATA.USE_OFFSET_SAMPLING)
    return kind(
        videos, clip_sampling(cfg), crop_size(cfg, mode), training=is_training(mode), crop=training_crop(cfg), views=views,
        opening=VideoOpening(cfg.DATA.DECODING_BACKEND, cfg.DATA.TOLERATE_SHORT), seed=cfg.RNG_SEED,
        augmentation=clip_augmentation(cfg) if is_training(mode) else None, cache=_frame_cache(cfg, videos),
    )  # fmt: skip


def _frame_cache(cfg: CfgNode, videos: Sequence[ListedVideo]) -> FrameCache | None:
    """The cache of DATA.CACHE; the log says, once, what comes out of it and what is otherwise with copies."""
    if not cfg.DATA.CACHE:
        return None
    folder = user_path(cfg.DATA.CACHE)
    cache: FrameCache = read_once([folder / name for name in (ARGUMENTS, INDEX)], functools.partial(FrameCache, folder))
    told = cache.check(video.path for video in videos)
    if cache.short_side is not None:
        is_same = cache.short_side == cfg.DATA.TEST_CROP_SIZE
        told += (
            f"; they are copies of short side {cache.short_side}: clips of training are resized once more than without a cache, "
            f"those of evaluation are {'the same' if is_same else f'too (DATA.TEST_CROP_SIZE {cfg.DATA.TEST_CROP_SIZE})'}"
        )
    if told not in _told:
        _told.add(told)
        _logger.info(told)
    return cache
