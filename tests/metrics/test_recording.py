from types import SimpleNamespace

import pytest
import torch

from mutual3d.metrics.average_precision import MeanAveragePrecision
from mutual3d.metrics.metrics import NotFiniteError, TopK
from mutual3d.metrics.recording import RecordingMetric, ScoreRecord, TopPredictionRecord


def recording():
    return RecordingMetric(TopK(), TopPredictionRecord())


def update(metric, indices, labels, scores):
    batch = SimpleNamespace(indices=torch.tensor(indices), labels=torch.tensor(labels), boxes=None)
    metric.update(torch.tensor(scores), batch)
    return metric


def columns(metric):
    return {name: column.flatten().tolist() for name, column in metric.record.rows().items()}


def test_the_top_class_of_each_video_is_kept_in_the_order_of_the_list():
    metric = update(recording(), [4, 1], [0, 2], [[0.5, 0.25, 0.25], [0.75, 0.125, 0.125]])
    assert columns(metric) == {"indices": [1, 4], "labels": [2, 0], "predicted": [0, 0], "scores": [0.75, 0.5]}
    assert metric.values()["top1_acc"] == 50.0 and metric.facts.has_one_label


def test_parts_of_processes_and_of_killed_runs_add_up():
    whole = update(update(recording(), [0], [1], [[0.25, 0.75]]), [1, 2], [0, 0], [[1.0, 0.0], [0.0, 1.0]])
    one, other, restored = update(recording(), [0], [1], [[0.25, 0.75]]), recording(), recording()
    update(other, [1, 2], [0, 0], [[1.0, 0.0], [0.0, 1.0]])
    one.merge(other)
    restored.load_state(one.state())
    assert columns(restored) == columns(one) == columns(whole) and restored.values() == whole.values()


def test_a_row_takes_sixteen_bytes():
    state = update(recording(), [0], [1], [[0.25, 0.75]]).state()["record"]
    assert sum(column.element_size() for column in state.values()) == 16


def test_a_state_of_another_record_is_refused():
    state = update(RecordingMetric(TopK(), ScoreRecord()), [0], [1], [[0.25, 0.75]]).state()
    with pytest.raises(ValueError, match="columns of top predictions"):
        recording().load_state(state)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(NotFiniteError):
        update(SimpleNamespace(update=TopPredictionRecord().update), [0], [1], [[float("nan"), 0.5]])


def test_several_labels_have_no_top_class():
    assert not MeanAveragePrecision().facts.has_one_label
