"""Kill a run again and again with SIGKILL at random moments, go on each time, and compare with an uninterrupted run.

python benchmarks/kill_and_resume.py --kills 8

Trains, calibrates and measures a shortened demo on the CPU. Writes benchmarks/results/kill_and_resume.csv with the stage
that each kill hit; the last row says whether weights, statistics and accuracies are equal to the bit.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import ROOT, save_rows

from mutual3d.data.prepare.demo import make_demo
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import load_tensors

SHORT = (
    "SOLVER.MAX_EPOCH", 3, "SOLVER.WARMUP_EPOCHS", 0.5, "CALIBRATION.NUM_CLIPS", 96, "CALIBRATION.BATCH_SIZE", 8,
    "TEST.ENABLE", False, "GRID.LATENCY_DEVICES", "[]", "PARTIAL_SAVE_SECONDS", 0.2, "TEST.BATCH_SIZE", 8,
)  # fmt: skip


def start(data, output, log):
    words = [sys.executable, "-m", "mutual3d", "run", "--cfg", ROOT / "configs" / "Demo" / "MUTUAL_X3D.yaml"]
    words += ["DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output, *SHORT]
    return subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, cwd=ROOT)


def stage_of(log):
    """What the newest progress bar in the log says the run was doing."""
    found = re.findall(r"(train \d+/\d+|validate \d+|calibrate|measure the grid)", log.read_text(errors="replace"))
    return found[-1] if found else "start"


def kill_randomly(data, output, kills, longest, generator):
    """Kill `kills` runs at random moments of their first `longest` seconds; rows of what was hit."""
    rows = []
    for number in range(kills):
        log = output.parent / f"killed-{number}.log"
        with open(log, "w") as file:
            process = start(data, output, file)
            wait = generator.uniform(0, longest)
            time.sleep(wait)
            if process.poll() is not None:
                return rows
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        rows.append({"event": f"kill {number}", "seconds": f"{wait:.1f}", "stage": stage_of(log)})
    return rows


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


def compare(whole, killed):
    """{what: equal to the bit} of two output directories."""
    last = "checkpoints/checkpoint_epoch_00003.pyth"
    weights = [load_tensors(path / last)["model_state"] for path in (whole, killed)]
    statistics = [load_tensors(path / "statistics.pyth")["statistics"] for path in (whole, killed)]
    tables = [[row.accuracy for row in QueryTable.load(path / "query_table.json").rows] for path in (whole, killed)]
    return {"weights": equal(*weights), "statistics": equal(*statistics), "accuracies": tables[0] == tables[1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "kill")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = make_demo(options.output / "data", num_train=160, num_val=64, num_test=8)
    begin = time.perf_counter()
    with open(options.output / "whole.log", "w") as log:
        if start(data, options.output / "whole", log).wait():
            sys.exit(f"the uninterrupted run failed: see {log.name}")
    longest = time.perf_counter() - begin
    generator = random.Random(options.seed)
    # Short lives: a run that is let live as long as it wants is over after a kill or two.
    rows = kill_randomly(data, options.output / "killed", options.kills, longest / 3, generator)
    with open(options.output / "last.log", "w") as log:
        status = start(data, options.output / "killed", log).wait()
    result = compare(options.output / "whole", options.output / "killed")
    rows.append({"event": f"finished with status {status}", "seconds": "", "stage": f"equal to the bit: {result}"})
    save_rows("kill_and_resume", rows)


if __name__ == "__main__":
    main()
