"""The multi-view test, and the files of its results."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mutual3d.metrics.metrics import Metric
from mutual3d.metrics.recording import RecordingMetric, ScoreRecord
from mutual3d.pipeline.plans import TestPlan
from mutual3d.pipeline.workspace import Workspace, network_fingerprint
from mutual3d.sampling import Configuration
from mutual3d.utils import distributed
from mutual3d.utils.files import save_tensors, write_json
from mutual3d.utils.logging import log_json_stats

TEST_RESULTS = "test_results.json"


def multi_view_test(run: Workspace, plan: TestPlan) -> None:
    """Several views of every video of the split; a killed test goes on. Writes test_results.json, which says which network it is of."""
    loader, records = plan.loader(), plan.scores is not None
    tested_under = run.fingerprint(loader, run.test_configurations(), records)
    partial = run.partial_result(".test", tested_under)
    metrics = run.measure(loader, run.test_configurations(), "test", partial, ScoreRecord if records else None)
    views = f"{loader.dataset.num_views}x{loader.dataset.num_crops}"
    results = {str(c): {k: f"{v:.2f}" for k, v in metric.values().items()} for c, metric in metrics.items()}
    shared = {"views": views, "crop": run.preprocessing.crop}
    for configuration, values in results.items():
        log_json_stats({"split": "test_final", "configuration": configuration, **shared, **values})
    if distributed.is_main():
        metric = next(iter(metrics.values()))
        content = {
            "split": plan.split, **shared, "num_videos": metric.num_videos, "sample": loader.dataset.noun, "metric": metric.primary,
            "metrics": metric.facts.to_dict(), "network": network_fingerprint(run.model), "results": results,
        }  # fmt: skip
        write_json(run.output / TEST_RESULTS, content)
        _write_details(metrics, run.output)
        if plan.scores is not None:
            save_tensors(run.output / plan.scores, _scores(metrics, plan.has_boxes))
    distributed.barrier("the main process to write the results")
    partial.remove()


def _scores(metrics: Mapping[Configuration, Metric], has_boxes: bool) -> dict[str, dict[int, torch.Tensor]]:
    """{configuration: {video: its scores, or those of its boxes}} of metrics that keep them."""
    records = {str(c): metric.record for c, metric in metrics.items() if isinstance(metric, RecordingMetric)}
    return {name: record.by_video(has_boxes) for name, record in records.items() if isinstance(record, ScoreRecord)}


def _write_details(metrics: Mapping[Configuration, Metric], output: Path) -> None:
    """Average precision of each class and, of boxes, every detection: what the metrics have beyond one number."""
    per_class = {str(c): values for c, metric in metrics.items() if (values := metric.per_class()) is not None}
    if per_class:
        write_json(output / "per_class_ap.json", per_class)
    for configuration, metric in metrics.items():
        metric.write_details(output, str(configuration))
