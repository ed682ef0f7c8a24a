"""Send a run to Slurm, by submitit; or, with --local, start it on this machine in the same way.

    mutual3d submit --cfg Kinetics/MUTUAL_X3D_M --nodes 4 --gpus 8 --minutes 1440 --slurm partition=gpu DATA.PATH_TO_DATA_DIR /data/k400
    mutual3d submit --cfg my_run/config.yaml --local --wait

It is `mutual3d run` with the same words, by torchrun where there is more than one process: one for each GPU, or --processes on each
node. Before the time is over, and when Slurm takes the machines away (SIGUSR2), the run gets SIGTERM, saves and ends, and the job is
queued again, as often as --requeues says; --restarts lets torchrun start all processes again where one was lost. Of torchrun the processes get 30 seconds
for saving. The job's own files are in OUTPUT_DIR/submit. Needs `pip install -e .[slurm]`.

Exit status: 0 when the job is queued, with --wait that of the run; 2 when the arguments are wrong.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutual3d.cli.run import RunOptions
from mutual3d.pipeline import load_config, machine_of
from mutual3d.pipeline.extend import import_extension
from mutual3d.utils.command_line import command_parser, count_argument, parse_with_settings, path_argument
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.logging import logger
from mutual3d.utils.stopping import REQUEUE_STATUS

# Where the processes of a job on several nodes meet, but for the last digits, which are the job's own.
_FIRST_PORT = 20000
_PORTS = 10000
_SECONDS_BETWEEN_LOOKS = 0.2


class SubmittedRunError(RuntimeError):
    """A run that was submitted ended with an error; says its status."""


class SubmittedRun:
    """What a job of submitit does on each node: start the run's processes, and pass on that it is to stop.

    command: words of `mutual3d run`. processes: on each node. restarts: how often torchrun starts them again. grace: seconds
    that a run may take to save after SIGTERM. The run is a process of its own, whose handlers of signals are not submitit's.
    """

    def __init__(self, command: Sequence[str], processes: int, restarts: int, grace: float) -> None:
        self.command, self.processes, self.restarts, self.grace = list(command), processes, restarts, grace
        self._pid: int | None = None

    def __call__(self) -> None:
        """Start the run, and wait for it. Raises SubmittedRunError for a status that is not 0."""
        import submitit

        job = submitit.JobEnvironment()
        words = self.launch_words(job.hostnames, str(job.job_id))
        # In a session of its own: Slurm sends its signals to all processes of a task, and SIGUSR2 would end the run.
        process = subprocess.Popen(words, start_new_session=True)
        self._pid = process.pid
        # Slurm's SIGTERM, before it takes the machine away, is the run's, and not submitit's, which does nothing with it.
        signal.signal(signal.SIGTERM, lambda number, frame: os.kill(process.pid, signal.SIGTERM))
        try:
            while process.poll() is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            if not _has_ended(process.pid):
                os.kill(process.pid, signal.SIGTERM)
        if process.returncode == REQUEUE_STATUS:
            raise SubmittedRunError(f"`{shlex.join(words)}` ended with status {REQUEUE_STATUS}: it was stopped and is saved; submitted again it goes on")
        if process.returncode:
            raise SubmittedRunError(f"`{shlex.join(words)}` ended with status {process.returncode}: see the log of the run in OUTPUT_DIR")

    def launch_words(self, hosts: Sequence[str], job: str) -> list[str]:
        """The command line of a node: the run itself where it is the only process, and else torchrun's of it.

        hosts: of all nodes, the first of which is where they meet. job: the job's number, which the run is told from others by.
        """
        python = [sys.executable, "-m"]
        if len(hosts) * self.processes == 1 and not self.restarts:
            return [*python, "mutual3d", "run", *self.command]
        number = int("".join(filter(str.isdigit, job)) or 0)
        meeting = [
            "--nnodes", str(len(hosts)), "--rdzv-backend", "c10d", "--rdzv-id", job,
            "--rdzv-endpoint", f"{hosts[0]}:{_FIRST_PORT + number % _PORTS}",
        ]  # fmt: skip
        return [
            *python, "torch.distributed.run", *(meeting if len(hosts) > 1 else ["--standalone"]),
            "--nproc-per-node", str(self.processes), "--max-restarts", str(self.restarts), "-m", "mutual3d", "run", *self.command,
        ]  # fmt: skip

    def checkpoint(self) -> Any:
        """Called by submitit where the job is to be queued again: the run is asked to save and to end, and waited for."""
        import submitit

        pid, self._pid = self._pid, None
        if pid is not None and not _has_ended(pid):
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + self.grace
            while not _has_ended(pid) and time.monotonic() < end:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            if not _has_ended(pid):
                # What the run saved last is whole, whenever it is killed: its session is all of its processes.
                logger.warning("the run did not end within %.0f seconds of SIGTERM: it is killed, and goes on from what is saved", self.grace)
                os.killpg(pid, signal.SIGKILL)
        return submitit.helpers.DelayedSubmission(self)


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has ended, whoever waits for it: this is asked in a handler of signals too."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, RunOptions]:
    """The options of a command line, and those of the run; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("submit", __doc__)
    parser.add_argument("--cfg", required=True, help="as of mutual3d run")
    parser.add_argument("--extend", action="append", default=[], type=path_argument, metavar="FILE", help="as of mutual3d run")
    parser.add_argument("--nodes", type=count_argument, default=1, metavar="N", help="machines")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of each node, one process for each")
    parser.add_argument("--processes", type=count_argument, metavar="N", help="of each node, on CPUs")
    parser.add_argument("--cpus", type=count_argument, default=8, metavar="N", help="CPU cores of each process")
    parser.add_argument("--minutes", type=count_argument, default=1440, metavar="N", help="of a job, after which it is queued again")
    parser.add_argument("--grace-seconds", type=count_argument, default=120, metavar="S", help="before the end, for saving")
    parser.add_argument("--requeues", type=int, default=100, metavar="N", help="how often a job is queued again when its time is over")
    parser.add_argument("--restarts", type=int, default=3, metavar="N", help="how often processes are started again where one was lost")
    parser.add_argument("--name", default="mutual3d", help="of the job")
    parser.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE",
                        help="an option of sbatch, such as partition=gpu or mem=64G; may be given several times")  # fmt: skip
    parser.add_argument("--local", action="store_true", help="start it on this machine, without Slurm")
    parser.add_argument("--wait", action="store_true", help="wait for the end of the run")
    parsed, settings = parse_with_settings(parser, arguments)
    for word in parsed.slurm:
        if not word.partition("=")[2]:
            parser.error(f"--slurm {word}: give KEY=VALUE, such as partition=gpu")
    for name in ("gpus", "requeues", "restarts"):
        if getattr(parsed, name) < 0:
            parser.error(f"--{name} {getattr(parsed, name)}: give 0 or more")
    if parsed.gpus and parsed.processes not in (None, parsed.gpus):
        parser.error(f"--processes {parsed.processes} with --gpus {parsed.gpus}: each GPU has one process; leave --processes out")
    if parsed.local and (parsed.nodes > 1 or parsed.slurm):
        parser.error("--local is this machine alone: leave --nodes and --slurm out")
    return parsed, RunOptions(parsed.cfg, settings, parsed.extend)


def make_executor(folder: Path, options: argparse.Namespace) -> Any:
    """submitit's executor of the options, which are those of `parse`. folder: for the job's own files."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise ModuleNotFoundError("mutual3d submit needs submitit: pip install -e .[slurm]") from None
    common: dict[str, Any] = {"timeout_min": options.minutes, "name": options.name}
    if options.local:
        executor: Any = submitit.LocalExecutor(folder, max_num_timeout=options.requeues)
        executor.update_parameters(
            **common, tasks_per_node=1, gpus_per_node=options.gpus, signal_delay_s=options.grace_seconds, stderr_to_stdout=True
        )
        return executor
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=options.requeues)
    # One task a node, which starts its processes by torchrun.
    processes = options.gpus or options.processes or 1
    given = dict(word.split("=", 1) for word in options.slurm)
    executor.update_parameters(
        **common, nodes=options.nodes, tasks_per_node=1, gpus_per_node=options.gpus, cpus_per_task=processes * options.cpus,
        stderr_to_stdout=True, slurm_signal_delay_s=options.grace_seconds, slurm_additional_parameters=given,
    )  # fmt: skip
    return executor


def main(arguments: Sequence[object] | None = None) -> int | None:
    """Run the command with these words, by default those of the command line."""
    options, run = parse(None if arguments is None else [str(word) for word in arguments])
    for path in run.extend:
        import_extension(path)
    # Mistakes show here instead of hours later; the job reads the same words.
    cfg = load_config(run.config, run.overrides)
    folder = machine_of(cfg).output / "submit"
    ensure_directory(folder)
    extensions = [word for path in run.extend for word in ("--extend", os.path.abspath(path))]
    processes = options.gpus or options.processes or 1
    # The run has less than the whole time until it is killed.
    task = SubmittedRun(["--cfg", run.config, *extensions, *run.overrides], processes, options.restarts, 0.8 * options.grace_seconds)
    job = make_executor(folder.resolve(), options).submit(task)
    print(f"job {job.job_id}: `mutual3d run {shlex.join(task.command)}`, its files in '{folder}'")
    if not options.wait:
        return 0
    error = job.exception()
    if error is not None:
        raise SubmittedRunError(f"job {job.job_id} ended with an error: see '{job.paths.stdout}'")
    return 0
