"""What a network of maps learns from: each pixel is a sample of its own, and pixels that nobody labelled are none (RS-Net, B)."""

import torch
import torch.nn.functional as F

from mutual3d.training.objectives import LOSS_FUNCTIONS, LossFunction

# The label of a pixel that does not count, in losses and in metrics.
IGNORED = 255


def pixel_label_loss(logits_BKHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each pixel with its label, mean over the pixels that count; 0 where none does.

    labels_BHW: classes from 0, or IGNORED. Raises ValueError where the map is not as large as the labels'.
    """
    _check_sizes(logits_BKHW, labels_BHW)
    total = F.cross_entropy(logits_BKHW.float(), labels_BHW.long(), ignore_index=IGNORED, reduction="sum")
    return total / _count(labels_BHW)


def pixel_distillation_loss(logits_BKHW: torch.Tensor, teacher_logits_BKHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of each pixel, sum over classes, mean over the pixels that count; 0 where none does.

    Both maps are of one size, the labels'. labels_BHW: say which pixels do not count. Raises ValueError for another size.
    """
    _check_sizes(logits_BKHW, labels_BHW)
    _check_sizes(teacher_logits_BKHW, labels_BHW)
    student, teacher = logits_BKHW.float().log_softmax(1), teacher_logits_BKHW.detach().float().log_softmax(1)
    by_pixel = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return by_pixel.masked_fill(labels_BHW == IGNORED, 0.0).sum() / _count(labels_BHW)


def _count(labels_BHW: torch.Tensor) -> torch.Tensor:
    return (labels_BHW != IGNORED).sum().clamp(min=1)


def _check_sizes(logits: torch.Tensor, labels_BHW: torch.Tensor) -> None:
    if labels_BHW.ndim != 3 or logits.shape[:1] + logits.shape[2:] != labels_BHW.shape:
        raise ValueError(
            f"the network gives outputs of shape {tuple(logits.shape)} for maps of shape {tuple(labels_BHW.shape)}: "
            "MODEL.LOSS_FUNC pixel_cross_entropy needs a network that gives a map of classes, such as MODEL.MODEL_NAME RefineNet"
        )


LOSS_FUNCTIONS["pixel_cross_entropy"] = LossFunction(pixel_label_loss, pixel_distillation_loss)
