"""What a sub-network of a step learns from.

An objective is a function (logits B, K; the largest configuration's detached logits B, K; labels B) -> loss, mean over
the batch. The largest configuration itself always learns from the labels (paper, Eq. 3).
"""

import torch.nn.functional as F


def distillation_loss(logits, teacher_logits):
    """KL(teacher || student) at temperature 1: mean over the batch, sum over classes (paper, Eq. 4)."""
    student, teacher = logits.float().log_softmax(1), teacher_logits.detach().float().log_softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def label_loss(logits, labels):
    """Cross-entropy with the labels, mean over the batch (paper, Eq. 3)."""
    return F.cross_entropy(logits.float(), labels)


def _from_teacher(logits, teacher_logits, labels):
    return distillation_loss(logits, teacher_logits)


def _from_labels(logits, teacher_logits, labels):
    return label_loss(logits, labels)


OBJECTIVES = {"inplace_distillation": _from_teacher, "labels": _from_labels}
