"""Pictures as clips of one frame, each with the map of its pixels' classes."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample, stat_files
from mutual3d.data.datasets.images import training_transform
from mutual3d.data.datasets.kinetics import sample_generator
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import image_size, read_image
from mutual3d.utils.fingerprint import fingerprint

from .loss import IGNORED
from .maps import MappedPicture, read_map


class MapDataset(ClipDataset):
    """Clips of one frame, uint8 1, 3, 1, H, W, with maps of classes, uint8 (IGNORED where nothing counts). Indexed with (epoch, index).

    Training cuts, scales and mirrors picture and map alike, to squares of `crop_size`, as `training_transform` says, with random numbers
    from (seed, epoch, index) alone. Evaluation gives the whole picture, its short side scaled to `crop_size`, and the map as it is: what
    a configuration says is resized to it (RS-Net, B).

    Args:
        pictures: the files. num_classes: of the maps. crop_size: in pixels. training: whether clips are drawn for training.
        augmentation: arguments of `training_transform`, for training.
    """

    noun = "image"

    def __init__(
        self,
        pictures: Sequence[MappedPicture],
        *,
        num_classes: int,
        crop_size: int,
        training: bool = False,
        seed: int = 0,
        **augmentation: Any,
    ) -> None:
        if not 1 <= num_classes < IGNORED:
            raise ValueError(f"MODEL.NUM_CLASSES is {num_classes}: maps have 1 to {IGNORED - 1} classes")
        if crop_size < 1 or seed < 0:
            raise ValueError(f"crop_size is {crop_size} and the seed {seed}: give a crop of 1 or more, and a seed of 0 or more (RNG_SEED)")
        self.pictures, self.num_classes, self.crop_size = list(pictures), num_classes, crop_size
        self.training, self.seed = training, seed
        self._augmentation = augmentation if training else None
        self._transform = training_transform(crop_size, map_fill=IGNORED, **augmentation) if training else None
        self._groups: list[tuple[int, int] | None] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def name_of(self, index: int) -> str:
        return self.pictures[index].image

    def fingerprint(self) -> str:
        """Changes with each path and file (size, time of modification), of pictures and maps, and with each argument."""
        files = stat_files([path for picture in self.pictures for path in picture])
        arguments = self.num_classes, self.crop_size, self.training, self.seed, self._augmentation
        return fingerprint(type(self).__name__, self.pictures, files, arguments)

    @property
    def groups(self) -> list[tuple[int, int] | None] | None:
        """Width and height of each picture, since whole ones of several sizes share no batch. None in training."""
        if self.training:
            return None
        if self._groups is None:
            self._groups = [_size_of(picture.image) for picture in self.pictures]
        return self._groups

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        epoch, index = key
        picture = self.pictures[index]
        try:
            image, map_HW = read_image(picture.image), torch.from_numpy(read_map(picture.label, self.num_classes))
            if map_HW.shape != (image.height, image.width):
                height, width = map_HW.shape
                raise VideoError(picture.label, f"the map is {width} x {height} and its picture {image.width} x {image.height} pixels")
        except VideoError as error:
            return BadVideo(index, error.path, error.cause)
        if self._transform is None:
            image_CHW = v2.functional.pil_to_tensor(v2.functional.resize(image, [self.crop_size]))
        else:
            image_CHW, map_HW = self._augmented(image, map_HW, int(sample_generator(self.seed, epoch, index).integers(2**63)))
        return Sample(image_CHW[None, :, None], map_HW, index)

    def _augmented(self, image: Image.Image, map_HW: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        # The transforms draw from PyTorch's CPU generator; see ImageDataset.
        assert self._transform is not None
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            image_CHW, cut_HW = self._transform(image, tv_tensors.Mask(map_HW))
        return image_CHW, cut_HW.as_subclass(torch.Tensor)


def _size_of(path: str) -> tuple[int, int] | None:
    """Width and height; None where the file cannot be read, which reading it will say."""
    try:
        return image_size(path)
    except VideoError:
        return None
