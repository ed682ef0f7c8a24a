"""Explanations to look at: the heat over the video's own frames, as an mp4 and as a strip, and its curve over time."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from mutual3d.data.clips.transforms import resize, short_side_size
from mutual3d.data.video.decode import open_video
from mutual3d.deploy.decoding import Decoding, read_apart
from mutual3d.deploy.detect import read_frames
from mutual3d.deploy.draw import FrameEncoder, enlarge, font_size
from mutual3d.deploy.explain import Explanation
from mutual3d.deploy.prediction import Clips
from mutual3d.report.plots import SERIES_COLORS, SERIES_MARKERS, png_bytes
from mutual3d.sampling import Preprocessing
from mutual3d.utils.files import atomic_write
from mutual3d.utils.logging import progress_bar
from mutual3d.utils.text import printable

COLUMNS = ("configuration", "class", "probability", "method", "frame", "second", "is_seen", "activation")
# What of a pixel is heat where that is largest, and what stays of the frame where the network does not look.
_STRONGEST, _UNSEEN = 0.65, 0.4
# Frames that are read at a time: some tens of megabytes.
_FRAMES_AT_ONCE = 8
# Pixels of the shorter side of a panel, at most.
_LARGEST_PANEL = 480
# Frames that a strip shows.
_COLUMNS = 8


def heat_over(frame_HWC: np.ndarray, heat_HW: torch.Tensor, share: float = 1.0) -> np.ndarray:
    """A uint8 frame H, W, 3 with heat, in [0, 1], over it; what the view of the network leaves out is darker.

    heat_HW: of the square in the frame's middle that the network sees, at any resolution. share: of the frame's shorter side, that
    is the square's.
    """
    height, width = frame_HWC.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    heat = F.interpolate(heat_HW[None, None], size=(side, side), mode="bilinear", align_corners=False)[0, 0].clamp(0, 1).numpy()
    drawn = frame_HWC * _UNSEEN
    colours = 255 * colormaps["inferno"](heat)[..., :3]
    weight = _STRONGEST * heat[..., None]
    square = frame_HWC[top : top + side, left : left + side]
    drawn[top : top + side, left : left + side] = square * (1 - weight) + colours * weight
    return drawn.round().astype(np.uint8)


def view_share(preprocessing: Preprocessing) -> float:
    """The side of what the network sees of a frame, as a share of the frame's shorter side."""
    return preprocessing.crop / (preprocessing.resize or preprocessing.crop)


def write_overlay(
    explanations: Sequence[Explanation],
    video_path: str | Path,
    output_path: str | Path,
    *,
    share: float = 1.0,
    decoding: Decoding = Decoding(),
) -> int:
    """Write an mp4 of the video's frames from the first to the last of the clip, a panel for each explanation side by side.

    Every frame of the video between them is there, at its own time, beginning with 0. share: see `view_share`. Returns the number
    of frames. Raises VideoError for a video that cannot be read; the file is written whole or not at all.
    """
    first, last = explanations[0].seconds[0], explanations[0].seconds[-1]
    (indices,) = read_apart(_indices_between, video_path, [(first, last, decoding.backend)], decoding)
    parts = [indices[i : i + _FRAMES_AT_ONCE] for i in range(0, len(indices), _FRAMES_AT_ONCE)]
    read = read_apart(read_frames, video_path, [(part, decoding.backend) for part in parts], decoding)
    frames = (frame for part in read for frame in part)
    step = (last - first) / max(len(indices) - 1, 1) or 1 / 30
    with atomic_write(output_path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        encoder = FrameEncoder(container, 1 / step)
        shown: Iterable[tuple[float, torch.Tensor]] = progress_bar(frames, "drawing", len(indices), unit="frame") if decoding.progress else frames
        drawn = _drawn(shown, explanations, share)
        second, panels = next(drawn)
        begin = second
        for following, next_panels in drawn:
            encoder.add(panels, second - begin, following - begin)
            second, panels = following, next_panels
        encoder.add(panels, second - begin, second - begin + step)
        encoder.finish()
    return len(indices)


def _drawn(
    frames: Iterable[tuple[float, torch.Tensor]], explanations: Sequence[Explanation], share: float
) -> Iterator[tuple[float, np.ndarray]]:
    for second, frame_HWC in frames:
        yield second, side_by_side(frame_HWC.numpy(), [(each.short, each.heat_at(second)) for each in explanations], share)


def side_by_side(frame_HWC: np.ndarray, panels: Sequence[tuple[str, torch.Tensor]], share: float) -> np.ndarray:
    """A frame once for each (text, heat H, W), the text above it: uint8 of another size. share: see `view_share`."""
    height, width = frame_HWC.shape[:2]
    if min(height, width) > _LARGEST_PANEL:
        frame_HWC = resize(torch.from_numpy(frame_HWC), *short_side_size(height, width, _LARGEST_PANEL)).numpy()
    frame_HWC = enlarge(frame_HWC)
    return np.concatenate([_titled(heat_over(frame_HWC, heat, share), text) for text, heat in panels], 1)


def _titled(image_HWC: np.ndarray, text: str) -> np.ndarray:
    """An image with a line of text in a bar above it."""
    size = font_size(*image_HWC.shape[:2]) + 2
    bar = Image.new("RGB", (image_HWC.shape[1], 2 * size))
    ImageDraw.Draw(bar).text((size // 2, size // 2), printable(text), font=ImageFont.truetype(findfont("DejaVu Sans"), size))
    return np.concatenate([np.asarray(bar), image_HWC], 0)


def _indices_between(path: str | os.PathLike, first: float, last: float, backend: str) -> list[int]:
    """The frames of a video that are shown from second `first` to second `last`."""
    with open_video(path, backend) as reader:
        begin, end = reader.indices_at([first, last])
        return list(range(begin, end + 1))


def strip_figure(explanations: Sequence[Explanation], clips: Clips) -> Figure:
    """A matplotlib figure of the clip's frames, a row for each explanation: its heat over the frames that it looked at, others pale.

    clips: what was explained. Of more than eight frames some are left out, of each row the same.
    """
    clip_THWC = clips.clips_VCTHW[0].permute(1, 2, 3, 0).numpy()
    # Those that a configuration of few frames sees are shown first: it would have an empty row otherwise.
    wanted = sorted(min(explanations, key=lambda each: len(each.seen)).seen)
    rest = np.linspace(0, len(clip_THWC) - 1, min(_COLUMNS, len(clip_THWC))).round().astype(int).tolist()
    places = sorted(dict.fromkeys([*wanted[:_COLUMNS], *rest]))
    while len(places) > _COLUMNS:
        places.remove(next((place for place in places if place not in wanted), places[-1]))
    figure = Figure(figsize=(max(1.5 * len(places), 4.5) + 0.2, 2.0 * len(explanations)), layout="constrained")
    for part, each in zip(figure.subfigures(len(explanations), 1, squeeze=False)[:, 0], explanations):
        part.suptitle(printable(each.describe()), x=0.01, ha="left", fontsize=9)
        for axes, place in zip(part.subplots(1, len(places), squeeze=False)[0], places):
            _draw_frame(axes, clip_THWC[place], each, place)
            axes.set_xlabel(f"frame {place + 1}, {each.seconds[place]:.2f} s", fontsize=7)
    return figure


def _draw_frame(axes: Axes, frame_HWC: np.ndarray, explanation: Explanation, place: int) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if place in explanation.seen:
        axes.imshow(heat_over(frame_HWC, explanation.heat_THW[place]))
    else:
        axes.imshow(255 - (255 - frame_HWC) // 5)


def curve_figure(explanations: Sequence[Explanation]) -> Figure:
    """A matplotlib figure of the activation over time, normalised (paper, Fig. 4), with a mark at each frame that was looked at."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, each in enumerate(explanations):
        colour, marker = SERIES_COLORS[number % len(SERIES_COLORS)], SERIES_MARKERS[number % len(SERIES_MARKERS)]
        seconds, values = (np.array(values)[list(each.seen)] for values in (each.seconds, each.curve_T.tolist()))
        axes.plot(seconds, values, color=colour, marker=marker, label=printable(each.describe()))
    axes.set(xlabel="second", ylabel="activation, normalised", ylim=(-0.02, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a png, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(png_bytes(figure))


def write_curve(explanations: Sequence[Explanation], path: str | Path) -> None:
    """Write the curves as a csv of `COLUMNS`: a row for each explanation and frame of the clip, frames counted from 0."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for each in explanations:
            for place, (second, value) in enumerate(zip(each.seconds, each.curve_T.tolist())):
                told = (each.configuration, each.class_name, f"{each.probability:.6f}", each.method)
                writer.writerow([*told, place, f"{second:.4f}", int(place in each.seen), f"{value:.6f}"])
