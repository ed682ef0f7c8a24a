"""What a policy learns from: the clipped surrogate of proximal policy optimization (Schulman et al., 2017, Eq. 7 and 9).

Labels are rows of what was experienced; the largest configuration played it. With MUTUAL.OBJECTIVE labels every sub-network has
this loss on these same roll-outs: that is how US-Net distils (US-Net, 4.2: the largest width's policy gives the roll-outs that
the other widths are trained on). With inplace_distillation it learns the largest one's action distribution and value instead.
"""

import torch

from mutual3d.training.objectives import LOSS_FUNCTIONS, Losses, LossFunction, distillation_loss

# The columns of labels: which action was taken, the logarithm of its probability by the policy that played, its advantage, what the
# state turned out to be worth, and how far from 1 a ratio of probabilities still pays.
COLUMNS = ("action", "log_probability", "advantage", "outcome", "clip_range")
# Of the squared error of the value and of the entropy, beside the surrogate: c1 and c2 (PPO, Table 5).
VALUE_WEIGHT, ENTROPY_WEIGHT = 1.0, 0.01


def label_loss(outputs_BA: torch.Tensor, labels_B5: torch.Tensor) -> Losses:
    """The three parts of PPO's loss (Eq. 9, with its sign turned), each the mean over the batch.

    outputs_BA: B, A + 1: logits of A actions, then the value. labels_B5: float B, 5, of `COLUMNS`.
    """
    logits, values = split_outputs(outputs_BA)
    if labels_B5.ndim != 2 or labels_B5.shape[1] != len(COLUMNS):
        raise ValueError(
            f"labels are {tuple(labels_B5.shape)}: MODEL.LOSS_FUNC ppo needs rows of {', '.join(COLUMNS)}, which a data set of games gives"
        )
    action, before, advantage, outcome, clip_range = labels_B5.float().unbind(1)
    logs = logits.log_softmax(1)
    ratio = (logs.gather(1, action.long()[:, None])[:, 0] - before).exp()
    # In 1 - clip_range to 1 + clip_range, whose ends are of each sample.
    clipped = torch.minimum(torch.maximum(ratio, 1 - clip_range), 1 + clip_range)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    entropy = -(logs.exp() * logs).sum(1)
    return {
        "policy_loss": -surrogate.mean(),
        "value_loss": VALUE_WEIGHT * (values - outcome).square().mean(),
        "entropy_loss": -ENTROPY_WEIGHT * entropy.mean(),
    }


def teacher_loss(outputs_BA: torch.Tensor, teacher_BA: torch.Tensor, labels_B5: torch.Tensor) -> Losses:
    """KL(teacher || student) of the actions, and the squared difference of the values; the teacher gets no gradient.

    Shapes are those of `label_loss`; labels_B5: not asked.
    """
    logits, values = split_outputs(outputs_BA)
    teacher_logits, teacher_values = split_outputs(teacher_BA.detach())
    return {
        "policy_loss": distillation_loss(logits, teacher_logits),
        "value_loss": VALUE_WEIGHT * (values - teacher_values).square().mean(),
    }


def split_outputs(outputs_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits float32 B, A, values float32 B) of what a policy gives in training; ValueError for anything else."""
    if outputs_BA.ndim != 2 or outputs_BA.shape[1] < 2:
        raise ValueError(
            f"the network gives {tuple(outputs_BA.shape)}: a policy gives B, A + 1, logits of A actions and a value, such as MODEL.MODEL_NAME "
            "Policy does in training"
        )
    outputs = outputs_BA.float()
    return outputs[:, :-1], outputs[:, -1]


LOSS_FUNCTIONS["ppo"] = LossFunction(label_loss, teacher_loss)
