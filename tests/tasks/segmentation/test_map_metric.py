"""Accuracies and IoUs of maps are scikit-learn's, over the pixels of all images together."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score

from mutual3d.metrics.build import build_metric
from mutual3d.metrics.metrics import NotFiniteError
from mutual3d.tasks.segmentation import IGNORED, SegmentationScores, class_map

CLASSES = 5


def batch_of(labels):
    return SimpleNamespace(labels=labels)


def drawn(images=3, height=12, width=9, seed=0, classes=CLASSES):
    """Softmax scores of maps of a quarter of the size, and labels with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, CLASSES, height // 4, width // 3, generator=generator)
    labels = torch.randint(0, classes, (images, height, width), generator=generator, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORED
    return logits.softmax(1), labels


def seen(*pairs):
    metric = SegmentationScores()
    for scores, labels in pairs:
        metric.update(scores, batch_of(labels))
    return metric


def flat(scores, labels):
    predicted = class_map(scores, labels.shape[1:])
    return labels[labels != IGNORED].numpy(), predicted[labels != IGNORED].numpy()


def test_the_numbers_are_scikit_learns():
    scores, labels = drawn()
    truth, predicted = flat(scores, labels)
    metric = seen((scores, labels))
    assert np.array_equal(metric.confusion_KK.numpy(), confusion_matrix(truth, predicted, labels=range(CLASSES)))
    assert metric.values() == pytest.approx({
        "miou": 100 * jaccard_score(truth, predicted, average="macro"),
        "pixel_acc": 100 * (truth == predicted).mean(),
        "mean_acc": 100 * recall_score(truth, predicted, average="macro"),
    })  # fmt: skip
    assert list(metric.per_class().values()) == pytest.approx(100 * jaccard_score(truth, predicted, average=None))
    assert metric.primary == "miou" and metric.num_videos == 3


def test_classes_that_no_pixel_has_are_no_part_of_the_means():
    scores, labels = drawn(classes=3)
    # Class 4 is never said, class 3 is said of some pixels: it has an IoU, of 0, and no accuracy.
    scores[:, 4] = 0
    truth, predicted = flat(scores, labels)
    assert set(predicted) == {0, 1, 2, 3} and set(truth) == {0, 1, 2}
    metric = seen((scores, labels))
    assert metric.per_class().keys() == {0, 1, 2, 3} and metric.per_class()[3] == 0
    assert metric.values()["miou"] == pytest.approx(sum(metric.per_class().values()) / 4)
    assert metric.values()["mean_acc"] == pytest.approx(100 * recall_score(truth, predicted, labels=[0, 1, 2], average="macro"))


def test_the_class_of_a_pixel_is_that_of_the_resized_logits():
    logits = 3 * torch.randn(2, CLASSES, 6, 8, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(logits, size=(48, 70), mode="bilinear", align_corners=False).argmax(1)
    found = class_map(logits.softmax(1), (48, 70))
    assert (found == expected).float().mean() > 0.999
    # Resizing probabilities instead says something else.
    resized = F.interpolate(logits.softmax(1), size=(48, 70), mode="bilinear", align_corners=False).argmax(1)
    assert (resized != expected).float().mean() > 0.005


def test_a_class_of_no_probability_is_never_said():
    scores = torch.zeros(1, 3, 2, 2)
    scores[:, 1] = 1
    assert (class_map(scores, (8, 8)) == 1).all()


def test_parts_join_and_go_through_files():
    pairs = [drawn(seed=seed) for seed in range(3)]
    whole, first, second = seen(*pairs), seen(pairs[0]), seen(*pairs[1:])
    first.merge(second)
    restored = SegmentationScores()
    restored.load_state(first.state())
    empty = SegmentationScores()
    empty.merge(restored)
    empty.merge(SegmentationScores())
    for metric in (first, restored, empty):
        assert metric.values() == whole.values() and metric.num_videos == whole.num_videos == 9


def test_what_cannot_be_is_refused():
    scores, labels = drawn()
    with pytest.raises(NotFiniteError, match="1 of 3 rows are NaN"):
        seen((torch.cat([scores[:2], torch.full_like(scores[:1], torch.nan)]), labels))
    for wrong in (scores.flatten(1), scores[:2], [scores]):
        with pytest.raises(ValueError, match="a network that gives a map of classes is needed"):
            seen((wrong, labels))
    labels[0, 0, 0] = CLASSES
    with pytest.raises(ValueError, match="a pixel has the class 5, and the network 5 classes"):
        seen((scores, labels))
    with pytest.raises(ValueError, match="none of the 0 images"):
        SegmentationScores().values()
    with pytest.raises(ValueError, match="none of the 3 images"):
        seen((scores, torch.full_like(labels, IGNORED))).values()
    whole = seen(drawn()).state()
    for wrong in (None, {}, {**whole, "confusion_KK": whole["confusion_KK"][:2]}, {**whole, "confusion_KK": -whole["confusion_KK"]},
                  {**whole, "num_images": -1}):  # fmt: skip
        with pytest.raises(ValueError, match="a square matrix of counts"):
            SegmentationScores().load_state(wrong)


def test_data_sets_find_it_by_its_word():
    metric = build_metric("segmentation_iou", object())()
    assert isinstance(metric, SegmentationScores) and metric.facts.unit == "%" and metric.facts.higher_is_better
