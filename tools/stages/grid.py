"""Calibration, the grid and its query table, and the one file that is deployed."""

import datetime
import functools
import logging

import torch

from mutual3d.data.build import image_resize
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.evaluation import PartialResult
from mutual3d.table.query_table import QueryTable
from mutual3d.evaluation import calibrate as calibrate_model
from mutual3d.evaluation.calibration import statistics_from_dict, statistics_to_dict
from mutual3d.cost.latency import device_name
from mutual3d.cost.flops import count_costs
from mutual3d.cost.latency import measure_latencies
from mutual3d.evaluation.grid import build_table
from mutual3d.report.plots import plot_accuracy
from mutual3d.report.page import write_report
from mutual3d.evaluation.resume import WRONG_CONTENT, describe
from mutual3d.utils import distributed
from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger, read_json_stats

# ---- Calibration -----------------------------------------------------------------------------------------------------


def calibrate(run):
    """Statistics of every configuration that the run will measure, or an earlier run's of the same weights."""
    cfg, loader = run.cfg, run.calibration_loader()
    wanted = list(dict.fromkeys([*run.configurations(), *run.test_configurations]))
    average = cfg.CALIBRATION.AVERAGE
    data = run.data_fingerprint(loader)
    calibrated_under = fingerprint(run.model.state_dict(), wanted, data, cfg.DATA.MEAN, cfg.DATA.STD, average)
    partial = PartialResult(run.output / ".calibration", calibrated_under, cfg.PARTIAL_SAVE_SECONDS)
    if load_statistics(run, calibrated_under):
        partial.remove()
        return
    calibrate_model(
        run.model, functools.partial(loader.batches, 0), wanted, prepare=run.prepare, average=average,
        num_batches=len(loader), partial=partial, max_unreadable=cfg.DATA_LOADER.MAX_UNREADABLE_TRAIN,
        num_videos=loader.num_samples,
    )  # fmt: skip
    if distributed.is_main():
        statistics = statistics_to_dict(run.model.statistics)
        content = {"fingerprint": calibrated_under, "weights": fingerprint(run.model.state_dict()), "statistics": statistics}
        save_tensors(run.output / "statistics.pyth", content)
    distributed.barrier("the main process to save the statistics")
    partial.remove()


def load_statistics(run, calibrated_under=None):
    """Take statistics.pyth if it was computed under `calibrated_under`, or, without one, for the weights at hand."""
    path = run.output / "statistics.pyth"
    if not distributed.agree(path.is_file(), f"whether there is a '{path}'"):
        return False
    usable = _usable_statistics(path, run.model, calibrated_under)
    # All processes act alike, also when the disk shows one of them another file.
    if not all(found is not None for found in distributed.gather(usable and True)):
        return False
    run.model.set_statistics(usable)
    logger.info("calibrated statistics from '%s'", path)
    return True


def _usable_statistics(path, model, calibrated_under):
    """What a file has for these weights, data and settings; None when it is another's, or damaged, which is said."""
    try:
        saved = load_tensors(path)
        key, wanted = ("fingerprint", calibrated_under) if calibrated_under else ("weights", fingerprint(model.state_dict()))
        if saved[key] != wanted:
            logger.info("'%s' belongs to other weights, data or settings: it is computed again", path)
            return None
        return statistics_from_dict(saved["statistics"], model)
    except WRONG_CONTENT as error:
        logger.warning("'%s' cannot be used (%s): it is computed again where CALIBRATION.ENABLE is True", path, describe(error))
        return None


# ---- The grid --------------------------------------------------------------------------------------------------------


def measure_grid(run):
    """Accuracy, cost and latency of every configuration: the query table. One that fits is not measured again."""
    cfg = run.cfg
    loader = run.loader(cfg.GRID.SPLIT, "single_view", num_views=cfg.GRID.NUM_VIEWS)
    measured_under = fingerprint(
        run.model.state_dict(), statistics_to_dict(run.model.statistics), run.data_fingerprint(loader),
        run.configurations(), cfg.DATA.MEAN, cfg.DATA.STD, cfg.DATA.ENSEMBLE_METHOD,
        cfg.MODEL.HEAD_ACT, cfg.GRID.LATENCY_DEVICES, cfg.GRID.LATENCY_REPEATS,
    )  # fmt: skip
    path = run.output / "query_table.json"
    found = _find_table(path, measured_under)
    partial = PartialResult(run.output / ".grid", measured_under, cfg.PARTIAL_SAVE_SECONDS)
    if distributed.agree(found is not None, f"the table '{path}'"):
        logger.info("the grid was measured before: '%s'", path)
        if distributed.is_main():
            _write_what_shows(found, run.output, only_missing=True)
        partial.remove()
        return found
    metrics = run.measure(loader, run.configurations(), "measure the grid", partial)
    table = _build_table(run, metrics, measured_under, loader.dataset.num_views) if distributed.is_main() else None
    if distributed.is_main():
        table.save_json(path)
        _write_what_shows(table, run.output)
        logger.info("the best configuration for each budget:\n%s", table.format(table.frontier()))
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


def _build_table(run, metrics, measured_under, num_views):
    cfg, configurations = run.cfg, list(metrics)
    devices = _latency_devices(cfg.GRID.LATENCY_DEVICES)
    latencies = {}
    for device in devices:
        latencies |= measure_latencies(
            run.model, configurations, cfg.DATA.TEST_CROP_SIZE, device,
            repeats=cfg.GRID.LATENCY_REPEATS, mean=cfg.DATA.MEAN, std=cfg.DATA.STD,
        )  # fmt: skip
    costs = count_costs(run.model, configurations, cfg.DATA.TEST_CROP_SIZE)
    provenance = _provenance(run, next(iter(metrics.values())), devices, num_views)
    return build_table(run.model, metrics, costs, latencies, {**provenance, "fingerprint": measured_under})


def _latency_devices(names):
    there = [name for name in names if name == "cpu" or (torch.device(name).index or 0) < torch.cuda.device_count()]
    for name in set(names) - set(there):
        logger.warning("GRID.LATENCY_DEVICES names %s and there is none: not measured", name)
    return [torch.device(name) for name in there]


def _provenance(run, metric, devices, num_views):
    cfg = run.cfg
    return {
        "metric": metric.primary,
        "split": cfg.GRID.SPLIT,
        "num_views": num_views,
        "crop": cfg.DATA.TEST_CROP_SIZE,
        "cost_counted_at": f"{cfg.DATA.TEST_CROP_SIZE} x {cfg.DATA.TEST_CROP_SIZE} pixels",
        "num_videos": metric.num_videos,
        "dataset": cfg.DATA.PATH_TO_DATA_DIR,
        "model": cfg.MODEL.MODEL_NAME,
        "checkpoint": run.checkpoint_name,
        "latency_devices": ", ".join(f"{device}: {device_name(device)}" for device in devices) or "none",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }


def _write_what_shows(table, output, only_missing=False):
    """The csv, plot and page of a table that is saved in `output`.

    only_missing: those that are there and not older than the table stay. A run that ended between the table and these
    left some out, or an earlier table's behind.
    """
    stats = read_json_stats(output / "stdout.log")
    history = [entry for entry in stats if entry.get("_type") in ("train_epoch", "val_epoch")]
    writers = {
        "query_table.csv": table.save_csv,
        "accuracy_vs_gflops.png": functools.partial(plot_accuracy, table),
        "report.html": functools.partial(write_report, table, history=history),
    }
    measured_at = (output / "query_table.json").stat().st_mtime_ns
    for name, write in writers.items():
        path = output / name
        if not only_missing or not path.is_file() or path.stat().st_mtime_ns < measured_at:
            write(path)
            logger.log(logging.INFO if only_missing else logging.DEBUG, "'%s' is made from the table", path)


# ---- The deployed file -----------------------------------------------------------------------------------------------


def save_adaptive(run, table):
    """Write adaptive.pyth: weights, statistics and table, for mutual3d.load.

    Without a table, a file that is there stays in a run that only tests, and where it holds the same network: it may
    have one.
    """
    path, data = run.output / "adaptive.pyth", run.cfg.DATA
    if table is None and path.is_file() and (run.only_tests or _holds_this_network(path, run.model)):
        return
    preprocessing = Preprocessing(
        mean=tuple(data.MEAN), std=tuple(data.STD), num_frames=data.NUM_FRAMES, sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS, crop=data.TEST_CROP_SIZE, activation=run.cfg.MODEL.HEAD_ACT,
        ensemble=data.ENSEMBLE_METHOD, resize=image_resize(run.cfg),
    )  # fmt: skip
    model = AdaptiveModel(run.model, preprocessing=preprocessing, table=table, class_names=run.class_names)
    model.save(path)


def _holds_this_network(path, model):
    try:
        saved = load_tensors(path)
        return fingerprint(saved["model_state"], saved["statistics"]) == fingerprint(
            model.state_dict(), statistics_to_dict(model.statistics)
        )
    except WRONG_CONTENT:
        return False
