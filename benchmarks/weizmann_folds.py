"""Leave-one-person-out on Weizmann: mean accuracy of every configuration over the nine people.

python benchmarks/weizmann_folds.py --data /data/weizmann --output out/weizmann

Reads train.csv and val.csv of `--data` (`path label`, files named person_action.avi), trains one network a person on
all others and measures its grid on that person. Finished folds are kept. Writes
benchmarks/results/weizmann_folds.csv.
"""

import argparse
import statistics
from pathlib import Path

from common import ROOT, save_rows

from mutual3d.cli.run import main as run_net
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.labels import list_row
from mutual3d.table.query_table import QueryTable

CONFIG = ROOT / "configs" / "Weizmann" / "MUTUAL_X3D.yaml"


def read_people(data):
    """{person: csv lines of that person's videos, with absolute paths}."""
    people = {}
    for video in read_video_list(data / "train.csv") + read_video_list(data / "val.csv"):
        path = Path(video.path).resolve()
        people.setdefault(path.stem.split("_")[0], []).append(f"{list_row(str(path), video.label)}\n")
    return people


def measure_fold(people, person, output, overrides):
    """The query table of a network that never saw `person`."""
    table = output / "query_table.json"
    if not table.is_file():
        output.mkdir(parents=True, exist_ok=True)
        (output / "val.csv").write_text("".join(people[person]))
        others = [line for other, lines in people.items() if other != person for line in lines]
        (output / "train.csv").write_text("".join(others))
        values = ["DATA.PATH_TO_DATA_DIR", output, "OUTPUT_DIR", output, "TEST.ENABLE", False]
        run_net(["--cfg", CONFIG, *values, "GRID.LATENCY_DEVICES", "[]", *overrides])
    return QueryTable.load(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "weizmann")
    options, overrides = parser.parse_known_args()
    people = read_people(options.data)
    tables = [measure_fold(people, person, options.output / person, overrides) for person in sorted(people)]
    rows = []
    for row in tables[0].rows:
        values = [table.row(row.configuration).accuracy["top1_acc"] for table in tables]
        rows.append({
            "configuration": str(row.configuration), "gflops": f"{row.gflops:.4g}",
            "top1_acc_mean": f"{statistics.mean(values):.1f}", "top1_acc_min": f"{min(values):.1f}",
            "top1_acc_max": f"{max(values):.1f}", "folds": len(values), "split": "left-out person, 10 videos, 1 view",
        })  # fmt: skip
    save_rows("weizmann_folds", rows)


if __name__ == "__main__":
    main()
