import pytest
import torch

import mutual3d.tasks  # noqa: F401
from mutual3d.training.objectives import LOSS_FUNCTIONS

POWERS = {"l1": 1, "l2": 2}


@pytest.fixture(params=POWERS)
def word(request):
    return request.param


def images(seed):
    return torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_difference_of_pixels_in_0_to_1(word):
    given, labels = images(0), (255 * images(1)).to(torch.uint8)
    differences = [abs(a - b / 255) ** POWERS[word] for a, b in zip(given.flatten().tolist(), labels.flatten().tolist())]
    assert LOSS_FUNCTIONS[word].labels(given, labels).item() == pytest.approx(sum(differences) / len(differences), abs=1e-6)


def test_the_teachers_image_takes_the_place_of_the_labels_and_gets_no_gradient(word):
    student, teacher = images(0).requires_grad_(), images(1).requires_grad_()
    difference = (student - teacher).detach()
    loss = LOSS_FUNCTIONS[word].distillation(student, teacher, torch.zeros(2, 3, 6, 4, dtype=torch.uint8))
    assert loss.item() == pytest.approx(difference.abs().pow(POWERS[word]).mean().item(), abs=1e-7)
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, {"l1": difference.sign(), "l2": 2 * difference}[word] / student.numel())


def test_another_size_is_refused(word):
    with pytest.raises(ValueError, match=r"gives \(2, 7\) and the images that it should give are \(2, 3, 6, 4\): .*MODEL.MODEL_NAME WDSR"):
        LOSS_FUNCTIONS[word].labels(torch.zeros(2, 7), torch.zeros(2, 3, 6, 4, dtype=torch.uint8))
