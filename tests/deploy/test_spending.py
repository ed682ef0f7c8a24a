"""Which clips a cascade sends on so that a promised mean cost is kept, over batches and streams."""

import copy

import pytest
import torch

from mutual3d.cost.axes import COSTS
from mutual3d.deploy.spending import ShareKeeper, Spending, least_sure, share_within
from mutual3d.sampling import Cascade

CASCADE = Cascade.parse("0.25-24-4@0.8+1-48-8")
THREE = Cascade.parse("0.25-24-4@0.8+0.5-32-8@0.7+1-48-8")


def confidences(count, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def spending(cascade=CASCADE, costs=(1.0, 10.0), **options):
    return Spending(cascade, COSTS["gflops"], "", costs, **options)


def test_the_share_of_a_promise():
    assert share_within(4.0, cheap=1.0, dear=11.0) == pytest.approx(0.3)
    assert share_within(50.0, 1.0, 11.0) == 1.0
    with pytest.raises(ValueError, match="a mean cost of 0.5 is less than the cheapest configuration's 1"):
        share_within(0.5, 1.0, 11.0)


def test_over_a_batch_the_least_sure_go_on_and_the_promise_is_spent_exactly():
    found, values = spending(promised=4.0), confidences(50)
    found.start(50)
    mask = found.choose(0, values)
    assert mask.sum() == 15 and values[mask].max() <= values[~mask].min()
    assert found.spent == pytest.approx(4.0) and found.counts == [50, 15]
    assert str(found) == "promised a mean of 4 GFLOPs, spent 4 GFLOPs a clip over 50 clips (30.0 % at 1-48-8 too)"
    assert torch.equal(least_sure(values, 15), mask)


@pytest.mark.parametrize("size", [2, 3, 7, 32])
def test_what_a_batch_leaves_is_carried_on(size):
    found = spending(promised=4.0)
    for start in range(0, 420, size):
        found.start(min(size, 420 - start))
        found.choose(0, confidences(420)[start : start + size])
        assert found.spent <= 4.0 + 1e-9
    assert found.counts == [420, 126] and found.spent == pytest.approx(4.0)


@pytest.mark.parametrize("drift", [0.0, 0.3, -0.3])
def test_a_promise_is_kept_on_a_stream_whose_clips_change(drift):
    keeper = ShareKeeper(0.3, threshold=0.5)
    values = confidences(3000) + drift * torch.arange(3000) / 3000
    sent = [value for value in values if keeper.choose(value[None])]
    assert len(sent) == keeper.num_sent <= 0.3 * keeper.num_seen
    assert len(sent) >= 0.27 * len(values)
    assert sum(value < values.median() for value in sent) > 0.8 * len(sent)


def test_three_configurations_share_a_promise():
    found = spending(THREE, (1.0, 3.0, 10.0), promised=3.0, answered=(0.6, 0.3, 0.1))
    for seed in range(20):
        found.start(32)
        first = found.choose(0, confidences(32, seed))
        found.choose(1, confidences(int(first.sum()), 100 + seed))
    assert 2.9 < found.spent <= 3.0
    assert found.counts[1] / 640 == pytest.approx(0.4 * 2 / 2.2, abs=0.01)
    most = spending(THREE, (1.0, 3.0, 10.0), promised=50.0, answered=(0.6, 0.3, 0.1))
    most.start(10)
    assert most.choose(0, confidences(10)).all() and most.choose(1, confidences(10)).all() and most.spent == 14.0
    with pytest.raises(ValueError, match="less than the cheapest configuration's 1"):
        spending(THREE, (1.0, 3.0, 10.0), promised=0.5)


def test_without_a_promise_the_thresholds_decide():
    found = spending()
    assert found.spent is None and str(found) == "nothing promised, nothing spent so far"
    found.start(3)
    assert found.choose(0, torch.tensor([0.79, 0.8, 0.81])).tolist() == [True, False, False]
    assert copy.deepcopy(found).counts == found.counts == [3, 1]
