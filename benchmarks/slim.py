"""Widths that `mutual3d slim` chose for each layer beside one width for all, at equal GFLOPs (US-Net, section 6).

python benchmarks/slim.py                                       # digits of scikit-learn: minutes on two cores, a seed
python benchmarks/slim.py --seeds 0 1 2
python benchmarks/slim.py --runs my_run/out --name mine --shares 0.85 0.7 0.55

Without --runs a small Wide ResNet (configs/Methods/US_NET_LAYERS.yaml) is trained for each seed, at widths of each layer's own. It is then slimmed, on
validation images, to several shares of its largest configuration's GFLOPs. Both kinds of configurations are calibrated alike, and
measured on the validation images and on test images, by which nothing was chosen. Of one width for all the widest is taken that costs
no more. Writes benchmarks/results/slim_NAME.csv, a row a run, budget and kind, and a plot of the means for each split.
"""

import argparse
import dataclasses
import functools
import statistics
from pathlib import Path

import torch
from common import RESULTS, ROOT, machine, save_rows
from PIL import Image
from sklearn.datasets import load_digits

from mutual3d.cli import slim
from mutual3d.cli.run import main as run_net
from mutual3d.cost.flops import count_costs
from mutual3d.deploy.adaptive_model import load
from mutual3d.evaluation import VideoPass, calibrate
from mutual3d.pipeline import from_config, load_config
from mutual3d.pipeline.workspace import Workspace
from mutual3d.report.plots import comparison_figure, png_bytes
from mutual3d.sampling import Configuration
from mutual3d.utils.files import atomic_write

SHARES = (0.7, 0.5, 0.35, 0.2)
# Images of each split; the digits have two parts alone, and a search needs a third.
PARTS = {"train": 600, "val": 500, "test": 697}
TRAINING = {
    "TRAIN.DATASET": "image_folder", "TEST.DATASET": "image_folder", "TEST.SPLIT": "test", "MUTUAL.WIDTH_RANGE": "[0.25, 1.0]",
    "MUTUAL.WIDTH_DIVISOR": 2, "MUTUAL.SPATIAL_SIZES": "[16]", "CALIBRATION.NUM_CLIPS": 512, "NUM_GPUS": 0,
}  # fmt: skip


def write_digits(folder):
    """The digits as folders of images, one a split; what is there is left."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0)).tolist()
    start = 0
    for split, count in PARTS.items():
        for place in order[start : start + count]:
            path = folder / split / str(digits.target[place]) / f"{place:04d}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((digits.images[place] * 15.9).astype("uint8")).convert("RGB").resize((16, 16)).save(path)
        start += count
    return folder


def train(data, output, seed, settings):
    """The output directory of a run of one seed; a finished one is taken."""
    if not (output / "adaptive.pyth").is_file():
        words = [str(word) for pair in TRAINING.items() for word in pair]
        run_net([
            "--cfg", "Methods/US_NET_LAYERS", "DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output, "RNG_SEED", seed,
            *words, *settings,
        ])  # fmt: skip
    return output


def uniform_widths(network, budgets, crop, step=0.01):
    """{budget: the widest configuration of the largest sizes with one width for all that costs no more}."""
    largest = network.space.largest
    grid = [Configuration(width, largest.spatial, largest.temporal) for width in network.space.widths(step)]
    # Widths that round to the same channels cost the same.
    first_of = {network.signature(c.width): c for c in reversed(grid)}
    counted = count_costs(network, list(first_of.values()), crop)
    costs = {c: counted[first_of[network.signature(c.width)]].gflops for c in grid}
    return {budget: max((c for c in grid if costs[c] <= budget), default=None) for budget in budgets}


def greedy_widths(table, budgets):
    """{budget: the row within it that costs most, of those that the search found}."""
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
    largest = max(load(directory / "adaptive.pyth").table.rows, key=lambda row: row.gflops)
    budgets = [float(f"{share * largest.gflops:.6g}") for share in options.shares]
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
            "run": directory.name, "share": share, "budget_gflops": budget, "kind": kind, "gflops": f"{costs[c].gflops:.6g}",
            "val": f"{accuracies['val'][c]:.2f}", "test": f"{accuracies['test'][c]:.2f}", "configuration": str(c), "machine": machine(),
        }
        for kind, by_budget in kinds.items() for share, (budget, c) in zip(options.shares, by_budget.items()) if c is not None
    ]  # fmt: skip


def means(rows, split):
    """{kind: [(mean GFLOPs, mean accuracy)] over the runs, a point for each share}."""
    found = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = {share: [row for row in rows if (row["kind"], row["share"]) == (kind, share)] for share in dict.fromkeys(row["share"] for row in rows)}
        found[kind] = [tuple(statistics.mean(float(row[key]) for row in group) for key in ("gflops", split)) for group in own.values() if group]
    return found


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="output directories of finished runs, instead of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings (default 0)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "slim", help="where digits are written and trained")
    parser.add_argument("--name", default="digits", help="of the results (default %(default)s)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the largest configuration's GFLOPs (default: 0.7 0.5 0.35 0.2)")
    parser.add_argument("--step", type=float, default=0.125, help="what a width falls by (default %(default)s)")
    parser.add_argument("--videos", type=int, default=500, help="of the search (default %(default)s)")
    parser.add_argument("--clips", type=int, default=128, help="for the statistics of what is tried (default %(default)s)")
    parser.add_argument("--opts", dest="settings", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs of training, or in place of the runs' own")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    runs = options.runs
    if not runs:
        data = write_digits(options.output / "digits")
        runs = [train(data, options.output / f"seed{seed}", seed, options.settings) for seed in options.seeds]
    rows = [row for run in runs for row in compare(run, options)]
    save_rows(f"slim_{options.name}", rows)
    for split in ("val", "test"):
        label = f"top-1 accuracy (%), {split}, mean of {len(runs)} runs"
        figure = comparison_figure(means(rows, split), cost_label="GFLOPs per view", accuracy_label=label)
        with atomic_write(RESULTS / f"slim_{options.name}_{split}.png") as temporary:
            temporary.write_bytes(png_bytes(figure))


if __name__ == "__main__":
    main()
