"""The loss of maps is that of their pixels, one by one, without those that nobody labelled."""

import pytest
import torch
import torch.nn.functional as F

from mutual3d.tasks.segmentation import IGNORED, pixel_distillation_loss, pixel_label_loss
from mutual3d.training.objectives import LOSS_FUNCTIONS, EnsembleDistillation, InplaceDistillation


def maps(batch=2, classes=4, height=5, width=3, seed=0):
    """Logits, a teacher's, and uint8 labels of which some are ignored, in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = (torch.randn(batch, classes, height, width, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, classes, (batch, height, width), generator=generator, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = IGNORED
    assert 0 < (labels == IGNORED).sum() < labels.numel()
    return logits.requires_grad_(), teacher, labels


def pixels_that_count(labels):
    return [tuple(place) for place in (labels != IGNORED).nonzero().tolist()]


def test_the_loss_with_labels_equals_a_loop_over_pixels():
    logits, _, labels = maps()
    places = pixels_that_count(labels)
    total = sum(F.cross_entropy(logits[b, :, y, x], labels[b, y, x].long()) for b, y, x in places)
    assert pixel_label_loss(logits, labels).item() == pytest.approx(total.item() / len(places), rel=1e-6)


def test_distillation_equals_a_loop_over_pixels():
    logits, teacher, labels = maps()
    places, total = pixels_that_count(labels), 0.0
    for b, y, x in places:
        p, q = teacher[b, :, y, x].softmax(0), logits[b, :, y, x].softmax(0)
        total += sum((p[k] * (p[k].log() - q[k].log())).item() for k in range(len(p)))
    assert pixel_distillation_loss(logits, teacher, labels).item() == pytest.approx(total / len(places), rel=1e-5)


@pytest.mark.parametrize("loss", ["labels", "distillation"])
def test_ignored_pixels_have_no_gradient_and_no_say(loss):
    logits, teacher, labels = maps()
    given = (labels,) if loss == "labels" else (teacher, labels)
    function = getattr(LOSS_FUNCTIONS["pixel_cross_entropy"], loss)
    value = function(logits, *given)
    value.backward()
    ignored = (labels == IGNORED)[:, None].expand_as(logits)
    assert (logits.grad[ignored] == 0).all() and (logits.grad[~ignored] != 0).all()
    other = torch.where(ignored, torch.full_like(logits, 50.0), logits)
    torch.testing.assert_close(function(other, *given), value)


def test_maps_without_a_label_cost_nothing_and_are_finite():
    logits, teacher, labels = maps()
    labels[:] = IGNORED
    loss = pixel_label_loss(logits, labels) + pixel_distillation_loss(logits, teacher, labels)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_the_teacher_is_not_taught():
    logits, teacher, labels = maps()
    pixel_distillation_loss(logits, teacher.requires_grad_(), labels).backward()
    assert teacher.grad is None


def test_a_network_of_clips_is_told_apart():
    _, _, labels = maps()
    for outputs in (torch.randn(2, 4), torch.randn(2, 4, 5, 4), torch.randn(3, 4, 5, 3)):
        with pytest.raises(ValueError, match="needs a network that gives a map of classes, such as MODEL.MODEL_NAME RefineNet"):
            pixel_label_loss(outputs, labels)


def test_the_ensemble_teaches_each_pixel():
    """RS-Net, Eq. 5 to 10, over the pixels that count: the objective of classes, of pixels as samples."""
    pairs = [maps(seed=seed) for seed in range(3)]
    labels = pairs[0][2]
    outputs = [logits for logits, _, _ in pairs]
    rows = [z.permute(0, 2, 3, 1)[labels != IGNORED] for z in outputs]
    of_maps = EnsembleDistillation(LOSS_FUNCTIONS["pixel_cross_entropy"], 3).double()
    of_rows = EnsembleDistillation(LOSS_FUNCTIONS["cross_entropy"], 3).double()
    for objective in (of_maps, of_rows):
        objective.alpha.data = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    losses, expected = of_maps(outputs, labels), of_rows(rows, labels[labels != IGNORED].long())
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    for loss in (losses, expected):
        loss[-1].backward(retain_graph=True)
    torch.testing.assert_close(of_maps.alpha.grad, of_rows.alpha.grad, rtol=1e-5, atol=1e-7)
    # L_ens trains the importance scores alone.
    assert all((z.grad == 0).all() for z in outputs)


def test_the_largest_configuration_may_teach_too():
    logits, teacher, labels = maps()
    objective = InplaceDistillation(LOSS_FUNCTIONS["pixel_cross_entropy"], 2)
    torch.testing.assert_close(objective(logits, teacher, labels), pixel_distillation_loss(logits, teacher, labels))
