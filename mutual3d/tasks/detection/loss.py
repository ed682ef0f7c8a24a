"""The loss of a network that computes its losses itself, from its own proposals: Mask R-CNN's five."""

from collections.abc import Mapping
from typing import Any

import torch

from mutual3d.training.objectives import LOSS_FUNCTIONS, LossFunction

WORD = "own_losses"


def own_losses(outputs: Mapping[str, torch.Tensor], labels: Any) -> dict[str, torch.Tensor]:
    """{name: scalar} as the network gave them for these labels; their sum is the loss."""
    return dict(outputs)


def no_distillation(outputs: Any, teacher_outputs: Any, labels: Any) -> dict[str, torch.Tensor]:
    """ValueError: two networks propose other boxes, and nothing says which of them are to agree (paper, 4.4: every sub-network learns from the
    ground truth)."""
    raise ValueError(f"MODEL.LOSS_FUNC {WORD} has no distillation: set MUTUAL.OBJECTIVE labels")


LOSS_FUNCTIONS[WORD] = LossFunction(own_losses, no_distillation)
