"""Peak signal-to-noise ratio of enlarged images, in decibels."""

from typing import Any

import torch

from mutual3d.metrics.build import METRICS
from mutual3d.metrics.metrics import MetricFacts, NotFiniteError, SummedMetric

WHITE = 255.0
# Luma by ITU-R BT.601 of red, green and blue in [0, 255]: from 16 for black to 235 for white.
_LUMA, _BLACK = (65.481 / 255, 128.553 / 255, 24.966 / 255), 16.0
# An image that is exactly right has no noise. Of an image with any, the smallest ratio of one grey level in millions of pixels is above.
HIGHEST = 100.0


def luma(pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """Y of ITU-R BT.601, float64 B, 1, H, W from 16 to 235, of RGB pixels from 0 to 255."""
    weights = torch.tensor(_LUMA, dtype=torch.float64).view(1, 3, 1, 1)
    return (pixels_B3HW.double() * weights).sum(1, keepdim=True) + _BLACK


def quantised(images_B3HW: torch.Tensor) -> torch.Tensor:
    """The pixels that a file of the image would hold: images in [0, 1] -> whole numbers from 0 to 255, as floats."""
    return (images_B3HW.float() * WHITE).round().clamp(0, WHITE)


def psnr(pixels_BCHW: torch.Tensor, truth_BCHW: torch.Tensor, border: int = 0) -> torch.Tensor:
    """10 log10(255^2 / mean squared error) of each image, in dB, float64 B; at most `HIGHEST`, which stands for no error.

    border: pixels of each side that do not count. Raises ValueError for other shapes, and where no pixel is left.
    """
    if pixels_BCHW.shape != truth_BCHW.shape:
        raise ValueError(
            f"the images are {tuple(pixels_BCHW.shape)} and the true ones {tuple(truth_BCHW.shape)}: the network and the data set need one "
            "SUPER_RESOLUTION.SCALE"
        )
    height, width = truth_BCHW.shape[2:]
    if min(height, width) <= 2 * border:
        raise ValueError(f"an image of {width} x {height} pixels has none inside a border of {border}: leave it out of the set")
    inside = (..., slice(border, height - border), slice(border, width - border))
    squares = (pixels_BCHW[inside].double() - truth_BCHW[inside].double()).square().flatten(1).mean(1)
    return (10 * (WHITE**2 / squares).log10()).clamp(max=HIGHEST)


class PeakSignalToNoise(SummedMetric):
    """The mean over images of their PSNR, in dB, of what a file would hold of them (8 bits a channel).

    psnr: of the luma Y, without the outer `scale` pixels, as super-resolution is compared on its test sets. psnr_rgb: of red, green and
    blue together, without the outer `scale` + 6 pixels, as on DIV2K (EDSR, 4.4, whose protocol WDSR shares).
    """

    facts = MetricFacts(
        {"psnr": "PSNR of the luma", "psnr_rgb": "PSNR of all channels"}, "an enlarged image", unit="dB", higher_is_better=True
    )

    def __init__(self, scale: int = 2) -> None:
        self.scale = scale
        # Images, and the sums of their two numbers.
        super().__init__(3)

    @classmethod
    def of_dataset(cls, dataset: Any) -> "PeakSignalToNoise":
        """An empty metric for the images of a `SuperResolutionDataset`. dataset: or another one with a `scale`."""
        return cls(dataset.scale)

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """scores: images B, 3, H, W in [0, 1], on the CPU; batch: what the loader gave, with the true ones, uint8 B, 3, H, W."""
        wrong = ~scores.isfinite().flatten(1).all(1)
        if wrong.any():
            raise NotFiniteError(
                f"{int(wrong.sum())} of {len(scores)} images have pixels that are no finite numbers: the weights are not finite, or the "
                "numbers overflow on the way; go on from an earlier checkpoint"
            )
        pixels, truth = quantised(scores), batch.labels
        of_luma = psnr(luma(pixels), luma(truth), self.scale)
        of_all = psnr(pixels, truth, self.scale + 6)
        self.sums += torch.stack([torch.tensor(float(len(scores)), dtype=torch.float64), of_luma.sum(), of_all.sum()])

    def values(self) -> dict[str, float]:
        """{name: dB}; ValueError when no image was seen."""
        count, *sums = self.sums.tolist()
        if count == 0:
            raise ValueError("no image was evaluated")
        return {name: total / count for name, total in zip(self.names, sums)}


METRICS["psnr"] = PeakSignalToNoise
