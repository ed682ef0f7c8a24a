"""A whole run: every stage of a plan, in order."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch

from mutual3d.pipeline.bundle import save_adaptive, saved_model
from mutual3d.pipeline.calibration import calibrate, check_batches, load_statistics
from mutual3d.pipeline.grid import measure_grid
from mutual3d.pipeline.multi_view import multi_view_test
from mutual3d.pipeline.page import RunFacts, write_page
from mutual3d.pipeline.plans import RunPlan
from mutual3d.pipeline.training import train
from mutual3d.pipeline.workspace import Workspace
from mutual3d.table.query_table import QueryTable
from mutual3d.utils import distributed
from mutual3d.utils.logging import logger
from mutual3d.utils.stopping import StopRequestedError

_Result = TypeVar("_Result")


def check_data(run: Workspace) -> None:
    """Make every loader that a stage will need, so that a mistake shows before the hours of training."""
    plan = run.plan
    if plan.training:
        doubts = plan.training.doubts(plan.training.loader(run.model).dataset)
        if doubts and distributed.is_main():
            logger.warning(doubts)
        # Training without a validation list goes on without validation.
        with contextlib.suppress(FileNotFoundError):
            plan.training.validation()
    for stage, switch in ((plan.calibration, "CALIBRATION"), (plan.grid, "GRID"), (plan.test, "TEST")):
        try:
            if stage:
                stage.loader()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; or leave this stage out: {switch}.ENABLE False") from None
    if plan.calibration:
        check_batches(run, plan.calibration)


def _write_last_page(run: Workspace, table: QueryTable | None) -> None:
    """The page with all that the run has found. Without a grid the table is that which an earlier run measured of this network.

    A network that the run only tests, in the directory of another one, leaves that one's page alone.
    """
    plan = run.plan
    if table and plan.grid:
        write_page(run.output, table, RunFacts.of_run(run), plan.grid.loader().dataset)
    elif saved := saved_model(run):
        write_page(run.output, saved.table, RunFacts.of_run(run))


def run_stages(plan: RunPlan, device: torch.device, seconds: dict[str, float] | None = None) -> QueryTable | None:
    """Train, calibrate, measure, save and test, as far as the plan has them; the query table, on the main process.

    Each stage goes on from what an earlier run of the same plan in the same directory has of it. Raises ValueError and
    OSError, in words, for what lists, checkpoints and directories get wrong, and StopRequestedError where it is asked to stop.
    seconds: takes how long each stage took; the log says it at the end in any case.
    """
    seconds = {} if seconds is None else seconds
    try:
        table = _run_stages(plan, device, seconds)
    except StopRequestedError:
        logger.info("%s", words_of_times(seconds))
        raise
    logger.info("%s", words_of_times(seconds))
    return table


def words_of_times(seconds: Mapping[str, float]) -> str:
    """Where the time went, as one line. seconds: {stage: how long it took}, in order."""
    return f"{sum(seconds.values()):.1f} seconds: {', '.join(f'{name} {spent:.1f}' for name, spent in seconds.items())}"


def _run_stages(plan: RunPlan, device: torch.device, seconds: dict[str, float]) -> QueryTable | None:
    @contextlib.contextmanager
    def taking(name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds[name] = time.perf_counter() - start

    def timed(name: str, stage: Callable[..., _Result], *arguments: object) -> _Result:
        with taking(name):
            return stage(run, *arguments)

    with taking("start"):
        run = Workspace(plan, device)
        check_data(run)
        run.check_test_configurations()
    if plan.training:
        timed("train", train, plan.training)
    else:
        run.load_trained()
    for size in plan.interpolated_sizes:
        run.model.add_size(size)
    for frames in plan.unseen_frames:
        run.model.add_frames(frames)
    if plan.calibration:
        timed("calibrate", calibrate, plan.calibration)
    elif plan.has_statistics:
        load_statistics(run)
    table = timed("measure the grid", measure_grid, plan.grid) if plan.grid else None
    if distributed.is_main():
        timed("save", save_adaptive, table)
    if plan.test:
        timed("test", multi_view_test, plan.test)
    if distributed.is_main():
        timed("report", _write_last_page, table)
    return table
