"""What a person's videos are like: looked at before a config is made for them."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mutual3d.data.datasets.dataset import BadVideo
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError
from mutual3d.utils.logging import progress_bar

# Enough for medians; a folder of a hundred thousand videos is not to be opened for them.
_LOOKED_AT = 60
_FRAMES_OF_A_CLIP = 8


@dataclass(frozen=True)
class Survey:
    """Medians over the videos that were looked at, and the shortest tenth.

    seconds, short_seconds: length of a median video, and of one that nine in ten exceed. fps: frames a second.
    short_side: pixels. read_seconds: what it takes one process to open a video and decode frames all over it.
    bad: the videos that could not be read, among `looked_at`.
    """

    looked_at: int
    seconds: float
    short_seconds: float
    fps: float
    short_side: int
    read_seconds: float
    bad: tuple[BadVideo, ...] = ()


def survey_videos(paths: Sequence[Path], seed: int = 0, stretches: Sequence[tuple[float, float] | None] = ()) -> Survey:
    """Look at up to 60 of the videos, chosen at random, with a progress bar. ValueError when none of them can be read.

    stretches: start and end, in seconds, of those that are such, whose lengths then count; () where none is.
    """
    chosen = np.random.default_rng(seed).permutation(len(paths))[:_LOOKED_AT].tolist()
    found, bad = [], []
    for index in progress_bar(chosen, "look at the videos", len(chosen), unit="video"):
        try:
            length, *rest = _look(paths[index])
            stretch = stretches[index] if stretches else None
            found.append((length if stretch is None else stretch[1] - stretch[0], *rest))
        except VideoError as error:
            bad.append(BadVideo(index, error.path, error.cause))
    if not found:
        raise ValueError(f"none of {len(chosen)} videos can be read, e.g. '{bad[0].path}': {bad[0].cause}")
    seconds, rates, sides, times = zip(*found)
    return Survey(
        looked_at=len(chosen), seconds=statistics.median(seconds), short_seconds=float(np.quantile(seconds, 0.1)),
        fps=statistics.median(rates), short_side=int(statistics.median(sides)), read_seconds=statistics.median(times),
        bad=tuple(bad),
    )  # fmt: skip


def _look(path: Path) -> tuple[float, float, int, float]:
    start = time.perf_counter()
    with open_video(path) as reader:
        wanted = np.linspace(0, reader.num_frames - 1, _FRAMES_OF_A_CLIP).astype(int)
        frames = [frame for _, frame in reader.frames(wanted)]
        return reader.num_frames / reader.fps, reader.fps, min(frames[0].shape[:2]), time.perf_counter() - start
