"""Mean average precision of clips with several labels."""

import warnings

import pytest
import torch
from sklearn.metrics import average_precision_score

from mutual3d.data.loader import Batch
from mutual3d.metrics.average_precision import MeanAveragePrecision


def batch_of(indices, labels):
    return Batch(None, torch.as_tensor(labels, dtype=torch.float32), torch.as_tensor(indices), [])


def random_set(videos=40, classes=9, seed=0):
    """(scores, labels); the third class has no positive."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(videos, classes, generator=generator)
    labels = (torch.rand(videos, classes, generator=generator) < 0.3).float()
    labels[:, 2] = 0
    return scores, labels


def metric_of(scores, labels, parts):
    """A metric that saw the videos of each part (a list of indices) as one batch."""
    metric = MeanAveragePrecision()
    for part in parts:
        metric.update(scores[part], batch_of(part, labels[part]))
    return metric


def test_it_is_scikit_learns_over_the_classes_that_have_a_positive():
    scores, labels = random_set()
    metric = metric_of(scores, labels, [list(range(15)), list(range(15, 40))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = average_precision_score(labels.numpy(), scores.numpy(), average=None)
    present = [k for k in range(9) if k != 2]
    assert metric.per_class() == pytest.approx({k: 100 * expected[k] for k in present})
    assert metric.values() == pytest.approx({"map": 100 * expected[present].mean()})
    assert metric.num_videos == 40


def test_it_is_the_mean_of_the_precisions_at_the_positives():
    scores, labels = torch.tensor([[0.9], [0.8], [0.7], [0.6]]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    assert metric_of(scores, labels, [[0, 1, 2, 3]]).values()["map"] == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_videos_of_one_score_are_taken_together():
    metric = metric_of(torch.full((4, 1), 0.5), torch.tensor([[1.0], [0.0], [0.0], [0.0]]), [[0, 1, 2, 3]])
    assert metric.values()["map"] == pytest.approx(25)


def test_order_and_processes_make_no_difference():
    scores, labels = random_set()
    whole = metric_of(scores, labels, [list(range(40))])
    joined = MeanAveragePrecision()
    for parts in ([list(range(10, 20))], [[7, 3, 9], list(range(20, 40))], [[8, *range(3)], [4, 5, 6]]):
        joined.merge(metric_of(scores, labels, parts))
    assert joined.values() == whole.values() and joined.num_videos == 40


def test_a_video_that_two_processes_saw_counts_once():
    scores, labels = random_set()
    metric = metric_of(scores, labels, [list(range(30))])
    metric.merge(metric_of(scores, labels, [list(range(20, 40))]))
    assert metric.num_videos == 40
    assert metric.values() == metric_of(scores, labels, [list(range(40))]).values()


def test_it_goes_on_from_its_state(tmp_path):
    scores, labels = random_set()
    torch.save(metric_of(scores, labels, [[3, 1], [2, 0]]).state(), tmp_path / "state")
    metric = MeanAveragePrecision()
    metric.load_state(torch.load(tmp_path / "state", weights_only=True))
    rest = list(range(4, 40))
    metric.update(scores[rest], batch_of(rest, labels[rest]))
    assert metric.values() == metric_of(scores, labels, [list(range(40))]).values()


def test_an_empty_state_is_one_too():
    metric = MeanAveragePrecision()
    metric.load_state(MeanAveragePrecision().state())
    assert metric.num_videos == 0
    scores, labels = random_set()
    metric.merge(metric_of(scores, labels, [[0, 1, 2]]))
    assert metric.num_videos == 3


def test_nothing_to_average_is_an_error():
    with pytest.raises(ValueError, match="none of the 0 videos"):
        MeanAveragePrecision().values()
    with pytest.raises(ValueError, match="none of the 2 videos that were evaluated has a label"):
        metric_of(torch.rand(2, 3), torch.zeros(2, 3), [[0, 1]]).values()


def test_one_label_a_clip_is_refused():
    with pytest.raises(ValueError, match="labels of shape .2,. for scores of shape .2, 3.*DATA.MULTI_LABEL"):
        MeanAveragePrecision().update(torch.rand(2, 3), batch_of([0, 1], [0, 2]))
