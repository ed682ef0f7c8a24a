import pytest
import torch

from mutual3d.tasks.super_resolution.objective import distillation_loss, label_loss
from mutual3d.training.objectives import LOSS_FUNCTIONS


def images(seed):
    return torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_absolute_difference_of_pixels_in_0_to_1():
    given, labels = images(0), (255 * images(1)).to(torch.uint8)
    differences = [abs(a - b / 255) for a, b in zip(given.flatten().tolist(), labels.flatten().tolist())]
    assert label_loss(given, labels).item() == pytest.approx(sum(differences) / len(differences), abs=1e-6)
    assert LOSS_FUNCTIONS["l1"].labels is label_loss


def test_the_teachers_image_takes_the_place_of_the_labels_and_gets_no_gradient():
    student, teacher = images(0).requires_grad_(), images(1).requires_grad_()
    loss = LOSS_FUNCTIONS["l1"].distillation(student, teacher, torch.zeros(2, 3, 6, 4, dtype=torch.uint8))
    assert loss.item() == pytest.approx((student - teacher).abs().mean().item(), abs=1e-7)
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, (student - teacher).detach().sign() / student.numel())
    assert distillation_loss(teacher, teacher, student).item() == 0


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"gives \(2, 7\) and the images that it should give are \(2, 3, 6, 4\): .* MODEL_NAME WDSR"):
        label_loss(torch.zeros(2, 7), torch.zeros(2, 3, 6, 4, dtype=torch.uint8))
