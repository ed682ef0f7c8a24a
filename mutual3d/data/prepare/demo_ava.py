"""A small set in AVA's form, made in seconds: at each second two actors, each with a motion of the demo set of its own.

A video is a row of shots of one second, cut in the middle between two keyframes, before scenes like the demo set's. One
actor is in the left half of the keyframe, the other in the right half, and their motions differ: who does what is told by
the box alone, and as in the demo set a single frame tells nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mutual3d.data.datasets.boxes import Box
from mutual3d.data.prepare.demo import (
    CLASS_NAMES,
    FRAME_SIZE,
    FRAMES_PER_SECOND,
    MOTIONS,
    NUM_FRAMES,
    Actor,
    SetForm,
    actor_box,
    draw_actor,
    draw_scene,
    encode_video,
    make_videos,
    write_lines,
)  # fmt: skip
from mutual3d.data.prepare.extraction import write_frame_rows, write_image

GENERATOR_VERSION = 2
SPLITS = ("train", "val")
# Height and width of a frame: no square, because the frames of films are none.
FRAME_SHAPE = (48, FRAME_SIZE)
# Keyframes of a video: seconds 1 to 8 of nine.
KEYFRAMES = 8
NUM_VIDEO_FRAMES = (KEYFRAMES + 1) * FRAMES_PER_SECOND
LABEL_MAP = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"

_ARGUMENTS_FILE = "demo_ava.json"
_TOP = (FRAME_SIZE - FRAME_SHAPE[0]) // 2
_MIDDLE = NUM_FRAMES // 2
# Where the centres of the actors are in the keyframe, in pixels: of the left one, the right one, and both down.
_PLACES = ((11, 23), (41, 53))
_DOWN = (_TOP + 10, _TOP + FRAME_SHAPE[0] - 10)

# Keeps these videos apart from the demo set's of the same seed.
_STREAM = 2


def make_demo_ava(
    directory: str | Path, *, num_train: int = 40, num_val: int = 12, seed: int = 0, num_workers: int | None = None
) -> Path:
    """Write the set: frames/, frame_lists/, annotations/ as AVA's users have them, and videos/ beside them.

    Frame 0 shows second 0 (AVA.FIRST_SECOND 0). In annotations/ the files have the names of v2.2: ground truth of both
    splits, `ava_{train,val}_predicted_boxes.csv` as a detector would give them, the label map, and excluded timestamps.
    videos/ has each video as mp4 and, beside those of val, its detected boxes as csv: rows `second,x1,y1,x2,y2,score`.

    `num_train` and `num_val` videos, each with 8 keyframes of two boxes. A folder begun with the same arguments is
    completed, whole videos being kept. `num_workers` processes (default: one a core) do not change the result. Returns
    the directory. Raises ValueError for a count below 1, and for a folder that holds something else.
    """
    counts = dict(zip(SPLITS, (num_train, num_val)))
    form = SetForm("a demo set in AVA's form", _ARGUMENTS_FILE, GENERATOR_VERSION, _is_whole, _write_video)
    directory = make_videos(directory, form, counts, seed, num_workers)
    for split, count in counts.items():
        _write_lists(directory, split, count, seed)
    classes = enumerate(CLASS_NAMES, start=1)
    items = (line for action, name in classes for line in ("item {", f'  name: "{name}"', f"  id: {action}", "}"))
    write_lines(directory / "annotations" / LABEL_MAP, items)
    return directory


def draw_video(split: str, index: int, seed: int = 0) -> np.ndarray:
    """One video: uint8 RGB frames T, 48, 64, 3, from its own random streams; `boxes_of` tells who does what in it.

    split: one of SPLITS. index: number of the video in it.
    """
    # One shot more at each end, of which half is seen, so that the first and the last keyframe have whole clips.
    shots = [_draw_shot(split, index, second, seed) for second in range(KEYFRAMES + 2)]
    frames_THWC = np.concatenate(shots)[_MIDDLE : _MIDDLE + NUM_VIDEO_FRAMES]
    return frames_THWC[:, _TOP : _TOP + FRAME_SHAPE[0]]


def boxes_of(split: str, index: int, seed: int = 0) -> dict[int, list[tuple[tuple, int]]]:
    """The boxes in the keyframes of a video: {second: [((x1, y1, x2, y2) in [0, 1], action from 1), for both actors]}.

    split: one of SPLITS. index: number of the video in it.
    """
    boxes = {}
    for second in range(1, KEYFRAMES + 1):
        _, actors, actions = _cast(split, index, second, seed)
        boxes[second] = [(_box(actor), action) for actor, action in zip(actors, actions)]
    return boxes


def _cast(split: str, index: int, second: int, seed: int) -> tuple[np.random.Generator, list[Actor], list[int]]:
    """The shot's random numbers, its two actors, and their actions."""
    generator = np.random.default_rng([seed, SPLITS.index(split), index, second, _STREAM])
    classes = generator.choice(len(CLASS_NAMES), size=2, replace=False).tolist()
    actors = [_draw_actor_at(CLASS_NAMES[label], place, generator) for label, place in zip(classes, _PLACES)]
    return generator, actors, [label + 1 for label in classes]


def _draw_shot(split: str, index: int, second: int, seed: int) -> np.ndarray:
    generator, actors, _ = _cast(split, index, second, seed)
    return draw_scene(lambda _: actors, generator)


def _draw_actor_at(class_name: str, place: tuple[int, int], generator: np.random.Generator) -> Actor:
    """An actor whose motion leads it past `place` (min and max x) in the middle frame."""
    actor = draw_actor(class_name, generator.uniform(*MOTIONS[class_name].rates), generator)
    x, y = (np.unwrap(path, period=FRAME_SIZE) for path in (actor.x, actor.y))
    x, y = x - x[_MIDDLE] + generator.uniform(*place), y - y[_MIDDLE] + generator.uniform(*_DOWN)
    return replace(actor, x=x, y=y)


def _box(actor: Actor) -> Box:
    return _in_frame(actor_box(actor, _MIDDLE) - (0, _TOP, 0, _TOP))


def _in_frame(box_in_pixels: Sequence[float] | np.ndarray) -> Box:
    """As part of the frame, to AVA's three decimals."""
    height, width = FRAME_SHAPE
    return tuple(np.round(np.clip(np.divide(box_in_pixels, (width, height, width, height)), 0, 1), 3).tolist())


def _detect(boxes: Sequence[tuple[Box, int]], generator: np.random.Generator) -> list[tuple[Box, int, float]]:
    """What a detector finds in a keyframe: [(box, action, score)], and now and then a thing that is no actor (action 0)."""
    height, width = FRAME_SHAPE
    sides = np.array([width, height, width, height])
    found = [
        (_in_frame(np.array(box) * sides + generator.uniform(-1, 1, 4)), action, generator.uniform(0.9, 1))
        for box, action in boxes
    ]
    if generator.random() < 0.5:
        x, y = generator.uniform((0, 0), (width - 14, height - 14))
        found.append((_in_frame((x, y, x + 14, y + 14)), 0, generator.uniform(0.1, 0.7)))
    return found


class _Annotations(NamedTuple):
    """Of one video, by second: what people drew, (box, action), and what a detector found, (box, action, score)."""

    drawn: dict
    found: dict
    excluded: list


def _annotate(split: str, index: int, seed: int) -> _Annotations:
    drawn, generator = boxes_of(split, index, seed), np.random.default_rng([seed, SPLITS.index(split), index, _STREAM])
    found = {second: _detect(boxes, generator) for second, boxes in drawn.items()}
    if split != "val" or index % 4:
        return _Annotations(drawn, found, [])
    # A keyframe on which annotators disagree: one box is missing, and the timestamp does not count.
    return _Annotations({**drawn, KEYFRAMES: drawn[KEYFRAMES][:1]}, found, [KEYFRAMES])


def _write_lists(directory: Path, split: str, count: int, seed: int) -> None:
    """The frame list and the annotations of a split."""
    videos = {_name(split, index): _annotate(split, index, seed) for index in range(count)}
    frames = (
        (name, index, frame, _frame_path(name, frame).as_posix(), "")
        for index, name in enumerate(videos) for frame in range(NUM_VIDEO_FRAMES)
    )  # fmt: skip
    write_frame_rows(directory / "frame_lists" / f"{split}.csv", frames)
    rows = {"v2.2": _truth_rows, "predicted_boxes": _detection_rows, "excluded_timestamps_v2.2": _excluded_rows}
    for ending, rows_of in rows.items():
        lines = (row for name, own in videos.items() for row in rows_of(name, own))
        write_lines(directory / "annotations" / f"ava_{split}_{ending}.csv", lines)
    for name, own in videos.items() if split == "val" else ():
        lines = (f"{t},{_join(box)},{s:.6f}" for t, boxes in own.found.items() for box, _, s in boxes)
        write_lines(directory / "videos" / f"{name}.csv", lines)


def _truth_rows(name: str, own: _Annotations) -> Iterator[str]:
    for second, boxes in own.drawn.items():
        for person, (box, action) in enumerate(boxes):
            yield f"{name},{second:04d},{_join(box)},{action},{person}"


def _detection_rows(name: str, own: _Annotations) -> Iterator[str]:
    """In evaluation a detector says where, not what."""
    for second, boxes in own.found.items():
        for box, action, score in boxes:
            known = action and name.startswith("train")
            yield f"{name},{second:04d},{_join(box)},{action if known else ''},{score:.6f}"


def _excluded_rows(name: str, own: _Annotations) -> Iterator[str]:
    return (f"{name},{second:04d}" for second in own.excluded)


def _join(box: Box) -> str:
    return ",".join(f"{value:.3f}" for value in box)


def _name(split: str, index: int) -> str:
    return f"{split}_{index:02d}"


def _frame_path(name: str, frame: int) -> Path:
    return Path(name) / f"{name}_{frame:06d}.jpg"


def _video_path(directory: Path, split: str, index: int) -> Path:
    return directory / "videos" / f"{_name(split, index)}.mp4"


def _is_whole(directory: Path, split: str, index: int) -> bool:
    return _video_path(directory, split, index).is_file()


def _write_video(directory: Path, seed: int, video: tuple[str, int]) -> None:
    """The frames, and last the mp4, which says that they are there."""
    name, frames_THWC = _name(*video), draw_video(*video, seed)
    (directory / "frames" / name).mkdir(parents=True, exist_ok=True)
    for frame, image_HWC in enumerate(frames_THWC):
        write_image(directory / "frames" / _frame_path(name, frame), image_HWC)
    encode_video(_video_path(directory, *video), frames_THWC)
