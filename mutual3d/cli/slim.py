"""Search for widths of the layers that lose least accuracy within a budget (US-Net, section 6).

    mutual3d slim out/adaptive.pyth --gflops 1.5
    mutual3d slim out/adaptive.pyth --gflops 2 1.5 1 --step 0.125 --videos 512
    mutual3d slim out/adaptive.pyth --latency-ms 8 --start 1-160-9

From the largest configuration on, or --start, each group of layers is tried a step narrower, with batch norm statistics of its own from
--clips of the run's calibration split; the one that loses least accuracy on --videos of the validation split for what it saves is
kept, until the budget; several budgets give a row each. A network that was trained with MUTUAL.WIDTHS_BY layer and the rule random_widths has a group for each layer that
no residual sum ties to others, any other one a group for each stage. The test split is never read.

A folder `slim` beside the model, or --output, gets adaptive.pyth with the new configurations, their statistics and rows,
query_table.json with its csv and plots, and slim_path.csv, the search step by step. A killed search goes on after its last step.
Latency is measured on this machine in PyTorch, on the weights that all configurations share.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mutual3d.cli.budgets import add_budgets, budgets_of
from mutual3d.cli.chosen_model import config_of
from mutual3d.cost.axes import COSTS
from mutual3d.pipeline import load_config, machine_of, slim_network, slim_plan
from mutual3d.pipeline.extend import import_extension
from mutual3d.utils import distributed
from mutual3d.utils.command_line import command_parser, count_argument, parse_with_settings, path_argument, positive_argument
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.logging import setup_logging
from mutual3d.utils.run_lock import run_lock
from mutual3d.utils.stopping import stoppable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("slim", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    add_budgets(parser, positive_argument, nargs="+")
    parser.add_argument("--start", metavar="C", help="the configuration to start from, for example 1-160-9 (default: the largest)")
    parser.add_argument("--step", type=positive_argument, default=0.1, help="what a width falls by (default %(default)s)")
    parser.add_argument("--videos", type=count_argument, default=256, metavar="N", help="videos that accuracy is compared on (default %(default)s)")
    parser.add_argument("--clips", type=count_argument, default=128, metavar="N", help="clips for the statistics of what is tried (default %(default)s)")
    parser.add_argument("--split", metavar="NAME", help="the list of those videos (default: GRID.SPLIT); never the test's")
    parser.add_argument("--output", type=path_argument, metavar="DIR", help="the folder to write (default: slim, beside the model)")
    parser.add_argument("--cfg", help="the config of the run (default: the config.yaml beside the model)")
    parser.add_argument("--extend", action="append", default=[], type=path_argument, metavar="FILE",
                        help="a Python file that registers a network, data set or cost of yours; imported first")  # fmt: skip
    options, settings = parse_with_settings(parser, arguments)
    options.opts = settings
    given = budgets_of(options)
    if len(given) != 1:
        legal = ", ".join(words.option for words in COSTS.values())
        parser.error(f"give budgets of one cost ({legal}); {'several were given' if given else 'none was given'}")
    ((options.cost, options.budgets),) = given.items()
    options.output = Path(options.output or Path(options.model).parent / "slim")
    if options.output.resolve() == Path(options.model).resolve().parent:
        parser.error(f"--output is '{options.output}', where the model lies: it would be replaced; name another folder")
    if options.output.is_file():
        parser.error(f"--output is '{options.output}', which is a file: name a folder")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("a search runs in one process, and torchrun started several, which would write the same files: start `mutual3d slim` itself")
    for path in options.extend:
        import_extension(path)
    model = Path(options.model)
    cfg = load_config(config_of(model, options.cfg), options.opts)
    plan = slim_plan(
        cfg, model, options.output, cost=options.cost, budgets=options.budgets, step=options.step, start=options.start,
        split=options.split, num_videos=options.videos, num_clips=options.clips,
    )  # fmt: skip
    ensure_directory(plan.output)
    machine = machine_of(cfg)
    with stoppable(machine.max_minutes), run_lock(plan.output, instead="another --output"):
        setup_logging(plan.output)
        table = slim_network(plan, distributed.choose_device(machine.num_gpus))
    print(table.format([table.row(text) for text in table.provenance["slimmed"]]))
    print(f"written: {plan.output / 'adaptive.pyth'}; name a configuration with --config, or give a budget")
