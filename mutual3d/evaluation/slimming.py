"""Greedy slimming: which widths of the layers lose least accuracy for a budget (US-Net, section 6).

The paper shows that a network trained at non-uniform widths can be slimmed, and leaves the search to its follow-up (Yu and
Huang, arXiv:1903.11728): start from the largest, try each group of layers a step narrower, keep what loses least.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mutual3d.sampling import Configuration

# Where a width is compared with the min of the range: sums of steps miss it by rounding.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Slimmed:
    """A configuration of the search, what it costs, and its accuracy on the clips of the search (higher is better)."""

    configuration: Configuration
    cost: float
    accuracy: float


def one_step_narrower(model: Any, configuration: Configuration, step: float) -> dict[int, Configuration]:
    """{group: the configuration with that group's width lowered}, of the groups that can be.

    A width falls by `step`, and by further steps until a channel less is left; never below the min of the space. model: the
    adaptive network. Raises ValueError for a step that is not above 0.
    """
    if not step > 0:
        raise ValueError(f"the width step is {step}: it must be above 0")
    low = model.space.width_range[0]
    signature = model.signature(configuration.width)
    widths = configuration.widths if len(configuration.widths) > 1 else configuration.widths * model.space.width_groups
    found = {}
    for group, width in enumerate(widths):
        while width > low + _TOLERANCE:
            # Rounded, so that widths are short in texts.
            width = max(low, round(width - step, 10))
            narrower = Configuration((*widths[:group], width, *widths[group + 1 :]), configuration.spatial, configuration.temporal)
            if model.signature(narrower.width) != signature:
                found[group] = narrower
                break
    return found


def narrowest(model: Any, configuration: Configuration) -> Configuration:
    """The configuration of the same sizes that slimming ends at where no budget stops it: every group at the min width.

    model: the adaptive network.
    """
    width = (model.space.width_range[0],) * model.space.width_groups
    return Configuration(width, configuration.spatial, configuration.temporal)


def slim(
    path: Sequence[Slimmed],
    budget: float,
    *,
    narrower: Callable[[Configuration], Mapping[int, Configuration]],
    costs: Callable[[Sequence[Configuration]], Mapping[Configuration, float]],
    accuracies: Callable[[Sequence[Configuration]], Mapping[Configuration, float]],
    after_step: Callable[[list[Slimmed]], object] = lambda path: None,
) -> list[Slimmed]:
    """The path of configurations from its first, the start, to the first whose cost is within `budget`, each a group narrower.

    path: the start, or what an earlier call came to; it is gone on from. In each step every configuration of
    `narrower(current)` is tried. Those that cost less are measured, and the one that loses least accuracy for the cost that it
    saves is taken; of those that lose none, and else of equals, the cheaper. costs, accuracies: of several configurations
    at once. after_step: called with the path after each step. Raises ValueError where nothing that is narrower costs less.
    """
    path = list(path)
    while path[-1].cost > budget:
        now = path[-1]
        tried = list(narrower(now.configuration).values())
        found = costs(tried) if tried else {}
        cheaper = {configuration: found[configuration] for configuration in tried if found[configuration] < now.cost}
        if not cheaper:
            raise ValueError(
                f"the budget is {budget:g}, and nothing narrower than {now.configuration}, which costs {now.cost:g}, costs less: "
                "raise the budget, or start at a smaller size"
            )
        measured = accuracies(list(cheaper))

        def loss_for_saving(configuration: Configuration) -> tuple[float, float, Configuration]:
            cost = cheaper[configuration]
            lost = max(0.0, now.accuracy - measured[configuration])
            return lost / (now.cost - cost), cost, configuration

        best = min(cheaper, key=loss_for_saving)
        path.append(Slimmed(best, cheaper[best], measured[best]))
        after_step(path)
    return path


def within(path: Sequence[Slimmed], budget: float) -> Slimmed:
    """The first of a path that costs no more than `budget`. Raises ValueError where none does."""
    for place in path:
        if place.cost <= budget:
            return place
    raise ValueError(f"the budget is {budget:g}, and the path ends at {path[-1].cost:g}: slim further")
