"""What a choice of a configuration passes over: the rows beside the one that is chosen, and what another cost would have chosen."""

from collections.abc import Sequence
from typing import NamedTuple

from mutual3d.table.query_table import AnyRow, QueryTable


class WrongChoices(NamedTuple):
    """At `wrong` of `budgets` budgets a choice by another cost would have been the wrong one; `lost`: up to so much accuracy."""

    wrong: int
    budgets: int
    lost: float


def wrong_choices(table: QueryTable, cost: str, device: str | None = None, chooser: str = "gflops") -> WrongChoices | None:
    """How often a choice by `chooser` would have been the wrong one where the budget is of `cost` (on `device`).

    The cost of each row of the Pareto front over `cost` is a budget, and the choice by `chooser` is wrong there if the most
    accurate row of the Pareto front over `chooser` that fits the budget is less accurate than that row, or none fits.
    `lost` leaves out budgets that none fits. None where nothing can be known: every row whose `cost` was measured is on the
    front over `chooser`. Raises ValueError for a cost that the table lacks, and for a device that is unknown or ambiguous.
    """
    front, chosen, measured = table.pareto_front(cost, device), table.pareto_front(chooser), table.measured(cost, device)
    if all(row in chosen for row in measured):
        return None
    wrong, lost = 0, 0.0
    for best in front:
        budget = table.cost(best, cost, device)
        fitting = [table.merit(row) for row in chosen if row in measured and table.cost(row, cost, device) <= budget]
        if not fitting or max(fitting) < table.merit(best):
            wrong += 1
            lost = max(lost, table.merit(best) - max(fitting)) if fitting else lost
    return WrongChoices(wrong, len(front), lost)


def wrong_choices_in_words(table: QueryTable, cost: str, device: str | None = None, chooser: str = "gflops") -> str:
    """A sentence of `wrong_choices`; of a table that leaves nothing to choose, empty."""
    found, words, other = wrong_choices(table, cost, device, chooser), table.words_of_cost(cost), table.words_of_cost(chooser).unit
    where = " ".join(filter(None, [words.title, f"on {key}" if (key := table.device(device, cost)) else ""]))
    if found is None:
        if len(table.pareto_front(chooser)) == len(table):
            return ""
        return (
            f"Of {where} only rows of the front over {other} were measured, so that it is not known how often a choice by {other} would "
            "have been the wrong one: `mutual3d bench MODEL --all` measures every configuration."
        )
    if not found.wrong:
        return f"A choice by {other} would have been right at every budget of {where} on this front ({found.budgets})."
    unit = "points" if table.words_of_metric().unit == "%" else table.words_of_metric().unit
    lost = f", by up to {found.lost:.3g} {unit}" if found.lost else ""
    return (
        f"At {found.wrong} of the {found.budgets} budgets of {where} on this front, a choice by {other} would have been the wrong "
        f"one{lost}: of the front over {other}, the most accurate row within the budget is less accurate."
    )


def neighbours(
    table: QueryTable, row: AnyRow, cost: str = "gflops", device: str | None = None, count: int = 2, *, with_cascades: bool = False
) -> tuple[Sequence[AnyRow], Sequence[AnyRow]]:
    """(cheaper, dearer): the next `count` rows of the Pareto front over `cost` on either side of a row, both ascending in cost.

    with_cascades: of the front over the mean cost, on which cascades are too.
    """
    front: Sequence[AnyRow] = table.mean_front(cost, device) if with_cascades else table.pareto_front(cost, device)
    value = table.cost(row, cost, device)
    cheaper = [other for other in front if table.cost(other, cost, device) < value]
    dearer = [other for other in front if table.cost(other, cost, device) > value]
    return cheaper[-count:], dearer[:count]
