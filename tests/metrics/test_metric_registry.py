"""Metrics by the words that data sets name them by, each with its own facts."""

from types import SimpleNamespace

import pytest
import torch

from mutual3d.metrics.build import METRICS, build_metric
from mutual3d.metrics.metrics import Metric, MetricFacts

KEYFRAMES = SimpleNamespace(
    keyframes=[("v", 1)], ground_truth={("v", 1): (torch.tensor([[0.1, 0.1, 0.5, 0.5]]), [1])}, excluded=set(), classes=[(1, "run")]
)


# Those of mutual3d.metrics: the tasks' own have data sets of their own, and units, which their tests look at.
WORDS = [word for word, metric in METRICS.items() if metric.__module__.startswith("mutual3d.metrics")]


@pytest.mark.parametrize("word", WORDS)
def test_a_metric_says_its_numbers_their_unit_and_what_is_better(word):
    metric = build_metric(word, KEYFRAMES)()
    assert metric.primary == metric.names[0] and metric.facts.task
    kept = metric.facts.to_dict()
    assert set(kept) == set(metric.names) and all(facts["label"] and facts["unit"] == "%" for facts in kept.values())
    assert all(facts["higher_is_better"] for facts in kept.values())


def test_each_task_has_its_metric():
    found = {word: METRICS[word].facts for word in METRICS}
    assert found["top_k"].has_one_label and found["top_k"].is_share
    assert not found["mean_average_precision"].is_share and not found["detection_average_precision"].is_share


def test_a_metric_takes_what_it_needs_from_the_data_set():
    assert build_metric("detection_average_precision", KEYFRAMES)().keyframes is KEYFRAMES.keyframes


def test_a_metric_of_ones_own_needs_an_entry_alone(monkeypatch):
    class Mean(Metric):
        facts = MetricFacts({"mean": "mean score"}, "anything")
        seen = torch.zeros(0)

        def update(self, scores, batch):
            self.seen = torch.cat([self.seen, scores[:, 0]])

        def merge(self, other):
            self.seen = torch.cat([self.seen, other.seen])

        def values(self):
            return {"mean": 100 * float(self.seen.mean())}

        @property
        def num_videos(self):
            return len(self.seen)

        def state(self):
            return self.seen

        def load_state(self, state):
            self.seen = state

    monkeypatch.setitem(METRICS, "mean", Mean)
    metric = build_metric("mean", SimpleNamespace())()
    metric.update(torch.tensor([[0.25], [0.75]]), None)
    assert metric.values() == {"mean": 50.0} and metric.primary == "mean"
    with pytest.raises(ValueError, match="no metric 'means': choose among top_k, mean_average_precision, .*, mean"):
        build_metric("means", SimpleNamespace())
