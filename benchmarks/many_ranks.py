"""Runs of several gloo processes whose members are killed, stopped and started again, against runs that are left alone.

python benchmarks/many_ranks.py --ranks 2 4

A shortened demo is trained by torchrun on the CPU: whole; with one process killed in the middle of an epoch, which torchrun's elastic
agent answers by starting all again; and ended by SIGTERM in the middle of an epoch and started again by hand. Then the weights of the
first run are calibrated and measured by 1, 2 and 4 processes. With Ray installed, the run is a Ray Train job of two workers too, as
docs/ray.md has it, whole and with a worker killed. Writes benchmarks/results/many_ranks.csv: steps that were done twice, and whether the
weights are equal to the bit.
"""

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import ROOT, save_rows
from kill_and_resume import equal

from mutual3d.data.prepare.demo import make_demo
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import load_tensors
from mutual3d.utils.logging import read_json_stats

EPOCHS = 3
SHORT = (
    "SOLVER.MAX_EPOCH", EPOCHS, "SOLVER.WARMUP_EPOCHS", 0.5, "MUTUAL.SUBNETS_START_EPOCH", 0.5, "TRAIN.BATCH_SIZE", 8, "TRAIN.CHECKPOINT_PERIOD", 1, "TRAIN.EVAL_PERIOD", EPOCHS,
    "LOG_PERIOD", 1, "CALIBRATION.ENABLE", False, "GRID.ENABLE", False, "TEST.ENABLE", False, "TEST.BATCH_SIZE", 8, "NUM_GPUS", 0,
    "DATA_LOADER.NUM_WORKERS", 0,
)  # fmt: skip
MEASURE = (
    "TRAIN.ENABLE", False, "CALIBRATION.ENABLE", True, "CALIBRATION.NUM_CLIPS", 32, "CALIBRATION.BATCH_SIZE", 8, "GRID.ENABLE", True,
    "GRID.WIDTH_STEP", 0.5, "GRID.LATENCY_DEVICES", "[]", "GRID.CASCADES", 0,
)  # fmt: skip
PATIENCE = 600.0


def words_of(data, output, *more):
    cfg = ROOT / "configs" / "Demo" / "MUTUAL_X3D.yaml"
    return [str(word) for word in ("--cfg", cfg, "DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output, *SHORT, *more)]


def start(words, ranks, log, restarts=0):
    """torchrun of a run, in a session of its own."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    return subprocess.Popen([*launch, "-m", "mutual3d", "run", *words], stdout=log, stderr=log, cwd=ROOT, start_new_session=True)


def steps_of(output):
    """The steps of the log, in order, those that were done again too: (epoch, iteration) as text."""
    log = output / "stdout.log"
    return [(stats["epoch"], stats["iter"]) for stats in read_json_stats(log) if stats["_type"] == "train_iter"] if log.exists() else []


def wait_for_the_middle(output, process):
    """Until the second epoch has done some of its steps."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if sum(epoch == f"2/{EPOCHS}" for epoch, _ in steps_of(output)) >= 2:
            return
        time.sleep(0.05)
    raise SystemExit(f"the run never came to its second epoch: see {output}")


def children(pid):
    """The processes that `pid` started, in order."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def weights(output):
    return load_tensors(output / f"checkpoints/checkpoint_epoch_{EPOCHS:05d}.pyth")["model_state"]


def row(what, ranks, output, reference, status):
    steps = steps_of(output)
    same = distance = ""
    if status == 0:
        ours, theirs = weights(output), weights(reference)
        # Running statistics follow the weights.
        floats = [key for key, value in ours.items() if value.is_floating_point() and "running" not in key]
        norms = [sum(float(tensor.double().norm() ** 2) for tensor in tensors) ** 0.5 for tensors in
                 ([ours[key].double() - theirs[key].double() for key in floats], [theirs[key] for key in floats])]  # fmt: skip
        same, distance = equal(ours, theirs), f"{norms[0] / norms[1]:.1e}"
    return {
        "event": what, "processes": ranks, "status": status, "steps_done_again": len(steps) - len(set(steps)),
        "weights_equal_to_the_bit": same, "relative_distance_of_weights": distance,
    }  # fmt: skip


def of_torchrun(data, folder, ranks):
    """Rows of a number of processes: whole twice, one killed, SIGTERM and again."""
    whole, twin, killed, stopped = (folder / f"{name}-{ranks}" for name in ("whole", "twin", "killed", "stopped"))
    with open(folder / f"torchrun-{ranks}.log", "w") as log:
        start(words_of(data, whole), ranks, log).wait(PATIENCE)
        rows = [row("left alone, twice", ranks, twin, whole, start(words_of(data, twin), ranks, log).wait(PATIENCE))]
        process = start(words_of(data, killed), ranks, log, restarts=1)
        wait_for_the_middle(killed, process)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        rows.append(row("one process killed, elastic restart", ranks, killed, whole, process.wait(PATIENCE)))
        process = start(words_of(data, stopped), ranks, log)
        wait_for_the_middle(stopped, process)
        process.send_signal(signal.SIGTERM)
        ended = process.wait(PATIENCE)
        status = start(words_of(data, stopped), ranks, log).wait(PATIENCE)
        rows.append(row(f"SIGTERM (torchrun's status {ended}), and the same command again", ranks, stopped, whole, status))
    return rows


def of_measuring(data, folder, checkpoint, many):
    """Rows: the same weights calibrated and measured by several numbers of processes, against one."""
    rows, first = [], None
    for ranks in many:
        output = folder / f"measured-{ranks}"
        words = words_of(data, output, *MEASURE, "TEST.CHECKPOINT_FILE_PATH", checkpoint)
        with open(folder / f"measured-{ranks}.log", "w") as log:
            status = start(words, ranks, log).wait(PATIENCE)
        statistics = load_tensors(output / "statistics.pyth")["statistics"]
        accuracies = [(str(r.configuration), r.accuracy) for r in QueryTable.load(output / "query_table.json").rows]
        first = first or (statistics, accuracies)
        farthest = max(
            float(((own - other).abs() / other.abs().clamp(min=1e-6)).max())
            for name, kinds in statistics.items() for kind, norms in kinds.items() for norm, own in norms.items()
            for other in [first[0][name][kind][norm]]
        )  # fmt: skip
        rows.append({
            "event": f"calibrated and measured: {len(accuracies)} rows, accuracies equal {accuracies == first[1]}, "
                     f"statistics differ by a share of {farthest:.1e} at most",
            "processes": ranks, "status": status, "steps_done_again": "", "weights_equal_to_the_bit": "", "relative_distance_of_weights": "",
        })  # fmt: skip
    return rows


def ray_example():
    """The program of docs/ray.md, as a module's names."""
    program = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ray.md").read_text(), re.DOTALL)[0]
    names = {"__name__": "ray_run"}
    exec(compile(program, "docs/ray.md", "exec"), names)
    return names


def of_ray(data, folder, whole):
    """Rows of Ray's workers: whole, and with one killed."""
    import ray

    # Ray waits a minute for its workers, which import torch meanwhile.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}})
    rows = []
    for what in ("left alone", "a worker killed"):
        output = folder / f"ray-{'whole' if what == 'left alone' else 'killed'}"
        # In a process of its own, since fit() waits.
        code = f"import many_ranks; many_ranks.ray_example()['fit']({words_of(data, output)!r}, storage={str(folder / 'ray')!r})"
        address = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": paths}
        with open(folder / "ray.log", "a") as log:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, cwd=ROOT / "benchmarks", env=address)
            if what != "left alone":
                wait_for_the_middle(output, process)
                lock = (output / "run.lock").read_text()
                os.kill(int(re.findall(r'"pid": (\d+)', lock)[0]), signal.SIGKILL)
            rows.append(row(f"Ray Train: {what}", 2, output, whole, process.wait(PATIENCE)))
    ray.shutdown()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "many_ranks")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--only", choices=("torchrun", "measure", "ray"), nargs="+", default=["torchrun", "measure", "ray"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(options.output, ignore_errors=True)
    data = make_demo(options.output / "data", num_train=32, num_val=16, num_test=8)
    whole, rows = options.output / f"whole-{options.ranks[0]}", []
    if "torchrun" in options.only:
        for ranks in options.ranks:
            rows += of_torchrun(data, options.output, ranks)
    else:
        with open(options.output / "whole.log", "w") as log:
            start(words_of(data, whole), options.ranks[0], log).wait(PATIENCE)
    if "measure" in options.only:
        rows += of_measuring(data, options.output, whole / f"checkpoints/checkpoint_epoch_{EPOCHS:05d}.pyth", [1, *options.ranks])
    if "ray" in options.only:
        if importlib.util.find_spec("ray") is None:
            print('ray is not installed: pip install "ray[train]"')
        else:
            rows += of_ray(data, options.output, whole)
    save_rows("many_ranks", rows)


if __name__ == "__main__":
    main()
