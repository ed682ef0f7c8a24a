"""The loop around the step: clipping, rates, TensorBoard, mixed precision through the config."""

import pytest
import torch
from tiny import overrides, tiny_network, write_set

from mutual3d.cli import run as run_net
from mutual3d.training import GradientClipping, Trainer, TrainingCourse, build_optimizer
from mutual3d.utils.logging import read_json_stats

from test_step import batch, make_step  # isort: skip


class OneBatchLoader:
    num_samples = 4

    def __len__(self):
        return 2

    def batches(self, epoch=0, start=0):
        clips, labels = batch(4)
        for _ in range(2):
            yield type("Batch", (), dict(clips_BVCTHW=clips[:, None], labels=labels, bad=[], boxes=None))


def make_trainer(schedule=lambda epoch: 0.1, clipping=GradientClipping(), **options):
    torch.manual_seed(0)
    model = tiny_network()
    step = make_step(model, subnets=["smallest"], objective="labels")
    optimizer = build_optimizer(model, base_lr=0.1, weight_decay=0.0)
    return Trainer(step, optimizer, OneBatchLoader(), schedule, TrainingCourse(2, clipping=clipping), device=torch.device("cpu"), **options)


def test_the_rate_is_set_at_every_iteration():
    asked = []
    make_trainer(lambda epoch: asked.append(epoch) or 0.01).train(start_epoch=1)
    assert asked == [1.0, 1.5]


def test_gradients_are_clipped_by_norm_and_by_value():
    for clipping, measure, limit in (
        (GradientClipping(norm=1e-3), lambda gradients: torch.cat(gradients).norm(), 1e-3),
        (GradientClipping(value=1e-5), lambda gradients: torch.cat(gradients).abs().max(), 1e-5),
    ):
        trainer = make_trainer(clipping=clipping)
        trainer.train(start_epoch=1)
        gradients = [p.grad.flatten() for p in trainer.step.model.parameters()]
        assert measure(gradients) == pytest.approx(limit, rel=1e-3)


def test_epochs_are_reported_as_finished():
    finished = []
    make_trainer(after_epoch=finished.append).train()
    assert finished == [1, 2]


def test_tensorboard_and_mixed_precision_from_the_config(tmp_path):
    pytest.importorskip("tensorboard")
    data = write_set(tmp_path / "set", num_videos=8)
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    words = overrides(data, tmp_path / "out", **{
        "TENSORBOARD.ENABLE": True, "TRAIN.MIXED_PRECISION": True, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False,
        "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "TRAIN.ACCUMULATION_STEPS": 2, "LOG_PERIOD": 1,
    })  # fmt: skip
    run_net.main(["--cfg", str(config), *words])
    assert list((tmp_path / "out" / "runs-kinetics").iterdir())
    kinds = [entry["_type"] for entry in read_json_stats(tmp_path / "out" / "stdout.log")]
    assert kinds == ["train_iter", "train_iter", "train_epoch", "val_epoch"]
