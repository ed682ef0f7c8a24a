"""One slimmable policy beside policies trained alone, on a game (US-Net, 5.1 and Fig. 5).

python benchmarks/control.py                                                         # MinAtar's Breakout, minutes on two cores
python benchmarks/control.py --seeds 0 1 2 --networks US-Net distilled alone
python benchmarks/control.py --config ATARI --widths 0.25 0.5 0.75 1.0               # ten million steps a network

Trains a policy at any width, whose sub-networks have the loss of PPO on the largest one's roll-outs (US-Net), or also one whose
sub-networks learn the largest one's actions and values instead (distilled), and one policy alone at each of --widths, with one recipe:
that of configs/Demo/CONTROL.yaml, or of configs/Atari/US_BREAKOUT.yaml. What is finished is kept, and an interrupted training resumed.
`--opts KEY VALUE ...` at the end go to every run. Writes benchmarks/results/control_{demo,atari}.csv, one row a network, seed and width
with the mean return of its episodes, and a plot beside it with the curves of training. steps_per_second: of all games, played and learned; one
of Atari is four frames.
"""

import argparse
import statistics
from pathlib import Path

from common import RESULTS, ROOT, machine, write_csv
from matplotlib.figure import Figure

from mutual3d.cli.run import main as run_net
from mutual3d.pipeline import load_config
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import atomic_write
from mutual3d.utils.logging import read_json_stats

CONFIGS = {"DEMO": "Demo/CONTROL", "ATARI": "Atari/US_BREAKOUT"}
SHARED = ["GRID.LATENCY_DEVICES", "[]", "TEST.ENABLE", "False", "TRAIN.EVAL_PERIOD", "100000"]
# What each kind of network changes of the recipe; policies alone are told apart by their width.
NETWORKS = {"US-Net": ["MUTUAL.OBJECTIVE", "labels"], "distilled": ["MUTUAL.OBJECTIVE", "inplace_distillation"], "alone": ["MUTUAL.ENABLE", "False"]}


def runs_of(network, cfg, widths):
    """{name of the run: (the width that it is for, or None for all of them; what it changes)}."""
    if network != "alone":
        return {network.lower(): (None, NETWORKS[network])}
    found = {}
    for width in widths:
        channels = [round(count * width) for count in cfg.POLICY.CHANNELS]
        slim = ["POLICY.CHANNELS", str(channels), "POLICY.NUM_FEATURES", str(round(cfg.POLICY.NUM_FEATURES * width))]
        found[f"alone_{width:g}"] = (width, [*NETWORKS[network], *slim])
    return found


def measure_run(config, output, overrides):
    """The query table of one training, made if it is not there."""
    table = output / "query_table.json"
    if not table.is_file():
        run_net(["--cfg", config, "OUTPUT_DIR", str(output), *SHARED, *overrides])
    return QueryTable.load(table)


def speed_of(cfg, output):
    """Steps of all games a second, over the whole of training."""
    seconds = [entry["dt"] for entry in read_json_stats(output / "stdout.log") if entry.get("_type") == "train_epoch"]
    control = cfg.CONTROL
    return len(seconds) * control.ROLLOUTS * control.STEPS * control.NUM_GAMES / sum(seconds)


def curve_of(output):
    """[(steps, mean return of the episodes that ended in an epoch)] of a run, of the largest configuration, which plays."""
    entries = [entry for entry in read_json_stats(output / "stdout.log") if entry.get("_type") == "play_epoch"]
    return [(entry["steps"], entry["mean_return"]) for entry in entries if "mean_return" in entry]


def rows_of_run(network, width, seed, table, speed):
    """A row for each width of a run; of a policy alone for the width that it is in the slimmable one."""
    return [
        {
            "network": network, "seed": seed, "width": f"{row.configuration.width if width is None else width:g}", "gflops": f"{row.gflops:.6g}",
            "parameters": row.parameters, "mean_return": f"{row.accuracy['mean_return']:.3f}",
            "return_interval": f"{row.accuracy['return_interval']:.3f}", "steps_per_second": f"{speed:.0f}",
        }
        for row in table.rows
    ]  # fmt: skip


def plot(rows, curves, title, path):
    """Left, the curves of training; right, the mean return over GFLOPs: the mean over seeds, and from the worst to the best."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["network"] for row in rows))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    for (network, name, _), points in curves.items():
        style = "-" if network == name else {"alone_1": "--"}.get(name, ":")
        left.plot([steps / 1e6 for steps, _ in points], [value for _, value in points], style, color=colours[network], linewidth=1.2)
    left.set_xlabel("millions of steps (solid: the largest of one network; broken: alone)")
    left.set_ylabel("mean return while learning")
    for name in names:
        points = {}
        for row in rows:
            if row["network"] == name:
                points.setdefault(float(row["gflops"]), []).append(row)
        costs = sorted(points)
        returns = [[float(row["mean_return"]) for row in points[cost]] for cost in costs]
        halves = [statistics.mean(float(row["return_interval"]) for row in points[cost]) for cost in costs]
        means = [statistics.mean(own) for own in returns]
        right.errorbar(costs, means, halves, fmt="s--" if name == "alone" else "o-", color=colours[name], markersize=5, capsize=3, label=name)
        right.fill_between(costs, [min(own) for own in returns], [max(own) for own in returns], color=colours[name], alpha=0.12, linewidth=0)
    right.set_xlabel("GFLOPs of a step (1e9 multiply-adds)")
    right.set_ylabel("mean return, with its 95 % interval")
    right.set_title(title, loc="left", fontsize=11)
    right.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        axes.grid(True, color="#e6e8eb")
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=CONFIGS, default="DEMO", help="the recipe (default DEMO)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "control_benchmark")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where csv and plot are written")
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=["US-Net", "alone"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--widths", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="of the policies trained alone")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for every run, last")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    config = CONFIGS[options.config]
    overrides = [] if options.epochs is None else ["SOLVER.MAX_EPOCH", str(options.epochs)]
    overrides += options.opts
    cfg = load_config(config, overrides)
    # What changes a run names its folder: a finished run of other settings is not taken for it.
    folder = options.output / "-".join([options.config.lower(), str(cfg.SOLVER.MAX_EPOCH), *options.opts]).replace("/", "_")
    rows, curves = [], {}
    for seed in options.seeds:
        for network in options.networks:
            for name, (width, changes) in runs_of(network, cfg, options.widths).items():
                output = folder / f"{name}-seed{seed}"
                table = measure_run(config, output, [*changes, *overrides, "RNG_SEED", str(seed)])
                rows += rows_of_run(network, width, seed, table, speed_of(cfg, output))
                curves[network, network if width is None else name, seed] = curve_of(output)
    control = cfg.CONTROL
    steps = control.ROLLOUTS * control.STEPS * control.NUM_GAMES * cfg.SOLVER.MAX_EPOCH
    about = {"game": control.GAME, "steps": steps, "episodes": control.EPISODES, "machine": machine()}
    rows = [{**row, **about} for row in rows]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    name = f"control_{options.config.lower()}"
    write_csv(options.results / f"{name}.csv", rows)
    title = f"{control.GAME}, {steps / 1e6:.2g} million steps, seeds {', '.join(map(str, options.seeds))}"
    plot(rows, curves, title, options.results / f"{name}.png")


if __name__ == "__main__":
    main()
