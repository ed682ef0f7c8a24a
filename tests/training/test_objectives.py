import pytest
import torch
import torch.nn.functional as F

from mutual3d.training import OBJECTIVES, distillation_loss


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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_finite_in_half_precision(name):
    labels = torch.tensor([0, 1, 2, 3, 4])
    loss = OBJECTIVES[name]((100 * logits(0)).half(), (100 * logits(1)).half(), labels)
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
