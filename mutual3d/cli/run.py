"""Train, calibrate, measure, report and test: what the YAML enables, in this order.

mutual3d run --cfg Kinetics/MUTUAL_X3D_M DATA.PATH_TO_DATA_DIR /data/k400
torchrun --nproc_per_node 8 -m mutual3d run --cfg Kinetics/MUTUAL_X3D_M
"""

import argparse
from pathlib import Path

from mutual3d.pipeline import check_machine, from_config, load_config, machine_of, run_stages, tell_of_devices
from mutual3d.utils import distributed
from mutual3d.utils.files import ensure_directory, remove_leftovers
from mutual3d.utils.logging import logger, setup_logging
from mutual3d.utils.run_lock import run_lock


def clear_up(output: Path) -> None:
    """Delete the half files that killed writers left in the directories of a run."""
    removed = [path for folder in (output, output / "checkpoints") for path in remove_leftovers(folder)] if distributed.is_main() else []
    if removed:
        logger.info("removed %d files that killed runs left half written, such as '%s'", len(removed), removed[0])


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, help="YAML file, for instance configs/Demo/MUTUAL_X3D.yaml")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs; --opts may be left out")
    parsed, bare = parser.parse_known_args(arguments)
    return parsed.cfg, [*bare, *parsed.opts]


def main(arguments=None):
    path, overrides = parse(arguments and [str(word) for word in arguments])
    cfg = load_config(path, overrides)
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
