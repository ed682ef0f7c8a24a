"""RS-Net with weights, and activations, of 2 bits beside the whole one, by size: what Table 3 of its paper compares, small.

python benchmarks/quantized.py --cifar10 /data/cifar10.npz --epochs 20            # a ResNet-18 of a quarter of the channels, CIFAR-10
python benchmarks/quantized.py --epochs 3                                        # on scikit-learn's digits, in minutes
python benchmarks/quantized.py --individual --seeds 0 1 2                         # each size trained alone too
python benchmarks/quantized.py --videos demo/data --epochs 15                     # the demo's X3D, mutual, on its clips

Trains configs/Methods/RS_NET.yaml (videos: configs/Demo/MUTUAL_X3D.yaml) with each of --bits, from scratch, and measures its grid on the
test images (videos: val). What is finished is kept, and an interrupted training resumed. `--opts KEY VALUE ...` at the end go to every
run. Writes benchmarks/results/quantized_{digits,cifar10,videos}.csv, one row for each kind of numbers, method, seed and configuration,
with the size of the weights in MB, and a plot beside it.
"""

import argparse
import statistics
from pathlib import Path

from common import RESULTS, ROOT, dress_axes, save_figure, save_rows
from matplotlib.figure import Figure
from methods_2d import image_set, pareto_front

from mutual3d.cli.run import main as run_net
from mutual3d.table.query_table import QueryTable

# Bits of weights and activations.
BITS = {"whole": (32, 32), "W2A32": (2, 32), "W2A2": (2, 2)}
COSTS = "['gflops', 'parameters', 'weights_mb']"
# Images of 24 pixels and less, which a pass of minutes over ten thousand of them can learn from.
SIZES = [12, 16, 20, 24]
RESNET = {
    "MODEL.MODEL_NAME": "ImageResNet", "MODEL.SMALL_IMAGES": True, "RESNET.DEPTH": 18, "RESNET.WIDTH_PER_GROUP": 16,
    "DATA.TRAIN_JITTER_SCALES": [24, 24], "DATA.TRAIN_CROP_SIZE": 24, "DATA.TEST_CROP_SIZE": 24, "DATA.CROP_PADDING": 3,
    "MUTUAL.SPATIAL_SIZES": SIZES, "GRID.COSTS": COSTS,
}  # fmt: skip
# Half the configurations of the demo's grid: three networks are measured.
X3D = {"GRID.WIDTH_STEP": 0.5, "GRID.RUNTIMES": "[]", "GRID.LATENCY_DEVICES": "[]", "GRID.CASCADES": 0, "GRID.COSTS": COSTS, "TEST.ENABLE": False}


def bits_of(name):
    weights, activations = BITS[name]
    return {"MODEL.QUANTIZE.WEIGHT_BITS": weights, "MODEL.QUANTIZE.ACTIVATION_BITS": activations}


def alone(size):
    """Changes that train one size by itself; its image is cut at the largest size and shrunk, as for RS-Net."""
    return {"MUTUAL.SPATIAL_SIZES": sorted({size, SIZES[-1]})}


def measure_run(output, config, changes, overrides):
    """The query table of one training, made if it is not there."""
    table = output / "query_table.json"
    if not table.is_file():
        words = [str(word) for pair in changes.items() for word in pair]
        run_net(["--cfg", str(ROOT / "configs" / f"{config}.yaml"), "OUTPUT_DIR", str(output), *words, *overrides])
    return QueryTable.load(table)


def rows_of(table, about, wanted=None):
    return [
        {**about, "configuration": str(row.configuration), "gflops": f"{row.gflops:.6g}", "weights_mb": f"{row.costs['weights_mb']:.4g}",
         "top1": f"{row.accuracy['top1_acc']:.2f}"}
        for row in table.rows if wanted is None or row.configuration.spatial == wanted
    ]  # fmt: skip


def measure_images(names, seeds, output, overrides, individual):
    rows = []
    for seed in seeds:
        for name in names:
            shared = {**RESNET, **bits_of(name), "RNG_SEED": seed}
            table = measure_run(output / f"{name}-seed{seed}", "Methods/RS_NET", shared, overrides)
            rows += rows_of(table, {"bits": name, "method": "rs_net", "seed": seed})
            for size in SIZES if individual else ():
                changes = {**shared, **alone(size)}
                table = measure_run(output / f"{name}-{size}-seed{seed}", "Methods/INDEPENDENT", changes, overrides)
                rows += rows_of(table, {"bits": name, "method": "individual", "seed": seed}, size)
    return rows


def measure_videos(names, seeds, output, overrides):
    rows = []
    for seed in seeds:
        for name in names:
            table = measure_run(output / f"{name}-seed{seed}", "Demo/MUTUAL_X3D", {**X3D, **bits_of(name), "RNG_SEED": seed}, overrides)
            rows += rows_of(table, {"bits": name, "method": "mutual", "seed": seed})
    return rows


def points_of(rows, has_front):
    """[(MFLOPs, mean, min, max top-1 over the seeds)] of all configurations, or of the Pareto front where there are many."""
    if has_front:
        return pareto_front(rows)
    by_cost = {}
    for row in rows:
        by_cost.setdefault(float(row["gflops"]), []).append(float(row["top1"]))
    return [(1000 * gflops, statistics.mean(values), min(values), max(values)) for gflops, values in sorted(by_cost.items())]


def plot(rows, title, path):
    """One line for each kind of numbers, dashed where each size was trained alone; shaded from the worst to the best seed."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    for i, bits in enumerate(dict.fromkeys(row["bits"] for row in rows)):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if (row["bits"], row["method"]) == (bits, method)]
            if not own:
                continue
            costs, mean, low, high = zip(*points_of(own, has_front=method == "mutual"))
            style, sizes = "--" if method == "individual" else "-", sorted({row["weights_mb"] for row in own}, key=float)
            label = f"{bits}, {method.replace('_', '-')} ({sizes[-1]} MB{' each' if method == 'individual' else ''})"
            axes.plot(costs, mean, style, marker="os^"[i], color=f"C{i}", markersize=4, linewidth=1.4, label=label)
            axes.fill_between(costs, low, high, color=f"C{i}", alpha=0.12, linewidth=0)
    dress_axes(axes, "MFLOPs (1e6 multiply-adds)", "top-1 (%)", title)
    save_figure(figure, path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--cifar10", type=Path, help="directory or npz file of CIFAR-10 (default: digits)")
    data.add_argument("--videos", type=Path, help="folder of `mutual3d demo`'s videos and lists: X3D instead of images")
    parser.add_argument("--bits", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--individual", action="store_true", help="train each size of images alone too (the paper's I-Nets)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "quantized")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for every run, last")
    return parser.parse_args()


def main():
    options = parse()
    name, values = ("videos", ["DATA.PATH_TO_DATA_DIR", str(options.videos)]) if options.videos else image_set(options.cifar10)
    overrides = ["SOLVER.MAX_EPOCH", str(options.epochs), *values, *options.opts]
    # What changes a run names its folder: a finished run of other settings is not taken for it.
    output = options.output / "-".join([name, str(options.epochs), *options.opts]).replace("/", "_")
    if options.videos:
        rows = measure_videos(options.bits, options.seeds, output, overrides)
    else:
        rows = measure_images(options.bits, options.seeds, output, overrides, options.individual)
    split = "val videos" if options.videos else "test images"
    rows = [{**row, "epochs": options.epochs, "split": f"{name} {split}, 1 view"} for row in rows]
    save_rows(f"quantized_{name}", rows)
    plot(rows, f"{name}, {options.epochs} epochs, {len(options.seeds)} seeds", RESULTS / f"quantized_{name}.png")


if __name__ == "__main__":
    main()
