"""The grid and its query table, with what shows it: csv, plot and page."""

import datetime
from pathlib import Path

import torch

from mutual3d.cost.flops import count_costs
from mutual3d.cost.latency import device_name, measure_latencies
from mutual3d.evaluation.grid import build_table
from mutual3d.pipeline.plans import GridPlan
from mutual3d.pipeline.workspace import Workspace
from mutual3d.report.page import write_report
from mutual3d.report.plots import plot_accuracy
from mutual3d.table.query_table import QueryTable
from mutual3d.utils import distributed
from mutual3d.utils.logging import logger, read_json_stats


def measure_grid(run: Workspace, plan: GridPlan) -> QueryTable | None:
    """Accuracy, cost and latency of every configuration: the query table, on the main process.

    One that fits is not measured again.
    """
    loader = plan.loader()
    measured_under = run.fingerprint(
        loader, run.grid_configurations(), plan.latency_devices, plan.latency_repeats
    )  # fmt: skip
    path = run.output / "query_table.json"
    found = _find_table(path, measured_under)
    partial = run.partial_result(".grid", measured_under)
    if distributed.agree(found is not None, f"the table '{path}'"):
        logger.info("the grid was measured before: '%s'", path)
        if distributed.is_main():
            _write_what_shows(found, run.output)
        partial.remove()
        return found
    metrics = run.measure(loader, run.grid_configurations(), "measure the grid", partial)
    table = None
    if distributed.is_main():
        table = _build_table(run, plan, metrics, measured_under, loader.dataset.num_views)
        table.save_json(path)
        _write_what_shows(table, run.output)
        logger.info("the best configuration for each budget:\n%s", table.format(table.pareto_front()))
    distributed.barrier("the main process to measure latency and write the table")
    partial.remove()
    return table


def _find_table(path, measured_under):
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


def _build_table(run, plan, metrics, measured_under, num_views):
    configurations, crop = list(metrics), run.preprocessing.crop
    devices = _latency_devices(plan.latency_devices)
    latencies = {}
    for device in devices:
        latencies |= measure_latencies(
            run.model, configurations, crop, device, repeats=plan.latency_repeats,
            mean=run.preprocessing.mean, std=run.preprocessing.std,
        )  # fmt: skip
    costs = count_costs(run.model, configurations, crop)
    provenance = _provenance(run, plan, next(iter(metrics.values())), devices, num_views)
    return build_table(run.model, metrics, costs, latencies, {**provenance, "fingerprint": measured_under})


def _latency_devices(names):
    there = [name for name in names if name == "cpu" or (torch.device(name).index or 0) < torch.cuda.device_count()]
    for name in set(names) - set(there):
        logger.warning("GRID.LATENCY_DEVICES names %s and there is none: not measured", name)
    return [torch.device(name) for name in there]


def _provenance(run, plan, metric, devices, num_views):
    crop = run.preprocessing.crop
    return {
        "metric": metric.primary,
        "split": plan.split,
        "num_views": num_views,
        "crop": crop,
        "cost_counted_at": f"{crop} x {crop} pixels",
        "num_videos": metric.num_videos,
        **plan.about,
        "checkpoint": run.checkpoint_name,
        "latency_devices": ", ".join(f"{device}: {device_name(device)}" for device in devices) or "none",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }


def _write_what_shows(table: QueryTable, output: Path) -> None:
    """The csv, plot and page of a table.

    Always from the table, which has a check sum of its own: a run that ended between the table and these left some out, or
    an earlier table's behind, and files that something else damaged look like any other.
    """
    stats = read_json_stats(output / "stdout.log")
    history = [entry for entry in stats if entry.get("_type") in ("train_epoch", "val_epoch")]
    table.save_csv(output / "query_table.csv")
    plot_accuracy(table, output / "accuracy_vs_gflops.png")
    write_report(table, output / "report.html", history=history)
