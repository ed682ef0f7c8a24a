"""What the configurations of a step learn from.

A loss function is a pair: with the labels, and with another configuration's output. Classifiers give logits, B, K; labels are
int64 B, or for soft labels and several at once float B, K. Every loss is the mean over the batch. Networks of other tasks give
outputs, and have labels, of other shapes: their loss functions join LOSS_FUNCTIONS from `mutual3d.tasks`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.sampling import RULES, first_contains_others

# What a loss function gives: a scalar, or scalars by name, whose sum is the loss and which the log shows one by one.
Losses = torch.Tensor | Mapping[str, torch.Tensor]


def total_loss(losses: Losses) -> torch.Tensor:
    """The scalar that a backward starts from. ValueError where there is none."""
    if isinstance(losses, torch.Tensor):
        return losses
    if not losses:
        raise ValueError("a loss function gave no loss: give a scalar, or one by name at least")
    return torch.stack([loss.float() for loss in losses.values()]).sum()


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the labels, mean over the batch (paper, Eq. 3)."""
    return F.cross_entropy(logits.float(), labels)


def distillation_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, labels: Any = None) -> torch.Tensor:
    """KL(teacher || student) at temperature 1: mean over the batch, sum over classes (paper, Eq. 4). labels: not asked."""
    student, teacher = logits.float().log_softmax(1), teacher_logits.detach().float().log_softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def binary_label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each class, mean over batch and classes, as PySlowFast's recipes have it."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def binary_distillation_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, labels: Any = None) -> torch.Tensor:
    """Binary cross-entropy with the teacher's sigmoids: softmax means nothing where several labels hold at once. labels: not asked."""
    return binary_label_loss(logits, teacher_logits.detach().float().sigmoid())


class LossFunction(NamedTuple):
    """labels(outputs, labels) and distillation(outputs, teacher_outputs, labels), each -> a scalar, or several by name.

    The labels say to a distillation what does not count, such as pixels that nobody labelled. takes_stored_logits: outputs are a row of
    logits for each sample, so that another network's, which a file holds (TRAIN.TEACHER_LOGITS), may be the distillation's teacher.
    """

    labels: Callable[[Any, Any], Losses]
    distillation: Callable[[Any, Any, Any], Losses]
    takes_stored_logits: bool = False


_CROSS_ENTROPY = LossFunction(label_loss, distillation_loss, takes_stored_logits=True)
_BINARY = LossFunction(binary_label_loss, binary_distillation_loss, takes_stored_logits=True)
# soft_cross_entropy is PySlowFast's word where labels are shares of classes, which cross_entropy takes here too.
LOSS_FUNCTIONS = {"cross_entropy": _CROSS_ENTROPY, "soft_cross_entropy": _CROSS_ENTROPY, "bce_logit": _BINARY, "bce": _BINARY}


@dataclass(frozen=True)
class StoredTeaching:
    """How a network learns from the stored logits of another one, beside its labels (Hinton et al., 2015, "Distilling the knowledge in a
    neural network", section 2): loss = labels + weight T^2 distillation(logits / T, teacher's logits / T).

    The factor T^2 keeps the size of the gradient whatever the temperature T is. weight: above 0 (TRAIN.TEACHER_WEIGHT). temperature: T,
    above 0 (TRAIN.TEACHER_TEMPERATURE).
    """

    weight: float = 1.0
    temperature: float = 1.0

    def loss(self, loss_function: LossFunction, logits: torch.Tensor, teacher_logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """What is added to a network's loss, a scalar. logits, teacher_logits: B, K; of a row of NaN nothing is learned. labels: as of
        `LossFunction`."""
        temperature, own = self.temperature, logits.float()
        # Taught by itself a network has no gradient: so no device is asked which rows there are.
        teacher = torch.where(teacher_logits.isnan(), own.detach(), teacher_logits.float())
        return self.weight * temperature**2 * total_loss(loss_function.distillation(own / temperature, teacher / temperature, labels))


class Objective(nn.Module):
    """Called once for each configuration of a step but the first: (outputs, the first one's detached outputs, labels) -> `Losses`.

    A subclass says what it needs, and `check_objective` refuses a step that does not give it:
    is_joint: it is called once a step, with all logits.
    needs_teacher: it learns from the first configuration's output, which must then contain all others.
    needs_subnets: the only MUTUAL.SUBNETS that it has a meaning with, MUTUAL.LARGEST being False; None for any.
    stored_teaches: which of a step's configurations also learn from another network's stored logits, where there are such
    (TRAIN.TEACHER_LOGITS): the first alone, whose output the others may learn from, each of them, or none, and such a file is refused.
    num_networks: how many configurations run in a step.
    """

    is_joint: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    needs_subnets: ClassVar[tuple[str, ...] | None] = None
    stored_teaches: ClassVar[Literal["first", "each", "none"]] = "first"

    def __init__(self, loss_function: LossFunction, num_networks: int) -> None:
        super().__init__()
        self.loss_function = loss_function

    def shares(self) -> list[float]:
        """Of one that learns an ensemble, each configuration's share in it, in the step's order: for the log; [] of any other."""
        return []


class InplaceDistillation(Objective):
    """The largest configuration's output teaches the others (paper, Eq. 4; US-Net, 4.2)."""

    needs_teacher = True

    def forward(self, outputs: Any, teacher_outputs: Any, labels: Any) -> Losses:
        """The distillation loss. outputs: of this configuration. teacher_outputs: of the first one. labels: say what does not count."""
        return self.loss_function.distillation(outputs, teacher_outputs, labels)


class Labels(Objective):
    """Every configuration learns from the labels (paper, 6.2; S-Net)."""

    needs_teacher = False
    stored_teaches = "each"

    def forward(self, outputs: Any, teacher_outputs: Any, labels: Any) -> Losses:
        """The loss of `outputs` with the labels. teacher_outputs: not asked."""
        return self.loss_function.labels(outputs, labels)


class EnsembleDistillation(Objective):
    """Labels for every size, and their learned ensemble as the teacher of all (RS-Net, 3.3, Eq. 5-10).

    Called once a step with the logits of all configurations, sizes descending. Gives one loss for each of them, L_cls
    and its share of L_dis, and last L_ens, which trains the importance scores `alpha` alone. num_networks: how many sizes
    run in a step, each with an `alpha`. A subclass may say who else teaches (`teachers`): L_dis is scaled to as many terms as
    there are sizes, so that it keeps the range of L_cls, which gives Eq. 8 its factor 1 and Eq. 10 its 2 / (S + 1).
    """

    is_joint = True
    needs_teacher = False
    needs_subnets = ("each_size",)
    stored_teaches = "each"

    def __init__(self, loss_function: LossFunction, num_networks: int) -> None:
        super().__init__(loss_function, num_networks)
        self.alpha = nn.Parameter(torch.zeros(num_networks))

    def forward(self, logits: Sequence[torch.Tensor], labels: Any) -> torch.Tensor:
        """Losses, one for each of `logits` and the ensemble's. labels: as of its loss function."""
        shares = self.alpha.softmax(0)
        ensemble = sum(share * z.detach().float() for share, z in zip(shares, logits))
        teachers = [self.teachers(s, logits, ensemble) for s in range(len(logits))]
        scale = len(logits) / max(1, sum(map(len, teachers)))
        learned = [
            self._from_labels(z, labels) + scale * sum(total_loss(self.loss_function.distillation(z, teacher, labels)) for teacher in own)
            for z, own in zip(logits, teachers)
        ]
        return torch.stack([*learned, self._from_labels(ensemble, labels)])

    def teachers(self, student: int, logits: Sequence[Any], ensemble: Any) -> list[Any]:
        """Whose outputs teach size number `student`: here the ensemble's, and those of every larger size (RS-Net, Eq. 10).

        logits: of all sizes, descending. ensemble: the logits of the ensemble.
        """
        return [ensemble, *logits[:student]]

    def shares(self) -> list[float]:
        return self.alpha.detach().softmax(0).tolist()

    def _from_labels(self, logits: Any, labels: Any) -> torch.Tensor:
        return total_loss(self.loss_function.labels(logits, labels))


class VanillaEnsembleDistillation(EnsembleDistillation):
    """The ensemble alone teaches (RS-Net, Eq. 8)."""

    def teachers(self, student: int, logits: Sequence[Any], ensemble: Any) -> list[Any]:
        return [ensemble]


class LargerSizeDistillation(EnsembleDistillation):
    """Each size teaches the smaller ones, and the ensemble nobody (RS-Net, Table 5: distillations from p_1, ..., p_{S-1})."""

    def teachers(self, student: int, logits: Sequence[Any], ensemble: Any) -> list[Any]:
        return [*logits[:student]]


class LargestSizeDistillation(EnsembleDistillation):
    """The largest size alone teaches (RS-Net, Table 5: distillations from p_1)."""

    def teachers(self, student: int, logits: Sequence[Any], ensemble: Any) -> list[Any]:
        return [*logits[: min(student, 1)]]


OBJECTIVES: dict[str, type[Objective]] = {
    "inplace_distillation": InplaceDistillation,
    "labels": Labels,
    "ensemble_distillation": EnsembleDistillation,
    "ensemble_distillation_vanilla": VanillaEnsembleDistillation,
    "larger_size_distillation": LargerSizeDistillation,
    "largest_size_distillation": LargestSizeDistillation,
}


@dataclass(frozen=True)
class Method:
    """What a step runs, and what it learns from: MUTUAL.SUBNETS, OBJECTIVE, LARGEST and FEATURE_LOSS, and MODEL.LOSS_FUNC.

    subnets: names of sampling rules; () trains the largest configuration alone. objective: a name of OBJECTIVES.
    loss_function: a name of LOSS_FUNCTIONS. largest: whether the largest configuration runs beside them. feature_loss: weight of the
    features' agreement with the first configuration's (MUTUAL.FEATURE_LOSS), 0 for none. stored: how it learns from another network's
    stored logits too (TRAIN.TEACHER_LOGITS), None where there are none.
    """

    subnets: tuple[str, ...] = ()
    objective: str = "labels"
    loss_function: str = "cross_entropy"
    largest: bool = True
    feature_loss: float = 0.0
    stored: StoredTeaching | None = None

    def make_objective(self, num_networks: int) -> tuple[LossFunction, Objective]:
        """The loss of the first configuration, and the objective of the others, in a step of so many networks.

        Raises ValueError for an unknown name, and for rules that do not go with the objective (`check_objective`).
        num_networks: how many configurations run in a step.
        """
        if self.loss_function not in LOSS_FUNCTIONS:
            raise ValueError(f"there is no loss function '{self.loss_function}': choose among {', '.join(LOSS_FUNCTIONS)}")
        loss = LOSS_FUNCTIONS[self.loss_function]
        objective = check_objective(self.objective, self.subnets, self.largest)
        check_feature_loss(self)
        check_stored_teaching(self)
        return loss, objective(loss, num_networks)


def check_objective(name: str, subnets: Sequence[str], largest: bool) -> type[Objective]:
    """The objective called `name`, if a step of these sampling rules gives it what it needs.

    subnets, largest: MUTUAL.SUBNETS and MUTUAL.LARGEST. Raises ValueError that names the keys, the legal values and the
    fix: for an unknown name, and for an objective whose teacher would be a network that does not contain the others.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"there is no objective '{name}': choose among {', '.join(OBJECTIVES)} (MUTUAL.OBJECTIVE)")
    objective, subnets = OBJECTIVES[name], list(subnets)
    if objective.needs_subnets is not None and (largest or tuple(subnets) != objective.needs_subnets):
        raise ValueError(
            f"MUTUAL.OBJECTIVE {name} needs MUTUAL.SUBNETS [{', '.join(objective.needs_subnets)}] and MUTUAL.LARGEST False"
        )
    if objective.needs_teacher and not largest and not first_contains_others(subnets):
        others = [rule for rule in RULES if first_contains_others([rule, *subnets])]
        free = [other for other, choice in OBJECTIVES.items() if not choice.needs_teacher and choice.needs_subnets is None]
        raise ValueError(
            f"MUTUAL.OBJECTIVE {name} needs MUTUAL.LARGEST True, or {' or '.join(others)} first in MUTUAL.SUBNETS, which is "
            f"{subnets}: the first configuration of a step teaches the others, and must contain them; or set "
            f"MUTUAL.OBJECTIVE {' or '.join(free)}"
        )
    return objective


def check_feature_loss(method: Method) -> None:
    """ValueError where features are to agree with those of a first configuration that there is not, or that does not contain the others."""
    if not method.feature_loss:
        return
    told = f"MUTUAL.FEATURE_LOSS is {method.feature_loss:g}"
    if OBJECTIVES[method.objective].is_joint:
        raise ValueError(f"{told}, and MUTUAL.OBJECTIVE {method.objective} runs all networks at once, without a first one: set it 0")
    if not method.largest and not first_contains_others(list(method.subnets)):
        raise ValueError(f"{told}, and no configuration contains the others: set MUTUAL.LARGEST True, or MUTUAL.FEATURE_LOSS 0")


def check_stored_teaching(method: Method) -> None:
    """ValueError where stored logits are to teach networks that give something else, or an objective that has no use for them."""
    if method.stored is None:
        return
    told = "TRAIN.TEACHER_LOGITS is given"
    if not LOSS_FUNCTIONS[method.loss_function].takes_stored_logits:
        legal = ", ".join(name for name, loss in LOSS_FUNCTIONS.items() if loss.takes_stored_logits)
        raise ValueError(
            f"{told}, and MODEL.LOSS_FUNC is {method.loss_function}: stored logits are a row of scores of classes for each sample, from which "
            f"{legal} learn; leave it empty"
        )
    if OBJECTIVES[method.objective].stored_teaches == "none":
        legal = " or ".join(name for name, choice in OBJECTIVES.items() if choice.stored_teaches != "none")
        raise ValueError(f"{told}, and MUTUAL.OBJECTIVE {method.objective} learns from no stored logits: leave it empty, or set {legal}")
