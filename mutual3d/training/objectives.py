"""What the configurations of a step learn from.

A loss function is a pair: with the labels, and with another configuration's output. Heads give logits, B, K; labels are
int64 B, or for several labels at once float B, K. Every loss is the mean over the batch.
"""

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F


def label_loss(logits, labels):
    """Cross-entropy with the labels, mean over the batch (paper, Eq. 3)."""
    return F.cross_entropy(logits.float(), labels)


def distillation_loss(logits, teacher_logits):
    """KL(teacher || student) at temperature 1: mean over the batch, sum over classes (paper, Eq. 4)."""
    student, teacher = logits.float().log_softmax(1), teacher_logits.detach().float().log_softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def binary_label_loss(logits, labels):
    """Binary cross-entropy of each class, mean over batch and classes, as PySlowFast's recipes have it."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def binary_distillation_loss(logits, teacher_logits):
    """Binary cross-entropy with the teacher's sigmoids: softmax means nothing where several labels hold at once."""
    return binary_label_loss(logits, teacher_logits.detach().float().sigmoid())


class LossFunction(NamedTuple):
    """labels(logits, labels) and distillation(logits, teacher_logits), each -> scalar."""

    labels: callable
    distillation: callable


_CROSS_ENTROPY = LossFunction(label_loss, distillation_loss)
_BINARY = LossFunction(binary_label_loss, binary_distillation_loss)
LOSS_FUNCTIONS = {"cross_entropy": _CROSS_ENTROPY, "bce_logit": _BINARY, "bce": _BINARY}


class Objective(nn.Module):
    """Called once for each configuration of a step but the first: (logits, the first one's detached logits, labels)."""

    is_joint = False

    def __init__(self, loss_function, num_networks):
        super().__init__()
        self.loss_function = loss_function


class InplaceDistillation(Objective):
    """The largest configuration's output teaches the others (paper, Eq. 4; US-Net, 4.2)."""

    def forward(self, logits, teacher_logits, labels):
        return self.loss_function.distillation(logits, teacher_logits)


class Labels(Objective):
    """Every configuration learns from the labels (paper, 6.2; S-Net)."""

    def forward(self, logits, teacher_logits, labels):
        return self.loss_function.labels(logits, labels)


class EnsembleDistillation(Objective):
    """Labels for every size, and their learned ensemble as the teacher of all (RS-Net, 3.3, Eq. 5-10).

    Called once a step with the logits of all configurations, sizes descending. Gives one loss for each of them, L_cls
    and its share of L_dis, and last L_ens, which trains the importance scores `alpha` alone.
    """

    is_joint = True
    dense = True

    def __init__(self, loss_function, num_networks):
        super().__init__(loss_function, num_networks)
        self.alpha = nn.Parameter(torch.zeros(num_networks))

    def forward(self, logits, labels):
        shares = self.alpha.softmax(0)
        ensemble = sum(share * z.detach().float() for share, z in zip(shares, logits))
        learned = [self.loss_function.labels(z, labels) + self._distilled(s, logits, ensemble) for s, z in enumerate(logits)]
        return torch.stack([*learned, self.loss_function.labels(ensemble, labels)])

    def _distilled(self, student, logits, ensemble):
        """From the ensemble and, when dense, from every larger size; scaled so that L_dis keeps the range of L_cls."""
        teachers = [ensemble, *logits[:student]] if self.dense else [ensemble]
        scale = 2 / (len(logits) + 1) if self.dense else 1.0
        return scale * sum(self.loss_function.distillation(logits[student], teacher) for teacher in teachers)


class VanillaEnsembleDistillation(EnsembleDistillation):
    """The ensemble alone teaches (RS-Net, Eq. 8)."""

    dense = False


OBJECTIVES = {
    "inplace_distillation": InplaceDistillation,
    "labels": Labels,
    "ensemble_distillation": EnsembleDistillation,
    "ensemble_distillation_vanilla": VanillaEnsembleDistillation,
}
