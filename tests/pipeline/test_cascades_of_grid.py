"""Cascades of a grid: no further pass, the single configurations as they were, and what a model that runs them gives."""

from types import SimpleNamespace

import pytest
import torch
from batches import MEAN, STD, prepare
from tiny import SPACE, tiny_network

from mutual3d.cost.axes import CostConditions, measure_costs
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.evaluation import calibrate, measure
from mutual3d.evaluation.grid import build_table
from mutual3d.metrics.metrics import TopK
from mutual3d.metrics.recording import ConfidenceRecord, RecordingMetric, TopPredictionRecord
from mutual3d.pipeline.cascades import add_cascades

CLIPS = torch.randint(0, 256, (48, 3, 4, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
CONFIGURATIONS = SPACE.corners()[::2] + [SPACE.largest]
PROVENANCE = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24, "num_videos": 48}


class Measured:
    """Labels which are what the largest configuration says of most clips, so that it is the best and others are right too."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = tiny_network()
        calibrate(self.network, lambda skip: self.batches(torch.zeros(48, dtype=torch.int64))[skip:], CONFIGURATIONS, prepare=prepare)
        preprocessing = Preprocessing(mean=MEAN, std=STD, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
        self.model = AdaptiveModel(self.network, preprocessing=preprocessing)
        self.labels = self.model(CLIPS, configuration=SPACE.largest).argmax(1)
        self.labels[::12] ^= 1
        conditions = CostConditions(24, torch.device("cpu"), MEAN, STD)
        self.costs = measure_costs(("gflops", "parameters"), self.network, CONFIGURATIONS, conditions)
        self.plain = self.table(TopPredictionRecord)[0]
        self.measured, self.metrics = self.table(ConfidenceRecord)

    def batches(self, labels):
        return [
            SimpleNamespace(clips_BVCTHW=CLIPS[i : i + 16, None], labels=labels[i : i + 16], indices=torch.arange(i, i + 16), bad=[], boxes=None)
            for i in (0, 16, 32)
        ]

    def table(self, record):
        def empty():
            return RecordingMetric(TopK(), record())

        metrics = measure(self.network, lambda skip: self.batches(self.labels)[skip:], CONFIGURATIONS, prepare=prepare, metric=empty)
        return build_table(self.network, metrics, self.costs, PROVENANCE), metrics


@pytest.fixture(scope="module")
def grid():
    return Measured()


def test_they_are_found_in_what_was_kept_and_change_no_row(grid):
    table = add_cascades(grid.measured, grid.metrics, num_stages=2)
    assert table.rows == grid.measured.rows == grid.plain.rows
    assert 0 < len(table.cascades) <= 16 and {len(row.configuration.configurations) for row in table.cascades} == {2}
    assert list(table.cascades) == table.cascade_front()
    three = add_cascades(grid.measured, grid.metrics, num_stages=3)
    assert 0 < len(three.cascades) <= 16
    assert add_cascades(grid.plain, grid.table(TopPredictionRecord)[1], num_stages=2) is grid.plain


def test_a_model_that_runs_them_is_as_accurate_and_as_dear(grid):
    table = add_cascades(grid.measured, grid.metrics, num_stages=3)
    for row in table.cascades[:: max(len(table.cascades) // 4, 1)]:
        grid.model.table = table
        scores = grid.model.activate(str(row.configuration))(CLIPS)
        assert 100 * float((scores.argmax(1) == grid.labels).double().mean()) == pytest.approx(row.accuracy["top1_acc"])
        assert grid.model.spending.spent == pytest.approx(row.gflops)


def test_a_deciding_number_that_is_another_one_has_none(grid):
    class PerClass(TopK):
        def values(self):
            return {name: value / 2 for name, value in super().values().items()}

    metrics = {c: RecordingMetric(PerClass(), metric.record) for c, metric in grid.metrics.items()}
    for c, metric in metrics.items():
        metric.metric.sums = grid.metrics[c].metric.sums
    table = build_table(grid.network, metrics, grid.costs, PROVENANCE)
    assert add_cascades(table, metrics, num_stages=2) is table
