"""What chooses a configuration on a command line: an option for each registered cost, and for each that a table has beside."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from mutual3d.cost.axes import COSTS, MEAN, CostWords


def add_budgets(
    parser: argparse.ArgumentParser,
    kind: Callable[[str], float],
    costs: Iterable[CostWords] | None = None,
    *,
    with_means: bool = False,
    nargs: str | None = None,
) -> None:
    """Add an option for each cost that has none yet: of the registered ones, or of `costs`. kind: what turns text into a number.

    with_means: also `--mean-COST`, a budget on the mean over clips, which a cascade may keep. nargs: as of argparse, for options
    that take several budgets of one cost.
    """
    known = {option for action in parser._actions for option in action.option_strings}
    for words in COSTS.values() if costs is None else costs:
        if words.option not in known:
            where = ", as measured on one device of the table" if words.by_device else ""
            text = f"max {words.full_unit}{where} ({words.title})" if words.title != words.unit else f"max {words.full_unit}"
            parser.add_argument(words.option, dest=_destination(words.name), type=kind, nargs=nargs, metavar="NUMBER", help=text)
        option = f"--mean-{words.option.removeprefix('--')}"
        if with_means and words.adds and option not in known:
            text = f"max {words.unit} of a clip on average; one may cost more"
            parser.add_argument(option, dest=_destination(words.mean_name), type=kind, metavar="NUMBER", help=text)


def budgets_of(options: argparse.Namespace) -> dict[str, Any]:
    """{cost: budget} of the options that were given; a list of budgets where an option takes several."""
    prefix = _destination("")
    return {name.removeprefix(prefix): value for name, value in vars(options).items() if name.startswith(prefix) and value is not None}


def is_on_device(budgets: Iterable[str]) -> bool:
    """Whether one of the budgets, by name, is of a registered cost that depends on the device."""
    costs = (COSTS.get(name.removeprefix(MEAN)) for name in budgets)
    return any(words is not None and words.by_device for words in costs)


def check_choice(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program, status 2, where both --config and a budget are given, or --device-key without a budget in time."""
    budgets = budgets_of(options)
    if options.config and budgets:
        parser.error("give --config or a budget, not both")
    if options.device_key and not is_on_device(budgets):
        parser.error("--device-key says whose latency --latency-ms means: give that too")


def _destination(name: str) -> str:
    return f"budget:{name}"
