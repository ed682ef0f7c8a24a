import pytest

from mutual3d.table.interval import accuracy_interval, points_either_way, wilson_interval
from mutual3d.table.query_table import QueryTable, Row


# Computed by hand from the formula, and in Newcombe (1998), Table I, method 3: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611.
@pytest.mark.parametrize(
    "right, count, expected", [(81, 263, (25.53, 36.62)), (15, 148, (6.24, 16.05)), (0, 20, (0, 16.11)), (1, 29, (0.61, 17.18))]
)
def test_wilson_intervals_are_the_published_ones(right, count, expected):
    assert wilson_interval(100 * right / count, count) == pytest.approx(expected, abs=0.006)


def test_twenty_four_videos_are_known_to_about_twenty_points():
    assert 18 < points_either_way(24) < 20


@pytest.mark.parametrize("percent, count", [(50, 0), (-1, 5), (101, 5), (float("nan"), 5)])
def test_what_is_no_share_is_refused(percent, count):
    with pytest.raises(ValueError, match="a share from 0 to 100"):
        wilson_interval(percent, count)


def test_average_precision_and_an_unknown_number_of_videos_have_no_interval():
    row = Row("1-32-4", (8,), 1.0, 9, {"top1_acc": 50.0, "map": 50.0})
    conditions = {"split": "val", "num_views": 1, "crop": 32}
    intervals = [
        accuracy_interval(QueryTable([row], {**conditions, **more}), row)
        for more in ({"metric": "top1_acc", "num_videos": 24}, {"metric": "map", "num_videos": 24}, {"metric": "top1_acc"})
    ]
    assert intervals == [wilson_interval(50.0, 24), None, None]
