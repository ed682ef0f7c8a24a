"""A small set in Charades' form, made in seconds: frames as JPEGs, and in each video two of the demo set's motions at once.

Two actors do one motion and two others do another one, before scenes like the demo set's. Each pair of classes is as
frequent as any other, so that a class is in a quarter of the videos, and a single frame still tells nothing.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.prepare.demo import (
    CLASS_NAMES,
    MOTIONS,
    NUM_FRAMES,
    SPLITS,
    Actor,
    SetForm,
    draw_actor,
    draw_scene,
    make_videos,
)  # fmt: skip
from mutual3d.data.prepare.extraction import write_frame_rows, write_image

GENERATOR_VERSION = 2
PAIRS = tuple(combinations(range(len(CLASS_NAMES)), 2))

_ARGUMENTS_FILE = "demo_charades.json"
_ACTORS_OF_A_CLASS = 2
# Keeps these videos apart from the demo set's of the same seed.
_STREAM = 1


def make_demo_charades(
    directory: str | Path,
    *,
    num_train: int = 336,
    num_val: int = 112,
    num_test: int = 112,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Write frames/ with a folder for each video, the frame lists train.csv, val.csv, test.csv, and classes.txt.

    Paths in the lists are relative to `directory`. A folder begun with the same arguments is completed, whole videos
    being kept. `num_workers` processes (default: one a core) do not change the result. Returns the directory. Raises
    ValueError for a count below 1, and for a folder that holds something else. num_train, num_val, num_test: videos of each
    split.
    """
    counts = dict(zip(SPLITS, (num_train, num_val, num_test)))
    form = SetForm("a demo set in Charades' form", _ARGUMENTS_FILE, GENERATOR_VERSION, _is_whole, _write_video)
    directory = make_videos(directory, form, counts, seed, num_workers)
    for split, count in counts.items():
        write_frame_rows(directory / f"{split}.csv", _rows(split, count, seed))
    write_lines(directory / "classes.txt", CLASS_NAMES)
    return directory


def labels_of(split: str, index: int, seed: int = 0) -> tuple[int, ...]:
    """The two classes of a split's video number `index`; every 28 videos have every pair once, shuffled."""
    turn, place = divmod(index, len(PAIRS))
    order = np.random.default_rng([seed, SPLITS.index(split), turn, _STREAM]).permutation(len(PAIRS))
    return PAIRS[order[place]]


def draw_video(split: str, index: int, seed: int = 0) -> tuple[np.ndarray, tuple[int, ...]]:
    """One video from its own random stream: (uint8 RGB frames T, H, W, 3; its two labels).

    split: one of SPLITS. index: number of the video in it.
    """
    generator = np.random.default_rng([seed, SPLITS.index(split), index, _STREAM, _STREAM])
    labels = labels_of(split, index, seed)
    return draw_scene(partial(_draw_actors, [CLASS_NAMES[label] for label in labels]), generator), labels


def _draw_actors(class_names: Sequence[str], generator: np.random.Generator) -> list[Actor]:
    actors = []
    for name in class_names:
        rate = generator.uniform(*MOTIONS[name].rates)
        actors += [draw_actor(name, rate, generator) for _ in range(_ACTORS_OF_A_CLASS)]
    # Who is drawn last covers the others: not always the same class.
    return [actors[place] for place in generator.permutation(len(actors))]


def _rows(split: str, count: int, seed: int) -> Iterator[tuple[str, int, int, str, str]]:
    for index in range(count):
        labels = ",".join(map(str, labels_of(split, index, seed)))
        for frame in range(NUM_FRAMES):
            yield _name(split, index), index, frame, _frame_path(split, index, frame).as_posix(), labels


def _name(split: str, index: int) -> str:
    return f"{split}_{index:05d}"


def _frame_path(split: str, index: int, frame: int) -> Path:
    name = _name(split, index)
    return Path("frames") / name / f"{name}_{frame:06d}.jpg"


def _is_whole(directory: Path, split: str, index: int) -> bool:
    return all((directory / _frame_path(split, index, frame)).is_file() for frame in range(NUM_FRAMES))


def _write_video(directory: Path, seed: int, video: tuple[str, int]) -> None:
    frames_THWC, _ = draw_video(*video, seed)
    (directory / _frame_path(*video, 0)).parent.mkdir(parents=True, exist_ok=True)
    for frame, image_HWC in enumerate(frames_THWC):
        write_image(directory / _frame_path(*video, frame), image_HWC)
