"""How clips are cut, normalised and scored: one object from training to deployment."""

import math
import numbers
from dataclasses import dataclass

import torch

# What turns outputs into scores, along a dimension; `none` leaves them as they are.
ACTIVATIONS = {
    "softmax": torch.softmax, "sigmoid": lambda logits, dimension: torch.sigmoid(logits), "none": lambda outputs, dimension: outputs,
}  # fmt: skip
# How scores of views are joined.
ENSEMBLES = ("sum", "max")
_LARGEST_SIZE, _MOST_CHANNELS = 8192, 64


@dataclass(frozen=True)
class Preprocessing:
    """How a clip is cut from a video and normalised: DATA.* of the training run; crop in pixels; mean and std one a channel.

    activation: what turns outputs into scores, softmax, sigmoid, or none. ensemble: how scores of views are joined, sum or max.
    resize: images' short side before the crop; None takes the crop's. reverse_channels: the network takes BGR; clips, mean
    and std are RGB all the same. Raises ValueError, with the legal values, for a
    value that no clip can be cut or normalised with.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_frames: int
    sampling_rate: int
    target_fps: float
    crop: int
    activation: str = "softmax"
    ensemble: str = "sum"
    resize: int | None = None
    reverse_channels: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            is_list = isinstance(values, (list, tuple)) and 1 <= len(values) <= _MOST_CHANNELS and all(map(_is_number, values))
            if not is_list or (name == "std" and min(values) <= 0):
                legal = "above 0, of pixels in [0, 1]" if name == "std" else "of pixels in [0, 1]"
                raise ValueError(f"{name} is {values!r:.80}: give finite numbers, one a channel (three for RGB), {legal}")
            object.__setattr__(self, name, tuple(values))
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}: give one a channel in each, three for RGB")
        for name in ("num_frames", "sampling_rate", "crop", "resize"):
            value = getattr(self, name)
            is_whole = _is_number(value) and isinstance(value, numbers.Integral) and 1 <= int(value) <= _LARGEST_SIZE
            if not is_whole and not (name == "resize" and value is None):
                raise ValueError(f"{name} is {value!r:.80}: give a whole number from 1 to {_LARGEST_SIZE}")
        if not isinstance(self.reverse_channels, bool):
            raise ValueError(f"reverse_channels is {self.reverse_channels!r:.80}: give True or False")
        if not _is_number(self.target_fps) or self.target_fps <= 0:
            raise ValueError(f"target_fps is {self.target_fps!r:.80}: give frames a second above 0")
        for name, words in (("activation", tuple(ACTIVATIONS)), ("ensemble", ENSEMBLES)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in words:
                raise ValueError(f"{name} is {value!r:.80}: choose among {', '.join(words)}")

    @property
    def has_several_labels(self) -> bool:
        """Whether several classes may be there at once, each with a probability of its own."""
        return self.activation != "softmax"


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
