"""JHMDB (Jhuang et al., ICCV 2013): its lists with a validation set, and its boxes; see datasets/JHMDB.md."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mutual3d.data.datasets.boxes import Box
from mutual3d.data.datasets.frame_boxes import FrameBoxes, read_frame_boxes, write_frame_boxes
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.class_folders import split_off
from mutual3d.data.prepare.official_lists import Entry, read_hmdb51, read_whole_videos, relative_path, write_lists
from mutual3d.utils.logging import progress_bar

# Those that people move in: what is around them (a golf course, a bow) tells least of these.
MOTION_CLASSES = ("clap", "climb_stairs", "jump", "pick", "pullup", "push", "run", "sit", "stand", "throw", "walk", "wave")
# One of them is the validation set.
_FOLDS = 4
# The entry of a video's puppet_mask.mat: H, W, T, above 0 where the person is.
_MASK_ENTRY = "part_mask"


def read_jhmdb(directory: str | Path, split: int = 1) -> tuple[dict[str, list[Entry]], list[str]]:
    """({"train": entries, "test": entries}, class names) of JHMDB's folder splits, which has the form of HMDB51's, or of a folder with lists.

    directory: the published folder, or one that holds train.csv and test.csv, rows `path label`, and classes.txt, which have one split.
    split: 1, 2 or 3 of the published ones.
    """
    directory = Path(directory)
    if not (directory / "train.csv").is_file():
        return read_hmdb51(directory, split)
    names = read_class_names(directory / "classes.txt")
    lists = {
        part: [
            Entry(names[video.label], Path(video.path).stem, names[video.label]) for video in read_whole_videos(directory / f"{part}.csv", names)
        ]
        for part in ("train", "test")
    }
    return lists, names


def with_validation(lists: Mapping[str, Sequence[Entry]]) -> dict[str, list[Entry]]:
    """The same, a quarter of "train" held out as "val": about a quarter of each class, and no source video on both sides.

    A source is the film or home video that clips were cut from, which their names begin with: `BIG_FISH` of `BIG_FISH_walk_f_nm_np1_ri_med_14`.
    Raises ValueError for a name that has not its class in it, and for fewer sources than quarters.
    """
    entries = lists["train"]
    classes = sorted({entry.class_name for entry in entries})
    sources = [source_of(entry) for entry in entries]
    if len(set(sources)) < _FOLDS:
        raise ValueError(
            f"the training list has {len(entries)} clips of {len(set(sources))} films and home videos, and {_FOLDS} or more are needed to hold a quarter "
            "of it out: give a longer list"
        )
    stay, held_out = split_off([classes.index(entry.class_name) for entry in entries], sources, _FOLDS)
    return {"train": [entries[i] for i in stay], "val": [entries[i] for i in held_out], "test": list(lists["test"])}


def source_of(entry: Entry) -> str:
    """The name of the film or home video that a clip was cut from; ValueError for a name that has not its class in it."""
    source, _, rest = entry.name.rpartition(f"_{entry.class_name}_")
    if not source or not rest:
        raise ValueError(
            f"the name '{entry.name}' is not 'source_{entry.class_name}_...': JHMDB's clips have the names of HMDB51's"
        )
    return source


def write_jhmdb(
    output: str | Path,
    directory: str | Path,
    videos: str | Path,
    *,
    split: int = 1,
    motion: bool = False,
    boxes: str | Path | None = None,
) -> dict[str, tuple[int, list[str]]]:
    """Write train.csv, val.csv, test.csv and classes.txt into `output`, and boxes.csv where `boxes` are given.

    directory, split: as of `read_jhmdb`. videos: the folder that holds the videos. motion: the MOTION_CLASSES alone. boxes: a csv (see
    `read_frame_boxes`), or the published folder of masks (CLASS/VIDEO/puppet_mask.mat), around which boxes are put. Returns and raises as
    `write_lists`; ValueError too for a video without boxes.
    """
    lists, names = read_jhmdb(directory, split)
    if motion:
        names = [name for name in names if name in MOTION_CLASSES]
        lists = {part: [entry for entry in entries if entry.class_name in names] for part, entries in lists.items()}
    done = write_lists(output, with_validation(lists), videos, names)
    if boxes is not None:
        written = [Path(output) / f"{part}.csv" for part, (count, _) in done.items() if count]
        paths = [Path(os.path.realpath(video.path)) for path in written for video in read_whole_videos(path, names)]
        own = _boxes_of_masks(paths, Path(boxes)) if Path(boxes).is_dir() else _boxes_of(paths, boxes)
        write_frame_boxes(Path(output) / "boxes.csv", {str(relative_path(path, Path(output))): own[path] for path in paths})
    return done


def _boxes_of(paths: Sequence[Path], csv_path: str | Path) -> dict[Path, FrameBoxes]:
    found = read_frame_boxes(csv_path)
    missing = [path for path in paths if str(path) not in found]
    if missing:
        raise ValueError(
            f"'{csv_path}' has no boxes of '{missing[0]}' ({len(missing)} such videos); relative paths start at the csv's folder"
        )
    return {path: found[str(path)] for path in paths}


def _boxes_of_masks(paths: Sequence[Path], masks: Path) -> dict[Path, FrameBoxes]:
    return {
        path: _boxes_of_mask(masks / path.parent.name / path.stem / "puppet_mask.mat")
        for path in progress_bar(paths, "masks", len(paths), unit="video")
    }


def _boxes_of_mask(path: Path) -> FrameBoxes:
    """The box around the person in each frame of a puppet_mask.mat that shows one."""
    import scipy.io  # scikit-learn needs it

    if not path.is_file():
        raise FileNotFoundError(f"there is no file of masks '{path}': download puppet_mask.zip as datasets/JHMDB.md says")
    try:
        mask_HWT = np.asarray(scipy.io.loadmat(str(path))[_MASK_ENTRY])
    except Exception as error:  # damaged files raise errors of any kind
        raise ValueError(f"'{path}' is no .mat file with an entry '{_MASK_ENTRY}' ({error}): download it again") from error
    if mask_HWT.ndim != 3:
        raise ValueError(f"'{path}': '{_MASK_ENTRY}' has the shape {mask_HWT.shape} and must be height, width, frames")
    return {frame: [_box_around(mask_HWT[..., frame] > 0)] for frame in range(mask_HWT.shape[2]) if mask_HWT[..., frame].any()}


def _box_around(mask_HW: np.ndarray) -> Box:
    rows, columns = mask_HW.any(1).nonzero()[0], mask_HW.any(0).nonzero()[0]
    height, width = mask_HW.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
