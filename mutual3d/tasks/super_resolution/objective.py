"""What a network that enlarges images learns from: the absolute or the squared difference of pixels (US-Net, 4.2 and 5.1; WDSR).

The absolute difference does not teach in place. Where a sub-network and its teacher agree but for a hundredth of a grey level, its
gradient is as large as where they differ by fifty, and it moves the parameters that the two share: three sub-networks drag the teacher
along, away from the labels, whose gradient is no larger. The squared difference vanishes with what is left to teach.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mutual3d.training.objectives import LOSS_FUNCTIONS, LossFunction

WHITE = 255.0


def pixel_losses(difference: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> LossFunction:
    """The loss function of images in [0, 1] whose labels are uint8 images of the same size.

    difference: of two images, a scalar. With a teacher, the largest configuration's image takes the place of the label and gets no
    gradient (US-Net, 4.2). Raises ValueError, when it is called, for outputs of another size than the labels'.
    """

    def labels(images_B3HW: torch.Tensor, labels_B3HW: torch.Tensor) -> torch.Tensor:
        _check_sizes(images_B3HW, labels_B3HW)
        return difference(images_B3HW.float(), labels_B3HW.float() / WHITE)

    def distillation(images_B3HW: torch.Tensor, teacher_B3HW: torch.Tensor, labels_B3HW: torch.Tensor) -> torch.Tensor:
        return difference(images_B3HW.float(), teacher_B3HW.detach().float())

    return LossFunction(labels, distillation)


def _check_sizes(images: torch.Tensor, labels: torch.Tensor) -> None:
    """torch would stretch one of two shapes, or fail without saying whose they are."""
    if images.shape != labels.shape:
        raise ValueError(
            f"the network gives {tuple(images.shape)} and the images that it should give are {tuple(labels.shape)}: MODEL.LOSS_FUNC l1 and l2 "
            "need a network that gives images, such as MODEL.MODEL_NAME WDSR, of the data set's SUPER_RESOLUTION.SCALE"
        )


LOSS_FUNCTIONS["l1"] = pixel_losses(F.l1_loss)
LOSS_FUNCTIONS["l2"] = pixel_losses(F.mse_loss)
