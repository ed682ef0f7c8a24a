"""One detector at every width and size beside networks that were trained alone (as in the papers' figures of COCO), on the generated set.

python benchmarks/detection.py                              # half an hour on two cores
python benchmarks/detection.py --pictures 40 --epochs 1     # whether it runs, in minutes

Makes the pictures of datasets/COCO.md, trains configs/Demo/COCO.yaml (mutual), the same with widths alone (us_net), and one network for each of three
configurations (alone), with one schedule. A network that is trained alone sees its own width and size in every step, and in as many steps. What is finished is kept,
and an interrupted training resumed. `--opts KEY VALUE ...` at the end go to every run. Writes benchmarks/results/detection.csv, one row a method, seed and
configuration, and a plot beside it.
"""

import argparse
from pathlib import Path

from common import RESULTS, ROOT, dress_axes, save_figure, save_rows
from matplotlib.figure import Figure

from mutual3d.cli.run import main as run_net
from mutual3d.data.prepare.demo_coco import make_demo_coco
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable

CONFIG = ROOT / "configs" / "Demo" / "COCO.yaml"
SIZE = 128
ALONE = [Configuration.parse(text) for text in ("0.25-64", "0.5-96", "1-128")]
US_NET = {"MUTUAL.SUBNETS": ["smallest_width_full_size", "random_width"]}
NUMBERS = ("box_ap", "mask_ap", "box_ap50", "mask_ap50")


def alone(configuration):
    """What trains one configuration: the full size is in the space as well, since views are cut for it, and nothing runs at it."""
    width, sizes = configuration.width, sorted({configuration.spatial, SIZE})
    return {
        "MUTUAL.WIDTH_RANGE": [width, width], "MUTUAL.SPATIAL_SIZES": sizes, "MUTUAL.SUBNETS": ["smallest"], "MUTUAL.LARGEST": False,
        "MUTUAL.SUBNETS_START_EPOCH": 0.0,
    }  # fmt: skip


# {method: {configuration that a run is for, None for the whole grid: its changes of the YAML}}.
METHODS = {"mutual": {None: {}}, "us_net": {None: US_NET}, "alone": {each: alone(each) for each in ALONE}}


def measure_run(output, changes, overrides):
    """The query table of one training, made if it is not there."""
    table = output / "query_table.json"
    if not table.is_file():
        words = [str(word) for pair in changes.items() for word in pair]
        run_net(["--cfg", str(CONFIG), "OUTPUT_DIR", str(output), *words, *overrides])
    return QueryTable.load(table)


def measure_method(name, seed, output, shared, overrides):
    """Rows of a seed. shared: what all runs change of the YAML; overrides: KEY VALUE pairs that come last."""
    rows = []
    for wanted, changes in METHODS[name].items():
        folder = output / "-".join(map(str, filter(None, (name, wanted, f"seed{seed}"))))
        table = measure_run(folder, {**shared, "RNG_SEED": seed, **changes}, overrides)
        for row in table.rows:
            if wanted in (None, row.configuration):
                numbers = {number: f"{row.accuracy[number]:.2f}" for number in NUMBERS}
                rows.append({"method": name, "seed": seed, "configuration": str(row.configuration), "gflops": f"{row.gflops:.6g}", **numbers})
    return rows


def mean_by_cost(rows, number):
    """[(GFLOPs, mean over the seeds)] of each configuration, ascending."""
    values = {}
    for row in rows:
        values.setdefault((float(row["gflops"]), row["configuration"]), []).append(float(row[number]))
    return [(gflops, sum(own) / len(own)) for (gflops, _), own in sorted(values.items())]


def front(points):
    """The points that beat all cheaper ones."""
    kept = []
    for gflops, value in points:
        if not kept or value > kept[-1][1]:
            kept.append((gflops, value))
    return kept


def plot(rows, title, path):
    """Box AP and mask AP over GFLOPs: a line a method through its Pareto front, and a point for each network alone."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for axes, (number, label) in zip(figure.subplots(1, 2), (("box_ap", "box AP (%)"), ("mask_ap", "mask AP (%)"))):
        for i, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
            points = mean_by_cost([row for row in rows if row["method"] == name], number)
            style = {"linestyle": "none"} if name == "alone" else {"linewidth": 1.4}
            axes.plot(*zip(*(points if name == "alone" else front(points))), marker="os^"[i % 3], markersize=5, label=name, **style)
        dress_axes(axes, "GFLOPs (1e9 multiply-adds)", label)
    save_figure(figure, path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "detection")
    parser.add_argument("--pictures", type=int, default=600, help="to train on; a quarter as many validate (default 600)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for every run, last")
    return parser.parse_args()


def main():
    options = parse()
    # What changes a run names its folder: a finished run of other settings is not taken for it.
    folder = options.output / "-".join([str(options.pictures), str(options.epochs), *options.opts]).replace("/", "_")
    data = make_demo_coco(folder / "pictures", num_train=options.pictures, num_val=max(1, options.pictures // 4))
    shared = {
        "DATA.PATH_TO_DATA_DIR": data, "SOLVER.MAX_EPOCH": options.epochs, "TEST.ENABLE": False,
        "MUTUAL.SUBNETS_START_EPOCH": min(2.0, options.epochs / 3),
    }  # fmt: skip
    rows = [
        row for seed in options.seeds for name in options.methods for row in measure_method(name, seed, folder, shared, options.opts)
    ]
    facts = {"pictures": options.pictures, "epochs": options.epochs, "split": f"{max(1, options.pictures // 4)} pictures of val, 1 view"}
    rows = [{**row, **facts} for row in rows]
    save_rows("detection", rows)
    plot(rows, f"Generated shapes, {options.pictures} pictures, {options.epochs} epochs, {len(options.seeds)} seed(s)", RESULTS / "detection.png")


if __name__ == "__main__":
    main()
