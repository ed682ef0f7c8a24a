"""What a trained network says of every video of a list, as a file that another training learns from (TRAIN.TEACHER_LOGITS)."""

import dataclasses

import torch

from mutual3d.deploy.adaptive_model import load
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.evaluation import PartialResult
from mutual3d.metrics.metrics import Metric
from mutual3d.metrics.recording import RecordingMetric, ScoreRecord
from mutual3d.pipeline.plans import LogitsPlan
from mutual3d.pipeline.workspace import Workspace, check_same_classes
from mutual3d.training import save_logits
from mutual3d.utils import distributed


def write_logits(plan: LogitsPlan, device: torch.device) -> Metric:
    """Write the plan's file: a row of logits for each video of its list that can be read, the mean of its views'; its metric on the list.

    Each process does its share of the videos, and a pass that was killed goes on. Raises ValueError for a network that gives no row of logits for each
    video, a config that is not of the bundle's run, and a configuration or views that there are not; UnreadableVideosError as any evaluation.
    """
    model = load(plan.bundle)
    check_gives_classes(model, "a teacher's file")
    if model.network.takes_boxes:
        raise ValueError(f"'{plan.bundle}' classifies boxes in a video, and a teacher's file has a row for each video: give a network of whole videos")
    measuring = plan.run.measuring
    if model.preprocessing != measuring.preprocessing:
        raise ValueError(f"the config cuts and normalises clips otherwise than '{plan.bundle}' does: give the config.yaml of its run with --cfg")
    check_same_classes(plan.bundle, model.class_names, plan.run.class_names)
    # Measured as ever, but for what becomes of the logits.
    measuring = dataclasses.replace(measuring, preprocessing=dataclasses.replace(measuring.preprocessing, activation="none", ensemble="sum"))
    run = Workspace(dataclasses.replace(plan.run, make_model=lambda: model.network, measuring=measuring), device)
    configuration = run.model.space.check(plan.configuration) if plan.configuration else run.model.space.largest
    loader = plan.loader()
    if loader.dataset.num_views != plan.num_views:
        raise ValueError(f"{plan.num_views} views of each sample are to be averaged, and this data set gives {loader.dataset.num_views}: leave --views out")
    # Beside the file, wherever that is: nothing is written into the folder of the run.
    partial = PartialResult(plan.output.with_name(f".{plan.output.name}.partial"), run.fingerprint(loader, configuration), plan.run.save_seconds)
    found = run.measure(loader, [configuration], f"logits of {configuration}", partial, ScoreRecord)[configuration]
    assert isinstance(found, RecordingMetric)
    if distributed.is_main():
        rows = found.record.rows()
        titles = [loader.dataset.title_of(index) for index in rows["indices"].tolist()]
        save_logits(plan.output, titles, rows["scores"], model.class_names)
    distributed.barrier("the main process to write the logits")
    partial.remove()
    return found
