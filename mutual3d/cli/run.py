"""Train, calibrate, measure, report and test: what the YAML enables, in this order.

mutual3d run --cfg Kinetics/MUTUAL_X3D_M DATA.PATH_TO_DATA_DIR /data/k400
torchrun --nproc_per_node 8 -m mutual3d run --cfg Kinetics/MUTUAL_X3D_M
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mutual3d.pipeline import check_machine, from_config, load_config, machine_of, run_stages, tell_of_devices
from mutual3d.pipeline.extend import import_extension
from mutual3d.utils import distributed
from mutual3d.utils.command_line import path_argument
from mutual3d.utils.files import ensure_directory, remove_leftovers
from mutual3d.utils.logging import logger, setup_logging
from mutual3d.utils.run_lock import run_lock


def clear_up(output: Path) -> None:
    """Delete the half files that killed writers left in the directories of a run."""
    removed = [path for folder in (output, output / "checkpoints") for path in remove_leftovers(folder)] if distributed.is_main() else []
    if removed:
        logger.info("removed %d files that killed runs left half written, such as '%s'", len(removed), removed[0])


class RunOptions(NamedTuple):
    """config: a path or a name. overrides: KEY VALUE pairs. extend: Python files to import first."""

    config: str
    overrides: list[str]
    extend: list[str]


def parse(arguments: Sequence[str] | None = None) -> RunOptions:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, help="YAML file, for instance configs/Demo/MUTUAL_X3D.yaml")
    parser.add_argument("--extend", action="append", default=[], type=path_argument, metavar="FILE",
                        help="a Python file that registers a network, objective or data set of yours; imported first")  # fmt: skip
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs; --opts may be left out")
    parsed, bare = parser.parse_known_args(arguments)
    return RunOptions(parsed.cfg, [*bare, *parsed.opts], parsed.extend)


def main(arguments: Sequence[object] | None = None) -> None:
    options = parse(None if arguments is None else [str(word) for word in arguments])
    for path in options.extend:
        import_extension(path)
    cfg = load_config(options.config, options.overrides)
    check_machine(cfg)
    machine = machine_of(cfg)
    ensure_directory(machine.output)
    device = distributed.choose_device(machine.num_gpus)
    with distributed.process_group(device, machine.backend), run_lock(machine.output) as taken_over:
        setup_logging(machine.output)
        if taken_over:
            logger.warning(taken_over)
        clear_up(machine.output)
        if distributed.is_main():
            tell_of_devices(cfg)
        plan = from_config(cfg)
        if plan.training and plan.weights:
            logger.warning("TEST.CHECKPOINT_FILE_PATH is not read: this run tests what it trains (TRAIN.ENABLE True)")
        run_stages(plan, device)
