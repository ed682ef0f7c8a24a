"""Samples of super-resolution: a small image and, as its label, the large one."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from mutual3d.data.datasets.dataset import ClipDataset, Sample
from mutual3d.data.datasets.kinetics import sample_generator
from mutual3d.utils.fingerprint import fingerprint

from .pairs import ImagePair, ImagePairs


class SuperResolutionDataset(ClipDataset):
    """Small images as clips of one frame, uint8 1, 3, 1, h, w, labelled with the large ones, uint8 3, scale * h, scale * w.

    Training cuts `patches_per_image` patches of `crop_size` pixels out of each small image, with the same places of the large one, at
    random by (seed, epoch, index) alone; with `flip` both are mirrored, upside down and transposed alike, each half of the time: the
    eight ways to turn a square. Evaluation (`training` False) gives whole images, of which those of one size share batches (`groups`). Raises ValueError for
    an image that is smaller than a patch.
    """

    noun = "image"

    def __init__(
        self, pairs: ImagePairs, *, crop_size: int, training: bool = False, flip: bool = True, patches_per_image: int = 1, seed: int = 0
    ) -> None:
        if crop_size < 1 or patches_per_image < 1 or seed < 0:
            raise ValueError(
                f"crop_size is {crop_size}, patches_per_image {patches_per_image} and the seed {seed}: give 1 or more, and a seed of 0 or more"
            )
        self.pairs, self.scale, self.training = pairs, pairs.scale, training
        self.crop_size, self.flip, self.seed = crop_size, flip, seed
        self.patches_per_image = patches_per_image if training else 1
        self._check_sizes()

    def _check_sizes(self) -> None:
        for index in range(len(self.pairs)) if self.training else ():
            width, height = self.pairs.low_size(index)
            if min(width, height) < self.crop_size:
                raise ValueError(
                    f"'{self.pairs.name_of(index)}' has {width} x {height} pixels and a patch {self.crop_size} x {self.crop_size}: remove it "
                    f"from the training set, or lower DATA.TRAIN_CROP_SIZE to at most {min(width, height)}"
                )

    def __len__(self) -> int:
        return len(self.pairs) * self.patches_per_image

    def name_of(self, index: int) -> str:
        return self.pairs.name_of(index // self.patches_per_image)

    @property
    def groups(self) -> Sequence[Hashable] | None:
        """Of whole images their sizes."""
        return None if self.training else [self.pairs.low_size(index) for index in range(len(self.pairs))]

    def fingerprint(self) -> str:
        """Changes with the pairs and with how patches are cut."""
        cut = (self.seed, self.crop_size, self.flip, self.patches_per_image) if self.training else None
        return fingerprint(type(self).__name__, self.pairs.fingerprint(), cut)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of (epoch, index). VideoError for a pair that cannot be read."""
        epoch, index = key
        pair = self.pairs.read(index // self.patches_per_image)
        if self.training:
            pair = cut_patch(pair, self.crop_size, self.flip, sample_generator(self.seed, epoch, index))
        low, high = (torch.from_numpy(image_HWC.transpose(2, 0, 1).copy()) for image_HWC in pair)
        return Sample(low[None, :, None], high, index)


def cut_patch(pair: ImagePair, crop_size: int, flip: bool, generator: np.random.Generator) -> ImagePair:
    """A random patch of a pair: `crop_size` pixels of the small image, and what the large one shows there.

    flip: whether both are mirrored, upside down and transposed alike, each by a coin of its own.
    """
    height, width, _ = pair.low_HWC.shape
    scale = pair.high_HWC.shape[0] // height
    top, left = (int(generator.integers(side - crop_size + 1)) for side in (height, width))
    patches = [
        image[top * factor : (top + crop_size) * factor, left * factor : (left + crop_size) * factor]
        for image, factor in zip(pair, (1, scale))
    ]
    if flip:
        mirrored, upside_down, transposed = generator.integers(2, size=3).tolist()
        patches = [_turned(patch, mirrored, upside_down, transposed) for patch in patches]
    return ImagePair(*patches)


def _turned(patch_HWC: np.ndarray, mirrored: int, upside_down: int, transposed: int) -> np.ndarray:
    patch_HWC = patch_HWC[:, ::-1] if mirrored else patch_HWC
    patch_HWC = patch_HWC[::-1] if upside_down else patch_HWC
    return patch_HWC.transpose(1, 0, 2) if transposed else patch_HWC
