"""Runs that get real signals in the midst of their work, in processes of their own: they save, say so by their status, and the
same command ends as if nothing had been."""

import importlib
import multiprocessing
import os
import re
import signal
import socket
import sys
import time

import pytest
import torch
from tiny import overrides, same, write_set

from mutual3d.cli import run as run_net
from mutual3d.data.datasets import kinetics
from mutual3d.evaluation import calibration
from mutual3d.table.query_table import QueryTable
from mutual3d.training import Checkpoints, MutualStep
from mutual3d.utils import stopping
from mutual3d.utils.command_line import run_command
from mutual3d.utils.files import load_tensors, read_json
from mutual3d.utils.logging import read_json_stats

measure = importlib.import_module("mutual3d.evaluation.measure")  # the package gives its function this name

CHANGES = {"GRID.LATENCY_DEVICES": [], "TEST.NUM_SPATIAL_CROPS": 1, "GRID.CASCADES": 0}
TRAINING = {"GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def start(output, data, harm=lambda: None, environment=(), **changes):
    """A run in a process of its own, forked because torch takes seconds to import; its standard error is a file beside `output`."""
    config = data.parent / "tiny.yaml"
    if not config.exists():
        config.write_text("RNG_SEED: 3\n")
    words = ["--cfg", str(config), *overrides(data, output, **{**CHANGES, **changes})]
    path = output.parent / f"{output.name}{dict(environment).get('RANK', '')}.err"

    def child():
        os.setsid()
        # Shells start the background jobs of scripts with Ctrl-C ignored, and the tests may be run by one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        torch.set_num_threads(1)
        harm()
        with open(path, "w") as file:
            os.dup2(file.fileno(), 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        sys.stdout = open(os.devnull, "w")
        run_command(lambda: run_net.main(words))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process, path


def run(output, data, harm=lambda: None, **changes):
    """(status, standard error) of a run."""
    process, path = start(output, data, harm, **changes)
    end(process)
    return process.exitcode, path.read_text()


def end(process):
    """Wait for a run, and for one that hangs no longer than that: it fails the test instead of those after it."""
    process.join(300)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()


def run_together(output, data, harms, **changes):
    """As `run`, of a process for each of `harms`; torch.distributed joins them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(len(harms)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1])}
    all_of_them = [
        start(output, data, harm, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}.items(), **changes)
        for rank, harm in enumerate(harms)
    ]
    for process, _ in all_of_them:
        end(process)
    return [(process.exitcode, path.read_text()) for process, path in all_of_them]


def at_call(owner, name, number, act):
    """A function that patches `owner.name` such that its `number`-th call begins with `act`."""

    def harm():
        original, calls = getattr(owner, name), []

        def patched(*arguments, **options):
            calls.append(1)
            if len(calls) == number:
                act()
            return original(*arguments, **options)

        setattr(owner, name, patched)

    return harm


def send(number):
    return lambda: os.kill(os.getpid(), number)


def epoch_lines(output):
    """The log's line of each epoch, without what is measured in seconds."""
    lines = [stats for stats in read_json_stats(output / "stdout.log") if stats.get("_type") in ("train_epoch", "val_epoch")]
    return [{k: v for k, v in line.items() if not k.startswith(("dt", "time", "eta", "gpu"))} for line in lines]


def check_equal(output, whole, last=2):
    name = f"checkpoints/checkpoint_epoch_{last:05d}.pyth"
    states = [load_tensors(path / name) for path in (output, whole)]
    for part in ("model_state", "optimizer_state", "average_state", "epoch"):
        assert same(*(state[part] for state in states)), part
    assert epoch_lines(output) == epoch_lines(whole)
    assert sorted(p.name for p in (output / "checkpoints").iterdir()) == sorted(p.name for p in (whole / "checkpoints").iterdir())
    if (whole / "statistics.pyth").is_file():
        assert same(*(load_tensors(path / "statistics.pyth")["statistics"] for path in (output, whole)))
        tables = [QueryTable.load(path / "query_table.json") for path in (output, whole)]
        assert [row.accuracy for row in tables[0].rows] == [row.accuracy for row in tables[1].rows]
        assert read_json(output / "test_results.json") == read_json(whole / "test_results.json")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    status, told = run(output, data)
    assert status == 0, told
    return output


# A step has three backwards and an epoch three steps; validation, grid and test have three batches each, one after the other.
PLACES = {
    "the midst of a step": (MutualStep, "_backward", 14, "unfinished_epoch_00002_batch_0000002.pyth"),
    "the last step of an epoch": (MutualStep, "_backward", 8, "checkpoint_epoch_00001.pyth"),
    "validation": (measure, "score_batch", 2, "unfinished_epoch_00003_batch_0000000.pyth"),
    "calibration": (calibration, "_see", 1, "checkpoint_epoch_00002.pyth"),
    "the grid": (measure, "score_batch", 5, "checkpoint_epoch_00002.pyth"),
    "the test": (measure, "score_batch", 8, "checkpoint_epoch_00002.pyth"),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_in_every_stage_saves_it_and_the_same_command_ends_as_if_nothing_had_been(whole, data, tmp_path, place, number):
    if number == signal.SIGINT and place != "the midst of a step":
        pytest.skip("one path for both signals: each stage has SIGTERM")
    owner, name, call, newest = PLACES[place]
    output = tmp_path / "out"
    status, told = run(output, data, at_call(owner, name, call, send(number)))
    word = signal.Signals(number).name
    assert status == stopping.REQUEUE_STATUS == 75, told
    assert f"stopped ({word}) with status 75; the same command goes on from what is saved" in told and "Traceback" not in told
    assert Checkpoints(output).found()[0].name == newest
    assert not (output / "run.lock").exists()
    log = len((output / "stdout.log").read_text())
    status, told = run(output, data)
    assert status == 0, told
    added = (output / "stdout.log").read_text()[log:]
    if place in ("validation", "calibration", "the grid", "the test"):
        hidden = {"validation": ".validation", "calibration": ".calibration", "the grid": ".grid", "the test": ".test"}[place]
        assert re.search(rf"going on from '.*{re.escape(hidden)}.*' at batch {1 if place == 'calibration' else 2}", added)
    check_equal(output, whole)


PARTS, AVERAGE = {"BN.NORM_TYPE": "sub_batchnorm", "BN.NUM_SPLITS": 2}, {"MODEL.EMA": True, "MODEL.EMA_DECAY": 0.5}
RANDOM = {"MIXUP.ENABLE": True, "AUG.ENABLE": True, "MODEL.LOSS_FUNC": "soft_cross_entropy"}
RECIPES = {"the papers'": {}, "norms of parts": PARTS, "averaged": {**PARTS, **AVERAGE}, "mixed and averaged": {**RANDOM, **AVERAGE}}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_killed_inside_an_epoch_goes_on_from_there_without_decoding_again(data, tmp_path, recipe):
    changes = {**TRAINING, "SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 1, **RECIPES[recipe]}
    assert run(tmp_path / "whole", data, **changes)[0] == 0
    output = tmp_path / "out"
    changes["TRAIN.CHECKPOINT_SECONDS"] = 1e-9
    # In the third step.
    status, _ = run(output, data, at_call(MutualStep, "_backward", 7, send(signal.SIGKILL)), **changes)
    assert status == -signal.SIGKILL
    newest = Checkpoints(output).last()
    # A save takes a tenth of the time at most: the second step may have been too early for one.
    assert newest.name in ("unfinished_epoch_00001_batch_0000001.pyth", "unfinished_epoch_00001_batch_0000002.pyth")
    left = 3 - int(newest.stem[-1])
    # Twelve more are read by the validation, and none else.
    one_too_many = at_call(kinetics.VideoDataset, "__getitem__", 4 * left + 12 + 1, lambda: os._exit(99))
    status, told = run(output, data, one_too_many, **changes)
    assert status == 0, told
    check_equal(output, tmp_path / "whole", last=1)


def test_unreadable_videos_of_the_first_part_of_an_epoch_are_counted(tmp_path):
    data = write_set(tmp_path / "set")
    (data / "3.mp4").write_bytes(b"no video")
    (data / "val.csv").unlink()
    changes = {**TRAINING, "SOLVER.MAX_EPOCH": 1, "DATA_LOADER.MAX_UNREADABLE_TRAIN": 0.1}
    for call in (2, 5, 8):
        output = tmp_path / f"out{call}"
        assert run(output, data, at_call(MutualStep, "_backward", call, send(signal.SIGTERM)), **changes)[0] == 75
        assert run(output, data, **changes)[0] == 0
        assert "1 of 12 videos cannot be read:" in (output / "stdout.log").read_text()


def test_two_processes_of_which_one_is_signalled_stop_after_the_same_step(data, tmp_path):
    changes = {**TRAINING, "DATA_LOADER.NUM_WORKERS": 1}
    calm = [lambda: None] * 2
    assert [status for status, _ in run_together(tmp_path / "whole", data, calm, **changes)] == [0, 0]
    output = tmp_path / "out"
    harmed = [lambda: None, at_call(MutualStep, "_backward", 5, send(signal.SIGTERM))]
    results = run_together(output, data, harmed, **changes)
    assert [status for status, _ in results] == [75, 75], results
    assert all("Traceback" not in told for _, told in results) and "stopped (SIGTERM)" in results[1][1]
    assert Checkpoints(output).last().name == "unfinished_epoch_00001_batch_0000002.pyth"
    assert [status for status, _ in run_together(output, data, calm, **changes)] == [0, 0]
    check_equal(output, tmp_path / "whole")
    # Another number of processes takes over what both had.
    again = tmp_path / "again"
    assert [status for status, _ in run_together(again, data, harmed, **changes)] == [75, 75]
    assert run(again, data, **changes)[0] == 0
    first, other = (epoch_lines(path)[0] for path in (again, tmp_path / "whole"))
    assert first.keys() == other.keys() and first["top1_err"] <= 100


def test_three_processes_that_stop_and_go_on_end_with_the_same_bits(data, tmp_path):
    """Sums of three depend on their order, which must not depend on how many steps a process has made."""
    calm, changes = [lambda: None] * 3, {**TRAINING, "TRAIN.BATCH_SIZE": 6, "TEST.BATCH_SIZE": 6, "CALIBRATION.BATCH_SIZE": 6}
    for name in ("whole", "twin"):
        assert [status for status, _ in run_together(tmp_path / name, data, calm, **changes)] == [0] * 3
    check_equal(tmp_path / "twin", tmp_path / "whole")
    harmed = [lambda: None, lambda: None, at_call(MutualStep, "_backward", 2, send(signal.SIGTERM))]
    assert [status for status, _ in run_together(tmp_path / "out", data, harmed, **changes)] == [75] * 3
    assert [status for status, _ in run_together(tmp_path / "out", data, calm, **changes)] == [0] * 3
    check_equal(tmp_path / "out", tmp_path / "whole")


def test_two_processes_of_which_one_is_signalled_outside_training_both_stop(whole, data, tmp_path):
    output = tmp_path / "out"
    changes = {"TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": whole / "checkpoints" / "checkpoint_epoch_00002.pyth"}
    results = run_together(output, data, [lambda: None, at_call(measure, "score_batch", 1, send(signal.SIGTERM))], **changes)
    assert [status for status, _ in results] == [75, 75], results
    assert all("Traceback" not in told for _, told in results)


def test_a_signal_to_all_processes_of_a_run_leaves_its_workers_to_it(data, tmp_path):
    """Slurm and terminals signal the whole group: no worker dies of it, no video is blamed, nothing is left running."""
    everybody = at_call(MutualStep, "_backward", 2, lambda: os.killpg(0, signal.SIGTERM))
    process, path = start(tmp_path / "out", data, everybody, **{**TRAINING, "DATA_LOADER.NUM_WORKERS": 2})
    end(process)
    told = path.read_text() + (tmp_path / "out" / "stdout.log").read_text()
    assert process.exitcode == 75, told
    assert "a worker is started again" not in told and "Traceback" not in told
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a process of the run lives")


def test_a_second_ctrl_c_ends_at_once(data, tmp_path):
    def twice():
        stopping._SAME_SIGNAL_SECONDS = 0
        at_call(MutualStep, "_backward", 2, lambda: [send(signal.SIGINT)(), time.sleep(0.01), send(signal.SIGINT)()])()

    status, told = run(tmp_path / "out", data, twice, **TRAINING)
    assert status == 130 and "SIGINT: saving, then stopping; Ctrl-C once more ends this run at once" in told, told
    assert "Traceback" not in told and not Checkpoints(tmp_path / "out").found()


def test_a_run_whose_time_is_over_stops_saved(data, tmp_path):
    status, told = run(tmp_path / "out", data, **TRAINING, **{"TRAIN.MAX_MINUTES": 1e-6})
    assert status == 75 and "stopped (TRAIN.MAX_MINUTES 1e-06 are over) with status 75" in told
    assert Checkpoints(tmp_path / "out").last().name == "unfinished_epoch_00001_batch_0000001.pyth"
    status, told = run(tmp_path / "out", data, **TRAINING)
    assert status == 0, told


def test_a_time_limit_shorter_than_any_stage_is_got_past(data, tmp_path):
    changes = {**TRAINING, "SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 1, **AVERAGE}
    assert run(tmp_path / "whole", data, **changes)[0] == 0
    statuses = []
    # Three steps, and three batches of the validation.
    while not statuses or statuses[-1] == 75 and len(statuses) < 8:
        statuses.append(run(tmp_path / "out", data, **changes, **{"TRAIN.MAX_MINUTES": 1e-6})[0])
    assert statuses[-1] == 0, statuses
    lines = [[stats["top1_err"] for stats in read_json_stats(path / "stdout.log") if stats["_type"] == "val_epoch"] for path in (tmp_path / "whole", tmp_path / "out")]
    assert lines[0] == lines[1] and len(lines[0]) == 1
    assert not list((tmp_path / "out").glob(".validation*"))


def test_the_newest_checkpoints_are_kept_and_none_that_another_run_wrote(data, tmp_path):
    output = tmp_path / "out"
    changes = {**TRAINING, "TRAIN.KEEP_CHECKPOINTS": 2, "TRAIN.EVAL_PERIOD": 9}
    assert run(output, data, **{**changes, "SOLVER.MAX_EPOCH": 3})[0] == 0
    assert [path.name[-7:] for path in Checkpoints(output).found()] == ["03.pyth", "02.pyth"]
    # Another run's, between this one's.
    other = Checkpoints(tmp_path / "other")
    assert run(tmp_path / "other", data, **{**TRAINING, "SOLVER.MAX_EPOCH": 1})[0] == 0
    other.path(1).rename(Checkpoints(output).path(1))
    # The run goes on in another process: what the first one wrote is its own.
    assert run(output, data, **{**changes, "SOLVER.MAX_EPOCH": 4})[0] == 0
    assert [path.name[-7:] for path in Checkpoints(output).found()] == ["04.pyth", "03.pyth", "01.pyth"]
