"""What a network that enlarges images learns from: the absolute difference of pixels (US-Net, 4.2 and 5.1; WDSR)."""

import torch
import torch.nn.functional as F

from mutual3d.training.objectives import LOSS_FUNCTIONS, LossFunction

WHITE = 255.0


def label_loss(images_B3HW: torch.Tensor, labels_B3HW: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference between images in [0, 1] and the uint8 ones that they should be."""
    _check_sizes(images_B3HW, labels_B3HW)
    return F.l1_loss(images_B3HW.float(), labels_B3HW.float() / WHITE)


def distillation_loss(images_B3HW: torch.Tensor, teacher_B3HW: torch.Tensor, labels_B3HW: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference from the largest configuration's image, which gets no gradient (US-Net, 4.2).

    labels_B3HW: not used, the teacher's image takes their place.
    """
    return F.l1_loss(images_B3HW.float(), teacher_B3HW.detach().float())


def _check_sizes(images: torch.Tensor, labels: torch.Tensor) -> None:
    """`F.l1_loss` would stretch one of two shapes, or fail without saying whose they are."""
    if images.shape != labels.shape:
        raise ValueError(
            f"the network gives {tuple(images.shape)} and the images that it should give are {tuple(labels.shape)}: MODEL.LOSS_FUNC l1 needs "
            "a network that gives images, such as MODEL.MODEL_NAME WDSR, of the data set's SUPER_RESOLUTION.SCALE"
        )


LOSS_FUNCTIONS["l1"] = LossFunction(label_loss, distillation_loss)
