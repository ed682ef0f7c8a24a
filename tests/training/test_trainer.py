"""The loop around the step: clipping, rates, TensorBoard, mixed precision through the config."""

import importlib
import re

import pytest
import torch
from tiny import overrides, tiny_network, write_set

from mutual3d.cli import run as run_net
from mutual3d.table.query_table import QueryTable
from mutual3d.training import GradientClipping, Trainer, TrainingCourse, build_optimizer
from mutual3d.utils.files import load_tensors, read_json
from mutual3d.utils.logging import read_json_stats

from test_step import batch, make_step  # isort: skip


class OneBatchLoader:
    num_samples = 4

    def state(self):
        return {}

    def load_state(self, states):
        pass

    def __len__(self):
        return 2

    def batches(self, epoch=0, start=0):
        clips, labels = batch(4)
        for _ in range(2):
            yield type("Batch", (), dict(clips_BVCTHW=clips[:, None], labels=labels, bad=[], boxes=None))


def make_trainer(schedule=lambda epoch: 0.1, course=TrainingCourse(2), **options):
    torch.manual_seed(0)
    model = tiny_network()
    step = make_step(model, subnets=["smallest"], objective="labels")
    optimizer = build_optimizer(model, base_lr=0.1, weight_decay=0.0)
    return Trainer(step, optimizer, OneBatchLoader(), schedule, course, device=torch.device("cpu"), **options)


def test_the_rate_is_set_at_every_iteration():
    asked = []
    make_trainer(lambda epoch: asked.append(epoch) or 0.01).train(start_epoch=1)
    assert asked == [1.0, 1.5]


def test_a_loader_is_given_what_each_process_had_of_the_epoch():
    """And nothing where the epoch is begun. What an earlier version saved says nothing of its loader."""
    trainer, given = make_trainer(), []
    trainer.loader.load_state = given.append
    trainer.loader.state = lambda: {"played": 7}
    saved = []
    trainer.inside_epoch = lambda epoch, iteration, parts: saved.append(parts)
    trainer._wishes = lambda: (False, True)
    trainer.train()
    assert given == [] and [part["loader"] for parts in saved for part in parts] == [{"played": 7}] * 2
    trainer.train(1, 1, saved[0])
    assert given == [[{"played": 7}]]
    trainer.train(1, 1, [{key: value for key, value in part.items() if key != "loader"} for part in saved[0]])
    assert given[1:] == [[{}]]


def test_gradients_are_clipped_by_norm_and_by_value():
    for clipping, measure, limit in (
        (GradientClipping(norm=1e-3), lambda gradients: torch.cat(gradients).norm(), 1e-3),
        (GradientClipping(value=1e-5), lambda gradients: torch.cat(gradients).abs().max(), 1e-5),
    ):
        trainer = make_trainer(course=TrainingCourse(2, clipping=clipping))
        trainer.train(start_epoch=1)
        gradients = [p.grad.flatten() for p in trainer.step.model.parameters()]
        assert measure(gradients) == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("start, alone", [(0.0, []), (0.5, [0]), (1.25, [0, 1, 2])])
def test_sub_networks_start_at_their_epoch(start, alone):
    trainer = make_trainer(course=TrainingCourse(2, subnets_start_epoch=start))
    ran, train_batch = [], trainer._train_batch

    def noted(*arguments):
        ran.append(train_batch(*arguments))
        return ran[-1]

    trainer._train_batch = noted
    trainer.train()
    space = trainer.step.model.space
    both = [space.largest, space.smallest]
    assert [result.configurations for result in ran] == [both[:1] if number in alone else both for number in range(4)]


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


def test_a_run_trains_calibrates_and_scores_with_its_own_number_of_threads(tmp_path, monkeypatch):
    data = write_set(tmp_path / "set", num_videos=4)
    (tmp_path / "tiny.yaml").write_text("RNG_SEED: 3\n")
    before, seen = torch.get_num_threads(), {}

    def noted(name, function):
        return lambda *given, **named: seen.setdefault(name, torch.get_num_threads()) and function(*given, **named)

    monkeypatch.setattr(Trainer, "_train_batch", noted("train", Trainer._train_batch))
    for name, module, function in (("calibrate", "calibration", "_see"), ("score", "measure", "score_batch")):
        module = importlib.import_module(f"mutual3d.evaluation.{module}")
        monkeypatch.setattr(module, function, noted(name, getattr(module, function)))
    words = overrides(data, tmp_path / "out", **{"NUM_THREADS": before + 1, "SOLVER.MAX_EPOCH": 1})
    run_net.main(["--cfg", str(tmp_path / "tiny.yaml"), *words])
    assert seen == dict.fromkeys(["train", "calibrate", "score"], before + 1)
    keys = QueryTable.load(tmp_path / "out/query_table.json").keys("latency_ms")
    assert keys and all(key.endswith(f"-t{before}") for key in keys) and torch.get_num_threads() == before


@pytest.mark.parametrize("objective", [{}, {"MUTUAL.OBJECTIVE": "ensemble_distillation", "MUTUAL.SUBNETS": ["each_size"], "MUTUAL.LARGEST": False}], ids=["mutual", "joint"])
def test_a_profile_tells_a_steps_time_by_part_and_changes_no_bit(tmp_path, objective):
    data = write_set(tmp_path / "set", num_videos=8, splits=("train",))
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    weights = []
    for output, options in ((tmp_path / "plain", []), (tmp_path / "profiled", ["--profile"])):
        words = overrides(data, output, **{
            "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 8,
            "TRAIN.CHECKPOINT_PERIOD": 8, **objective,
        })  # fmt: skip
        run_net.main(["--cfg", str(config), *options, *words])
        weights.append(load_tensors(output / "checkpoints" / "checkpoint_epoch_00008.pyth")["model_state"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    log = (tmp_path / "profiled" / "stdout.log").read_text()
    table = log.partition("a training step by part, medians of 8 steps:\n")[2].partition("\n[")[0]
    parts = [(label, float(ms)) for ms, label in re.findall(r"(-?[\d.]+) ms +-?[\d.]+ %  (.*)", table)]
    labels = [label for label, _ in parts]
    kinds = ["forward of all networks", "backward of all networks"] if objective else ["forward, 1-24-4", "backward, 1-24-4", "forward, 0.5-16-2", "backward, 0.5-16-2"]
    assert {"waiting for data", "to the device", "clipping and the optimizer", "the rest", *kinds} <= set(labels)
    assert all(ms > 0 for label, ms in parts if label in kinds)
    trace = read_json(tmp_path / "profiled" / "step_trace.json")
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "clipping and the optimizer" in names and any(name.startswith(kinds[1].split(",")[0]) for name in names if name)


def test_that_the_first_steps_cost_less_is_told(tmp_path):
    data = write_set(tmp_path / "set", num_videos=4, splits=("train",))
    config = tmp_path / "tiny.yaml"
    config.write_text("RNG_SEED: 3\n")
    words = overrides(data, tmp_path / "out", **{
        "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False, "MUTUAL.SUBNETS_START_EPOCH": 1.5,
    })  # fmt: skip
    run_net.main(["--cfg", str(config), "--profile", *words])
    log = (tmp_path / "out" / "stdout.log").read_text()
    assert "trains alone before epoch 1.5 (MUTUAL.SUBNETS_START_EPOCH): until then `eta` is too early" in log
    assert "--profile times the first steps, in which the largest configuration trains alone" in log


def test_a_profile_of_nothing_is_told(tmp_path):
    with pytest.raises(ValueError, match="--profile times training steps, and TRAIN.ENABLE is False"):
        run_net.main(["--profile", "--cfg", "Demo/MUTUAL_X3D", "TRAIN.ENABLE", "False", "OUTPUT_DIR", str(tmp_path)])
