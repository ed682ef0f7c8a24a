"""The multi-view test, and the files of its results."""

from mutual3d.utils import distributed
from mutual3d.utils.files import save_tensors, write_json
from mutual3d.utils.logging import log_json_stats


def multi_view_test(run):
    """TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views of every video of TEST.SPLIT."""
    cfg = run.cfg
    loader = run.loader(cfg.TEST.SPLIT, "multi_view")
    scores = {}
    metrics = run.measure(loader, run.test_configurations, "test", on_scores=_collector(scores))
    views = f"{loader.dataset.num_views}x{loader.dataset.num_crops}"
    results = {str(c): {k: f"{v:.2f}" for k, v in metric.values().items()} for c, metric in metrics.items()}
    shared = {"views": views, "crop": cfg.DATA.TEST_CROP_SIZE}
    for configuration, values in results.items():
        log_json_stats({"split": "test_final", "configuration": configuration, **shared, **values})
    if distributed.is_main():
        write_json(run.output / "test_results.json", {"split": cfg.TEST.SPLIT, **shared, "results": results})
        _write_details(metrics, run.output)
    if cfg.TEST.SAVE_RESULTS_PATH:
        _save_scores(scores, run.output / cfg.TEST.SAVE_RESULTS_PATH)


def _collector(scores):
    """Keep every video's scores by configuration and position in the csv."""

    def collect(configuration, indices, values):
        scores.setdefault(str(configuration), {}).update(zip(indices.tolist(), values))

    return collect


def _write_details(metrics, output):
    """Average precision of each class and, of boxes, every detection: what the metrics have beyond one number."""
    per_class = {str(c): metric.per_class() for c, metric in metrics.items() if hasattr(metric, "per_class")}
    if per_class:
        write_json(output / "per_class_ap.json", per_class)
    for configuration, metric in metrics.items():
        if hasattr(metric, "write_results"):
            metric.write_results(output / f"detections_{configuration}.csv")


def _save_scores(scores, path):
    """Every process's scores in one file: {configuration: {position in the csv: scores}}."""
    joined = {}
    for part in distributed.gather(scores):
        for configuration, videos in part.items():
            joined.setdefault(configuration, {}).update(videos)
    if distributed.is_main():
        save_tensors(path, joined)
