"""Widths that `mutual3d slim` chose for each layer beside one width for all, at equal GFLOPs (US-Net, section 6).

mutual3d demo OUTPUT_DIR demo/layers MUTUAL.WIDTHS_BY layer MUTUAL.SUBNETS "[smallest, random_widths]"
python benchmarks/slim.py --run demo/layers

The network of a finished run is slimmed to several shares of its largest configuration's GFLOPs, on its validation videos. Both kinds
of configurations are then calibrated alike, and measured on those videos and on the test videos, by which nothing was chosen. Of one
width for all the widest is taken that costs no more. Writes benchmarks/results/slim_NAME.csv, a row a budget and kind, and a plot.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import torch
from common import RESULTS, machine, save_rows

from mutual3d.cli import slim
from mutual3d.cost.flops import count_costs
from mutual3d.deploy.adaptive_model import load
from mutual3d.evaluation import VideoPass, calibrate
from mutual3d.pipeline import from_config, load_config
from mutual3d.pipeline.workspace import Workspace
from mutual3d.report.plots import comparison_figure, png_bytes
from mutual3d.sampling import Configuration
from mutual3d.utils.files import atomic_write

# Of the largest configuration's GFLOPs.
SHARES = (0.85, 0.7, 0.55, 0.45)


def uniform_widths(network, budgets, crop, step=0.01):
    """{budget: the widest configuration of the largest sizes with one width for all that costs no more}."""
    largest = network.space.largest
    grid = [Configuration(width, largest.spatial, largest.temporal) for width in network.space.widths(step)]
    costs = {c: cost.gflops for c, cost in count_costs(network, grid, crop).items()}
    return {budget: max((c for c in grid if costs[c] <= budget), default=None) for budget in budgets}


def greedy_widths(table, budgets):
    """{budget: the row within it that costs most, of those that the search found}, of a table that `mutual3d slim` wrote."""
    rows = [table.row(text) for text in table.provenance["slimmed"]]
    return {budget: max((row for row in rows if row.gflops <= budget), key=lambda row: row.gflops).configuration for budget in budgets}


def measure(run, plan, configurations):
    """{configuration: the deciding metric, in its unit} on the videos of a plan's grid."""
    clips = plan.calibration.loader()
    calibrate(
        run.model, functools.partial(clips.batches, 0), configurations, prepare=run.prepare, average=plan.calibration.average,
        videos=VideoPass(len(clips), clips.num_samples, plan.calibration.max_unreadable),
    )  # fmt: skip
    found = run.measure(plan.grid.loader(), configurations, "measure")
    return {configuration: metric.values()[metric.primary] for configuration, metric in found.items()}


def compare(directory, options):
    """A row for each budget and kind."""
    largest = load(directory / "adaptive.pyth").table.rows[-1]
    budgets = [round(share * largest.gflops, 6) for share in SHARES]
    slim.main([
        str(directory / "adaptive.pyth"), *options.settings, "--output", str(directory / "slim"), "--step", str(options.step),
        "--videos", str(options.videos), "--clips", str(options.clips), "--gflops", *map(str, budgets),
    ])  # fmt: skip
    model = load(directory / "slim" / "adaptive.pyth")
    kinds = {
        "greedy": greedy_widths(model.table, budgets), "uniform": uniform_widths(model.network, budgets, model.preprocessing.crop),
    }  # fmt: skip
    chosen = sorted({c for by_budget in kinds.values() for c in by_budget.values() if c is not None})
    costs = count_costs(model.network, chosen, model.preprocessing.crop)
    accuracies = {}
    for split in ("val", "test"):
        words = [*options.settings, "TRAIN.ENABLE", "False", "GRID.SPLIT", split, "OUTPUT_DIR", str(directory / "slim")]
        plan = from_config(load_config(directory / "config.yaml", words))
        run = Workspace(dataclasses.replace(plan, make_model=lambda: model.network), torch.device("cpu"))
        accuracies[split] = measure(run, plan, chosen)
    return [
        {
            "budget_gflops": budget, "kind": kind, "gflops": f"{costs[c].gflops:.6g}", "val": f"{accuracies['val'][c]:.2f}",
            "test": f"{accuracies['test'][c]:.2f}", "configuration": str(c), "machine": machine(),
        }
        for kind, by_budget in kinds.items() for budget, c in by_budget.items() if c is not None
    ]  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="output directory of a finished run")
    parser.add_argument("--name", default="demo", help="of the results (default %(default)s)")
    parser.add_argument("--step", type=float, default=0.125, help="what a width falls by (default %(default)s)")
    parser.add_argument("--videos", type=int, default=256, help="of the search (default %(default)s)")
    parser.add_argument("--clips", type=int, default=128, help="for the statistics of what is tried (default %(default)s)")
    parser.add_argument("--opts", dest="settings", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs in place of the run's own")
    options = parser.parse_args(arguments)
    rows = compare(options.run, options)
    save_rows(f"slim_{options.name}", rows)
    for split in ("val", "test"):
        fronts = {
            kind: [(float(row["gflops"]), float(row[split])) for row in rows if row["kind"] == kind]
            for kind in dict.fromkeys(row["kind"] for row in rows)
        }
        figure = comparison_figure(fronts, cost_label="GFLOPs per view", accuracy_label=f"top-1 accuracy (%), {split} videos")
        with atomic_write(RESULTS / f"slim_{options.name}_{split}.png") as temporary:
            temporary.write_bytes(png_bytes(figure))


if __name__ == "__main__":
    main()
