"""What a data set of clips is to the rest of the project, and what it gives."""

import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mutual3d.data.video.reader import VideoError
from mutual3d.utils.files import state_of
from mutual3d.utils.logging import progress_bar


class BadVideo(NamedTuple):
    """A video that could not be read: its position in the list, its path, and the cause in words."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls here
    path: str
    cause: str


class Sample(NamedTuple):
    """All clips of one video: uint8 V, C, T, H, W, its label and its position in the list; for detection, its boxes.

    `label`: an int; or float K, a 1 for each label of several; or float n, K for n boxes; or what another task learns from, a tensor
    of any shape or a dict of tensors. `boxes`: float n, 4 = x1, y1,
    x2, y2 in [0, 1] of the view that the network sees; `origins`: the same boxes as annotated, of the whole frame.
    `is_padded`: a clip is longer than its video, whose last frame is repeated.
    """

    clips_VCTHW: torch.Tensor
    label: int | torch.Tensor | Mapping[str, torch.Tensor]
    index: int  # type: ignore[assignment]  # as above
    boxes: torch.Tensor | None = None
    origins: torch.Tensor | None = None
    is_padded: bool = False


class ClipDataset(torch.utils.data.Dataset):
    """Base class of data sets: what a `ClipLoader`, the stages of a run and the metrics use of one.

    A subclass writes `__len__`, `__getitem__` and `fingerprint`, and overrides of the rest what differs.
    """

    # Clips of a sample: `num_views` in time, each cut at `num_crops` places.
    num_views: int = 1
    num_crops: int = 1
    # What one sample is called where samples are counted.
    noun: str = "video"
    # Where samples of one batch may differ in height and width: the value from 0 to 255 that smaller ones are filled up with, at the right and at
    # the bottom. A label that is a dict then has `canvas` too, int64 2: height and width of the batch. None where all fit.
    fill: int | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        """The sample of (epoch, index). The same key always gives the same one, in every process.

        What cannot be read is a `BadVideo`, or any exception, which `read_sample` turns into one.
        """
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Text that changes whenever a sample may: with lists, labels, boxes, files and how clips are cut.

        Equal content has equal text in every process. Files count by size and time of modification (`stat_files`), what
        lies in memory by its content (`mutual3d.utils.fingerprint`).
        """
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        """What to call the sample where it cannot be read: its path. Nothing is opened. index: the position of the sample."""
        return f"sample {index}"

    def seconds_of(self, index: int) -> tuple[float, float] | None:
        """Where the sample is a stretch of the file of that name, its start and its end; None for the whole. index: as of `name_of`."""
        return None

    def title_of(self, index: int) -> str:
        """What to call the sample where it is shown: its name and, of a stretch, its seconds. index: as of `name_of`."""
        seconds = self.seconds_of(index)
        return self.name_of(index) if seconds is None else f"{self.name_of(index)}, {seconds[0]:.15g} to {seconds[1]:.15g} s"

    @property
    def groups(self) -> Sequence[Hashable] | None:
        """A value for each index: neighbours of different values share no batch in evaluation. None where all fit."""
        return None


class PlayedDataset(ClipDataset):
    """Base class of data sets whose samples are the beginnings of something that goes on by what the network gives, such as games.

    Measuring hands a batch over with the network, once for each configuration, instead of giving the batch's clips to it.
    """

    def play(self, batch: Any, network: Callable[[torch.Tensor], Any]) -> Any:
        """What the metric's `update` takes: of each sample what became of it. batch: what the loader gave. network: uint8 clips N, C,
        T, H, W -> scores on the CPU, at one configuration; it may be called any number of times."""
        raise NotImplementedError


def play_of(dataset: ClipDataset) -> Callable[[Any, Callable[[torch.Tensor], Any]], Any] | None:
    """The `play` of a `PlayedDataset`; None of any other one, of which a network is given the clips and no more. dataset: what is measured."""
    return dataset.play if isinstance(dataset, PlayedDataset) else None


def check_dataset(dataset: ClipDataset) -> None:
    """TypeError, which says what to write, for what is no `ClipDataset` or does not state its fingerprint."""
    kind = type(dataset)
    if not isinstance(dataset, ClipDataset):
        raise TypeError(
            f"{kind.__name__} is no data set of clips: derive it from mutual3d.data.datasets.dataset.ClipDataset and write "
            "__len__, __getitem__((epoch, index)), which gives a Sample, and fingerprint()"
        )
    if kind.fingerprint is ClipDataset.fingerprint:
        raise TypeError(
            f"{kind.__name__} does not say when its content changes: write fingerprint(self) -> str, a text of its lists, "
            "labels, files (mutual3d.data.datasets.dataset.stat_files) and arguments (mutual3d.utils.fingerprint); resumed stages "
            "would otherwise mix the results of two data sets"
        )


def read_sample(dataset: ClipDataset, epoch: int, index: int) -> Sample | BadVideo:
    """The sample, or a `BadVideo` with the cause whatever fails: one video must not end a run.

    index: the position of the sample. epoch: what its random numbers depend on.
    """
    try:
        return dataset[epoch, index]
    except VideoError as error:
        return BadVideo(index, error.path, error.cause)
    except Exception as error:
        return BadVideo(index, dataset.name_of(index), describe_failure(error))


def describe_failure(error: Exception) -> str:
    """An exception that nobody foresaw, in one line, with the place that raised it."""
    words = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (in {Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if words else ''}{words}{place}"


# Files are looked at one after the other where that is fast, and by many threads where each look takes longer than
# this: a network disk answers them together.
_SLOW_SECONDS = 5e-5
_THREADS = 32
_CHUNK = 1024
_CHUNKS_WITHOUT_BAR = 100


def stat_files(paths: Sequence[str]) -> np.ndarray:
    """int64 N, 2: size in bytes and time of modification in ns of each file, or -1, -1 of one that is not there.

    0.7 s for 240 000 files of a local disk; shows a progress bar where it takes longer.
    """
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    if not chunks:
        return np.empty((0, 2), np.int64)
    start = time.perf_counter()
    found = [_stat_chunk(chunks[0])]
    is_slow = time.perf_counter() - start > _SLOW_SECONDS * len(chunks[0])
    with ThreadPoolExecutor(_THREADS if is_slow else 1) as threads:
        rest = threads.map(_stat_chunk, chunks[1:]) if is_slow else map(_stat_chunk, chunks[1:])
        if is_slow or len(chunks) > _CHUNKS_WITHOUT_BAR:
            rest = iter(progress_bar(rest, "look at the files", len(chunks), initial=1, unit=f"{_CHUNK} files"))
        found += rest
    return np.concatenate(found)


def _stat_chunk(paths: Sequence[str]) -> np.ndarray:
    return np.array([state_of(path) or (-1, -1) for path in paths], np.int64).reshape(-1, 2)
