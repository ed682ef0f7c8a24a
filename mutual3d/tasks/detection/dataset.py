"""Images with their objects, in COCO's form, as samples."""

import functools

import numpy as np
import torch
from PIL import Image

from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample
from mutual3d.data.datasets.kinetics import sample_generator
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import read_image
from mutual3d.models.objects import mirrored, resized
from mutual3d.tasks.detection.coco import CocoInstances
from mutual3d.utils.fingerprint import fingerprint

# What a batch's smaller images are filled up with: about the mean of ImageNet's pixels, 255 * (0.485 + 0.456 + 0.406) / 3.
GREY = 114


class CocoDataset(ClipDataset):
    """Whole images in their own aspect. Indexed with (epoch, index); a `Sample` labelled with the image's objects
    (`mutual3d.models.objects`), or a `BadVideo`.

    An image is resized (bilinear, antialiased) to a short side of `short_side` pixels, or less where its long side would be above `max_long_side`
    (the papers' 1000 x 600: paper, 4.4). Training: the images that have an object which is no crowd, half of them mirrored; the random
    numbers come from (seed, epoch, index) alone; images of one batch may differ in size. Evaluation: all images, ordered by their size, so that
    those of one batch have one.

    instances: what `read_instances` gives. short_side, max_long_side: in pixels. flip: whether training mirrors (DATA.RANDOM_FLIP). Raises ValueError
    where there is nothing to train on.
    """

    noun = "image"
    fill = GREY

    def __init__(
        self, instances: CocoInstances, short_side: int, max_long_side: int, *, training: bool = False, flip: bool = True, seed: int = 0
    ) -> None:
        if not 1 <= short_side <= max_long_side:
            raise ValueError(f"the short side is {short_side} and COCO.MAX_LONG_SIDE {max_long_side}: the short one must be 1 or more, and not the longer")
        self.instances, self.training, self.flip, self.seed = instances, training, flip, seed
        self.short_side, self.max_long_side = short_side, max_long_side
        self.views_N2 = _view_sizes(instances.sizes_N2, short_side, max_long_side)
        images = [image for image in range(len(instances)) if not training or len(self._learned(image))]
        if not images:
            raise ValueError(f"'{instances.path}' has no image with an object that is no crowd: there is nothing to train on")
        # Number in `instances` of each sample's image.
        self.images: list[int] = images if training else sorted(images, key=lambda image: tuple(self.views_N2[image]))

    def __len__(self) -> int:
        return len(self.images)

    def name_of(self, index: int) -> str:
        return self.instances.image_paths[self.images[index]]

    @functools.cached_property
    def groups(self) -> list[tuple[int, int]] | None:  # type: ignore[override]  # a property, computed once
        """Height and width of each view; None in training, where a batch is filled up."""
        return None if self.training else [tuple(self.views_N2[image].tolist()) for image in self.images]

    def fingerprint(self) -> str:
        """Changes with the annotations, the files (size, time of modification) and each argument."""
        cut = self.short_side, self.max_long_side, self.training, self.flip if self.training else None, self.seed
        return fingerprint(type(self).__name__, self.instances.fingerprint(), cut)

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        epoch, index = key
        image = self.images[index]
        height, width = self.instances.sizes_N2[image].tolist()
        try:
            picture = read_image(self.name_of(index))
        except VideoError as error:
            return BadVideo(index, error.path, error.cause)
        if picture.size != (width, height):
            cause = f"it is {picture.width} x {picture.height} pixels, and '{self.instances.path}' says {width} x {height}"
            return BadVideo(index, self.name_of(index), cause)
        objects = self._objects(image)
        view = picture.resize(self.views_N2[image][::-1].tolist(), Image.Resampling.BILINEAR)
        pixels_CHW = torch.from_numpy(np.array(view)).permute(2, 0, 1)
        if self.training and self.flip and sample_generator(self.seed, epoch, index).random() < 0.5:
            pixels_CHW, objects = pixels_CHW.flip(2), mirrored(objects)
        return Sample(pixels_CHW[None, :, None], objects, index)

    def _learned(self, image: int) -> list[int]:
        """The objects of an image to learn from: a crowd is no object, and nothing is in a box without an area."""
        own = self.instances.objects_of(image)
        x1, y1, x2, y2 = self.instances.boxes_inside(own, image).T
        is_learned = ~self.instances.crowds_M[own.start : own.stop] & (x2 > x1) & (y2 > y1)
        return [number for number, learned in zip(own, is_learned) if learned]

    def _objects(self, image: int) -> dict[str, torch.Tensor]:
        """Those of the image as it is resized."""
        own, view = self._learned(image), self.views_N2[image].tolist()
        objects = resized(
            {
                "boxes": torch.from_numpy(self.instances.boxes_inside(own, image)).float(),
                "labels": torch.from_numpy(self.instances.classes_M[own]),
                "masks": torch.from_numpy(np.ascontiguousarray(self.instances.decoded(own, image))),
            },
            *view,
        )
        return {**objects, "masks": (objects["masks"] >= 0.5).to(torch.uint8)}


def _view_sizes(sizes_N2: np.ndarray, short_side: int, max_long_side: int) -> np.ndarray:
    """int N, 2: height and width that images of these heights and widths are resized to."""
    scales = np.minimum(short_side / sizes_N2.min(1), max_long_side / sizes_N2.max(1))
    return np.maximum(1, np.rint(sizes_N2 * scales[:, None])).astype(np.int64)
