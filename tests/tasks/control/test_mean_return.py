import statistics
from types import SimpleNamespace

import pytest
import torch

from mutual3d.metrics.build import build_metric
from mutual3d.metrics.metrics import NotFiniteError
from mutual3d.tasks.control.metric import MeanReturn

RETURNS = [3.0, 0.0, 12.0, 7.0, 7.0, 1.0]


def metric_of(returns):
    metric = MeanReturn()
    for part in (returns[:2], returns[2:]):
        if part:
            metric.update(torch.tensor(part, dtype=torch.float64)[:, None], SimpleNamespace())
    return metric


def test_the_mean_and_its_interval():
    values = metric_of(RETURNS).values()
    half = 1.96 * statistics.stdev(RETURNS) / len(RETURNS) ** 0.5
    assert values == pytest.approx({"mean_return": statistics.mean(RETURNS), "return_interval": half})
    assert metric_of(RETURNS).num_videos == 6
    facts = build_metric("mean_return", None)().facts
    assert facts.unit == "points" and facts.higher_is_better and not facts.is_share


def test_parts_join_and_states_go_on():
    joined = metric_of(RETURNS[:3])
    joined.merge(metric_of(RETURNS[3:]))
    restored = MeanReturn()
    restored.load_state(joined.state())
    assert restored.values() == pytest.approx(metric_of(RETURNS).values())


def test_equal_returns_leave_no_interval_and_one_episode_has_none():
    assert metric_of([4.0] * 5).values() == {"mean_return": 4.0, "return_interval": 0.0}
    with pytest.raises(ValueError, match="1 episodes were played: a mean and its interval need two"):
        metric_of([4.0]).values()


def test_what_is_no_return_and_no_state_is_refused():
    with pytest.raises(NotFiniteError):
        metric_of([1.0, float("nan")])
    with pytest.raises(ValueError, match="which a data set of games plays"):
        MeanReturn().update(torch.rand(4, 3), SimpleNamespace())
    for state in (torch.zeros(2, dtype=torch.float64), torch.zeros(3), [1, 2, 3], torch.tensor([-1.0, 0, 0]).double(), torch.tensor([1.5, 0, 0]).double()):
        with pytest.raises(ValueError):
            MeanReturn().load_state(state)
