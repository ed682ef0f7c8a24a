import pytest
import torch
import torch.nn.functional as F

from mutual3d.training import LOSS_FUNCTIONS, OBJECTIVES, Objective, check_objective, distillation_loss
from mutual3d.training.objectives import binary_distillation_loss


def logits(seed, batch=5, classes=7):
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))


def test_distillation_is_the_sum_over_classes_and_the_mean_over_the_batch():
    student, teacher = logits(0), logits(1)
    p, q = teacher.softmax(1), student.softmax(1)
    written_out = sum((p[b] * (p[b] / q[b]).log()).sum() for b in range(5)) / 5
    assert torch.allclose(distillation_loss(student, teacher), written_out, atol=1e-6)


def test_distillation_has_the_gradient_of_cross_entropy_with_soft_targets():
    student, teacher = logits(0).requires_grad_(), logits(1)
    (by_kl,) = torch.autograd.grad(distillation_loss(student, teacher), student)
    (by_cross_entropy,) = torch.autograd.grad(F.cross_entropy(student, teacher.softmax(1)), student)
    assert torch.allclose(by_kl, by_cross_entropy, atol=1e-7)


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


# Of networks that give a row of logits for each clip; other tasks test theirs.
CLASSIFIERS = ("cross_entropy", "soft_cross_entropy", "bce_logit", "bce")


def labels_for(loss_function):
    labels = torch.tensor([0, 1, 2, 3, 4])
    return labels if loss_function == "cross_entropy" else F.one_hot(labels, 7).float()


def call(objective, first, second, labels):
    """Loss or losses of two configurations' logits, whatever form the objective takes them in."""
    return objective([first, second], labels) if objective.is_joint else objective(first, second, labels)


@pytest.mark.parametrize("loss_function", CLASSIFIERS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_finite_in_half_precision(name, loss_function):
    objective = OBJECTIVES[name](LOSS_FUNCTIONS[loss_function], 2)
    loss = call(objective, (100 * logits(0)).half(), (100 * logits(1)).half(), labels_for(loss_function))
    assert loss.dtype == torch.float32 and torch.isfinite(loss).all()


def test_binary_distillation_pulls_every_class_to_the_teachers_sigmoid():
    student, teacher = logits(0).requires_grad_(), logits(1)
    binary_distillation_loss(student, teacher).backward()
    assert torch.allclose(student.grad, (student.detach().sigmoid() - teacher.sigmoid()) / 35, atol=1e-7)


def kl(teacher, student):
    """Eq. 7 written out."""
    p, q = teacher.softmax(1), student.softmax(1)
    return (p * (p / q).log()).sum() / len(p)


# {objective: (teacher, student) by the index of RS-Net's Eq. 10, where 0 is the ensemble and 1 the largest of three sizes}.
PATHS = {
    "ensemble_distillation": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)],
    "ensemble_distillation_vanilla": [(0, 1), (0, 2), (0, 3)],
    "larger_size_distillation": [(1, 2), (1, 3), (2, 3)],
    "largest_size_distillation": [(1, 2), (1, 3)],
}


@pytest.mark.parametrize("name", PATHS)
def test_ensemble_distillation_is_its_equations_written_out(name):
    objective = OBJECTIVES[name](LOSS_FUNCTIONS["cross_entropy"], 3)
    objective.alpha.data = torch.tensor([0.3, -0.2, 0.9])
    z, y = [logits(seed) for seed in range(3)], torch.tensor([0, 1, 2, 3, 4])
    alpha = torch.tensor([0.3, -0.2, 0.9]).exp() / torch.tensor([0.3, -0.2, 0.9]).exp().sum()
    z0 = alpha[0] * z[0] + alpha[1] * z[1] + alpha[2] * z[2]
    l_cls = sum(-z_s.log_softmax(1)[torch.arange(5), y].mean() for z_s in z)
    l_ens = -z0.log_softmax(1)[torch.arange(5), y].mean()
    by_index = [z0, *z]
    # As many terms as sizes, three: 2 / (3 + 1) for all six paths (Eq. 10), 1 for the vanilla version (Eq. 8).
    l_dis = 3 / len(PATHS[name]) * sum(kl(by_index[t], by_index[s]) for t, s in PATHS[name])
    losses = objective(z, y)
    assert losses[-1].item() == pytest.approx(l_ens.item(), rel=1e-5)
    assert losses.sum().item() == pytest.approx((l_cls + l_ens + l_dis).item(), rel=1e-5)
    assert objective.shares() == pytest.approx(alpha.tolist())


@pytest.mark.parametrize("name", PATHS)
def test_one_size_alone_has_nobody_larger_to_learn_from(name):
    z, y = [logits(0)], torch.tensor([0, 1, 2, 3, 4])
    losses = OBJECTIVES[name](LOSS_FUNCTIONS["cross_entropy"], 1)(z, y)
    learned = 0.0 if "size" in name else kl(z[0], z[0]).item()
    assert losses[0].item() == pytest.approx(F.cross_entropy(z[0], y).item() + learned, rel=1e-5)


def gradient_sum(loss, inputs):
    gradients = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
    return sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None)


def test_gradients_reach_alpha_from_the_ensemble_loss_alone_and_leave_teachers_alone():
    objective = OBJECTIVES["ensemble_distillation"](LOSS_FUNCTIONS["cross_entropy"], 2)
    z = [logits(seed).requires_grad_() for seed in range(2)]
    losses = objective(z, torch.tensor([0, 1, 2, 3, 4]))
    (by_ensemble,) = torch.autograd.grad(losses[-1], objective.alpha, retain_graph=True)
    assert by_ensemble.abs().sum() > 0
    assert not gradient_sum(losses[-1], z)
    assert not gradient_sum(losses[:-1].sum(), [objective.alpha])
    # The second, smaller one learns from the first, which learns nothing from it.
    assert not gradient_sum(losses[1], z[:1]) and gradient_sum(losses[1], z[1:])


# ---- what an objective needs ------------------------------------------------------------------------------------------


class FromTheTeacher(Objective):
    """A stranger's, that says nothing of what it needs."""

    def forward(self, logits, teacher_logits, labels):
        return (logits - teacher_logits).square().mean()


@pytest.mark.parametrize("name, objective", [("inplace_distillation", None), ("stranger", FromTheTeacher)])
def test_a_teacher_must_contain_the_others_unless_the_objective_says_that_it_needs_none(monkeypatch, name, objective):
    if objective:
        monkeypatch.setitem(OBJECTIVES, name, objective)
    assert check_objective(name, ["random", "smallest"], True) is OBJECTIVES[name]
    assert check_objective(name, ["shared_size", "random_width_shared_size"], False) is OBJECTIVES[name]
    assert check_objective("labels", ["random", "random"], False) is OBJECTIVES["labels"]
    with pytest.raises(ValueError, match=rf"MUTUAL.OBJECTIVE {name} needs.*each_size or each_temporal first in.*\['random', 'smallest'\].*labels"):
        check_objective(name, ["random", "smallest"], False)


@pytest.mark.parametrize("subnets, largest", [(["each_size"], True), (["smallest"], False)])
def test_an_ensemble_needs_every_size_alone(subnets, largest):
    assert check_objective("ensemble_distillation", ["each_size"], False)
    with pytest.raises(ValueError, match=r"ensemble_distillation needs MUTUAL.SUBNETS \[each_size\] and MUTUAL.LARGEST False"):
        check_objective("ensemble_distillation", subnets, largest)
