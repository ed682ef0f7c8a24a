"""Finding what is wrong with a copy of AVA before training does."""

import os
from pathlib import Path

from mutual3d.data.ava_annotations import NUM_ACTIONS, read_ava_frames, read_excluded, read_label_map, scan_boxes
from mutual3d.data.reader import VideoError
from mutual3d.utils.logging import progress_bar


def check_ava(
    *,
    frame_dir,
    frame_lists,
    ground_truth=(),
    detected=(),
    label_map=None,
    excluded=None,
    num_classes=NUM_ACTIONS,
    fps=30,
    first_second=900,
    full=False,
):
    """Yield (place, cause), both in words, for everything that is wrong; nothing where all is well.

    Looks at every row of the frame lists and of the box files (`ground_truth`, `detected`: paths), at the label map and the
    excluded timestamps where they are given, at the presence of every frame, and at the images of each video's first,
    middle and last frame; with `full` at every image.
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
        for video in progress_bar(frames.videos, "frames", unit="video"):
            yield from _check_images(frames, video, full)


def _check_boxes(path, **arguments):
    rows = 0
    try:
        for rows, (place, _, cause) in enumerate(scan_boxes(path, **arguments), start=1):
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


def _check_images(frames, video, full):
    reader = frames.open(video)
    last = reader.num_frames - 1
    paths = [reader.path_of(i) for i in range(last + 1)]
    present = {str(entry) for folder in {os.path.dirname(path) for path in paths} for entry in _entries(folder)}
    missing = [path for path in paths if path not in present]
    if missing:
        yield f"video '{video}'", f"{len(missing)} of its {last + 1} frames are missing, the first is '{missing[0]}'"
    for i in range(last + 1) if full else sorted({0, last // 2, last}):
        if paths[i] in present:
            try:
                reader.read([i])
            except VideoError as error:
                yield f"'{error.path}'", error.cause


def _entries(folder):
    """Paths of the files of a folder: one look at it is far faster than one at each of thousands of files."""
    return [entry.path for entry in os.scandir(folder)] if Path(folder).is_dir() else []
