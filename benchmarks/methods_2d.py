"""Every method of the 2D papers on one small set of images, with one network and one recipe.

python benchmarks/methods_2d.py --epochs 30 --seeds 0 1 2                           # scikit-learn's digits
python benchmarks/methods_2d.py --cifar10 /data/cifar10.npz --epochs 30             # CIFAR-10, or a part of it

Trains configs/Methods/*.yaml and measures each one's grid on the test images. What is finished is kept, and an
interrupted training resumed. `--opts KEY VALUE ...` at the end go to every run. Writes
benchmarks/results/methods_2d_{digits,cifar10}.csv, one row a method, seed and configuration, and a plot beside it.

The csv of CIFAR-10 is of before us_net_layers, rs_net_larger, rs_net_largest, parallel and parallel_shared were in the list; `--methods` names some of
it. The rows of s_net, rs_net and rs_net_vanilla in the csv of CIFAR-10 were measured with calibrated statistics, which
`--opts CALIBRATION.OWN_STATISTICS True` still gives; without it their norms' own running ones count, as in their papers.
"""

import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

from common import RESULTS, ROOT, dress_axes, save_figure, save_rows
from matplotlib.figure import Figure

from mutual3d.cli.run import main as run_net
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable

CONFIGS = ROOT / "configs" / "Methods"
SIZE = 16
ALONE = [Configuration.parse(text) for text in ("0.5-10", "0.5-14", "0.75-12", "1-12", "1-16")]


class Method(NamedTuple):
    """config: name of its YAML. sizes: which of its table's rows count, by size; "full" or "all". runs: what each of its
    networks changes of the YAML, {configuration that it is for: KEY VALUE pairs}; None stands for the whole grid."""

    config: str
    sizes: str = "all"
    runs: dict = {None: {}}


def alone(configuration):
    """Changes of INDEPENDENT.yaml that train one configuration."""
    width, sizes = configuration.width, sorted({configuration.spatial, SIZE})
    return {"MUTUAL.WIDTH_RANGE": [width, width], "MUTUAL.SPATIAL_SIZES": sizes}


METHODS = {
    "mutual": Method("MUTUAL"),
    "us_net": Method("US_NET", sizes="full"),
    "us_net+": Method("US_NET"),
    "us_net_multi_scale": Method("US_NET_MULTI_SCALE"),
    "us_net_layers": Method("US_NET_LAYERS"),
    "s_net": Method("S_NET"),
    "rs_net": Method("RS_NET"),
    "rs_net_vanilla": Method("RS_NET_VANILLA"),
    "rs_net_larger": Method("RS_NET_LARGER"),
    "rs_net_largest": Method("RS_NET_LARGEST"),
    "parallel": Method("PARALLEL"),
    "parallel_shared": Method("PARALLEL_SHARED"),
    "multi_scale": Method("MULTI_SCALE"),
    "private_size": Method("PRIVATE_SIZE"),
    "independent": Method("INDEPENDENT", runs={configuration: alone(configuration) for configuration in ALONE}),
}


def measure_run(output, config, overrides):
    """The query table of one training, made if it is not there."""
    table = output / "query_table.json"
    if not table.is_file():
        run_net(["--cfg", CONFIGS / f"{config}.yaml", "OUTPUT_DIR", output, *overrides])
    return QueryTable.load(table)


def counts(method, row, wanted):
    """Whether a row of a run's table is the method's: of a run for one configuration that one, else those of its sizes."""
    if wanted is not None:
        return row.configuration == wanted
    return method.sizes == "all" or row.configuration.spatial == SIZE


def measure_method(name, output, seed, overrides):
    """[(configuration, GFLOPs, top-1 in per cent)] of one seed."""
    method, results = METHODS[name], []
    for wanted, changes in method.runs.items():
        changed = [str(word) for pair in changes.items() for word in pair]
        folder = output / "-".join(map(str, filter(None, (method.config, wanted, f"seed{seed}"))))
        table = measure_run(folder, method.config, ["RNG_SEED", str(seed), *changed, *overrides])
        rows = [row for row in table.rows if counts(method, row, wanted)]
        results += [(row.configuration, row.gflops, row.accuracy["top1_acc"]) for row in rows]
    return results


def measure_all(names, seeds, output, overrides):
    return [
        {"method": name, "seed": seed, "configuration": str(configuration), "gflops": f"{gflops:.6g}", "top1": f"{top1:.2f}"}
        for seed in seeds
        for name in names
        for configuration, gflops, top1 in measure_method(name, output, seed, overrides)
    ]


def pareto_front(rows):
    """[(MFLOPs, mean, min, max top-1 over the seeds)] of the configurations that beat all cheaper ones on average."""
    values = {}
    for row in rows:
        values.setdefault((float(row["gflops"]), row["configuration"]), []).append(float(row["top1"]))
    points = []
    for (gflops, _), accuracies in sorted(values.items()):
        mean = statistics.mean(accuracies)
        if not points or mean > points[-1][1]:
            points.append((1000 * gflops, mean, min(accuracies), max(accuracies)))
    return points


def plot(rows, title, path):
    """One line a method through its Pareto front, shaded from the worst to the best seed."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        costs, mean, low, high = zip(*pareto_front([row for row in rows if row["method"] == name]))
        (line,) = axes.plot(costs, mean, marker="os^Dv"[i % 5], markersize=4, linewidth=1.4, label=name)
        axes.fill_between(costs, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    dress_axes(axes, "MFLOPs (1e6 multiply-adds)", "top-1 (%)", title)
    save_figure(figure, path)


def image_set(cifar10):
    """Its name, and the KEY VALUE pairs that choose it."""
    if cifar10 is None:
        return "digits", []
    names = ["TRAIN.DATASET", "cifar10", "TEST.DATASET", "cifar10", "DATA.PATH_TO_DATA_DIR", str(cifar10)]
    return "cifar10", [*names, "DATA.RANDOM_FLIP", "True", "TRAIN.BATCH_SIZE", "64"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, help="directory or npz file of CIFAR-10 (default: digits)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "methods_2d")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for every run, last")
    return parser.parse_args()


def main():
    options = parse()
    name, values = image_set(options.cifar10)
    overrides = ["SOLVER.MAX_EPOCH", str(options.epochs), *values, *options.opts]
    # What changes a run names its folder: a finished run of other settings is not taken for it.
    folder = "-".join([name, str(options.epochs), *options.opts]).replace("/", "_")
    rows = measure_all(options.methods, options.seeds, options.output / folder, overrides)
    rows = [{**row, "epochs": options.epochs, "split": f"{name} test images, 1 view"} for row in rows]
    save_rows(f"methods_2d_{name}", rows)
    title = f"{name}, {options.epochs} epochs, {len(options.seeds)} seeds: best configuration for each cost"
    plot(rows, title, RESULTS / f"methods_2d_{name}.png")


if __name__ == "__main__":
    main()
