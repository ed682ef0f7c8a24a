"""Cascades of trained networks beside their single configurations: test accuracy against mean cost, everything chosen on val.

python benchmarks/cascade.py --name demo --runs out/seed0 out/seed1 out/seed2
python benchmarks/cascade.py --name weizmann --runs out_weizmann --split test --device cpu.epyc_7b13-openvino-fp32-b1-t2

Each run is the output directory of `mutual3d run`: its adaptive.pyth, and its config.yaml, which says where the videos are. Where the
table has no cascades yet, they are computed on the split that it was measured on. At each budget, a mean cost from that of the
cheapest configuration to that of the largest, the table chooses a single configuration, and a row for the mean, which may be a
cascade and keeps the mean over the test videos. Writes benchmarks/results/cascade_NAME.csv, a line a run, cost and budget,
cascade_NAME_summary.csv, their means over the runs, and cascade_NAME_COST.png.
"""

import argparse
import statistics
from pathlib import Path

import torch
from common import RESULTS, save_rows, write_csv

import mutual3d
from mutual3d.deploy.cascade import promise
from mutual3d.deploy.spending import Spending
from mutual3d.evaluation.cascade import ClipConfidences
from mutual3d.metrics.recording import ConfidenceRecord
from mutual3d.pipeline import from_config, load_config
from mutual3d.pipeline.cascades import add_cascades
from mutual3d.pipeline.workspace import Workspace
from mutual3d.report.plots import comparison_figure, png_bytes
from mutual3d.table.query_table import QueryTable, Row
from mutual3d.utils.files import atomic_write

# Shares of the way from the cheapest configuration's cost to the largest one's.
STEPS = 40
# Of the largest configuration's cost: where a cascade is to be within a point of it.
AIM = 0.7


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="output directories of one recipe, one a seed")
    parser.add_argument("--name", default="demo", help="of the results (default demo)")
    parser.add_argument("--split", default="test", help="that accuracy is counted on (default test)")
    parser.add_argument("--stages", type=int, default=2, help="of cascades, where the table has none (default 2)")
    parser.add_argument("--device", help="whose latency: a key of the tables; GFLOPs alone without one")
    parser.add_argument("settings", nargs="*", default=[], metavar="KEY VALUE", help="other settings than the runs' own, such as DATA.PATH_TO_DATA_DIR")
    return parser.parse_intermixed_args()


class Run:
    """One network: its table, with cascades chosen on its own split, and what its configurations say of the test videos."""

    def __init__(self, directory, options):
        self.directory, self.model = directory, mutual3d.load(directory / "adaptive.pyth")
        self.settings = options.settings
        table = self.model.table
        if not table.cascades:
            front = {row.configuration for key in ("gflops", "latency_ms") if key in table.costs for device in table.keys(key)
                     for row in table.pareto_front(key, device or None)}  # fmt: skip
            table = add_cascades(table, self.measure(table.provenance["split"], sorted(front)), num_stages=options.stages)
        self.table: QueryTable = table
        fronts = [table.pareto_front()] + ([table.pareto_front("latency_ms", options.device)] if options.device else [])
        wanted = {row.configuration for front in fronts for row in front} | {table.rows[-1].configuration}
        wanted |= {c for row in table.cascades for c in row.configuration.configurations}
        self.records = {c: metric.record for c, metric in self.measure(options.split, sorted(wanted)).items()}

    def measure(self, split, configurations):
        """{configuration: metric and what it kept} of one view of each video of a split."""
        config = load_config(self.directory / "config.yaml", [*self.settings, "GRID.SPLIT", split])
        plan = from_config(config)
        run = Workspace(plan, torch.device("cpu"))
        run.model = self.model.network
        return run.measure(plan.grid.loader(), configurations, f"{self.directory.name}, {split}", record=ConfidenceRecord)

    def clips(self, configuration, temperature=1.0):
        return ClipConfidences.of_record(self.records[configuration], temperature)

    def of_single(self, row):
        return self.clips(row.configuration).accuracy

    def of_cascade(self, spending: Spending):
        """Accuracy over all test videos, as one batch, of which `spending` sends some on."""
        cascade = spending.cascade
        is_right = self.clips(cascade.configurations[0]).is_right_N.clone()
        running = torch.arange(len(is_right))
        spending.start(len(is_right))
        for stage, configuration in enumerate(cascade.configurations[1:]):
            sure = self.clips(cascade.configurations[stage], cascade.temperatures[stage]).confidences_N[running]
            running = running[spending.choose(stage, sure)]
            is_right[running] = self.clips(configuration).is_right_N[running]
        return 100 * int(is_right.sum()) / len(is_right)


def compare(run, cost, device):
    """A row for each budget on the mean of a cost."""
    table, name = run.table, f"mean_{cost}"
    front = table.pareto_front(cost, device)
    largest = table.row(run.model.network.space.largest)
    if largest not in table.measured(cost, device):
        largest = front[-1]  # the most accurate: where the largest configuration is beaten, its latency was not measured
    low, high = table.cost(front[0], cost, device), table.cost(largest, cost, device)
    rows = []
    for step in range(STEPS + 1):
        budget = low + (high - low) * step / STEPS + 1e-12
        single = table.select(**{cost: budget}, device=device)
        chosen = table.select_mean(device, **{name: budget})
        accuracy, spent = run.of_single(single), table.cost(single, cost, device)
        line = {
            "run": run.directory.name, "cost": cost, "budget": f"{budget:.6g}", "share_of_largest": f"{budget / high:.4f}",
            "single": single.configuration, "single_cost": f"{spent:.6g}", "single_accuracy": f"{accuracy:.2f}",
        }  # fmt: skip
        if isinstance(chosen, Row):
            accuracy, spent = run.of_single(chosen), table.cost(chosen, cost, device)
        else:
            spending = promise(table, chosen, {name: budget}, device)
            accuracy = run.of_cascade(spending)
            spent = spending.spent
            assert spent <= budget + 1e-9, "a promise was broken"
        rows.append({
            **line, "chosen": chosen.configuration, "spent": f"{spent:.6g}", "accuracy": f"{accuracy:.2f}",
            "gain": f"{accuracy - float(line['single_accuracy']):.2f}",
            "behind_largest": f"{run.of_single(largest) - accuracy:.2f}", "videos": len(run.clips(largest.configuration)),
        })  # fmt: skip
    return rows


def summarise(rows, cost):
    """Means over the runs at each budget; the one at `AIM` of the largest's cost is marked."""
    by_step = [[run[step] for run in rows] for step in range(STEPS + 1)]
    found = []
    for lines in by_step:
        means = {
            name: statistics.mean(float(line[name]) for line in lines)
            for name in ("share_of_largest", "spent", "single_cost", "single_accuracy", "accuracy", "gain", "behind_largest")
        }
        found.append({"cost": cost, **{name: f"{value:.4g}" for name, value in means.items()}, "runs": len(lines)})
    nearest = min(found, key=lambda line: abs(float(line["share_of_largest"]) - AIM))
    return [{**line, "is_aim": line is nearest} for line in found]


def draw(summary, cost, path, label):
    fronts = {
        "single configurations": [(float(line["single_cost"]), float(line["single_accuracy"])) for line in summary],
        "with cascades": [(float(line["spent"]), float(line["accuracy"])) for line in summary],
    }
    fronts = {name: sorted(set(points)) for name, points in fronts.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(png_bytes(comparison_figure(fronts, cost_label=label)))


def main():
    options = parse()
    runs = [Run(directory, options) for directory in options.runs]
    costs = [("gflops", None)] + ([("latency_ms", options.device)] if options.device else [])
    all_rows, all_summaries = [], []
    for cost, device in costs:
        rows = [compare(run, cost, device) for run in runs]
        summary = summarise(rows, cost)
        all_rows += [line for run in rows for line in run]
        all_summaries += summary
        label = f"mean {runs[0].table.cost_label(cost, device)}"
        draw(summary, cost, RESULTS / f"cascade_{options.name}_{cost}.png", label)
        aim = next(line for line in summary if line["is_aim"])
        below = [line for line in summary if float(line["gain"]) < 0]
        print(
            f"{label}: at {float(aim['share_of_largest']):.2f} of the largest's, {float(aim['behind_largest']):.2f} points behind it; mean gain over "
            f"single configurations {statistics.mean(float(line['gain']) for line in summary):.2f}, below them at {len(below)} of "
            f"{len(summary)} budgets"
        )
    write_csv(RESULTS / f"cascade_{options.name}.csv", all_rows)
    save_rows(f"cascade_{options.name}_summary", all_summaries)


if __name__ == "__main__":
    main()
