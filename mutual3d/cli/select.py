"""Which configuration to run at a budget, by a query table.

    mutual3d select out/adaptive.pyth --gflops 2.0
    mutual3d select out/adaptive.pyth --latency-ms 5 --runtime openvino
    mutual3d select out/query_table.json --latency-ms 40 --device cpu.epyc_7b13-openvino-fp32-b1-t2 --json
    mutual3d select out/adaptive.pyth --parameters 500000
    mutual3d select out/adaptive.pyth --mean-latency-ms 3
    mutual3d select out/adaptive.pyth --list

It prints the row, and the next two of the Pareto front on either side of it.
A budget in time means this machine, one clip at a time: the column of --runtime, or that of the fastest runtime that was measured
here. Where an adaptive.pyth has none, its front is measured first; another machine's column is taken only by --device.
A budget on the mean over clips, --mean-gflops or --mean-latency-ms, may have a cascade: a dearer configuration runs where a cheap one
is not sure. All other budgets bound every clip. A cost of one's own that the table has is a budget like the others, such as
--peak-memory-mb 10.

Exit status: 0 when a configuration fits, 2 when the budget is too small (the nearest row is printed all the same) or
the command line is wrong, 1 when the table cannot answer.
"""

import argparse
import math
import sys
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import simplejson
import torch

from mutual3d.cli.budgets import add_budgets, budgets_of
from mutual3d.cost.axes import COSTS, MEAN
from mutual3d.cost.latency_key import EAGER, LATENCIES, LatencyKey, is_here
from mutual3d.table.choice import neighbours, wrong_choices_in_words
from mutual3d.table.query_table import AnyRow, BudgetTooSmall, QueryTable
from mutual3d.utils.command_line import command_parser, path_argument, print_error

if TYPE_CHECKING:  # which a table alone does not need
    from mutual3d.deploy.adaptive_model import AdaptiveModel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line; returns its exit status."""
    parser = make_parser()
    options, others = parser.parse_known_args(arguments)
    check_options(parser, options, others)
    try:
        table, model = read_table(options.table)
        if others:
            # What the parser does not know may be a cost that the table has and nobody registered here.
            add_budgets(parser, float, table.costs.values(), with_means=True)
            options = parser.parse_args(arguments)
            check_options(parser, options, [])
        if options.device is None and asks_for_time(options):
            table, options.device = this_machines(table, model, options.runtime)
        if options.list:
            print_front(table, options)
            return 0
        budgets = budgets_of(options)
        select = table.select_mean if any(name.startswith(MEAN) for name in budgets) else table.select
        print_row(table, select(device=options.device, **budgets), options, fits=True)
        return 0
    except BudgetTooSmall as error:
        print(error, file=sys.stderr)
        print_row(table, error.nearest, options, fits=False)
        return 2
    except (ValueError, OSError, ImportError) as error:
        print_error(error)
        return 1


def read_table(path: str) -> "tuple[QueryTable, AdaptiveModel | None]":
    """The table of a run's adaptive.pyth, and that model, or a query_table.json. Raises ValueError and OSError, which name the file."""
    if not zipfile.is_zipfile(path):
        return QueryTable.load(path), None
    # Imported where it is needed: a table alone needs no network.
    from mutual3d.deploy.adaptive_model import load

    model = load(path)
    if model.table is None:
        raise ValueError(f"'{path}' has no query table: run with GRID.ENABLE True")
    return model.table, model


def asks_for_time(options: argparse.Namespace) -> bool:
    """Whether the options are about what this machine's time is needed for."""
    asked = {options.cost} if options.list else {name.removeprefix(MEAN) for name in budgets_of(options)}
    return not asked.isdisjoint(LATENCIES)


def this_machines(table: QueryTable, model: "AdaptiveModel | None", runtime: str | None) -> tuple[QueryTable, str]:
    """(table, device key) of the latencies of one clip on this machine: of `runtime`, or the fastest that is there.

    Where there are none, a model's front is measured now. Raises ValueError, which names what there is, without a model.
    """
    threads = torch.get_num_threads()
    own = {text: LatencyKey.parse(text) for text in table.devices if is_here(text)}
    found = [
        text for text, key in own.items()
        if key.batch == 1 and key.threads in (None, threads) and runtime in (None, "auto", key.runtime)
    ]  # fmt: skip
    if found:
        # By what all of them have, as a runtime may lack some.
        rows = [row for row in table.rows if all(text in row.latency_ms for text in found)] or table.rows
        return table, min(found, key=lambda text: sum(row.latency_ms.get(text, math.inf) for row in rows))
    if model is None:
        there = f"; it has {', '.join(table.devices)}, to be named by --device" if table.devices else ""
        raise ValueError(
            f"the table has no latency of this machine{f' in {runtime}' if runtime else ''} (PyTorch's threads: {threads}){there}. Give the run's "
            "adaptive.pyth instead, which can be measured here; `mutual3d bench` keeps what it measures in that file"
        )
    from mutual3d.deploy.timing import key_here

    key = key_here(model if runtime is None else model.run_in(None if runtime == EAGER else runtime))
    assert model.table is not None, "which measuring put its column into"
    return model.table, key


def make_parser() -> argparse.ArgumentParser:
    """The parser of the options, without the costs that a table alone knows."""
    parser = command_parser("select", __doc__)
    parser.add_argument("source", nargs="?", metavar="MODEL", type=path_argument, help="a run's adaptive.pyth or query_table.json")
    parser.add_argument("--table", type=path_argument, help="another way to name MODEL")
    add_budgets(parser, float, with_means=True)
    parser.add_argument("--runtime", help="whose latency on this machine, such as openvino (default: the fastest that was measured)")
    parser.add_argument("--device", help="another latency: a key of the table, such as cpu.epyc_7b13-torch-fp32-b1-t2")
    parser.add_argument("--list", action="store_true", help="print the best row for each budget, of each cost (or of latency: --device)")
    parser.add_argument("--cost", help="what the budgets of --list are of: a cost of the table, such as parameters")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace, others: Sequence[str]) -> None:
    """End the program, status 2, for options that do not go together. others: words that may be budgets of the table's own."""
    if (options.source is None) == (options.table is None):
        parser.error("name one adaptive.pyth or query_table.json")
    options.table = options.table or options.source
    budgets = budgets_of(options)
    if not options.list and not budgets and not others:
        parser.error(f"give {', '.join(words.option for words in COSTS.values())}, or several of them; or --list")
    if options.list and budgets:
        given = ", ".join("--" + name.replace("_", "-") for name in budgets)
        parser.error(f"--list prints every budget: leave {given} out")
    if options.runtime and options.device:
        parser.error("--runtime says whose latency on this machine, --device names a key: give one of them")
    if options.cost and not options.list:
        parser.error("--cost says what --list lists: give that too")


def print_row(table: QueryTable, row: AnyRow, options: argparse.Namespace, fits: bool) -> None:
    """Print a row and those beside it on the Pareto front, in words or as json. fits: whether it is within the budget.

    The front is that over the cost of the budget; of several budgets, over the first that depends on the device.
    """
    budgets = {name.removeprefix(MEAN): name.startswith(MEAN) for name in budgets_of(options)}
    cost = min(budgets, key=lambda name: not table.words_of_cost(name).by_device)
    device = options.device or table.own_device(cost) or None
    cheaper, dearer = neighbours(table, row, cost, device, with_cascades=any(budgets.values()))
    if options.json:
        beside = {"cheaper": [other.to_dict() for other in cheaper], "dearer": [other.to_dict() for other in dearer]}
        print(simplejson.dumps({**row.to_dict(), "fits": fits, **beside, "provenance": table.provenance}))
        return
    print(table.describe(row))
    if cheaper or dearer:
        print(f"\nBeside it, of the best within a budget of {table.cost_label(cost, device)}:")
        print(table.format([*cheaper, row, *dearer], chosen=row))
    if table.words_of_cost(cost).by_device and (sentence := wrong_choices_in_words(table, cost, device)):
        print(f"\n{sentence}")


def print_front(table: QueryTable, options: argparse.Namespace) -> None:
    """Print the Pareto front over --cost, or the latency of --device; without either one over each cost that is drawn, time first."""
    if options.cost is None and options.device is None:
        if options.json:
            fronts = [
                {"cost": words.name, "device": key or None, "rows": [row.to_dict() for row in table.mean_front(words.name, key or None)]}
                for words, key in table.drawn_columns
            ]
            print(simplejson.dumps({"provenance": table.provenance, "fronts": fronts}))
        else:
            print(table.format_fronts())
        return
    rows = table.mean_front(options.cost or ("gflops" if options.device is None else "latency_ms"), options.device)
    if options.json:
        print(simplejson.dumps({"provenance": table.provenance, "rows": [row.to_dict() for row in rows]}))
    else:
        print(table.format(rows))
