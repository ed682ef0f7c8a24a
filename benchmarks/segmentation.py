"""Semantic segmentation at three sizes: RS-Net beside networks of one size each (RS-Net, appendix B, Table 7 and Fig. 8), in minutes.

python benchmarks/segmentation.py --epochs 40 --seeds 0 1

Makes the demo set in NYUDv2's form, trains configs/Demo/NYUDv2.yaml and what it is compared with, and measures each on the pictures of val:

    rs_net          every size in a step, norms of each size's own, the ensemble as the teacher of every pixel
    rs_net_labels   the same without a teacher
    mutual          widths of 0.5 to 1.0 at every size, taught by the largest configuration
    alone           a network of one size for each size
    largest_alone   the network of the largest size, shown smaller pictures: its norms are calibrated for them

What is finished is kept, and an interrupted training resumed. `--opts KEY VALUE ...` at the end go to every run. Writes
benchmarks/results/segmentation.csv, one row a method, seed and configuration, and a plot beside it.
"""

import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

from common import RESULTS, ROOT, dress_axes, save_figure, save_rows
from matplotlib.figure import Figure

from mutual3d.cli.run import main as run_net
from mutual3d.data.prepare.demo_nyudv2 import make_demo_nyudv2
from mutual3d.table.query_table import QueryTable

CONFIG = ROOT / "configs" / "Demo" / "NYUDv2.yaml"
SIZES = (32, 64, 96)
NUMBERS = ("miou", "pixel_acc", "mean_acc")
# Shared norms, calibrated for each configuration, and labels alone: what differs from the config, which is RS-Net's.
CALIBRATED = {"MUTUAL.BATCHNORM": "calibrated", "MUTUAL.OBJECTIVE": "labels"}


class Run(NamedTuple):
    """One training. changes: KEY VALUE pairs, beside those of the config. sizes: of the rows of its table that count."""

    changes: dict
    sizes: tuple = SIZES


def alone(size):
    """The training of one size: pictures are cut as for the others, and then shrunk."""
    sizes = sorted({size, SIZES[-1]})
    return Run({**CALIBRATED, "MUTUAL.SPATIAL_SIZES": sizes, "MUTUAL.SUBNETS": ["smallest"]}, (size,))


METHODS = {
    "rs_net": {"rs_net": Run({})},
    "rs_net_labels": {"rs_net_labels": Run({"MUTUAL.OBJECTIVE": "labels"})},
    "mutual": {
        "mutual": Run({
            "MUTUAL.BATCHNORM": "calibrated", "MUTUAL.OBJECTIVE": "inplace_distillation", "MUTUAL.LARGEST": True,
            "MUTUAL.SUBNETS": ["smallest_width", "random", "random"], "MUTUAL.WIDTH_RANGE": [0.5, 1.0], "GRID.WIDTH_STEP": 0.25,
        })
    },
    "alone": {f"alone_{size}": alone(size) for size in SIZES},
    "largest_alone": {"largest_alone": Run({**CALIBRATED, "MUTUAL.LARGEST": True, "MUTUAL.SUBNETS": []})},
}  # fmt: skip


def measure_run(output, run, overrides):
    """The rows of one training's table that count; it is made if it is not there."""
    path = output / "query_table.json"
    if not path.is_file():
        words = [str(word) for pair in run.changes.items() for word in pair]
        run_net(["--cfg", str(CONFIG), "OUTPUT_DIR", str(output), *words, *overrides])
    return [row for row in QueryTable.load(path).rows if row.configuration.spatial in run.sizes]


def measure_all(names, seeds, output, overrides):
    rows = []
    for seed in seeds:
        for name in names:
            for folder, run in METHODS[name].items():
                for row in measure_run(output / f"{folder}-seed{seed}", run, ["RNG_SEED", str(seed), *overrides]):
                    numbers = {number: f"{row.accuracy[number]:.2f}" for number in NUMBERS}
                    rows.append({"method": name, "seed": seed, "configuration": str(row.configuration), "gflops": f"{row.gflops:.6g}", **numbers})
    return rows


def points(rows, name):
    """[(size, mean, min, max mIoU over the seeds)] of a method at full width."""
    found = []
    for size in SIZES:
        values = [float(row["miou"]) for row in rows if (row["method"], row["configuration"]) == (name, f"1-{size}")]
        if values:
            found.append((size, statistics.mean(values), min(values), max(values)))
    return found


def plot(rows, title, path):
    """mIoU over the size, a line a method, shaded from the worst to the best seed."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        sizes, mean, low, high = zip(*points(rows, name))
        (line,) = axes.plot(sizes, mean, marker="os^Dv"[i % 5], markersize=5, linewidth=1.4, label=name)
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_xticks(SIZES)
    dress_axes(axes, "pixels of the short side", "mean IoU (%)", title)
    save_figure(figure, path)


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "segmentation", help="where the pictures and the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--num-train", type=int, default=600, help="pictures to train on (default 600)")
    parser.add_argument("--num-val", type=int, default=150, help="pictures to measure on (default 150)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for every run, last")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    name = f"pictures-{options.num_train}-{options.num_val}"
    data = make_demo_nyudv2(options.output / name, num_train=options.num_train, num_val=options.num_val)
    settings = {
        "DATA.PATH_TO_DATA_DIR": data, "SOLVER.MAX_EPOCH": options.epochs, "SOLVER.WARMUP_EPOCHS": min(2, options.epochs), "TRAIN.EVAL_PERIOD": 1000,
        "TRAIN.CHECKPOINT_PERIOD": 1, "TRAIN.KEEP_CHECKPOINTS": 1, "GRID.LATENCY_DEVICES": [], "TEST.ENABLE": False,
        "LOG_PERIOD": 1000,
    }  # fmt: skip
    overrides = [*(str(word) for pair in settings.items() for word in pair), *options.opts]
    # What changes a run names its folder: a finished run of other settings is not taken for it.
    folder = "-".join([str(options.num_train), str(options.num_val), str(options.epochs), *options.opts]).replace("/", "_")
    rows = measure_all(options.methods, options.seeds, options.output / folder, overrides)
    about = {"epochs": options.epochs, "pictures": options.num_train, "split": f"{options.num_val} pictures of val, 1 view"}
    rows = [{**row, **about} for row in rows]
    save_rows("segmentation", rows)
    title = f"pictures of shapes, {options.epochs} epochs, {len(options.seeds)} seeds"
    plot(rows, title, RESULTS / "segmentation.png")


if __name__ == "__main__":
    main()
