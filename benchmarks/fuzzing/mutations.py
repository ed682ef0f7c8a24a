"""Small videos in many containers and codecs, and seeded damage to their bytes."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

HEIGHT, WIDTH, NUM_FRAMES, FPS = 48, 64, 48, 30


class Recipe(NamedTuple):
    """How a generated video is encoded; `b_frames` pictures at most stand between two that are referred to."""

    ending: str
    codec: str
    b_frames: int = 0
    options: dict[str, str] = {}
    header_first: bool = False


RECIPES = {
    "h264_mp4": Recipe("mp4", "libx264"),
    "h264_b_mp4": Recipe("mp4", "libx264", b_frames=2),
    "h264_b_header_first_mp4": Recipe("mp4", "libx264", b_frames=2, header_first=True),
    "mpeg4_header_first_mp4": Recipe("mp4", "mpeg4", header_first=True),
    "h264_b_mov": Recipe("mov", "libx264", b_frames=2, header_first=True),
    "hevc_b_mp4": Recipe("mp4", "libx265", b_frames=2, options={"x265-params": "log-level=none"}),
    "h264_mkv": Recipe("mkv", "libx264"),
    "h264_b_mkv": Recipe("mkv", "libx264", b_frames=2),
    "mpeg4_avi": Recipe("avi", "mpeg4"),
    "mjpeg_avi": Recipe("avi", "mjpeg"),
    "vp9_webm": Recipe("webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "h264_b_ts": Recipe("ts", "libx264", b_frames=2),
}
ENDINGS = ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "wmv")


def write_videos(directory: Path) -> list[Path]:
    """One generated video for each of `RECIPES` whose encoder this PyAV has."""
    directory.mkdir(parents=True, exist_ok=True)
    recipes = {name: recipe for name, recipe in RECIPES.items() if recipe.codec in av.codecs_available}
    return [_write_video(directory / f"{name}.{recipe.ending}", recipe) for name, recipe in recipes.items()]


def draw_frames() -> np.ndarray:
    """uint8 RGB, T, H, W, 3: a bright square moves over a textured ground; no two frames are alike."""
    texture = np.random.default_rng(0).integers(40, 120, (1, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    frames = texture.repeat(NUM_FRAMES, axis=0).repeat(8, axis=1).repeat(8, axis=2)
    for t in range(NUM_FRAMES):
        top, left = (3 * t) % (HEIGHT - 12), (5 * t) % (WIDTH - 12)
        frames[t, top : top + 12, left : left + 12] = 255 - (7 * t) % 100
    return frames


def _write_video(path: Path, recipe: Recipe) -> Path:
    # Matroska files get a random number otherwise, and every run other damage.
    options = {"fflags": "+bitexact"} | ({"movflags": "faststart"} if recipe.header_first else {})
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(recipe.codec, rate=FPS, options=recipe.options)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = "yuvj420p" if recipe.codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = recipe.b_frames
        stream.codec_context.thread_count = 1
        for t, image in enumerate(draw_frames()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# ---- Mutations -------------------------------------------------------------------------------------------------------
# Each takes the bytes of a video and a generator, and gives the damaged bytes.


def _truncate(data: bytearray, generator: np.random.Generator) -> bytearray:
    return data[: int(len(data) * generator.uniform(0.02, 0.99))]


def _flip_bits(data: bytearray, generator: np.random.Generator) -> bytearray:
    for place in generator.integers(0, len(data), generator.choice([1, 2, 5, 20, 100])):
        data[place] ^= 1 << int(generator.integers(8))
    return data


def _damage_header(data: bytearray, generator: np.random.Generator) -> bytearray:
    """A few bytes at random in the first or, where mp4 files keep their header, the last part of the file."""
    size = min(len(data), 1500)
    start = 0 if generator.random() < 0.6 else len(data) - size
    for place in generator.integers(start, start + size, generator.choice([1, 2, 4, 16])):
        data[place] = int(generator.integers(256))
    return data


def _zero_block(data: bytearray, generator: np.random.Generator) -> bytearray:
    start, end = _block(data, generator)
    data[start:end] = bytes(end - start)
    return data


def _remove_block(data: bytearray, generator: np.random.Generator) -> bytearray:
    start, end = _block(data, generator)
    del data[start:end]
    return data


def _repeat_block(data: bytearray, generator: np.random.Generator) -> bytearray:
    start, end = _block(data, generator)
    data[end:end] = data[start:end]
    return data


def _swap_blocks(data: bytearray, generator: np.random.Generator) -> bytearray:
    size = max(1, int(len(data) * generator.uniform(0.005, 0.1)))
    first, second = sorted(generator.integers(0, max(len(data) - size, 1), 2).tolist())
    second = max(second, first + size)
    return data[:first] + data[second : second + size] + data[first + size : second] + data[first : first + size] + data[second + size :]


def _randomise_block(data: bytearray, generator: np.random.Generator) -> bytearray:
    start, end = _block(data, generator)
    data[start:end] = generator.bytes(end - start)
    return data


def _append_garbage(data: bytearray, generator: np.random.Generator) -> bytearray:
    garbage = data[: len(data) // 2] if generator.random() < 0.3 else generator.bytes(int(generator.integers(1, 20000)))
    return data + garbage


def _prepend_garbage(data: bytearray, generator: np.random.Generator) -> bytearray:
    return bytearray(generator.bytes(int(generator.integers(1, 2000)))) + data


# Where containers write times, rates, counts, sizes and the display matrix: boxes of mp4, chunks of AVI, elements of
# Matroska (timestamp scale, default duration, duration), and the start of a video packet in MPEG-TS.
_NUMBERS = (
    b"mvhd", b"mdhd", b"tkhd", b"stts", b"ctts", b"elst", b"stsz", b"stco", b"stsc", b"stss", b"avih", b"strh", b"strf", b"idx1",
    b"\x2a\xd7\xb1", b"\x23\xe3\x83", b"\x44\x89", b"\x00\x00\x01\xe0",
)  # fmt: skip


def _damage_numbers(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Overwrite bytes that follow one of `_NUMBERS` in this file: rates, times, counts, sizes."""
    for _ in range(int(generator.choice([1, 1, 2, 4]))):
        there = [marker for marker in _NUMBERS if marker in data]
        if not there:
            return _damage_header(data, generator)
        marker = there[generator.integers(len(there))]
        places = [place for place in range(len(data) - len(marker)) if data[place : place + len(marker)] == marker]
        start = places[generator.integers(len(places))] + len(marker) + int(generator.integers(0, 40))
        value = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01", generator.bytes(4)][generator.integers(5)]
        width = int(generator.choice([1, 2, 4]))
        data[start : start + width] = value[: len(data[start : start + width])]
    return data


def _block(data: bytearray, generator: np.random.Generator) -> tuple[int, int]:
    size = max(1, int(len(data) * generator.choice([0.002, 0.01, 0.05, 0.3])))
    start = int(generator.integers(0, max(len(data) - size, 1)))
    return start, start + size


def _keep(data: bytearray, generator: np.random.Generator) -> bytearray:
    return data


MUTATIONS: dict[str, Callable[[bytearray, np.random.Generator], bytearray]] = {
    "truncated": _truncate,
    "bits flipped": _flip_bits,
    "header damaged": _damage_header,
    "rates and times damaged": _damage_numbers,
    "block zeroed": _zero_block,
    "block removed": _remove_block,
    "block repeated": _repeat_block,
    "blocks swapped": _swap_blocks,
    "block of noise": _randomise_block,
    "garbage appended": _append_garbage,
    "garbage prepended": _prepend_garbage,
    "renamed": _keep,
}


class Mutation(NamedTuple):
    """A damaged copy of `source`, the `number`-th of its seed."""

    number: int
    kind: str
    source: Path
    path: Path


def write_mutation(sources: list[Path], number: int, seed: int, directory: Path) -> Mutation:
    """Mutation `number` of `seed`, alike on every machine: sources and kinds take turns, the damage is drawn."""
    generator = np.random.default_rng([seed, number])
    kind = list(MUTATIONS)[number % len(MUTATIONS)]
    source = sources[(number + number // len(MUTATIONS)) % len(sources)]
    data = MUTATIONS[kind](bytearray(source.read_bytes()), generator)
    ending = source.suffix.lstrip(".")
    if kind == "renamed":
        ending = str(generator.choice([other for other in ENDINGS if other != ending]))
    path = directory / f"{number:05d}_{kind.replace(' ', '_')}_{source.stem}.{ending}"
    path.write_bytes(data)
    return Mutation(number, kind, source, path)
