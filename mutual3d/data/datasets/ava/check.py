"""Finding what is wrong with a copy of AVA before training does."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutual3d.data.datasets.ava.annotations import (
    NUM_ACTIONS,
    AvaFrames,
    read_ava_frames,
    read_excluded,
    read_label_map,
    scan_boxes,
)
from mutual3d.data.datasets.check import Checked, CheckFlag, CheckOptions, ListToCheck, SetCheck
from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.datasets.lists import user_path
from mutual3d.data.video.frame_list_reader import FrameListReader
from mutual3d.data.video.reader import VideoError
from mutual3d.data.workers.pool import OPTIONS, WorkerPool
from mutual3d.utils.command_line import path_argument, positive_argument
from mutual3d.utils.logging import progress_bar
from mutual3d.utils.text import printable

# A video, and the position of a frame, or None for the presence of all.
_Key = tuple[str, int | None]
# Place and cause.
_Problem = tuple[str, str]


@dataclass(frozen=True)
class AvaFiles:
    """The files of a copy of AVA: frame lists and the folder of their frames; boxes that people drew and that a detector found;
    the label map and the timestamps that do not count, None where there is none."""

    frame_dir: str | Path
    frame_lists: Sequence[str | Path]
    ground_truth: Sequence[str | Path] = ()
    detected: Sequence[str | Path] = ()
    label_map: str | Path | None = None
    excluded: str | Path | None = None


def check_ava(
    files: AvaFiles,
    *,
    num_classes: int = NUM_ACTIONS,
    fps: float = 30,
    first_second: int = 900,
    how: CheckOptions = CheckOptions(),
) -> Iterator[tuple[str, str]]:
    """Yield (place, cause), both in words, for everything that is wrong; nothing where all is well.

    Looks at every row of the frame lists and of the box files, at the label map and the excluded timestamps where they are
    given, at the presence of every frame, and at the images of each video's first, middle and last frame; or at every image.
    fps, first_second: of `AvaFrames`.
    """
    frames = None
    try:
        frames = read_ava_frames(files.frame_lists, files.frame_dir, fps=fps, first_second=first_second)
    except (ValueError, FileNotFoundError) as error:
        yield "frame lists", str(error)
    for paths, detection in ((files.ground_truth, False), (files.detected, True)):
        for path in paths:
            yield from _check_boxes(path, detected=detection, num_classes=num_classes, frames=frames)
    yield from _try("label map", files.label_map, lambda path: read_label_map(path, num_classes))
    yield from _try("excluded timestamps", files.excluded, read_excluded)
    if frames is not None:
        pool = WorkerPool(_Checker(frames), how.num_workers, timeout=how.timeout, settings=OPTIONS)
        try:
            tasks = (_looks_at(frames, video, how.full) for video in frames.videos)
            for found in progress_bar(pool.map(tasks), "frames", len(frames.videos), unit="video"):
                yield from found
        finally:
            pool.close()


def _check_boxes(
    path: str | Path, *, detected: bool, num_classes: int, frames: AvaFrames | None
) -> Iterator[tuple[str, str]]:
    rows = 0
    try:
        scanned = scan_boxes(path, detected=detected, num_classes=num_classes, frames=frames)
        for rows, (place, _, cause) in enumerate(scanned, start=1):  # noqa: B007 - read after the loop
            if place and cause:
                yield place, cause
    except FileNotFoundError as error:
        yield "boxes", str(error)
        return
    if not rows:
        yield f"'{path}'", "the file of boxes is empty"


def _try(
    place: str, path: str | Path | None, read: Callable[[str | Path], object]
) -> Iterator[tuple[str, str]]:
    if path is not None:
        try:
            read(path)
        except (ValueError, FileNotFoundError) as error:
            yield place, str(error)


def _check_copy(given: ListToCheck, how: CheckOptions) -> Checked:
    own = given.own
    files = AvaFiles(
        given.path_prefix or user_path(given.csv).parent, [given.csv], own["ground-truth"], own["detected"], own["label-map"],
        own["excluded"],
    )  # fmt: skip
    found = check_ava(
        files, num_classes=given.num_classes or NUM_ACTIONS, fps=own["fps"], first_second=own["first-second"], how=how
    )
    return Checked(("place", "cause"), found, printable(f"'{given.csv}' checked").replace("{", "{{").replace("}", "}}") + ", {} problems")


AVA_CHECK = SetCheck(
    _check_copy,
    flags=(
        CheckFlag("ground-truth", "csv files of boxes that people drew", path_argument, (), many=True),
        CheckFlag("detected", "csv files of boxes that a detector found", path_argument, (), many=True),
        CheckFlag("label-map", "pbtxt of the evaluated classes", path_argument),
        CheckFlag("excluded", "csv of the timestamps that do not count", path_argument),
        CheckFlag("fps", "frames a second; default: %(default)s", positive_argument, 30),
        CheckFlag("first-second", "what frame 0 shows; default: %(default)s", int, 900),
    ),
)


class _Checker:
    """The job of the workers; a key is (video, position of a frame), or (video, None) for the presence of all frames."""

    def __init__(self, frames: AvaFrames) -> None:
        self._frames = frames

    def read(self, key: _Key) -> _Problem | None:
        """(place, cause), or None where all is well."""
        video, position = key
        reader = self._frames.open(video)
        if position is None:
            return _find_missing(reader, video)
        path = reader.path_of(position)
        try:
            if os.path.exists(path):
                reader.read([position])
        except VideoError as error:
            return f"'{error.path}'", error.cause
        except Exception as error:
            return f"'{path}'", describe_failure(error)
        return None

    def join(self, items: list[_Problem | None]) -> list[_Problem]:
        return [item for item in items if item]

    def name(self, key: _Key) -> str:
        video, position = key
        return f"video '{video}'" if position is None else f"'{self._frames.open(video).path_of(position)}'"

    def lost(self, key: _Key, cause: str) -> _Problem:
        return self.name(key), cause


def _looks_at(frames: AvaFrames, video: str, full: bool) -> list[_Key]:
    """The keys of a video: all frames are to be there; all, or the first, middle and last, to be images."""
    last = len(frames.videos[video].paths) - 1
    return [(video, None), *((video, i) for i in (range(last + 1) if full else sorted({0, last // 2, last})))]


def _find_missing(reader: FrameListReader, video: str) -> _Problem | None:
    paths = [reader.path_of(i) for i in range(reader.num_frames)]
    present = {str(entry) for folder in {os.path.dirname(path) for path in paths} for entry in _entries(folder)}
    missing = [path for path in paths if path not in present]
    if not missing:
        return None
    return f"video '{video}'", f"{len(missing)} of its {len(paths)} frames are missing, the first is '{missing[0]}'"


def _entries(folder: str) -> list[str]:
    """Paths of the files of a folder: one look at it is far faster than one at each of thousands of files."""
    return [entry.path for entry in os.scandir(folder)] if Path(folder).is_dir() else []
