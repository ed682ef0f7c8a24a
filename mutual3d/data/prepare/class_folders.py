"""From a person's own videos, a folder a class or one list, to train, val and test lists."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from mutual3d.data.datasets.kinetics import read_video_list, write_lines
from mutual3d.data.datasets.labels import list_row, read_class_names
from mutual3d.data.datasets.segments import VideoSegment
from mutual3d.data.prepare.extraction import list_videos
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.logging import progress_bar

# One fold is the validation set, one the test set, the other five train.
_FOLDS = 7
_FEWEST_FOLDS = 3
# Seconds of background that are a stretch of their own.
_SHORTEST_BACKGROUND = 1.0


@dataclass(frozen=True)
class LabelledVideos:
    """Videos, absolute paths, with the position of each one's class in `classes`.

    seconds: of a stretch of a video its start and its end, None for a whole one; () where all are whole.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    seconds: tuple[tuple[float, float] | None, ...] = ()


def read_labelled_videos(source: str | Path, separator: str = " ") -> LabelledVideos:
    """The videos of a folder that holds a folder for each class, or of a list `path label` or `path start end label`.

    A class folder's videos may lie in folders of their own. A list's labels are numbers, whose names are read from
    classes.txt beside it where it is there. Raises FileNotFoundError for what is not there, and ValueError for a folder
    without class folders, for fewer than two classes, and for what the list gets wrong. separator: what stands between path
    and label in a list.
    """
    source = Path(source).expanduser()
    found = _read_list(source, separator) if source.is_file() else _read_folders(source)
    if len(found.classes) < 2:
        raise ValueError(f"'{source}' has the one class '{found.classes[0]}': a network needs two or more to tell apart")
    return found


def _read_folders(root: Path) -> LabelledVideos:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder or list '{root}': give a folder that holds a folder of videos for each class")
    videos = list_videos(root)
    stray = [path for path in videos if path.parent == root]
    if stray:
        raise ValueError(
            f"'{stray[0]}' lies in no class folder ({len(stray)} such videos): put the videos of each class in a folder of its "
            "own, as in walk/1.mp4 and run/2.mp4, or give a list of rows 'path label'"
        )
    names = [path.relative_to(root).parts[0] for path in videos]
    classes = tuple(sorted(set(names)))
    return LabelledVideos(tuple(path.absolute() for path in videos), tuple(map(classes.index, names)), classes)


def _read_list(path: Path, separator: str) -> LabelledVideos:
    videos = read_video_list(path, separator=separator)
    used = sorted({video.label for video in videos})
    names_path = path.parent / "classes.txt"
    names = read_class_names(names_path) if names_path.is_file() else [str(label) for label in range(used[-1] + 1)]
    if used[-1] >= len(names):
        raise ValueError(f"'{path}' has the label {used[-1]} and '{names_path}' names {len(names)} classes, from 0")
    # Classes that have no video would be outputs that nothing trains.
    classes = tuple(names[label] for label in used)
    paths = tuple(Path(video.path).absolute() for video in videos)
    seconds = tuple((video.start, video.end) if isinstance(video, VideoSegment) else None for video in videos)
    return LabelledVideos(paths, tuple(used.index(video.label) for video in videos), classes, seconds if any(seconds) else ())


def with_background(videos: LabelledVideos, name: str) -> LabelledVideos:
    """The same, and what lies before, between and behind the stretches of a video, a second or longer, as stretches of the class `name`.

    A video that cannot be read has none: its own stretches tell it. Raises ValueError where the list has no stretches.
    """
    if not any(videos.seconds):
        raise ValueError(f"--background {name} is what lies between stretches, and there are none: give a list of rows 'path start end label'")
    classes = videos.classes if name in videos.classes else (*videos.classes, name)
    stretches: dict[Path, list[tuple[float, float]]] = {}
    for path, seconds in zip(videos.paths, videos.seconds):
        if seconds is not None:
            stretches.setdefault(path, []).append(seconds)
    paths, found = list(videos.paths), list(videos.seconds)
    for path, own in progress_bar(stretches.items(), "look for background", len(stretches), unit="video"):
        try:
            with open_video(path) as reader:
                begin, last = reader.time_of(0), reader.duration
        except VideoError:
            continue
        for start, end in [*sorted(own), (last, last)]:
            if start - begin >= _SHORTEST_BACKGROUND:
                paths.append(path)
                found.append((round(begin, 3), round(start, 3)))
            begin = max(begin, end)
    added = (classes.index(name),) * (len(paths) - len(videos.paths))
    return LabelledVideos(tuple(paths), (*videos.labels, *added), classes, tuple(found))


def groups_of(videos: LabelledVideos, pattern: str | None) -> list[str]:
    """What each video's group is called: the first group of `pattern` (a regular expression) in its path, or all that matches.

    Videos of one group, such as those of one person, share a split. None makes every video a group of its own. Raises
    ValueError for a pattern that is none, or that a path does not match.
    """
    if pattern is None:
        return [str(path) for path in videos.paths]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--group {pattern!r} is no regular expression: {error}") from None
    matches = [expression.search(str(path)) for path in videos.paths]
    groups = []
    for path, match in zip(videos.paths, matches):
        if match is None:
            raise ValueError(f"--group {pattern!r} does not match '{path}': it must match the path of every video")
        groups.append(match[1] if expression.groups else match[0])
    return groups


def split_videos(labels: Sequence[int], groups: Sequence[str], seed: int = 0) -> dict[str, list[int]]:
    """Positions of the videos of "train", "val" and "test": about 5/7, 1/7 and 1/7 of each class, each group in one split.

    Fewer groups than seven make larger shares of val and test, at most a third each. Raises ValueError for fewer than three
    groups, and where no class has three videos. labels: of each video. groups: the name of each video's group.
    """
    num_groups, fewest = len(set(groups)), min(Counter(labels).values())
    if num_groups < _FEWEST_FOLDS:
        raise ValueError(
            f"the videos form {num_groups} group{'s' if num_groups > 1 else ''}: three or more are needed, so that train, val "
            "and test have one each"
        )
    if max(Counter(labels).values()) < _FEWEST_FOLDS:
        raise ValueError("no class has three videos: each wants three or more, so that train, val and test have one of it")
    folds = max(_FEWEST_FOLDS, min(_FOLDS, num_groups, fewest))
    test, val, *train = (part for part in sorted(_folds(labels, groups, folds, seed), key=len))
    return {"train": sorted(i for part in train for i in part), "val": val, "test": test}


def split_off(labels: Sequence[int], groups: Sequence[str], folds: int = 5, seed: int = 0) -> tuple[list[int], list[int]]:
    """Positions of the videos that stay and of those that are held out: about 1 / `folds` of each class, each group on one side.

    labels: of each video. groups: the name of each video's group. Raises ValueError for fewer than two folds, and for fewer groups than
    folds.
    """
    num_groups = len(set(groups))
    if not 2 <= folds <= num_groups:
        raise ValueError(
            f"{folds} folds of {num_groups} groups: a fold needs a group, and two folds or more are needed to hold one out"
        )
    parts = _folds(labels, groups, folds, seed)
    # The fold whose share of every class is nearest to its own: validation should ask of all classes what training teaches.
    held_out = min(parts, key=lambda part: _unevenness(labels, part, folds))
    held = set(held_out)
    return [i for i in range(len(labels)) if i not in held], held_out


def _folds(labels: Sequence[int], groups: Sequence[str], folds: int, seed: int) -> list[list[int]]:
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class of fewer videos than folds is missing in some: `missing_classes` tells which.
        warnings.simplefilter("ignore", UserWarning)
        return [held_out.tolist() for _, held_out in splitter.split(np.zeros(len(labels)), labels, groups)]


def _unevenness(labels: Sequence[int], part: Sequence[int], folds: int) -> float:
    total, own = Counter(labels), Counter(labels[i] for i in part)
    return sum(abs(own[label] / count - 1 / folds) for label, count in total.items())


def missing_classes(videos: LabelledVideos, splits: dict[str, list[int]]) -> dict[str, list[str]]:
    """{split: names of the classes of which it has no video}, for splits that lack one."""
    lacking = {}
    for split, positions in splits.items():
        seen = {videos.labels[i] for i in positions}
        missing = [name for label, name in enumerate(videos.classes) if label not in seen]
        if missing:
            lacking[split] = missing
    return lacking


def write_split_lists(output: str | Path, videos: LabelledVideos, splits: dict[str, list[int]]) -> None:
    """Write `{split}.csv` for each split and classes.txt into `output`. splits: {split: positions of its videos}."""
    output = ensure_directory(output)
    for split, positions in splits.items():
        write_lines(output / f"{split}.csv", [_row(videos, i) for i in positions])
    write_lines(output / "classes.txt", videos.classes)


def _row(videos: LabelledVideos, index: int) -> str:
    return list_row(str(videos.paths[index]), videos.labels[index], seconds=videos.seconds[index] if videos.seconds else None)
