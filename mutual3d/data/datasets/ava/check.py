"""Finding what is wrong with a copy of AVA before training does."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mutual3d.data.datasets.ava.annotations import (
    NUM_ACTIONS,
    read_ava_frames,
    read_excluded,
    read_label_map,
    scan_boxes,
)
from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.video.reader import VideoError
from mutual3d.data.workers.pool import OPTIONS, WorkerPool
from mutual3d.utils.logging import progress_bar


def check_ava(
    *,
    frame_dir: str | Path,
    frame_lists: Sequence[str | Path],
    ground_truth: Sequence[str | Path] = (),
    detected: Sequence[str | Path] = (),
    label_map: str | Path | None = None,
    excluded: str | Path | None = None,
    num_classes: int = NUM_ACTIONS,
    fps: float = 30,
    first_second: int = 900,
    full: bool = False,
    num_workers: int = 0,
    timeout: float = 0.0,
) -> Iterator[tuple[str, str]]:
    """Yield (place, cause), both in words, for everything that is wrong; nothing where all is well.

    Looks at every row of the frame lists and of the box files (`ground_truth`, `detected`: paths), at the label map and the
    excluded timestamps where they are given, at the presence of every frame, and at the images of each video's first,
    middle and last frame; with `full` at every image. With `num_workers` processes an image that crashes its decoder, or
    takes more than `timeout` seconds (0: any time), is a problem like others; without any, it ends or stops this process.
    """
    frames = None
    try:
        frames = read_ava_frames(frame_lists, frame_dir, fps=fps, first_second=first_second)
    except (ValueError, FileNotFoundError) as error:
        yield "frame lists", str(error)
    for paths, detection in ((ground_truth, False), (detected, True)):
        for path in paths:
            yield from _check_boxes(path, detected=detection, num_classes=num_classes, frames=frames)
    yield from _try("label map", label_map, lambda: read_label_map(label_map, num_classes))
    yield from _try("excluded timestamps", excluded, lambda: read_excluded(excluded))
    if frames is not None:
        pool = WorkerPool(_Checker(frames), num_workers, timeout=timeout, settings=OPTIONS)
        try:
            tasks = (_looks_at(frames, video, full) for video in frames.videos)
            for found in progress_bar(pool.map(tasks), "frames", len(frames.videos), unit="video"):
                yield from found
        finally:
            pool.close()


def _check_boxes(path, **arguments):
    rows = 0
    try:
        for rows, (place, _, cause) in enumerate(scan_boxes(path, **arguments), start=1):  # noqa: B007 - read after the loop
            if cause:
                yield place, cause
    except FileNotFoundError as error:
        yield "boxes", str(error)
        return
    if not rows:
        yield f"'{path}'", "the file of boxes is empty"


def _try(place, path, read):
    if path is not None:
        try:
            read()
        except (ValueError, FileNotFoundError) as error:
            yield place, str(error)


class _Checker:
    """The job of the workers; a key is (video, position of a frame), or (video, None) for the presence of all frames."""

    def __init__(self, frames) -> None:
        self._frames = frames

    def read(self, key):
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

    def join(self, items):
        return [item for item in items if item]

    def name(self, key):
        video, position = key
        return f"video '{video}'" if position is None else f"'{self._frames.open(video).path_of(position)}'"

    def lost(self, key, cause):
        return self.name(key), cause


def _looks_at(frames, video, full):
    """The keys of a video: all frames are to be there; all, or the first, middle and last, to be images."""
    last = len(frames.videos[video].paths) - 1
    return [(video, None), *((video, i) for i in (range(last + 1) if full else sorted({0, last // 2, last})))]


def _find_missing(reader, video):
    paths = [reader.path_of(i) for i in range(reader.num_frames)]
    present = {str(entry) for folder in {os.path.dirname(path) for path in paths} for entry in _entries(folder)}
    missing = [path for path in paths if path not in present]
    if not missing:
        return None
    return f"video '{video}'", f"{len(missing)} of its {len(paths)} frames are missing, the first is '{missing[0]}'"


def _entries(folder):
    """Paths of the files of a folder: one look at it is far faster than one at each of thousands of files."""
    return [entry.path for entry in os.scandir(folder)] if Path(folder).is_dir() else []
