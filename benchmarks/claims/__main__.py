"""Train the runs of plans, and write the pages of what they gave.

python -m benchmarks.claims list                                                  # plans, and how much of each has been run
python -m benchmarks.claims train lengths --data jhmdb=/data/jhmdb --minutes 60   # resumable: what is there is not run again
python -m benchmarks.claims report                                                # docs/results/ of the database

In the root of the repository. Plans are the YAML files of benchmarks/claims/plans; results.sqlite beside them is the database.
"""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.common import ROOT
from mutual3d.utils.stopping import handled_signals

from .database import PATH, Database
from .plan import PLANS, Plan, Run, read_plan, runs_of
from .report import PAGES, write_index, write_page
from .train import Trainer


def plans_of(names: list[str]) -> list[Plan]:
    """The plans of these names, all for none; ValueError for a name that no plan has."""
    there = {path.stem: path for path in sorted(PLANS.glob("*.yaml"))}
    if unknown := [name for name in names if name not in there]:
        raise ValueError(f"no plan is called {', '.join(unknown)}; there are {', '.join(there)}")
    return [read_plan(there[name]) for name in names or there]


def folders_of_data(words: list[str]) -> dict[str, Path]:
    """{name: folder} of NAME=FOLDER; ValueError for other words and for folders that are not there."""
    found = {}
    for word in words:
        name, is_pair, folder = word.partition("=")
        if not is_pair or not Path(folder).exists():
            raise ValueError(f"--data {word}: NAME=FOLDER is needed, of a folder that is there")
        found[name] = Path(folder).resolve()
    return found


def chosen_runs(plans: list[Plan], seeds: list[int] | None, epochs: list[int] | None, methods: list[str] | None) -> list[Run]:
    """Runs of the plans with these seeds, lengths and methods; None chooses all that a plan has. ValueError for what no plan has."""
    runs = [run for plan in plans for run in runs_of(plan, seeds and tuple(seeds))]
    for what, wanted, value in (("epochs", epochs, lambda run: run.epochs), ("methods", methods, lambda run: run.method.name)):
        there = dict.fromkeys(value(run) for run in runs)
        if unknown := [word for word in wanted or [] if word not in there]:
            raise ValueError(f"--{what} {', '.join(map(str, unknown))}: the plans have {', '.join(map(str, there))}")
        runs = [run for run in runs if wanted is None or value(run) in wanted]
    return runs


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", type=Path, default=PATH)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="plans, and how much of each has been run")
    training = commands.add_parser("train", help="train what the database has no results of")
    training.add_argument("--data", nargs="+", default=[], metavar="NAME=FOLDER", help="where the sets of the plans are")
    training.add_argument("--minutes", type=float, default=60.0, help="after which runs are stopped, to be resumed later (default 60)")
    training.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each (default 1)")
    training.add_argument("--seeds", type=int, nargs="+", help="in place of the plans' own")
    training.add_argument("--epochs", type=int, nargs="+", help="of the plans' lengths those that are trained (default: all)")
    training.add_argument("--methods", nargs="+", help="of the plans' methods those that are trained, and what they start from (default: all)")
    training.add_argument("--output", type=Path, default=ROOT / "out" / "claims", help="a folder a run (default out/claims)")
    reporting = commands.add_parser("report", help="write the pages and figures")
    reporting.add_argument("--pages", type=Path, default=PAGES, help="folder that they are written to")
    for command in (listing, training, reporting):
        command.add_argument("plans", nargs="*", metavar="PLAN", help="by name; default: all")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        plans, database = plans_of(options.plans), Database(options.database)
        if options.command == "list":
            for plan in plans:
                runs = list(runs_of(plan))
                print(f"{plan.name}: {sum(run in database for run in runs)} of {len(runs)} runs; {plan.title}")
        elif options.command == "train":
            runs = chosen_runs(plans, options.seeds, options.epochs, options.methods)
            trainer = Trainer(database, options.output.resolve(), folders_of_data(options.data), options.jobs)
            with handled_signals(signal.default_int_handler, (signal.SIGTERM,)):  # the runs keep what they have, as for Ctrl-C
                left = trainer.train(runs, options.minutes)
            print(f"{len(runs) - left} of {len(runs)} runs are in the database" + (f"; {len(trainer.failed)} failed" if trainer.failed else ""))
            sys.exit(1 if trainer.failed else 0)
        else:
            lines = [line for plan in plans if (line := write_page(plan, database, options.pages)) is not None]
            if not options.plans:
                write_index(lines, database, options.pages)
            print(f"{len(lines)} pages in {options.pages}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on")


if __name__ == "__main__":
    main()
