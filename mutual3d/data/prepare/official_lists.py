"""From the files that data sets are published with to lists of videos: train.csv, val.csv, test.csv and classes.txt.

Each reader gives `Entry`s, videos by name, and `write_lists` finds the videos in a folder, whatever folders are in it.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mutual3d.data.datasets.charades import TimedVideo, is_official_csv, read_charades
from mutual3d.data.datasets.kinetics import Video, read_video_list, write_lines
from mutual3d.data.datasets.labels import list_row
from mutual3d.data.datasets.lists import existing_file, parse_decimal, place_of, read_lines, read_table, shown
from mutual3d.data.prepare.extraction import list_videos, write_frame_rows
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.logging import progress_bar

_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_HMDB51_SUFFIX = "_test_split{}.txt"
# What a video is for in HMDB51's files: 0 is left out.
_HMDB51_SPLITS = {"0": None, "1": "train", "2": "test"}


class Entry(NamedTuple):
    """A video of a published list: the folder it may lie in, its name without ending, its class's name."""

    folder: str
    name: str
    class_name: str


def read_whole_videos(csv_path: str | Path, class_names: Sequence[str]) -> list[Video]:
    """The videos of a list that has rows `path label` alone. class_names: by label.

    Raises as `read_video_list`, for a label without a name too, and ValueError for a row of a stretch of a video.
    """
    videos = read_video_list(csv_path, num_classes=len(class_names))
    whole = [video for video in videos if isinstance(video, Video)]
    if len(whole) < len(videos):
        stretch = next(video for video in videos if video not in whole)
        raise ValueError(
            f"'{csv_path}' lists seconds of a video, the first of '{stretch.path}' ({len(videos) - len(whole)} such rows): what is made of it is "
            "of whole videos; cut the stretches into files of their own, and write rows 'path label'"
        )
    return whole


def read_kinetics(csv_path: str | Path) -> list[Entry]:
    """The entries of one of Kinetics' csv files (label, youtube_id, time_start, time_end, ...)."""
    table = read_table(_existing(csv_path))
    _, header = next(table, (1, []))
    header = [name.strip() for name in header]
    missing = [name for name in _KINETICS_COLUMNS if name not in header]
    if missing:
        raise ValueError(f"{place_of(csv_path, 1)}: no column {', '.join(missing)}; needed: {', '.join(_KINETICS_COLUMNS)}")
    entries = [_kinetics_entry(header, row, place_of(csv_path, line)) for line, row in table]
    if not entries:
        raise ValueError(f"'{csv_path}' is empty: it has a header and no video")
    return entries


def _kinetics_entry(header: Sequence[str], row: Sequence[str], place: str) -> Entry:
    columns = dict(zip(header, row))
    if len(row) != len(header) or not columns["label"].strip() or not columns["youtube_id"].strip():
        raise ValueError(f"{place}: {shown(','.join(row))} has not the {len(header)} columns of the header, or no label or no id")
    start, end = parse_decimal(columns["time_start"]), parse_decimal(columns["time_end"])
    if start is None or end is None or not 0 <= start <= end:
        raise ValueError(f"{place}: {shown(','.join(row))} has no times in seconds, 0 or more and the start before the end")
    return Entry(columns["label"], f"{columns['youtube_id']}_{int(start):06d}_{int(end):06d}", columns["label"])


def read_ucf101(directory: str | Path, split: int) -> tuple[dict[str, list[Entry]], list[str]]:
    """({"train": entries, "test": entries}, class names) of UCF101's folder ucfTrainTestlist; `split` 1, 2 or 3."""
    directory = Path(directory)
    names = []
    for place, words in _word_rows(directory / "classInd.txt"):
        if len(words) != 2 or words[0] != str(len(names) + 1):
            raise ValueError(f"{place}: {shown(' '.join(words))} is not '{len(names) + 1} ClassName'")
        names.append(words[1])
    lists = {}
    for part in ("train", "test"):
        lists[part] = []
        for place, words in _word_rows(directory / f"{part}list{split:02d}.txt"):
            path = Path(words[0])
            if path.parent.name not in names:
                raise ValueError(f"{place}: {shown(words[0])} is in no folder of classInd.txt")
            lists[part].append(Entry(path.parent.name, path.stem, path.parent.name))
    return lists, names


def read_hmdb51(directory: str | Path, split: int) -> tuple[dict[str, list[Entry]], list[str]]:
    """({"train": entries, "test": entries}, class names) of HMDB51's folder testTrainMulti_7030_splits; `split` 1, 2, 3."""
    directory, suffix = Path(directory), _HMDB51_SUFFIX.format(split)
    files = sorted(directory.glob(f"*{suffix}"))
    if not files:
        raise FileNotFoundError(f"there are no files '*{suffix}' in '{directory}'")
    lists = {"train": [], "test": []}
    for file in files:
        class_name = file.name.removesuffix(suffix)
        for place, words in _word_rows(file):
            if len(words) != 2 or words[1] not in _HMDB51_SPLITS:
                raise ValueError(f"{place}: {shown(' '.join(words))} is not 'video.avi 0', 1 (train) or 2 (test)")
            part = _HMDB51_SPLITS[words[1]]
            if part:
                lists[part].append(Entry(class_name, Path(words[0]).stem, class_name))
    return lists, [file.name.removesuffix(suffix) for file in files]


def write_lists(
    output: str | Path, lists: Mapping[str, Sequence[Entry]], videos: str | Path, class_names: Sequence[str]
) -> dict[str, tuple[int, list[str]]]:
    """Write `{split}.csv` for each of `lists` ({split: entries}) and classes.txt into `output`.

    `videos` is the folder that holds the videos; rows are paths relative to `output`. Returns {split: (number of rows,
    names of the videos that are not there)}. Raises ValueError for an entry of an unknown class, for a name that several
    files bear, and where not one video is found. class_names: in the order of their labels.
    """
    output = ensure_directory(output)
    files = _Files(videos)
    label_of_class = {name: label for label, name in enumerate(class_names)}
    twice = [name for name, count in Counter(class_names).items() if count > 1]
    if twice:
        raise ValueError(f"two classes have the name {shown(twice[0])}: their labels could not be told apart")
    unknown = {entry.class_name for entries in lists.values() for entry in entries} - label_of_class.keys()
    if unknown:
        raise ValueError(f"'{min(unknown)}' is none of the {len(class_names)} classes: give the list of the classes in use")
    found = {split: [(files.find(entry), entry) for entry in entries] for split, entries in lists.items()}
    if not any(path for pairs in found.values() for path, _ in pairs):
        example = next((f", e.g. '{entry.name}'" for entries in lists.values() for entry in entries), ": they are empty")
        raise FileNotFoundError(f"no video of the lists is in '{videos}'{example}")
    for split, pairs in found.items():
        rows = [list_row(str(relative_path(path, output)), label_of_class[entry.class_name]) for path, entry in pairs if path]
        write_lines(output / f"{split}.csv", rows)
    write_lines(output / "classes.txt", class_names)
    missing = {split: [entry.name for path, entry in pairs if not path] for split, pairs in found.items()}
    return {split: (len(found[split]) - len(missing[split]), missing[split]) for split in found}


def write_charades_frames(
    csv_path: str | Path, annotations: str | Path, frames: str | Path, fps: float = 24, num_classes: int = 157
) -> tuple[int, list[str]]:
    """Write the frame list of the videos of Charades' own csv `annotations`, whose frames lie in `frames`/id/.

    A video's images, sorted by name, show it from its start at `fps`. Paths are relative to `frames`. Returns (number of
    videos, ids of those without frames). Raises FileNotFoundError where there are no frames at all.
    """
    annotations = _existing(annotations)
    if not 1e-3 <= fps <= 1e3:
        raise ValueError(f"--fps is {fps}: give the rate of the frames, 0.001 to 1000 a second, 24 for Charades")
    if not is_official_csv(annotations):
        raise ValueError(f"'{annotations}' must be one of Charades' own csv files, with the columns id, script, actions")
    videos = read_charades(annotations, num_classes=num_classes)
    images = {Path(video.path).stem: _images(Path(frames) / Path(video.path).stem) for video in videos}
    missing = [name for name, paths in images.items() if not paths]
    if len(missing) == len(images):
        raise FileNotFoundError(f"there are no frames of the videos of '{annotations}' in '{frames}', e.g. '{missing[0]}/'")
    write_frame_rows(csv_path, _frame_rows(videos, images, fps))
    return len(images) - len(missing), missing


def _frame_rows(
    videos: Sequence[TimedVideo], images: Mapping[str, Sequence[str]], fps: float
) -> Iterator[tuple[str, int, int, str, str]]:
    present = [video for video in videos if images[Path(video.path).stem]]
    for number, video in enumerate(progress_bar(present, "frames", unit="video")):
        name = Path(video.path).stem
        for frame, path in enumerate(images[name]):
            labels = sorted({label for label, start, end in video.actions if start <= frame / fps <= end})
            yield name, number, frame, f"{name}/{path}", ",".join(map(str, labels))


def _images(directory: Path) -> list[str]:
    """Names of the images of a folder, in the order of the numbers that they end in: 10 follows 9."""
    names = [path.name for path in directory.glob("*.jpg")] if directory.is_dir() else []
    return sorted(names, key=lambda name: [(len(part), part) if part.isdigit() else (0, part) for part in re.split("([0-9]+)", name)])


class _Files:
    """The videos below a folder, by name."""

    def __init__(self, directory: str | Path) -> None:
        self._paths = defaultdict(list)
        for path in list_videos(directory):
            self._paths[path.stem].append(path)

    def find(self, entry: Entry) -> Path | None:
        """The entry's file, None when there is none. Where several bear the name, the one in its class's folder."""
        paths = self._paths.get(entry.name, [])
        if len(paths) > 1:
            paths = [path for path in paths if path.parent.name == entry.folder] or paths
        if len(paths) > 1:
            raise ValueError(f"'{paths[0]}' and '{paths[1]}' have the same name: keep one of them")
        return paths[0] if paths else None


def relative_path(path: Path, output: Path) -> Path:
    """`path` as a list in the folder `output` has it: relative to the folder where it lies in it, else whole."""
    path, output = path.resolve(), output.resolve()
    return path.relative_to(output) if path.is_relative_to(output) else path


def _existing(path: str | os.PathLike) -> Path:
    return existing_file(path, "file", "download it as the data set's page in datasets/ says")


def _word_rows(path: str | os.PathLike) -> list[tuple[str, list[str]]]:
    """(place, words) of each line that is not blank; ValueError for a file without any."""
    rows = [(place_of(path, line), text.split()) for line, text in read_lines(_existing(path)) if text.strip()]
    if not rows:
        raise ValueError(f"'{path}' is empty: download it again")
    return rows

