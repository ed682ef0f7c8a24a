"""Lists that leave out one group of videos at a time: a person that acts, or a film that clips were cut from."""

from pathlib import Path

from mutual3d.data.datasets.kinetics import Video, read_video_list, write_lines
from mutual3d.data.datasets.labels import list_row, read_class_names
from mutual3d.data.datasets.segments import VideoSegment
from mutual3d.data.prepare.official_lists import relative_path
from mutual3d.utils.files import ensure_directory


def group_of(path: str | Path) -> str:
    """What stands before the first _ in a video's name: daria of bend/daria_bend.avi."""
    return Path(path).stem.partition("_")[0]


def write_leave_one_out(output: str | Path, directory: str | Path) -> dict[str, tuple[int, list[str]]]:
    """Write a folder for each group of videos, fold_1 for the first by name: its val.csv has that group, its train.csv all others.

    Args:
        output: folder of the folders.
        directory: has train.csv, val.csv, or both, whose videos are taken together; the classes.txt there goes into each folder.

    Returns:
        {fold_1/train: (number of videos, names of those that are not there and are left out)}.

    Raises FileNotFoundError where the lists are not there, and ValueError for what they get wrong and for fewer than two groups.
    """
    directory, output = Path(directory), Path(output)
    paths = [path for split in ("train", "val") if (path := directory / f"{split}.csv").is_file()]
    if not paths:
        raise FileNotFoundError(f"there is neither a train.csv nor a val.csv in '{directory}': one of them is needed, a line `path label` for each video")
    classes = read_class_names(directory / "classes.txt") if (directory / "classes.txt").is_file() else []
    videos = [video for path in paths for video in read_video_list(path)]
    groups = sorted({group_of(video.path) for video in videos if Path(video.path).is_file()})
    if len(groups) < 2:
        raise ValueError(
            f"the videos of '{paths[0]}' that are there are of {len(groups)} group{'s' * (not groups)}{''.join(f', {name}' for name in groups)}: a group is "
            "what stands before the first _ of a name (daria_bend.avi), and two or more are needed"
        )
    written = {}
    for number, left_out in enumerate(groups, start=1):
        folder = ensure_directory(output / f"fold_{number}")
        for split, is_val in (("train", False), ("val", True)):
            own = [video for video in videos if (group_of(video.path) == left_out) is is_val]
            there = [video for video in own if Path(video.path).is_file()]
            write_lines(folder / f"{split}.csv", [_row(video, folder) for video in there])
            written[f"{folder.name}/{split}"] = len(there), [video.path for video in own if video not in there]
        if classes:
            write_lines(folder / "classes.txt", classes)
    return written


def _row(video: Video | VideoSegment, folder: Path) -> str:
    seconds = (video.start, video.end) if isinstance(video, VideoSegment) else None
    return list_row(str(relative_path(Path(video.path), folder)), video.label, seconds=seconds)
