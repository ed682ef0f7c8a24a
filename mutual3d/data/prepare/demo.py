"""A small set of real H.264 videos whose classes differ in motion alone, made in seconds.

A video shows three to five small striped actors on a textured ground; all of them do what the class says:

    sweep      cross the frame to one side, up or down, and come in again at the other end
    flow       stand, while the stripes run over the body to the left or right
    shuttle    go to and fro on the spot, slowly or fast

Places are uniform on a frame that wraps around, stripes stand anywhere, and all else is drawn without regard to the
class: a single frame has the same distribution in every class, and only motion tells them apart. Stripes are finer than
a small configuration can see, and flowing and shuttling alias when frames are dropped, so that pixels and frames count.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.prepare.claim import claim_directory
from mutual3d.utils.files import atomic_write
from mutual3d.utils.logging import progress_bar

SPLITS = ("train", "val", "test")
FRAME_SIZE = 64
NUM_FRAMES = 30
FRAMES_PER_SECOND = 30
# Raised whenever the same arguments would give other videos, so that an old folder is never taken for a new one.
GENERATOR_VERSION = 2

_ARGUMENTS_FILE = "demo.json"
_GOP_SIZES = (6, 12, 30)
_SHAKE_MARGIN = 2
_SHUTTLE_REACH = 7
_SWEEP_SPEED = (30, 65)
_FLOW_RATE = (2.2, 4.0)
_SLOW_RATE = (0.7, 1.2)
_FAST_RATE = (2.6, 3.4)


@dataclass(frozen=True)
class Motion:
    """What changes in a class (`x`, `y` or `stripes`), which way, and at what rates.

    Rates are pixels a second for sweeps, cycles a second for stripes and for going there and back.
    """

    quantity: str
    direction: int
    rates: tuple
    there_and_back: bool = False


MOTIONS = {
    "sweep_right": Motion("x", 1, _SWEEP_SPEED),
    "sweep_left": Motion("x", -1, _SWEEP_SPEED),
    "sweep_down": Motion("y", 1, _SWEEP_SPEED),
    "sweep_up": Motion("y", -1, _SWEEP_SPEED),
    "flow_right": Motion("stripes", 1, _FLOW_RATE),
    "flow_left": Motion("stripes", -1, _FLOW_RATE),
    "shuttle_slowly": Motion("x", 1, _SLOW_RATE, there_and_back=True),
    "shuttle_fast": Motion("x", 1, _FAST_RATE, there_and_back=True),
}
CLASS_NAMES = tuple(MOTIONS)


@dataclass(frozen=True)
class Actor:
    """One moving thing: a constant look, and a pose for each frame.

    `lobes`: amplitude and angle of the waves of its outline, each (4,); `colours`: two RGB triples in [0, 1];
    `radius` and `wavelength` of its stripes in pixels. Each (NUM_FRAMES,): `x`, `y` of its centre in pixels, `stripes`
    in cycles.
    """

    lobes: tuple
    colours: tuple
    radius: float
    wavelength: float
    x: np.ndarray
    y: np.ndarray
    stripes: np.ndarray


def make_demo(
    directory: str | Path,
    *,
    num_train: int = 1200,
    num_val: int = 240,
    num_test: int = 240,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Write the demo set: train/, val/, test/ with mp4 files, train.csv, val.csv, test.csv, classes.txt and demo.json.

    A csv row is `path label`, the path relative to `directory`. A folder begun with the same arguments is completed,
    whole videos being kept. `num_workers` processes (default: one a core) do not change the result. Returns the
    directory. Raises ValueError for a count below 1, and for a folder that holds something else. num_train, num_val,
    num_test: videos of each split.
    """
    counts = dict(zip(SPLITS, (num_train, num_val, num_test)))
    form = SetForm("a demo set", _ARGUMENTS_FILE, GENERATOR_VERSION, _is_there, _write_video)
    directory = make_videos(directory, form, counts, seed, num_workers)
    for split, count in counts.items():
        rows = (f"{_video_path('', split, index).as_posix()} {label_of(index)}" for index in range(count))
        write_lines(directory / f"{split}.csv", rows)
    write_lines(directory / "classes.txt", CLASS_NAMES)
    return directory


class SetForm(NamedTuple):
    """How the videos of a demo set are made. kind: what its folder is called in messages. file_name: of the json of its arguments,
    and version: of what draws them. is_whole: (folder, split, index) -> whether a video is there. write: (folder, seed, (split,
    index)), writes one."""

    kind: str
    file_name: str
    version: int
    is_whole: Callable[[Path, str, int], bool]
    write: Callable[[Path, int, tuple[str, int]], None]


def make_videos(directory: str | Path, form: SetForm, counts: Mapping[str, int], seed: int, num_workers: int | None) -> Path:
    """Write the videos of a set that are not there; returns its folder.

    counts: {split: number of videos}. num_workers: processes, None for one a core. Raises ValueError as `check_arguments` and
    `claim_directory` do.
    """
    num_workers = os.cpu_count() or 1 if num_workers is None else num_workers
    check_arguments(counts, seed, num_workers)
    arguments = {"generator_version": form.version, "seed": seed, "num_videos": dict(counts)}
    directory = claim_directory(directory, form.file_name, arguments, form.kind)
    videos = [(split, index) for split, count in counts.items() for index in range(count)]
    missing = [video for video in videos if not form.is_whole(directory, *video)]
    run_in_processes(partial(form.write, directory, seed), missing, num_workers)
    return directory


def label_of(index: int) -> int:
    """The class of a split's video number `index`: classes take turns, so that any run of videos is balanced."""
    return index % len(CLASS_NAMES)


def draw_video(split: str, index: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """One video before encoding, from its own random stream: (uint8 RGB frames T, H, W, 3; label).

    split: one of SPLITS. index: number of the video in it.
    """
    generator = np.random.default_rng([seed, SPLITS.index(split), index])
    label = label_of(index)
    return draw_frames(CLASS_NAMES[label], generator), label


def draw_frames(class_name: str, generator: np.random.Generator) -> np.ndarray:
    """A video of the class, its looks, places and rate drawn from `generator`: uint8 RGB frames T, H, W, 3.

    class_name: a key of MOTIONS.
    """
    return draw_scene(partial(_draw_actors, class_name), generator)


def boxes_of(split: str, index: int, seed: int = 0) -> list[list[tuple[float, ...]]]:
    """Where the actors of a video are: for each frame the normalised xyxy box of each, as far as it is in the frame.

    split: one of SPLITS. index: number of the video in it.
    """
    generator = np.random.default_rng([seed, SPLITS.index(split), index])
    _, shake, actors = _draw_parts(partial(_draw_actors, CLASS_NAMES[label_of(index)]), generator)
    return [
        [tuple(np.clip((actor_box(actor, time) - np.tile(shake[time][::-1], 2)) / FRAME_SIZE, 0, 1).tolist()) for actor in actors]
        for time in range(NUM_FRAMES)
    ]


def actor_box(actor: Actor, time: int) -> np.ndarray:
    """x1, y1, x2, y2, in pixels, of an actor at frame number `time`, before a camera that does not shake: its radius and half of its lobes."""
    reach, x, y = actor.radius * (1 + actor.lobes[0].sum() / 2), actor.x[time], actor.y[time]
    return np.array([x - reach, y - reach, x + reach, y + reach])


def _draw_parts(
    draw_actors: Callable[..., list[Actor]], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[Actor]]:
    """The background, where the camera looks, and the actors of a video."""
    background, shake = draw_background(generator, FRAME_SIZE + 2 * _SHAKE_MARGIN), _draw_shake(generator)
    return background, shake, draw_actors(generator)


def draw_scene(draw_actors: Callable[..., list[Actor]], generator: np.random.Generator) -> np.ndarray:
    """A video of the actors that `draw_actors(generator)` gives, before a scene: uint8 RGB frames T, H, W, 3."""
    background, shake, actors = _draw_parts(draw_actors, generator)
    corners = shake + _SHAKE_MARGIN
    frames = np.stack([background[top : top + FRAME_SIZE, left : left + FRAME_SIZE] for top, left in corners])
    for actor in actors:
        paint_actor(frames, actor, shake)
    grain = generator.normal(0, 0.01, frames.shape[:3] + (1,))
    return np.rint(np.clip(frames + grain, 0, 1) * 255).astype(np.uint8)


def _draw_actors(class_name: str, generator: np.random.Generator) -> list[Actor]:
    rate = generator.uniform(*MOTIONS[class_name].rates)
    return [draw_actor(class_name, rate, generator) for _ in range(generator.integers(3, 6))]


def draw_pose(class_name: str, rate: float, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Where an actor is: {x, y in pixels, stripes in cycles}, each (NUM_FRAMES,). Uniform in every frame.

    class_name: a key of MOTIONS. rate: pixels, or cycles, a second.
    """
    motion, seconds = MOTIONS[class_name], np.arange(NUM_FRAMES) / FRAMES_PER_SECOND
    pose = dict(zip(("x", "y", "stripes"), generator.uniform(0, (FRAME_SIZE, FRAME_SIZE, 1))))
    moved = motion.direction * rate * seconds
    if motion.there_and_back:
        moved = _SHUTTLE_REACH * (np.abs(4 * ((generator.random() + moved) % 1) - 2) - 1)
    pose = {name: start + (moved if name == motion.quantity else 0 * moved) for name, start in pose.items()}
    return {"x": pose["x"] % FRAME_SIZE, "y": pose["y"] % FRAME_SIZE, "stripes": pose["stripes"] % 1}


def draw_actor(class_name: str, rate: float, generator: np.random.Generator) -> Actor:
    """An Actor that moves as the class does, at `rate`; its look knows nothing of the class. class_name: a key of MOTIONS."""
    return Actor(
        lobes=_draw_lobes(generator),
        colours=draw_colours(generator),
        radius=generator.uniform(6, 9),
        wavelength=generator.uniform(5, 7),
        **draw_pose(class_name, rate, generator),
    )


def _draw_lobes(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return generator.uniform(0, 0.12, 4), generator.uniform(0, 2 * np.pi, 4)


def draw_colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A light and a dark RGB colour, in random order: the pattern is seen whatever the hues."""
    light, dark = generator.uniform(0.65, 1.0, 3), generator.uniform(0.0, 0.3, 3)
    return (light, dark) if generator.random() < 0.5 else (dark, light)


def draw_background(generator: np.random.Generator, size: int) -> np.ndarray:
    """A textured still scene, RGB in [0, 1], of `size` x `size` pixels: of a video a frame and the margin in which the camera shakes."""
    scene = generator.uniform(0.3, 0.7, 3)
    scene = scene + generator.uniform(0.03, 0.1) * _smooth_noise(size, 4, generator)
    return np.clip(scene + generator.uniform(0.0, 0.05) * _smooth_noise(size, 18, generator), 0, 1)


def _smooth_noise(size: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """Colour noise in [-1, 1], (size, size, 3): `cells` random values a side, enlarged bilinearly."""
    noise = generator.uniform(-1, 1, (cells + 1, cells + 1, 3))
    position = np.linspace(0, cells, size, endpoint=False)
    low = position.astype(int)
    share = (position - low)[:, None, None]
    for _ in range(2):
        noise = (noise[low] * (1 - share) + noise[low + 1] * share).swapaxes(0, 1)
    return noise


def _draw_shake(generator: np.random.Generator) -> np.ndarray:
    """Where the camera looks, (NUM_FRAMES, 2) whole pixels down and right: a slow sway of at most the margin."""
    seconds = np.arange(NUM_FRAMES)[:, None] / FRAMES_PER_SECOND
    reach, rate, start = (generator.uniform(low, high, 2) for low, high in ((0, 1.2), (0.3, 1.2), (0, 1)))
    return np.rint(reach * np.sin(2 * np.pi * (rate * seconds + start))).astype(int)


def paint_actor(frames_THWC: np.ndarray, actor: Actor, shake: np.ndarray) -> None:
    """Blend an actor into RGB frames in [0, 1], in place; only the pixels around it that it can reach are computed.

    shake: where the camera looks, (T, 2) pixels down and right.
    """
    amplitudes, angles = actor.lobes
    reach = actor.radius * (1 + amplitudes.sum()) + 1
    pixels = np.arange(int(2 * reach) + 2)
    y, x = actor.y - shake[:, 0], actor.x - shake[:, 1]
    top, left = (np.floor(place - reach).astype(int) for place in (y, x))
    down = (top - y)[:, None, None] + pixels[:, None] + 0.5
    right = (left - x)[:, None, None] + pixels + 0.5
    distance = np.hypot(right, down)
    # Waves around the outline: the cosines of 2 to 5 times the angle, as powers of a complex number.
    turn = (right + 1j * down) / np.maximum(distance, 1e-9)
    waves = sum(a * (turn**k * np.exp(1j * angle)).real for k, a, angle in zip(range(2, 6), amplitudes, angles))
    cover = np.clip(actor.radius * (1 + waves) - distance + 0.5, 0, 1)[..., None]
    share = 0.5 + 0.5 * np.cos(2 * np.pi * (right / actor.wavelength - actor.stripes[:, None, None]))[..., None]
    colours = actor.colours[0] * share + actor.colours[1] * (1 - share)
    for time, frame in enumerate(frames_THWC):
        height, width = frame.shape[:2]
        rows, columns = (slice(max(0, -start), max(0, size - start)) for start, size in ((top[time], height), (left[time], width)))
        part = cover[time, rows, columns]
        first_row, first_column = max(0, top[time]), max(0, left[time])
        patch = frame[first_row : first_row + part.shape[0], first_column : first_column + part.shape[1]]
        patch += part * (colours[time, :, columns] - patch)


def encode_video(path: str | Path, frames_THWC: np.ndarray, gop_size: int = 12) -> None:
    """Write uint8 RGB frames T, H, W, 3 as an H.264 mp4 (yuv420p, a keyframe at least every `gop_size` frames)."""
    # One thread of each kind, no macroblock tree, and the colour conversion by frame: otherwise the same frames give other bytes
    # in another process.
    options = {"crf": "18", "preset": "veryfast", "g": str(gop_size)}
    options["x264-params"] = "threads=1:lookahead-threads=1:sliced-threads=0:mbtree=0"
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames_THWC:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(image))
        container.mux(stream.encode())


# As many as the names of the files have digits for, and then some: more would fill any disk.
_MAX_VIDEOS = 10**6


def check_arguments(counts: Mapping[str, int], seed: int, num_workers: int) -> None:
    """Raise ValueError, naming the argument, unless the {split: count} are 1 or more and the rest makes sense.

    counts: {split: number of videos}. num_workers: processes.
    """
    legal = {**{f"num_{split}": (count, 1, _MAX_VIDEOS) for split, count in counts.items()}, "seed": (seed, 0, 2**63)}
    for name, (value, smallest, largest) in {**legal, "num_workers": (num_workers, 1, 2**63)}.items():
        if type(value) is not int or value < smallest:
            raise ValueError(f"{name}={value!r} of the demo set: give a whole number of at least {smallest}")
        if value > largest:
            raise ValueError(f"{name}={value} of the demo set: give a whole number of at most {largest}")


def _video_path(directory: str | Path, split: str, index: int) -> Path:
    return Path(directory) / split / f"{index:05d}.mp4"


def _is_there(directory: Path, split: str, index: int) -> bool:
    return _video_path(directory, split, index).is_file()


def run_in_processes(write: Callable[[tuple[str, int]], None], videos: Sequence[tuple[str, int]], num_workers: int) -> None:
    """Call `write` for each of `videos` under a progress bar, in this process when one of `num_workers` is enough."""
    with progress_bar((), "demo videos", total=len(videos), unit="video") as progress:
        if num_workers == 1 or len(videos) < 2:
            for video in videos:
                write(video)
                progress.update()
            return
        with ProcessPoolExecutor(min(num_workers, len(videos))) as pool:
            for _ in pool.map(write, videos, chunksize=4):
                progress.update()


def _write_video(directory: Path, seed: int, video: tuple[str, int]) -> None:
    split, index = video
    frames_THWC, _ = draw_video(split, index, seed)
    encode_video(_video_path(directory, split, index), frames_THWC, _GOP_SIZES[index % len(_GOP_SIZES)])
