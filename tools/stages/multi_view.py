"""The multi-view test, and the files of its results."""

from mutual3d.evaluation import PartialResult
from mutual3d.evaluation.calibration import statistics_to_dict
from mutual3d.utils import distributed
from mutual3d.utils.files import save_tensors, write_json
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import log_json_stats


def multi_view_test(run):
    """TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views of every video of TEST.SPLIT; a killed one goes on."""
    cfg, records = run.cfg, bool(run.cfg.TEST.SAVE_RESULTS_PATH)
    loader = run.loader(cfg.TEST.SPLIT, "multi_view")
    partial = PartialResult(run.output / ".test", _tested_under(run, loader, records), cfg.PARTIAL_SAVE_SECONDS)
    metrics = run.measure(loader, run.test_configurations, "test", partial, records)
    views = f"{loader.dataset.num_views}x{loader.dataset.num_crops}"
    results = {str(c): {k: f"{v:.2f}" for k, v in metric.values().items()} for c, metric in metrics.items()}
    shared = {"views": views, "crop": cfg.DATA.TEST_CROP_SIZE}
    for configuration, values in results.items():
        log_json_stats({"split": "test_final", "configuration": configuration, **shared, **values})
    if distributed.is_main():
        write_json(run.output / "test_results.json", {"split": cfg.TEST.SPLIT, **shared, "results": results})
        _write_details({c: metric.metric for c, metric in metrics.items()} if records else metrics, run.output)
        if records:
            scores = {str(c): metric.record.by_video(cfg.DETECTION.ENABLE) for c, metric in metrics.items()}
            save_tensors(run.output / cfg.TEST.SAVE_RESULTS_PATH, scores)
    distributed.barrier("the main process to write the results")
    partial.remove()


def _tested_under(run, loader, records):
    """The fingerprint of everything that the test's scores depend on."""
    cfg = run.cfg
    return fingerprint(
        run.model.state_dict(), statistics_to_dict(run.model.statistics), run.data_fingerprint(loader),
        run.test_configurations, cfg.DATA.MEAN, cfg.DATA.STD, cfg.DATA.ENSEMBLE_METHOD, cfg.MODEL.HEAD_ACT, records,
    )  # fmt: skip


def _write_details(metrics, output):
    """Average precision of each class and, of boxes, every detection: what the metrics have beyond one number."""
    per_class = {str(c): metric.per_class() for c, metric in metrics.items() if hasattr(metric, "per_class")}
    if per_class:
        write_json(output / "per_class_ap.json", per_class)
    for configuration, metric in metrics.items():
        if hasattr(metric, "write_results"):
            metric.write_results(output / f"detections_{configuration}.csv")
