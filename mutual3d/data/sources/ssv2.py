"""Something-Something v2: its json annotations and PySlowFast's lists of frames."""

import functools
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from mutual3d.data.datasets.check import ListToCheck, check_of_list
from mutual3d.data.datasets.kinetics import ListedVideo, VideoDataset
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.datasets.ssv2 import ANNOTATIONS, LABELS, SegmentDataset, read_class_numbers, read_ssv2
from mutual3d.data.sources.facts import ONE_LABEL, Source, list_path, read_once, register_dataset, video_dataset


def _open(cfg: CfgNode, split: str, mode: str, num_views: int) -> VideoDataset:
    folder = user_path(cfg.DATA.PATH_TO_DATA_DIR)
    read = functools.partial(
        read_ssv2, cfg.DATA.PATH_TO_DATA_DIR, split, num_classes=cfg.MODEL.NUM_CLASSES, path_prefix=cfg.DATA.PATH_PREFIX,
        fps=cfg.DATA.TARGET_FPS,
    )  # fmt: skip
    files = [list_path(cfg, split), *(folder / name for name in (LABELS, *ANNOTATIONS.values()))]
    videos = read_once(files, read)
    return video_dataset(cfg, videos, mode, num_views, SegmentDataset)


def _class_names(cfg: CfgNode) -> list[str]:
    return list(read_class_numbers(cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES))


def _read(given: ListToCheck) -> Sequence[ListedVideo]:
    path = user_path(given.csv)
    return read_ssv2(path.parent, path.stem, num_classes=given.num_classes, path_prefix=given.path_prefix)


def _fits(csv: str) -> int:
    # Its lists have Charades' form; its own list of classes beside one says whose it is.
    return 2 * (Path(user_path(csv)).parent / LABELS).is_file()


register_dataset(
    Source(
        _open, ONE_LABEL, test_split="val", class_names=_class_names, check_files=check_of_list(_read, _fits),
        is_bgr_there=True,
        # Pushing from left to right is another class than from right to left: nothing is mirrored.
        wants={"DATA.RANDOM_FLIP": False},
    ),
    "ssv2", "ptvssv2",
)  # fmt: skip
