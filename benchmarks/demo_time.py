"""Where the time of `make demo` goes, and what its network reaches, for checkouts of different commits.

git clone . /tmp/before && git -C /tmp/before checkout HEAD~1 && make -C /tmp/before demo 2>&1 | tee /tmp/before/demo.log
git clone . /tmp/after && make -C /tmp/after demo 2>&1 | tee /tmp/after/demo.log
python benchmarks/demo_time.py /tmp/before /tmp/after

Reads of each checkout what the demo printed last, its parts in seconds (environment and downloads are not among them), and its
results. Writes benchmarks/results/demo_time.csv, a row a checkout.
"""

import argparse
import re
import subprocess
from pathlib import Path

from common import machine, save_rows

from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import read_json


def row_of(checkout):
    """The parts of a demo in seconds, and its accuracies in percent."""
    text = (checkout / "demo.log").read_text()
    lines = re.findall(r"^([\d.]+) seconds: (.*?)\. Open ", text, re.MULTILINE)
    if not lines:
        raise SystemExit(f"'{checkout / 'demo.log'}' has no line such as '300 seconds: videos 30, ...': the demo did not end")
    total, parts = lines[-1]
    out = checkout / "demo/out"
    rows = QueryTable.load(out / "query_table.json").rows
    (tested,) = read_json(out / "test_results.json")["results"].values()
    return {
        "commit": subprocess.check_output(["git", "-C", checkout, "log", "-1", "--format=%h %s"], text=True).strip(),
        "seconds": total, "parts": parts, "configurations": len(rows),
        "test_top1": tested["top1_acc"], "val_top1_largest": rows[-1].accuracy["top1_acc"],
        "val_top1_min": min(row.accuracy["top1_acc"] for row in rows),
        "machine": machine(),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path, help="folders in which `make demo 2>&1 | tee demo.log` ran")
    save_rows("demo_time", [row_of(checkout) for checkout in parser.parse_args().checkouts])


if __name__ == "__main__":
    main()
