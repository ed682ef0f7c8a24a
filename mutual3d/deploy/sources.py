"""What predictions are asked of: files, folders, patterns of names, arrays."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch

from mutual3d.data.datasets.kinetics import path_in_list, read_rows
from mutual3d.data.datasets.labels import split_segment_row
from mutual3d.data.datasets.lists import place_of
from mutual3d.data.prepare.extraction import VIDEO_SUFFIXES
from mutual3d.data.video.reader import VideoReader
from mutual3d.data.video.stills import has_image_name
from mutual3d.utils.files import files_under

# Files that name others.
_LIST_SUFFIXES = (".txt", ".csv")

Array = torch.Tensor | np.ndarray
Source = str | os.PathLike | Array | Sequence[str | os.PathLike | Array]


class ArrayReader(VideoReader):
    """Frames that are in memory already, uint8 T, H, W, 3 in RGB, as a video of `fps` frames a second."""

    def __init__(self, frames_THWC: np.ndarray, fps: float, name: str) -> None:
        self._frames, self.fps, self.path, self.num_frames = frames_THWC, float(fps), name, len(frames_THWC)

    def frame_times(self) -> np.ndarray:
        return np.arange(self.num_frames) / self.fps

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in self._check_indices(indices):
            yield index, self._frames[index]


def is_array(source: object) -> TypeGuard[Array]:
    return isinstance(source, (torch.Tensor, np.ndarray))


def list_sources(source: Source) -> list[Path | Array]:
    """The files and arrays of a source: a file, a folder, a pattern such as `videos/*.mp4`, an array, or a list of these.

    Raises FileNotFoundError for a folder or a pattern without videos and images, TypeError for anything else.
    """
    if is_array(source):
        return [source]
    if isinstance(source, (str, os.PathLike)):
        return list(list_inputs([source]))
    if isinstance(source, Iterable):
        return [each for part in source for each in list_sources(part)]
    raise TypeError(f"the source is a {type(source).__name__}: give a file, a folder, a pattern, an array, or a list of these")


def list_inputs(names: Sequence[str | os.PathLike]) -> list[Path]:
    """The files to look at: those that are named, or match a pattern, and the videos and images in the folders that are.

    Raises FileNotFoundError for a folder that holds neither, and for a pattern that nothing matches.
    """
    paths: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            paths += _files_of(path)
        elif glob.has_magic(str(path)) and not path.exists():
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            if not matches:
                raise FileNotFoundError(f"nothing matches '{name}'")
            paths += [found for match in matches for found in ([match] if match.is_file() else _files_of(match, empty=True))]
        else:
            paths.append(path)
    return paths


def list_archive(names: Sequence[str | os.PathLike]) -> list[str]:
    """The files of an archive, as text: what `list_inputs` finds, and what lists of files (.txt, .csv) name.

    A list has one path a line; in a csv a label may follow, or start, end and label, as in lists for training, and is left out: a file
    with several stretches is one. A relative path starts at the list's own folder. Raises FileNotFoundError as `list_inputs`, ValueError with the line of a list for what is no path.
    """
    found: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        is_list = path.suffix.lower() in _LIST_SUFFIXES and not path.is_dir()
        found += _paths_of_list(path) if is_list else map(str, list_inputs([name]))
    return found


def _paths_of_list(path: Path) -> Iterator[str]:
    stretches = set[str]()
    for line, row in read_rows(path, "path"):
        place = place_of(path, line)
        has_label = path.suffix.lower() == ".csv" and " " in row
        name, seconds, _ = split_segment_row(row, place, " ") if has_label else (row, None, "")
        found = path_in_list(name, path, "", place)
        if seconds is None or found not in stretches:
            yield found
        if seconds is not None:
            stretches.add(found)


def _files_of(folder: Path, empty: bool = False) -> list[Path]:
    files = (path for path in files_under(folder) if not path.name.startswith("."))
    found = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or has_image_name(path)]
    if not found and not empty:
        raise FileNotFoundError(f"there are no videos and no images in the folder '{folder}'")
    return found


def frames_of(array: Array) -> np.ndarray | None:
    """uint8 T, H, W, 3 of an array of frames, or of one H, W, 3; None where the last dimension is no colours.

    Raises ValueError for frames of another type.
    """
    if array.ndim not in (3, 4) or array.shape[-1] != 3:
        return None
    frames = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    if frames.dtype != np.uint8:
        raise ValueError(
            f"the frames {tuple(frames.shape)} are of type {frames.dtype}: give uint8 pixels from 0 to 255 "
            "(clip.astype('uint8')), T, H, W, 3 in RGB"
        )
    if not frames.size:
        raise ValueError(f"the frames are {tuple(frames.shape)}: there are none")
    return frames[None] if frames.ndim == 3 else frames
