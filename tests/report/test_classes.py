import numpy as np
import pytest

from mutual3d.report.classes import Predictions, choose_examples, class_accuracies, right_where_wrong


def predictions(labels, predicted, confidences=None):
    count = len(labels)
    confidences = np.linspace(0.9, 0.1, count) if confidences is None else np.array(confidences)
    return Predictions("1-32-4", tuple(f"{i}.mp4" for i in range(count)), np.arange(count), np.array(labels), np.array(predicted), confidences)


def test_confusion_counts_what_each_class_was_taken_for():
    found = predictions([0, 0, 0, 1, 2], [0, 1, 1, 1, 0])
    assert found.confusion(4).tolist() == [[1, 2, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found.accuracy == 40.0 and found.num_classes == 3


def test_classes_come_the_worst_first_and_those_without_videos_not_at_all():
    worst = class_accuracies(predictions([0, 0, 0, 1, 3], [0, 1, 1, 1, 0]).confusion(5))
    assert [(c.label, c.right, c.total, c.confused) for c in worst] == [(3, 0, 1, 0), (0, 1, 3, 1), (1, 1, 1, None)]


def test_examples_are_the_surest_mistakes_and_of_many_classes():
    found = predictions([0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.95, 0.5])
    right, wrong = choose_examples(found, 2)
    assert wrong == [0, 3]  # class 0's surest mistake, then class 1's, before the second of class 0
    assert {int(found.labels[row]) for row in right} == {0, 1} and found.is_right[right].all()


def test_what_one_sees_and_another_does_not_is_counted_video_by_video():
    """RS-Net's Table 1, of three configurations that saw the videos in other orders; one lacks the last."""
    labels = np.array([0, 0, 1, 1, 2])
    seen = {"a": [0, 0, 1, 1, 0], "b": [0, 1, 1, 0, 2], "c": [1, 0, 0, 1, 2]}
    rows = []
    for turn, (name, predicted) in enumerate(seen.items()):
        order = np.roll(np.arange(5), turn)
        rows.append(Predictions(name, ("v",) * 5, order, labels[order], np.array(predicted)[order], np.full(5, 0.5)))
    # Right: a 0 1 2 3, b 0 2 4, c 1 3 4.
    assert right_where_wrong(rows).tolist() == [[0, 20, 20], [40, 0, 40], [40, 40, 0]]
    less = Predictions("d", ("v",) * 4, np.arange(4), labels[:4], labels[:4], np.full(4, 0.5))
    assert right_where_wrong([rows[1], less]).tolist() == [[0, 50], [0, 0]]
    with pytest.raises(ValueError, match="no video was seen by all"):
        right_where_wrong([less, Predictions("e", ("v",), np.array([9]), np.array([0]), np.array([0]), np.ones(1))])


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="columns of one length"):
        Predictions("1-32-4", ("a",), np.arange(2), np.zeros(2, int), np.zeros(2, int), np.zeros(2))
