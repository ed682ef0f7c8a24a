"""Jobs of submitit: what each node starts, and that a job whose time is over saves, is queued again and goes on."""

import argparse
import shlex
import sys

import pytest
from tiny import overrides, write_set

from mutual3d.cli import submit
from mutual3d.cli.submit import SubmittedRun

WORDS = ["--cfg", "Demo/MUTUAL_X3D", "SOLVER.BASE_LR", "0.1"]


def test_one_process_is_the_run_itself_and_several_are_torchruns():
    alone = SubmittedRun(WORDS, 1, 0, 10.0).launch_words(["node1"], "17")
    assert alone == [sys.executable, "-m", "mutual3d", "run", *WORDS]
    here = shlex.join(SubmittedRun(WORDS, 4, 2, 10.0).launch_words(["node1"], "17"))
    assert "--standalone --nproc-per-node 4 --max-restarts 2 -m mutual3d run --cfg Demo/MUTUAL_X3D" in here
    many = [shlex.join(SubmittedRun(WORDS, 8, 1, 10.0).launch_words(["a1", "a2"], "12345_6")) for _ in range(2)]
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-id 12345_6 --rdzv-endpoint a1:23456 --nproc-per-node 8" in many[0]
    assert many[0] == many[1] and "standalone" not in many[0]


@pytest.mark.parametrize("words, message", [
    ("--slurm partition", "give KEY=VALUE"), ("--gpus 2 --processes 3", "each GPU has one process"),
    ("--local --nodes 2", "this machine alone"), ("--requeues -1", "give 0 or more"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        submit.parse(["--cfg", "Demo/MUTUAL_X3D", *words.split()])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_config_that_cannot_work_is_refused_before_it_is_queued():
    with pytest.raises(ValueError, match="TRAIN.BATCH_SIZE is 0"):
        submit.main(["--cfg", "Demo/MUTUAL_X3D", "--local", "TRAIN.BATCH_SIZE", "0"])


def test_without_submitit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e .\[slurm\]"):
        submit.make_executor(tmp_path, argparse.Namespace(minutes=1, name="x", local=True))


def test_slurm_is_asked_for_nodes_cores_time_and_a_signal_before_its_end(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="pip install -e .[slurm]")
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    options, _ = submit.parse("--cfg C --nodes 4 --gpus 8 --cpus 6 --minutes 90 --grace-seconds 300 --slurm partition=gpu --slurm mem=64G".split())
    executor = submit.make_executor(tmp_path, options)
    script = executor._executor._make_submission_file_text("COMMAND", "id")
    for line in ("nodes=4", "ntasks-per-node=1", "gpus-per-node=8", "cpus-per-task=48", "time=90", "signal=USR2@300", "partition=gpu", "mem=64G"):
        assert f"#SBATCH --{line}" in script, script


@pytest.fixture
def local_job(tmp_path):
    """A function that runs a SubmittedRun of a script as a local job: (exception or None, what it printed)."""
    submitit = pytest.importorskip("submitit", reason="pip install -e .[slurm]")

    def run(script):
        path = str(tmp_path / "script.py")
        (tmp_path / "script.py").write_text(script)
        task = SubmittedRun([], 1, 0, grace=60.0)
        # On the instance, with which it travels to the job, which cannot import this file.
        task.launch_words = lambda hosts, job: [sys.executable, path]
        executor = submitit.LocalExecutor(tmp_path / "jobs")
        executor.update_parameters(timeout_min=10, stderr_to_stdout=True)
        job = executor.submit(task)
        return job.exception(), job.stdout() or ""

    return run


# What Slurm sends to the task before its time is over, it sends itself when it is ready for it.
SAVING = """
import os, pathlib, signal, sys, time
starts = pathlib.Path(__file__).with_name("starts")
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
if len(starts.read_text()) > 1:
    print("going on from", starts.with_name("saved").read_text(), flush=True)
    sys.exit(0)
def save(number, frame):
    starts.with_name("saved").write_text("what was saved on " + signal.Signals(number).name)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
os.kill(os.getppid(), signal.SIGUSR2)
time.sleep(600)
"""


def test_a_job_whose_time_is_over_saves_is_queued_again_and_goes_on(local_job):
    error, printed = local_job(SAVING)
    assert error is None, printed
    assert "going on from what was saved on SIGTERM" in printed


TERMINATED = SAVING.replace("os.getppid(), signal.SIGUSR2", "os.getppid(), signal.SIGTERM")


def test_slurms_sigterm_reaches_the_run_which_saves(local_job, tmp_path):
    error, _ = local_job(TERMINATED)
    assert "ended with status 75: it was stopped and is saved; submitted again it goes on" in str(error) and (tmp_path / "saved").read_text() == "what was saved on SIGTERM"


def test_a_run_that_ends_with_an_error_is_the_jobs_error(local_job):
    error, _ = local_job("import sys; sys.exit(3)")
    assert "ended with status 3: see the log of the run in OUTPUT_DIR" in str(error)


def test_a_run_is_submitted_here_and_waited_for(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="pip install -e .[slurm]")
    data = write_set(tmp_path / "set", num_videos=4)
    words = overrides(data, tmp_path / "out", **{
        "GRID.ENABLE": False, "TEST.ENABLE": False, "CALIBRATION.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "MUTUAL.ENABLE": False,
    })  # fmt: skip
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    assert submit.main(["--cfg", config, "--local", "--wait", "--restarts", 0, "--minutes", 10, *words]) == 0
    assert (tmp_path / "out/checkpoints/checkpoint_epoch_00001.pyth").is_file() and list((tmp_path / "out/submit").iterdir())
