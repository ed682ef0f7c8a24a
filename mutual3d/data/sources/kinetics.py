"""Kinetics, and every list of videos with one label each: rows `path label`."""

import functools
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import ListToCheck, check_of_list
from mutual3d.data.datasets.kinetics import ListedVideo, VideoDataset, read_video_list
from mutual3d.data.sources.facts import ONE_LABEL, Source, list_path, names_path, read_once, register_dataset, video_dataset


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> VideoDataset:
    path = list_path(cfg, split)
    read = functools.partial(
        read_video_list, path, path_prefix=cfg.DATA.PATH_PREFIX, separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        num_classes=cfg.MODEL.NUM_CLASSES, class_names_path=cfg.DATA.CLASS_NAMES_PATH,
    )  # fmt: skip
    videos = read_once([path, names_path(cfg)], read)
    return video_dataset(cfg, videos, mode, num_views)


def _read(given: ListToCheck) -> Sequence[ListedVideo]:
    return read_video_list(given.csv, given.path_prefix, given.separator, given.num_classes)


# ptv: PySlowFast's name of the same list where PyTorchVideo reads it; so with the others.
register_dataset(Source(_open, ONE_LABEL, check_files=check_of_list(_read)), "kinetics", "ptvkinetics")
