"""A folder of one's own videos through `mutual3d init` alone, beside a config that somebody made by hand for them.

    python benchmarks/own_videos.py --videos /data/weizmann/classes --group '([a-z]+)_[a-z0-9]+\\.avi' --beside Weizmann/MUTUAL_X3D

Both train on the lists that `init` made, and are tested on its test.csv with the same views. Runs that are finished in `--output`
are not repeated. Writes benchmarks/results/own_videos.csv: the minutes estimated and taken, accuracies with their 95 % intervals.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import yaml
from common import ROOT, machine, save_rows

from mutual3d.table.interval import wilson_interval
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import read_json

STAGES = re.compile(r"seconds: (.*)")
ESTIMATE = re.compile(r"estimated at ([\d.]+) minutes")


def run_command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mutual3d", *map(str, words)], check=True)


def minutes_taken(log: Path) -> float:
    """Minutes of all stages of the run that trained."""
    lines = STAGES.findall(log.read_text())
    return max(sum(float(part.split()[-1]) for part in line.split(",")) for line in lines) / 60


def with_interval(percent: float, count: int) -> str:
    low, high = wilson_interval(percent, count)
    return f"{percent:.1f} ({low:.0f} to {high:.0f})"


def result_row(name: str, output: Path, estimated: str) -> dict[str, object]:
    table = QueryTable.load(output / "query_table.json")
    test = read_json(output / "test_results.json")
    configuration, accuracy = next(iter(test["results"].items()))
    val_videos = table.provenance["num_videos"]
    best = table.pareto_front()[-1]
    settings = yaml.safe_load((output / "config.yaml").read_text())
    return {
        "config": name,
        "minutes_estimated": estimated,
        "minutes_taken": f"{minutes_taken(output / 'stdout.log'):.1f}",
        "epochs": settings["SOLVER"]["MAX_EPOCH"],
        "largest": configuration,
        "test_top1": with_interval(float(accuracy["top1_acc"]), test["num_videos"]),
        "test_views": test["views"],
        "test_videos": test["num_videos"],
        "best_of_table": str(best.configuration),
        "val_top1_of_best": with_interval(table.accuracy(best), val_videos),
        "val_videos": val_videos,
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="a folder with a folder of videos for each class")
    parser.add_argument("--group", help="as of `mutual3d init`")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--beside", metavar="CONFIG", help="made by hand for these videos")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "own_videos")
    options = parser.parse_args()
    config = options.output / "config.yaml"
    if not config.is_file():
        group = ["--group", options.group] if options.group else []
        run_command("init", options.videos, "--out", options.output, "--minutes", options.minutes, *group)
    estimated = ESTIMATE.search(config.read_text())[1]
    run_command("run", "--cfg", config)
    rows = [result_row("mutual3d init", options.output / "out", estimated)]
    if options.beside:
        by_hand = options.output / "by_hand"
        data = ["DATA.PATH_TO_DATA_DIR", options.output, "OUTPUT_DIR", by_hand, "TEST.SPLIT", "test"]
        run_command("run", "--cfg", options.beside, *data)
        rows.append(result_row(options.beside, by_hand, "none"))
    save_rows("own_videos", rows)


if __name__ == "__main__":
    main()
