"""How often a choice by GFLOPs is the wrong one, and the rows beside a chosen one, of tables that can be counted by hand."""

import pytest

from mutual3d.table.choice import WrongChoices, neighbours, wrong_choices, wrong_choices_in_words
from mutual3d.table.query_table import QueryTable, Row

PROVENANCE = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 64}


def table(*rows, **provenance):
    """Rows of (GFLOPs, accuracy, milliseconds or None)."""
    made = [
        Row(f"{(i + 1) / 10:g}-64-4", (8,), gflops, 100, {"top1_acc": accuracy}, {} if ms is None else {"cpu": ms})
        for i, (gflops, accuracy, ms) in enumerate(rows)
    ]
    return QueryTable(made, {**PROVENANCE, **provenance})


@pytest.mark.parametrize(
    "rows, expected",
    [
        # In the order of their GFLOPs; the row that no front has was timed too.
        ([(1, 50, 1.0), (2, 60, 2.0), (3, 70, 3.0), (3.5, 65, 3.5)], WrongChoices(0, 3, 0.0)),
        # 60 % at 1.5 ms is worth more GFLOPs than 62 % at 4: by GFLOPs one would be left with 50 % there.
        ([(1, 50, 1.0), (2, 62, 4.0), (2.5, 60, 1.5)], WrongChoices(1, 3, 10.0)),
        # The fastest row is not on the front over GFLOPs: at its budget nothing fits, and no accuracy is lost to speak of.
        ([(1, 50, 2.0), (2, 60, 3.0), (1.5, 45, 1.0)], WrongChoices(1, 3, 0.0)),
        # Equal accuracy for more time is not wrong.
        ([(1, 50, 2.0), (2, 60, 3.0), (2.5, 60, 3.0)], WrongChoices(0, 2, 0.0)),
        # Rows without a time count on neither side.
        ([(1, 50, 1.0), (2, 60, None), (3, 55, 2.0)], WrongChoices(1, 2, 5.0)),
        # Of rows off the front over GFLOPs none was timed: nothing can be known.
        ([(1, 50, 1.0), (2, 60, 2.0), (3, 55, None)], None),
    ],
)  # fmt: skip
def test_wrong_choices_are_counted(rows, expected):
    assert wrong_choices(table(*rows), "latency_ms", "cpu") == expected


def test_what_is_counted_is_told_in_a_sentence():
    told = wrong_choices_in_words(table((1, 50, 1.0), (2, 62, 4.0), (2.5, 60, 1.5)), "latency_ms")
    assert told.startswith("At 1 of the 3 budgets of median latency on cpu on this front, a choice by GFLOPs would have been the wrong one, by up to 10 points")
    right = wrong_choices_in_words(table((1, 50, 1.0), (2, 60, 2.0), (3, 55, 3.0)), "latency_ms")
    assert right == "A choice by GFLOPs would have been right at every budget of median latency on cpu on this front (2)."
    unknown = wrong_choices_in_words(table((1, 50, 1.0), (2, 60, 2.0), (3, 55, None)), "latency_ms")
    assert unknown.startswith("Of median latency on cpu only rows of the front over GFLOPs were measured") and "bench MODEL --all" in unknown
    assert wrong_choices_in_words(table((1, 50, 1.0), (2, 60, 2.0)), "latency_ms") == ""


def test_of_a_metric_whose_lower_values_are_better_less_accurate_is_higher():
    facts = {"top1_acc": {"label": "mean error", "unit": "px", "higher_is_better": False, "is_share": False}}
    made = table((1, 50, 1.0), (2, 38, 4.0), (2.5, 40, 1.5), metrics=facts)
    assert wrong_choices(made, "latency_ms") == WrongChoices(1, 3, 10.0)
    assert "by up to 10 px" in wrong_choices_in_words(made, "latency_ms")


def test_the_next_rows_on_either_side_are_of_the_front_over_that_cost():
    made = table(*[(i, 40 + i, i) for i in range(1, 8)], (9, 43.5, 3.5), (8, 10, 4.5))
    found = neighbours(made, made.select(latency_ms=4, device="cpu"), "latency_ms", "cpu")
    assert [[row.latency_ms["cpu"] for row in side] for side in found] == [[3.0, 3.5], [5.0, 6.0]]
    ends = [neighbours(made, made.select(gflops=value)) for value in (1, 7)]
    assert [[row.gflops for row in side] for end in ends for side in end] == [[], [2, 3], [5, 6], []]
