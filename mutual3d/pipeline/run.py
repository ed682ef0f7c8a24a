"""A whole run: every stage of a plan, in order."""

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from mutual3d.pipeline.bundle import save_adaptive
from mutual3d.pipeline.calibration import calibrate, load_statistics
from mutual3d.pipeline.grid import measure_grid, write_page_again
from mutual3d.pipeline.multi_view import multi_view_test
from mutual3d.pipeline.plans import RunPlan
from mutual3d.pipeline.training import train
from mutual3d.pipeline.workspace import Workspace
from mutual3d.table.query_table import QueryTable
from mutual3d.utils import distributed
from mutual3d.utils.logging import logger

_Result = TypeVar("_Result")


def check_data(plan: RunPlan) -> None:
    """Make every loader that a stage will need, so that a mistake shows before the hours of training."""
    if plan.training:
        doubts = plan.training.doubts(plan.training.loader().dataset)
        if doubts and distributed.is_main():
            logger.warning(doubts)
        # Training without a validation list goes on without validation.
        with contextlib.suppress(FileNotFoundError):
            plan.training.validation()
    for stage in (plan.calibration, plan.grid, plan.test):
        if stage:
            stage.loader()


def run_stages(plan: RunPlan, device: torch.device) -> QueryTable | None:
    """Train, calibrate, measure, save and test, as far as the plan has them; the query table, on the main process.

    Each stage goes on from what an earlier run of the same plan in the same directory has of it. Raises ValueError and
    OSError, in words, for what lists, checkpoints and directories get wrong.
    """
    check_data(plan)
    run, seconds = Workspace(plan, device), {}
    run.check_test_configurations()

    def timed(name: str, stage: Callable[..., _Result], *arguments: object) -> _Result:
        start = time.perf_counter()
        result = stage(run, *arguments)
        seconds[name] = time.perf_counter() - start
        return result

    if plan.training:
        timed("train", train, plan.training)
    else:
        run.load_trained()
    for size in plan.interpolated_sizes:
        run.model.add_size(size)
    if plan.calibration:
        timed("calibrate", calibrate, plan.calibration)
    elif plan.has_statistics:
        load_statistics(run)
    table = timed("measure the grid", measure_grid, plan.grid) if plan.grid else None
    if distributed.is_main():
        save_adaptive(run, table)
    if plan.test:
        timed("test", multi_view_test, plan.test)
        if table and plan.grid:
            write_page_again(run, plan.grid, table)
    logger.info("seconds: %s", ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()))
    return table
