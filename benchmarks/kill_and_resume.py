"""End a run again and again with SIGKILL and SIGTERM, go on each time, and compare with an uninterrupted run.

python benchmarks/kill_and_resume.py

Trains, calibrates and measures a shortened demo on the CPU. First each signal in the midst of an epoch, as soon as a new checkpoint
inside one is there (TRAIN.CHECKPOINT_SECONDS is a second), then each in turns while the run starts and in each of its stages. Writes
benchmarks/results/kill_and_resume.csv with the stage that each signal hit, the status of the run, the seconds from the signal
to its end, and the newest checkpoint that it left; the last row says whether weights, statistics, accuracies and the log's line
of each epoch are equal to the bit.
"""

import argparse
import functools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import ROOT, save_rows

from mutual3d.data.prepare.demo import make_demo
from mutual3d.table.query_table import QueryTable
from mutual3d.training import Checkpoints
from mutual3d.utils.files import load_tensors
from mutual3d.utils.logging import read_json_stats

SHORT = (
    # Sub-networks begin in the midst of an epoch, of which a run that goes on must find the very step.
    "SOLVER.MAX_EPOCH", 3, "SOLVER.WARMUP_EPOCHS", 0.5, "MUTUAL.SUBNETS_START_EPOCH", 0.5, "CALIBRATION.NUM_CLIPS", 96, "CALIBRATION.BATCH_SIZE", 8,
    "TRAIN.CHECKPOINT_SECONDS", 1, "TEST.ENABLE", False, "GRID.LATENCY_DEVICES", "[]", "PARTIAL_SAVE_SECONDS", 0.2, "TEST.BATCH_SIZE", 8,
)  # fmt: skip


def start(data, output, log):
    words = [sys.executable, "-m", "mutual3d", "run", "--cfg", ROOT / "configs" / "Demo" / "MUTUAL_X3D.yaml"]
    words += ["DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output, *SHORT]
    return subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, cwd=ROOT)


def stage_of(log):
    """What the newest progress bar in the log says the run was doing."""
    found = re.findall(r"(train \d+/\d+|validate \d+|calibrate|measure the grid)", log.read_text(errors="replace"))
    return found[-1] if found else "start"


def newest_checkpoint(output):
    found = Checkpoints(output).found()
    return found[0].name if found else ""


def wait_for_stage(process, log, stage, pause):
    """Until a run says that it is in a stage, and `pause` seconds more."""
    while process.poll() is None and not re.fullmatch(stage, stage_of(log)):
        time.sleep(0.02)
    time.sleep(pause)


def wait_for_checkpoint_inside(process, log, output):
    """Until a run has written a checkpoint inside an epoch that was not there before."""
    before = newest_checkpoint(output)
    while process.poll() is None and ((now := newest_checkpoint(output)) == before or not now.startswith("unfinished")):
        time.sleep(0.05)


def end(data, output, number, kind, wait):
    """A row of what a signal hit when `wait(process, log)` came back; None where the run was over before."""
    log = output.parent / f"ended-{number}.log"
    with open(log, "w") as file:
        begin = time.perf_counter()
        process = start(data, output, file)
        wait(process, log)
        if process.poll() is not None:
            return None
        sent = time.perf_counter()
        os.kill(process.pid, kind)
        status = process.wait()
    return {
        "event": f"{number}: {kind.name}", "seconds": f"{sent - begin:.1f}", "stage": stage_of(log), "status": status,
        "seconds_to_end": f"{time.perf_counter() - sent:.1f}", "newest_checkpoint": newest_checkpoint(output),
    }  # fmt: skip


# As the progress bars call them; a run comes back to the one that it was ended in.
STAGES = ("start", r"train 2/\d+", r"train 3/\d+", r"validate \d+", "calibrate", "measure the grid")


def end_often(data, output, rounds, generator):
    """End runs inside an epoch, then `rounds` times in each stage; rows of what was hit."""
    kinds = (signal.SIGTERM, signal.SIGKILL)
    waits = [functools.partial(wait_for_checkpoint_inside, output=output)] * 2
    waits += [functools.partial(wait_for_stage, stage=stage, pause=generator.uniform(0, 0.5)) for stage in STAGES for _ in range(rounds)]
    rows = [end(data, output, number, kinds[number % 2], wait) for number, wait in enumerate(waits)]
    return [row for row in rows if row]


def epoch_lines(output):
    """The log's line of each epoch, without times."""
    lines = [stats for stats in read_json_stats(output / "stdout.log") if stats.get("_type") == "train_epoch"]
    return [{key: line.get(key) for key in ("epoch", "loss", "loss_largest", "top1_err", "top5_err", "lr")} for line in lines]


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
    lines = [epoch_lines(path) for path in (whole, killed)]
    # An epoch that ended before the state was saved, and was done again, has a line for each time.
    told = all(line in lines[0] for line in lines[1])
    return {"weights": equal(*weights), "statistics": equal(*statistics), "accuracies": tables[0] == tables[1], "log": told}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "kill")
    parser.add_argument("--rounds", type=int, default=2, help="how often a run is ended in each stage, by one signal after the other")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)  # what an earlier call left is a run that has ended
    data = make_demo(options.output / "data", num_train=160, num_val=64, num_test=8)
    with open(options.output / "whole.log", "w") as log:
        if start(data, options.output / "whole", log).wait():
            sys.exit(f"the uninterrupted run failed: see {log.name}")
    rows = end_often(data, options.output / "killed", options.rounds, random.Random(options.seed))
    with open(options.output / "last.log", "w") as log:
        status = start(data, options.output / "killed", log).wait()
    result = compare(options.output / "whole", options.output / "killed")
    last = {"event": "the same command, undisturbed", "stage": f"equal to the bit: {result}", "status": status}
    rows.append({**dict.fromkeys(rows[0], ""), **last, "newest_checkpoint": newest_checkpoint(options.output / "killed")})
    save_rows("kill_and_resume", rows)


if __name__ == "__main__":
    main()
