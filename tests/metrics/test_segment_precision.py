"""Average precision of segments: by hand, and beside scikit-learn's where both rank the same right ones."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mutual3d.metrics.segments import SegmentAveragePrecision, temporal_iou


def test_temporal_iou():
    others = np.array([[0, 10], [5, 15], [10, 20], [2, 4]], float)
    assert temporal_iou((0, 10), others).tolist() == pytest.approx([1, 1 / 3, 0, 0.2])
    assert temporal_iou((3, 3), np.array([[3.0, 3.0]])).tolist() == [0]


def test_a_case_computed_by_hand():
    """Ranked: right, wrong (the segment is taken), right in another video, wrong; 3 of the 4 true ones could be found."""
    metric = SegmentAveragePrecision((0.5,))
    metric.update("a", [(0, 10, "run", 0.9), (1, 10, "run", 0.8), (50, 52, "run", 0.3)], [(0, 10, "run"), (20, 30, "run")])
    metric.update("b", [(4, 9, "run", 0.6), (0, 3, "walk", 0.9)], [(4, 10, "run"), (0, 3, "walk")])
    # run: precision 1 at recall 1/3, 2/3 at recall 2/3, nothing for the last third; walk: 1.
    assert metric.per_class(0.5) == {"run": pytest.approx(100 * (1 / 3 + 2 / 9)), "walk": 100}
    assert metric.values() == {"map": pytest.approx((100 * 5 / 9 + 100) / 2), "map@0.5": pytest.approx((100 * 5 / 9 + 100) / 2)}
    assert metric.per_class(0.9)["run"] == pytest.approx(100 / 3) and metric.num_videos == 2
    assert list(metric.facts.labels) == ["map", "map@0.5"]


def test_precision_that_rises_again_counts_from_there():
    metric = SegmentAveragePrecision((0.5,))
    metric.update("a", [(5, 6, "run", 0.9), (0, 1, "run", 0.8), (2, 3, "run", 0.7)], [(0, 1, "run"), (2, 3, "run")])
    assert metric.values()["map"] == pytest.approx(100 * 2 / 3)


def test_of_several_a_segment_takes_the_one_that_is_free_and_that_it_overlaps_most():
    metric = SegmentAveragePrecision((0.4,))
    truth = [(0, 10, "run"), (4, 14, "run")]
    metric.update("a", [(1, 11, "run", 0.9), (0, 10, "run", 0.8)], truth)
    assert metric.values()["map"] == 100 * 1.0 if temporal_iou((0, 10), np.array([[4.0, 14.0]]))[0] >= 0.4 else pytest.approx(50)


@pytest.mark.parametrize("seed", range(5))
def test_where_the_right_ones_come_first_it_is_scikit_learns(seed):
    """Interpolation changes nothing where precision never rises; what is missed is a positive that is never found."""
    generator = np.random.default_rng(seed)
    right, wrong, missed = generator.integers(1, 9, 3)
    scores = np.sort(generator.random(right + wrong))[::-1]
    found = [(10 * k, 10 * k + 5, "run", float(score)) for k, score in enumerate(scores)]
    truth = [(10 * k, 10 * k + 5, "run") for k in range(right)] + [(9000 + 10 * k, 9001 + 10 * k, "run") for k in range(missed)]
    metric = SegmentAveragePrecision((0.5,))
    metric.update("a", found, truth)
    expected = average_precision_score(np.arange(right + wrong) < right, scores) * right / (right + missed)
    assert metric.values()["map"] == pytest.approx(100 * expected)


def test_parts_add_up_and_background_does_not_count():
    whole, parts = SegmentAveragePrecision((0.3, 0.7)), [SegmentAveragePrecision((0.3, 0.7)) for _ in range(2)]
    for k, label in enumerate(("run", "walk", "run")):
        given = f"{k}.mp4", [(0, 5 + k, label, 0.5 + 0.1 * k), (0, 1, "nothing", 0.9)], [(0, 6, label), (6, 9, "nothing")]
        whole.update(*given)
        parts[k % 2].update(*given)
        parts[0].update(*given) if k == 1 else None
    parts[0].merge(parts[1])
    again = SegmentAveragePrecision((0.3, 0.7), background=["nothing"])
    again.load_state(parts[0].state())
    assert parts[0].values() == whole.values() == again.values() and set(whole.per_class(0.3)) == {"run", "walk", "nothing"}
    again.update("0.mp4", [(0, 1, "nothing", 0.9)], [(6, 9, "nothing")])
    assert "nothing" not in {segment.label for segment in again._truth["0.mp4"]}


def test_what_cannot_be():
    for ious in ((), (0.0,), (1.5,)):
        with pytest.raises(ValueError, match="the IoUs are"):
            SegmentAveragePrecision(ious)
    metric = SegmentAveragePrecision()
    metric.update("a", [(0, 1, "run", 0.5)], [])
    with pytest.raises(ValueError, match="none of the 1 videos that were evaluated has a segment"):
        metric.values()
    for found, truth in (([], [(3, 1, "run")]), ([(2, 2, "run", 0.5)], []), ([], [(0, float("nan"), "run")]), ([], [(0, float("inf"), "run")])):
        with pytest.raises(ValueError, match="'b' has a segment of 'run' from second .*: give seconds, start before end"):
            metric.update("b", found, truth)
    with pytest.raises(ValueError, match="'b' has a segment of 'run' with the confidence NaN"):
        metric.update("b", [(0, 1, "run", float("nan"))], [])
    assert metric.num_videos == 1
