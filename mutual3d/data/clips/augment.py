"""Augmentation of whole uint8 clips by torchvision: RandAugment, AutoAugment, random erasing and Cutout, the same in every frame.

A clip is augmented once, where it is read, before any sub-network sees it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

# Policies of AutoAugment (Cubuk et al., CVPR 2019), as AUG.AA_TYPE names them.
AUTO_AUGMENT = {f"autoaugment-{policy.value}": policy for policy in v2.AutoAugmentPolicy}
# timm's words of RandAugment, which PySlowFast's AUG.AA_TYPE has: rand-m9-mstd0.5-inc1.
_WORDS = r"rand(-(m\d+(\.\d+)?|n\d+|mstd\d+(\.\d+)?|p[01](\.\d+)?|inc1))+"
_PARTS = re.compile(r"(mstd|inc|m|n|p)(\d+(?:\.\d+)?)")
# timm's magnitudes go from 0 to 10; torchvision's are counted in bins, of which these many are fine enough.
_LARGEST_MAGNITUDE = 10.0
_BINS = 101


@dataclass(frozen=True)
class RandAugmentation:
    """How RandAugment is drawn (Cubuk et al., 2020), as timm and PySlowFast do.

    num_ops: operations, one after the other, each of which happens with `probability`. magnitude: from 0 to 10, the mean of
    a normal distribution whose deviation is `magnitude_std`. The operations are torchvision's, all of which grow stronger
    with the magnitude. Raises ValueError for values outside these ranges.
    """

    num_ops: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.num_ops < 1 or not 0 <= self.magnitude <= _LARGEST_MAGNITUDE or self.magnitude_std < 0 or not 0 <= self.probability <= 1:
            raise ValueError(f"AUG.AA_TYPE as {self}: give 1 operation or more, a magnitude from 0 to 10, and a probability up to 1")

    @classmethod
    def parse(cls, text: str) -> "RandAugmentation":
        """Of timm's words, such as `rand-m9-mstd0.5-inc1`: m is the magnitude, n the number of operations (2), mstd the
        deviation (0), p the probability of each (0.5). inc1, operations that grow with the magnitude, is what there is.

        Raises ValueError, which says what is legal.
        """
        if not re.fullmatch(_WORDS, text):
            raise ValueError(
                f"AUG.AA_TYPE is {text!r}: give words of RandAugment such as 'rand-m9-n2-mstd0.5-inc1', a policy of AutoAugment "
                f"({', '.join(AUTO_AUGMENT)}), or '' for none"
            )
        values = {name: float(value) for name, value in _PARTS.findall(text)}
        return cls(int(values.get("n", 2)), values.get("m", 9.0), values.get("mstd", 0.0), values.get("p", 0.5))


@dataclass(frozen=True)
class RandomErasing:
    """How a rectangle is erased (Zhong et al., 2020), in the same place in every frame.

    probability: of a clip to lose one. mode: `const` fills it with the fill colour, `rand` with one random colour, `pixel`
    with a random colour for each pixel of each frame; random are those that are normally distributed after normalisation.
    """

    probability: float = 0.25
    mode: str = "pixel"

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or self.mode not in ERASING_MODES:
            raise ValueError(f"{self}: give a probability from 0 to 1, and one of {', '.join(ERASING_MODES)}")


ERASING_MODES = ("const", "rand", "pixel")
# Shares of the area, and ratios of height to width, that are erased: as in the paper, timm and PySlowFast.
_ERASED_AREA, _ERASED_RATIO = [0.02, 1 / 3], [0.3, 1 / 0.3]


@dataclass(frozen=True)
class ClipAugmentation:
    """What happens to a training clip beside crop and flip, in this order. rand_augment, erasing: None for none.

    mean, std: of pixels in [0, 1], per channel: the mean fills what an operation uncovers, which is 0 after normalisation.
    auto_augment: a word of `AUTO_AUGMENT`, "" for none. cutout: side, in pixels, of a square of the mean colour whose centre is anywhere
    in the clip (DeVries and Taylor, arXiv:1708.04552); 0 for none. Raises ValueError for another word and for a side below 0.
    """

    rand_augment: RandAugmentation | None = None
    erasing: RandomErasing | None = None
    mean: Sequence[float] = (0.45, 0.45, 0.45)
    std: Sequence[float] = (0.225, 0.225, 0.225)
    auto_augment: str = ""
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.auto_augment and self.auto_augment not in AUTO_AUGMENT or self.cutout < 0:
            raise ValueError(f"{self}: give a policy among {', '.join(AUTO_AUGMENT)}, and a side of 0 or more pixels")
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))

    def __call__(self, clips_VCTHW: torch.Tensor, seed: int) -> torch.Tensor:
        """The clips (uint8 V, C, T, H, W) augmented, each by its own draw: of `seed` alone. The layout stays."""
        # torchvision draws from PyTorch's CPU generator. torch.manual_seed would seed the GPUs' as well, for which nothing
        # puts the earlier state back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for clip_CTHW in clips_VCTHW:
                clip_CTHW.copy_(self._augmented(clip_CTHW.transpose(0, 1)).transpose(0, 1))
        return clips_VCTHW

    def _augmented(self, clip_TCHW: torch.Tensor) -> torch.Tensor:
        fill = [round(255 * value) for value in self.mean]
        if self.auto_augment:
            operation = v2.AutoAugment(AUTO_AUGMENT[self.auto_augment], fill=fill)
            clip_TCHW = operation(tv_tensors.Video(clip_TCHW)).as_subclass(torch.Tensor)
        if self.rand_augment is not None:
            clip_TCHW = _rand_augmented(clip_TCHW, self.rand_augment, fill)
        if self.erasing is not None and torch.rand(()).item() < self.erasing.probability:
            clip_TCHW = self._erased(clip_TCHW, self.erasing.mode)
        if self.cutout:
            clip_TCHW = _cut_out(clip_TCHW, self.cutout, fill)
        return clip_TCHW

    def _erased(self, clip_TCHW: torch.Tensor, mode: str) -> torch.Tensor:
        top, left, height, width, _ = v2.RandomErasing.get_params(clip_TCHW, _ERASED_AREA, _ERASED_RATIO, [0.0])
        if (height, width) == tuple(clip_TCHW.shape[-2:]):
            # No rectangle of these ratios fits, which get_params says by naming the whole image.
            return clip_TCHW
        frames, channels = clip_TCHW.shape[:2]
        shape = {"const": (1, 1, 1, 1), "rand": (1, channels, 1, 1), "pixel": (frames, channels, height, width)}[mode]
        noise = torch.zeros(shape) if mode == "const" else torch.randn(shape)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        colour = (255 * (mean + std * noise)).clamp(0, 255).round().to(torch.uint8)
        return v2.functional.erase(clip_TCHW, top, left, height, width, colour)


def _cut_out(clip_TCHW: torch.Tensor, side: int, fill: list[int]) -> torch.Tensor:
    """A square of a random centre filled; at the border less of it is left, as its authors have it."""
    rows, columns = clip_TCHW.shape[-2:]
    first_row, first_column = (int(torch.randint(size, ())) - side // 2 for size in (rows, columns))
    top, left = max(0, first_row), max(0, first_column)
    height, width = min(rows, first_row + side) - top, min(columns, first_column + side) - left
    return v2.functional.erase(clip_TCHW, top, left, height, width, torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1))


def _rand_augmented(clip_TCHW: torch.Tensor, how: RandAugmentation, fill: list[int]) -> torch.Tensor:
    for _ in range(how.num_ops):
        if torch.rand(()).item() >= how.probability:
            continue
        drawn = how.magnitude + how.magnitude_std * torch.randn(()).item()
        magnitude = round(min(max(drawn, 0.0), _LARGEST_MAGNITUDE) / _LARGEST_MAGNITUDE * (_BINS - 1))
        operation = v2.RandAugment(1, magnitude, _BINS, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
        clip_TCHW = operation(tv_tensors.Video(clip_TCHW)).as_subclass(torch.Tensor)
    return clip_TCHW
