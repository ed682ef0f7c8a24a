"""Charades, and every list of videos with any number of labels each."""

import functools
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.charades import NUM_ACTIONS, is_official_csv, read_charades
from mutual3d.data.datasets.check import ListToCheck, check_of_list
from mutual3d.data.datasets.kinetics import ListedVideo, VideoDataset
from mutual3d.data.sources.facts import SEVERAL_LABELS, Source, list_path, names_path, read_once, register_dataset, video_dataset
from mutual3d.data.video.frame_list_reader import is_frame_list


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> VideoDataset:
    path = list_path(cfg, split)
    read = functools.partial(
        read_charades, path, path_prefix=cfg.DATA.PATH_PREFIX, separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        num_classes=cfg.MODEL.NUM_CLASSES, fps=cfg.DATA.TARGET_FPS, class_names_path=cfg.DATA.CLASS_NAMES_PATH,
    )  # fmt: skip
    videos = read_once([path, names_path(cfg)], read)
    return video_dataset(cfg, videos, mode, num_views)


def _read(given: ListToCheck) -> Sequence[ListedVideo]:
    return read_charades(
        given.csv, num_classes=given.num_classes or NUM_ACTIONS, path_prefix=given.path_prefix, separator=given.separator
    )


def _fits(csv: str) -> int:
    return int(is_frame_list(csv) or is_official_csv(csv))


register_dataset(
    Source(_open, SEVERAL_LABELS, test_split="val", check_files=check_of_list(_read, _fits), is_bgr_there=True),
    "charades", "ptvcharades",
)  # fmt: skip
