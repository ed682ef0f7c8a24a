"""Train, calibrate, measure, report and test: what the config enables, in this order.

    mutual3d run --cfg my_run/config.yaml
    mutual3d run --cfg Kinetics/MUTUAL_X3D_M DATA.PATH_TO_DATA_DIR /data/k400
    mutual3d run --cfg Kinetics/MUTUAL_X3D_M SOLVER.MAX_EPOCH 100 --print-config
    mutual3d run --cfg my_run/config.yaml --profile
    torchrun --nproc_per_node 8 -m mutual3d run --cfg Kinetics/MUTUAL_X3D_M

The same command again goes on where a killed run stopped. On SIGTERM, Ctrl-C, or when TRAIN.MAX_MINUTES are over, a run saves
after the step at hand, in every stage, and ends with status 75, on which a scheduler may start the same command again; Ctrl-C
once more ends it at once, with status 130. The merged config is saved as OUTPUT_DIR/config.yaml, and
`mutual3d run --cfg OUTPUT_DIR/config.yaml` in the same directory repeats the run. Every key stands, with its meaning and its
legal values, in mutual3d/config/defaults.py.
"""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mutual3d.pipeline import check_machine, from_config, load_config, machine_of, run_stages, tell_of_devices
from mutual3d.pipeline.extend import import_extension
from mutual3d.pipeline.plans import RunPlan
from mutual3d.utils import distributed
from mutual3d.utils.command_line import command_parser, parse_with_settings, path_argument
from mutual3d.utils.files import atomic_write, ensure_directory, remove_leftovers
from mutual3d.utils.logging import IN_FILE_ALONE, logger, setup_logging
from mutual3d.utils.run_lock import run_lock
from mutual3d.utils.stopping import StopRequestedError, stoppable
from mutual3d.utils.text import printable

# What the config that a run saves begins with: no other file of that name is replaced.
_WRITTEN_BY_RUN = "# The settings of the run in this folder, all of them, as `mutual3d run` merged them."


def clear_up(output: Path) -> None:
    """Delete the half files that killed writers left in the directories of a run."""
    removed = [path for folder in (output, output / "checkpoints") for path in remove_leftovers(folder)] if distributed.is_main() else []
    if removed:
        logger.info("removed %d files that killed runs left half written, such as '%s'", len(removed), removed[0])


class RunOptions(NamedTuple):
    """config: a path or a name. overrides: KEY VALUE pairs. extend: Python files to import first. print_config: run nothing.
    profile: time the parts of some training steps and trace them."""

    config: str
    overrides: list[str]
    extend: list[str]
    print_config: bool = False
    profile: bool = False


def parse(arguments: Sequence[str] | None = None) -> RunOptions:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("run", __doc__)
    parser.add_argument("--cfg", required=True, help="a YAML file, or the name of a config (mutual3d --configs lists them)")
    parser.add_argument("--extend", action="append", default=[], type=path_argument, metavar="FILE",
                        help="a Python file that registers a network, objective or data set of yours; imported first")  # fmt: skip
    parser.add_argument("--print-config", action="store_true", help="check the merged config, print it, and run nothing")
    parser.add_argument("--profile", action="store_true",
                        help="print a training step's time by part, and write a trace of some steps to OUTPUT_DIR/step_trace.json")  # fmt: skip
    parsed, settings = parse_with_settings(parser, arguments)
    return RunOptions(parsed.cfg, settings, parsed.extend, parsed.print_config, parsed.profile)


def command_of(options: RunOptions) -> str:
    """The command line, as a shell takes it."""
    extensions = [word for path in options.extend for word in ("--extend", path)]
    profile = ["--profile"] if options.profile else []
    return shlex.join(["mutual3d", "run", "--cfg", options.config, *extensions, *profile, *options.overrides])


def save_settings(settings: str, command: str, output: Path) -> None:
    """Write OUTPUT_DIR/config.yaml, and the command and all settings at the beginning of the run's log.

    A config.yaml that somebody else put there, such as the one that the run was started with, is left as it is.
    """
    logger.info("command: %s", printable(command))
    logger.info("settings:\n%s", settings, extra=IN_FILE_ALONE)
    path = output / "config.yaml"
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_WRITTEN_BY_RUN):
        logger.info("'%s' was not written by a run: it stays as it is, and the settings of this run are in stdout.log", path)
        return
    with atomic_write(path) as temporary:
        head = f"{_WRITTEN_BY_RUN}\n# In '{printable(os.getcwd())}': {printable(command)}\n"
        Path(temporary).write_text(head + settings, encoding="utf-8")


def _with_profile(plan: RunPlan) -> RunPlan:
    if plan.training is None:
        raise ValueError("--profile times training steps, and TRAIN.ENABLE is False: set it True, or leave --profile out")
    return dataclasses.replace(plan, training=dataclasses.replace(plan.training, trace=plan.output / "step_trace.json"))


def main(arguments: Sequence[object] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    run_config(parse(None if arguments is None else [str(word) for word in arguments]))


def run_config(options: RunOptions, seconds: dict[str, float] | None = None) -> None:
    """Do what the options say. seconds: takes how long each stage took."""
    for path in options.extend:
        import_extension(path)
    cfg = load_config(options.config, options.overrides)
    if options.print_config:
        print(cfg.dump(), end="")
        return
    check_machine(cfg)
    machine = machine_of(cfg)
    ensure_directory(machine.output)
    device = distributed.choose_device(machine.num_gpus)
    with (
        stoppable(machine.max_minutes),
        distributed.process_group(device, machine.backend),
        run_lock(machine.output) as taken_over,
    ):
        setup_logging(machine.output)
        if distributed.is_main():
            save_settings(cfg.dump(), command_of(options), machine.output)
        if taken_over:
            logger.warning(taken_over)
        clear_up(machine.output)
        if distributed.is_main():
            tell_of_devices(cfg)
        plan = dataclasses.replace(from_config(cfg), command=command_of(options))
        if options.profile:
            plan = _with_profile(plan)
        if plan.training and plan.weights:
            logger.warning("TEST.CHECKPOINT_FILE_PATH is not read: this run tests what it trains (TRAIN.ENABLE True)")
        try:
            run_stages(plan, device, seconds)
        except StopRequestedError as stop:
            logger.info("stopped (%s), everything is saved: the same command goes on", stop)
            raise
