"""Spatial transforms of uint8 frames: from a decoded frame of any size to the crops that a clip is made of.

A transform is prepared once a clip (its random numbers are drawn then) and applied to one frame at a time, so that no
more than one frame of the source's size need be held. Resizing is bilinear without antialiasing, in uint8, as the
published weights were trained.
"""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear resize of a uint8 image H, W, C (tensor) without antialiasing; the result has the same layout.

    height, width: in pixels.
    """
    if tuple(image.shape[:2]) == (height, width):
        return image
    # In this order the strides say that channels are last, so that the result's are too: twice as fast as to planes and back.
    image_NCHW = image.unsqueeze(0).permute(0, 3, 1, 2)
    return interpolate(image_NCHW, size=(height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after a resize of the shorter side to `short_side`; the longer one is rounded down."""
    if height <= width:
        return short_side, max(short_side, math.floor(width * short_side / height))
    return max(short_side, math.floor(height * short_side / width)), short_side


class RandomCrop(NamedTuple):
    """One draw of the training transform: short side resized to `short_side`, a crop, perhaps a flip.

    `top` and `left` in [0, 1) place the crop in the free range. Called with a uint8 frame H, W, 3 of any size it gives
    the uint8 crop `size` x `size` x 3.
    """

    size: int
    short_side: int
    top: float
    left: float
    flip: bool

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width), in source pixels, of what the crop shows of a frame of this size."""
        scaled_height, scaled_width = short_side_size(height, width, self.short_side)
        top, box_height = _interval(self.top, self.size, scaled_height, height)
        left, box_width = _interval(self.left, self.size, scaled_width, width)
        return top, left, box_height, box_width

    def __call__(self, frame: np.ndarray | torch.Tensor) -> torch.Tensor:
        frame = torch.as_tensor(frame)
        top, left, height, width = self.box(*frame.shape[:2])
        # Cropping before resizing moves the crop by half a source pixel at most and resizes only what is kept.
        crop = resize(frame[top : top + height, left : left + width], self.size, self.size)
        return crop.flip(1) if self.flip else crop

    def view_boxes(self, boxes_N4: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Normalised xyxy boxes (float N, 4) of a frame of this size as those of the crop, clipped to it.

        What lies outside becomes a box without area at the crop's border. height, width: of the frame, in pixels.
        """
        top, left, box_height, box_width = self.box(height, width)
        offset = torch.tensor([left, top, left, top], dtype=boxes_N4.dtype)
        pixels = boxes_N4 * torch.tensor([width, height, width, height])
        boxes = ((pixels - offset) / torch.tensor([box_width, box_height, box_width, box_height])).clamp(0, 1)
        if self.flip:
            boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], dim=1)
        return boxes

    def moved_to(self, box: torch.Tensor, height: int, width: int) -> "RandomCrop":
        """The same crop of a frame of this size, moved no further than it takes to show the centre of `box` (in [0, 1]).

        height, width: of the frame, in pixels.
        """
        x1, y1, x2, y2 = map(float, box)
        scaled_height, scaled_width = short_side_size(height, width, self.short_side)
        top = _place_showing((y1 + y2) / 2, self.top, self.size, scaled_height)
        left = _place_showing((x1 + x2) / 2, self.left, self.size, scaled_width)
        return self._replace(top=top, left=left)


def _place_showing(centre: float, place: float, size: int, scaled: int) -> float:
    """`place` as in RandomCrop, so changed that an interval of `size` out of `scaled` pixels holds `centre` (in [0, 1])."""
    free, centre = scaled - size + 1, centre * scaled
    first = min(max(math.floor(place * free), math.ceil(centre) - size), math.floor(centre))
    # Half a pixel more, so that rounding cannot lead back to the pixel before.
    return (min(max(first, 0), free - 1) + 0.5) / free


def _interval(place: float, size: int, scaled: int, source: int) -> tuple[int, int]:
    """First pixel and length, in the source, of an interval of `size` out of `scaled` pixels."""
    first = math.floor(place * (scaled - size + 1))
    length = max(1, min(source, round(size * source / scaled)))
    return min(round(first * source / scaled), source - length), length


@dataclass(frozen=True)
class TrainingCrop:
    """How the crops of training are drawn.

    The short side is uniform in `jitter_scales` (minimum, maximum; DATA.TRAIN_JITTER_SCALES), or with `inverse_uniform`
    uniform in 1 / short side (DATA.INV_UNIFORM_SAMPLE); `flip` mirrors half of the draws (DATA.RANDOM_FLIP).
    """

    jitter_scales: Sequence[int] = (256, 320)
    inverse_uniform: bool = False
    flip: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "jitter_scales", tuple(self.jitter_scales))

    def check(self, size: int) -> None:
        """ValueError unless crops of `size` pixels fit into the short sides."""
        check_jitter_scales(self.jitter_scales, size)

    def fingerprinted(self, size: int) -> dict[str, object]:
        """All that decides a crop of `size` pixels, for `mutual3d.utils.fingerprint`."""
        return {"size": size, **dataclasses.asdict(self)}


def random_crop(generator: np.random.Generator, size: int, crop: TrainingCrop) -> RandomCrop:
    """Draw a `RandomCrop` of `size` pixels; its place is uniform in the frame. Raises ValueError for scales below `size`."""
    low, high = check_jitter_scales(crop.jitter_scales, size)
    draw, top, left, coin = generator.random(4).tolist()
    if crop.inverse_uniform:
        short_side = 1 / (1 / high + draw * (1 / low - 1 / high))
    else:
        short_side = low + draw * (high - low)
    return RandomCrop(size, round(short_side), top, left, crop.flip and coin < 0.5)


def check_jitter_scales(jitter_scales: Sequence[int], size: int) -> tuple[int, int]:
    """(minimum, maximum) of the short side; raises ValueError unless size <= minimum <= maximum.

    jitter_scales: DATA.TRAIN_JITTER_SCALES. size: of the crop, in pixels.
    """
    scales = tuple(jitter_scales)
    if len(scales) != 2 or not size <= scales[0] <= scales[1]:
        raise ValueError(
            f"DATA.TRAIN_JITTER_SCALES {list(scales)} must be two sizes, minimum and maximum, "
            f"neither below the crop ({size})"
        )
    return scales


class UniformCrops(NamedTuple):
    """The test transform: short side resized to `size`, then `num_crops` crops along the longer side.

    One crop is the centre; three are left, centre, right or top, centre, bottom. Called with a uint8 frame H, W, 3 it
    gives a list of `num_crops` uint8 crops `size` x `size` x 3; the frame is resized once for all of them.
    """

    size: int
    num_crops: int = 1

    def __call__(self, frame: np.ndarray | torch.Tensor) -> list[torch.Tensor]:
        frame = torch.as_tensor(frame)
        height, width = short_side_size(frame.shape[0], frame.shape[1], self.size)
        scaled = resize(frame, height, width)
        return [self._crop(scaled, place) for place in self._places()]

    def _places(self) -> list[float]:
        if self.num_crops == 1:
            return [0.5]
        return [crop / (self.num_crops - 1) for crop in range(self.num_crops)]

    def _crop(self, frame: torch.Tensor, place: float) -> torch.Tensor:
        top, left = (math.ceil(place * (side - self.size)) for side in frame.shape[:2])
        return frame[top : top + self.size, left : left + self.size]


class WholeFrame(NamedTuple):
    """The test transform of detection: short side resized to `size`, nothing cut off; normalised boxes stay as they are."""

    size: int

    def __call__(self, frame: np.ndarray | torch.Tensor) -> torch.Tensor:
        frame = torch.as_tensor(frame)
        height, width = short_side_size(frame.shape[0], frame.shape[1], self.size)
        return resize(frame, height, width)

    def view_boxes(self, boxes_N4: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The boxes as they are: a frame of any `height` and `width` is shown whole."""
        return boxes_N4


def fill_clips(
    keys_VT: Sequence[Sequence[Hashable]], crops: Iterable[tuple[Hashable, torch.Tensor]], size: int
) -> torch.Tensor:
    """Clips as of `stack_clips` from crops `size`, `size`, 3 that come one by one, each with its key, and are not kept.

    keys_VT: what each frame of each clip is made of. Frames that are freed at once leave their memory to the next one: fresh memory
    costs more than what is written into it. Every key must come.
    """
    clips_VTHWC = torch.empty(len(keys_VT), len(keys_VT[0]), size, size, 3, dtype=torch.uint8)
    places: dict[Hashable, list[tuple[int, int]]] = {}
    for view, keys in enumerate(keys_VT):
        for frame, key in enumerate(keys):
            places.setdefault(key, []).append((view, frame))
    for key, crop in crops:
        for view, frame in places.pop(key):
            clips_VTHWC[view, frame] = crop
    assert not places, "every frame of the clips was read"
    return clips_VTHWC.permute(0, 4, 1, 2, 3)


def stack_clips(crops_VT: Iterable[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Clips uint8 V, C, T, H, W from lists of crops H, W, C: a permuted view of V, T, H, W, C, hence channels last."""
    clips = [list(crops) for crops in crops_VT]
    clips_VTHWC = torch.empty(len(clips), len(clips[0]), *clips[0][0].shape, dtype=torch.uint8)
    for clip, crops in zip(clips_VTHWC, clips):
        torch.stack(crops, out=clip)
    return clips_VTHWC.permute(0, 4, 1, 2, 3)
