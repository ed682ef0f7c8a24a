"""One US-Net for super-resolution, with and without inplace distillation, beside networks trained alone, and bicubic interpolation
(US-Net, 5.1 and Fig. 4).

python benchmarks/super_resolution.py                                                # photographs of scikit-learn and scikit-image
python benchmarks/super_resolution.py --config DIV2K --data /data/div2k --epochs 300

Trains a WDSR at any width in three ways (`ANY_WIDTH`), and one alone at each of --filters, with one recipe: that of
configs/Demo/SUPER_RESOLUTION.yaml, or of configs/DIV2K/US_WDSR.yaml. What is finished is kept, and an interrupted training resumed. `--opts KEY VALUE ...` at the end go to every
run. Writes benchmarks/results/super_resolution_{demo,div2k}.csv, one row a network, seed and width, and a plot beside it.
"""

import argparse
import statistics
from pathlib import Path

import torch
from common import RESULTS, ROOT, dress_axes, save_figure, write_csv
from matplotlib.figure import Figure

from mutual3d.cli.run import main as run_net
from mutual3d.data.build import build_dataset
from mutual3d.data.loader import ClipLoader
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable
from mutual3d.tasks.super_resolution.metric import PeakSignalToNoise
from mutual3d.tasks.super_resolution.pairs import resize_bicubic

CONFIGS = {"DEMO": "Demo/SUPER_RESOLUTION", "DIV2K": "DIV2K/US_WDSR"}
# What a run changes of the config: who teaches, and, of one trained alone, that there are no other widths.
ANY_WIDTH = {
    "US-Net": ["MUTUAL.OBJECTIVE", "inplace_distillation", "MODEL.LOSS_FUNC", "l2"],
    "US-Net, labels alone": ["MUTUAL.OBJECTIVE", "labels", "MODEL.LOSS_FUNC", "l2"],
    "US-Net, taught by l1": ["MUTUAL.OBJECTIVE", "inplace_distillation", "MODEL.LOSS_FUNC", "l1"],
}
ALONE = ["MUTUAL.ENABLE", "False"]
SHARED = ["GRID.LATENCY_DEVICES", "[]", "TEST.ENABLE", "False", "TRAIN.EVAL_PERIOD", "1000"]


def measure_run(config, output, overrides):
    """The query table of one training, made if it is not there."""
    table = output / "query_table.json"
    if not table.is_file():
        run_net(["--cfg", config, "OUTPUT_DIR", str(output), *SHARED, *overrides])
    return QueryTable.load(table)


def measure_bicubic(cfg):
    """{name: dB} of cubic interpolation of the images that the tables are measured on."""
    dataset = build_dataset(cfg, cfg.GRID.SPLIT, "single_view")
    metric = PeakSignalToNoise.of_dataset(dataset)
    for batch in ClipLoader(dataset, 1, shuffle=False):
        low_HWC = batch.clips_BVCTHW[0, 0, :, 0].permute(1, 2, 0).numpy()
        height, width = batch.labels.shape[2:]
        enlarged = torch.from_numpy(resize_bicubic(low_HWC, (width, height)).copy()).permute(2, 0, 1)
        metric.update(enlarged[None] / 255, batch)
    return metric.values()


def rows_of_seed(config, filters, seed, output, overrides):
    """Rows of the US-Nets, and of a network alone for each of `filters`: network, seed, filters, GFLOPs and PSNR."""
    overrides = [*overrides, "RNG_SEED", str(seed)]
    rows = []
    for network, taught in ANY_WIDTH.items():
        table = measure_run(config, output / f"{taught[1]}_{taught[3]}-seed{seed}", [*overrides, *taught])
        rows += [(network, seed, row.signature[0], row) for row in table.rows]
    for count in filters:
        widths = ["WDSR.NUM_FEATURES", str(count)]
        (row,) = measure_run(config, output / f"alone_{count}-seed{seed}", [*overrides, *ALONE, *widths]).rows
        rows.append(("alone", seed, count, row))
    return [
        {"network": network, "seed": seed, "filters": count, "gflops": f"{row.gflops:.6g}", **_in_dB(row.accuracy)}
        for network, seed, count, row in rows
    ]


def _in_dB(values):
    return {name: f"{values[name]:.3f}" for name in ("psnr", "psnr_rgb")}


def plot(rows, title, path):
    """PSNR over GFLOPs: the mean over seeds, and from the worst to the best. Networks below bicubic interpolation are told in the legend."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    bicubic = next(float(row["psnr"]) for row in rows if row["network"] == "bicubic")
    for name, marker in zip([*ANY_WIDTH, "alone"], ("o-", "^-", "v-", "s--")):
        points = {}
        for row in rows:
            if row["network"] == name:
                points.setdefault(float(row["gflops"]), []).append(float(row["psnr"]))
        costs = sorted(points)
        means = [statistics.mean(points[cost]) for cost in costs]
        if max(means) < bicubic:
            axes.plot([], [], marker, markersize=5, label=f"{name}: {min(means):.1f} to {max(means):.1f} dB")
            continue
        (line,) = axes.plot(costs, means, marker, markersize=5, label=name)
        low, high = ([end(points[cost]) for cost in costs] for end in (min, max))
        axes.fill_between(costs, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(bicubic, color="#888888", linewidth=1, linestyle=":", label="bicubic")
    dress_axes(axes, "GFLOPs (1e9 multiply-adds)", "PSNR of the luma (dB)", title)
    save_figure(figure, path)


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=CONFIGS, default="DEMO", help="the recipe (default DEMO, which needs no data)")
    parser.add_argument("--data", type=Path, help="the folder of DIV2K")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "super_resolution")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where csv and plot are written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--filters", type=int, nargs="+", help="of the networks trained alone; default: a half, three quarters and all")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for every run, last")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    config = CONFIGS[options.config]
    overrides = [] if options.data is None else ["DATA.PATH_TO_DATA_DIR", str(options.data)]
    overrides += [] if options.epochs is None else ["SOLVER.MAX_EPOCH", str(options.epochs)]
    overrides += options.opts
    cfg = load_config(config, overrides)
    full = cfg.WDSR.NUM_FEATURES
    filters = options.filters or [full // 2, full * 3 // 4, full]
    # What changes a run names its folder: a finished run of other settings is not taken for it.
    folder = "-".join([options.config.lower(), str(cfg.SOLVER.MAX_EPOCH), *options.opts]).replace("/", "_")
    rows = [row for seed in options.seeds for row in rows_of_seed(config, filters, seed, options.output / folder, overrides)]
    rows.append({"network": "bicubic", "seed": "", "filters": 0, "gflops": "0", **_in_dB(measure_bicubic(cfg))})
    split = f"{cfg.TRAIN.DATASET}, {cfg.GRID.SPLIT}, x{cfg.SUPER_RESOLUTION.SCALE}"
    rows = [{**row, "epochs": cfg.SOLVER.MAX_EPOCH, "images": split} for row in rows]
    name = f"super_resolution_{options.config.lower()}"
    options.results.mkdir(parents=True, exist_ok=True)
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    write_csv(options.results / f"{name}.csv", rows)
    plot(rows, f"{split}, {cfg.SOLVER.MAX_EPOCH} epochs, seeds {', '.join(map(str, options.seeds))}", options.results / f"{name}.png")


if __name__ == "__main__":
    main()
