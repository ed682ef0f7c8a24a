"""The grid and its query table, with what shows it: csv, plot and page."""

import copy
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mutual3d.cost.axes import CostConditions, measure_costs
from mutual3d.cost.latency import Repeating
from mutual3d.cost.latency_key import EAGER
from mutual3d.cost.machine import device_name
from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.fastest import measured_configurations
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.deploy.timing import latency_key, measure_columns, with_columns
from mutual3d.evaluation.grid import build_table
from mutual3d.metrics.metrics import Metric
from mutual3d.metrics.recording import ConfidenceRecord, TopPredictionRecord
from mutual3d.pipeline.cascades import add_cascades
from mutual3d.pipeline.page import RunFacts, write_page, write_table_files
from mutual3d.pipeline.plans import DEFAULT_CASCADES, GridPlan
from mutual3d.pipeline.predictions import save_predictions
from mutual3d.pipeline.workspace import Workspace
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import ROW_COSTS, QueryTable
from mutual3d.utils import distributed
from mutual3d.utils.logging import logger

_LATENCY = "latency_ms"


def measure_grid(run: Workspace, plan: GridPlan) -> QueryTable | None:
    """Accuracy, cost and latency of every configuration: the query table, on the main process.

    One that fits is not measured again.
    """
    loader = plan.loader()
    # The costs that every grid has were not part of it: tables that are there stay those of their run.
    of_its_own = sorted({*plan.costs} ^ {*ROW_COSTS})
    if plan.cascades != DEFAULT_CASCADES:
        of_its_own.append(f"cascades of {plan.cascades}")
    measured_under = run.fingerprint(
        loader, run.grid_configurations(), plan.latency_devices, plan.latency_repeats, *of_its_own
    )  # fmt: skip
    path = run.output / "query_table.json"
    found = _find_table(path, measured_under)
    partial = run.partial_result(".grid", measured_under)
    if distributed.agree(found is not None, f"the table '{path}'"):
        assert found is not None, "all processes agree on it"
        logger.info("the grid was measured before: '%s'", path)
        if distributed.is_main():
            # Its latencies may be another machine's, or lack a runtime of this plan.
            timed = _with_latencies(run, plan, found)
            if timed is not found:
                found = timed
                found.save_json(path)
            _write_what_shows(run, found, loader.dataset)
        partial.remove()
        return found
    has_one_label = run.plan.measuring.metric(loader.dataset)().facts.has_one_label
    record = (ConfidenceRecord if plan.cascades else TopPredictionRecord) if has_one_label else None
    metrics = run.measure(loader, run.grid_configurations(), "measure the grid", partial, record)
    table = None
    if distributed.is_main():
        table = _build_table(run, plan, metrics, measured_under, loader.dataset)
        save_predictions(run.output, table, metrics, loader.dataset, run.plan.class_names)
        table.save_json(path)
        _write_what_shows(run, table, loader.dataset)
        logger.info("the best configuration for each budget:\n%s", table.format_fronts())
    distributed.barrier("the main process to measure latency and write the table")
    partial.remove()
    return table


def _find_table(path: Path, measured_under: str) -> QueryTable | None:
    """The table that was written under `measured_under`, or None."""
    try:
        table = QueryTable.load(path) if path.is_file() else None
    except ValueError as error:
        logger.warning("%s; it is replaced", error)
        return None
    if table and table.provenance.get("fingerprint") != measured_under:
        logger.info("'%s' belongs to other weights, data or settings: it is measured again", path)
        return None
    return table


def _build_table(
    run: Workspace, plan: GridPlan, metrics: Mapping[Configuration, Metric], measured_under: str, dataset: ClipDataset
) -> QueryTable:
    devices = _latency_devices(plan.latency_devices)
    cut = run.preprocessing
    conditions = CostConditions(cut.crop, run.device, cut.mean, cut.std, plan.latency_repeats)
    # Latencies are put in by `_with_latencies`.
    costs = measure_costs([name for name in plan.costs if name != _LATENCY], run.model, list(metrics), conditions, devices)
    provenance = _provenance(run, plan, next(iter(metrics.values())), devices, dataset)
    table = build_table(run.model, metrics, costs, {**provenance, "fingerprint": measured_under})
    return add_cascades(_with_latencies(run, plan, table), metrics, num_stages=plan.cascades)


def _with_latencies(run: Workspace, plan: GridPlan, table: QueryTable) -> QueryTable:
    """The table with what it lacks of this machine's latencies; itself where it lacks none.

    All rows in PyTorch on the model's own weights, and the Pareto front over GFLOPs in each runtime of the plan.
    """
    if _LATENCY not in plan.costs:
        return table
    repeating = Repeating(plan.latency_repeats, warmup=1)
    for device in _latency_devices(plan.latency_devices):
        network = copy.deepcopy(run.model).place(device)
        model = AdaptiveModel(network, preprocessing=run.preprocessing, table=table)
        every, front = [row.configuration for row in table.rows], measured_configurations(model)
        # The runtimes take networks that give a row of scores for each clip.
        wanted = plan.runtimes if network.gives_rows else ()
        names = _runtimes_on(wanted, next(network.parameters()))
        for runtimes, configurations in (([None], every), (names, front)):
            missing = [name for name in runtimes if str(latency_key(model, name)) not in table.devices]
            if missing:
                logger.info("measuring the latency of %d configurations in %s", len(configurations), ", ".join(n or EAGER for n in missing))
                table = with_columns(table, measure_columns(model, configurations, runtimes=missing, repeating=repeating))
    return table


def _runtimes_on(names: Sequence[str], weights: torch.Tensor) -> list[str]:
    """Of the named runtimes, those that are installed and compute where the weights are."""
    there = []
    for runtime in (RUNTIMES[name] for name in names):
        if not runtime.is_installed:
            extra = f": pip install -e .[{runtime.extra}]" if runtime.extra else ""
            logger.info("GRID.RUNTIMES names %s, which is not installed: not measured%s", runtime.name, extra)
        elif runtime.needs_clips:
            logger.warning("GRID.RUNTIMES names %s, which needs clips: measure it with `mutual3d bench MODEL --video CLIP`", runtime.name)
        elif runtime.placement(weights)[0].type == weights.device.type:
            there.append(runtime.name)
    return there


def _latency_devices(names: Sequence[str]) -> list[torch.device]:
    there = [name for name in names if name == "cpu" or (torch.device(name).index or 0) < torch.cuda.device_count()]
    for name in set(names) - set(there):
        logger.warning("GRID.LATENCY_DEVICES names %s and there is none: not measured", name)
    return [torch.device(name) for name in there]


def _provenance(
    run: Workspace, plan: GridPlan, metric: Metric, devices: Sequence[torch.device], dataset: ClipDataset
) -> dict[str, object]:
    crop = run.preprocessing.crop
    return {
        "metric": metric.primary,
        "split": plan.split,
        "num_views": dataset.num_views,
        "crop": crop,
        "cost_counted_at": f"{crop} x {crop} pixels",
        "num_videos": metric.num_videos,
        "sample": dataset.noun,
        **plan.about,
        "checkpoint": run.checkpoint_name,
        "latency_devices": ", ".join(f"{device}: {device_name(device)}" for device in devices) or "none",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }


def _write_what_shows(run: Workspace, table: QueryTable, dataset: ClipDataset) -> None:
    """The csv, plot and page of a table.

    Always from the table, which has a check sum of its own: a run that ended between the table and these left some out, or
    an earlier table's behind, and files that something else damaged look like any other.
    """
    write_table_files(run.output, table)
    write_page(run.output, table, RunFacts.of_run(run), dataset)
