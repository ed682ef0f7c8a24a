"""BN.USE_PRECISE_STATS: a static network's running statistics are those of training clips, at PySlowFast's moments."""

import itertools

import numpy as np
import pytest
import torch
from tiny import overrides, same, write_set

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.data.build import build_loader
from mutual3d.evaluation import calibrate
from mutual3d.layers import slimmable_norms
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.sampling import prepare_clip
from mutual3d.utils.files import load_tensors, read_json
from mutual3d.utils.logging import read_json_stats

STATIC = {"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 3, "TRAIN.CHECKPOINT_PERIOD": 1, "TRAIN.EVAL_PERIOD": 2, "TEST.NUM_SPATIAL_CROPS": 1,
          "TEST.NUM_ENSEMBLE_VIEWS": 1, "TRAIN.BATCH_SIZE": 2}  # fmt: skip
PRECISE = {**STATIC, "BN.USE_PRECISE_STATS": True, "BN.NUM_BATCHES_PRECISE": 2}


def words_of(directory, name, changes):
    return ["--cfg", str(directory / "run.yaml"), *overrides(directory / "set", directory / name, **changes)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("static")
    (directory / "run.yaml").write_text("RNG_SEED: 3\n")
    write_set(directory / "set", num_videos=8)
    for name, changes in (("running", STATIC), ("precise", PRECISE), ("averaged", {**PRECISE, "MODEL.EMA": True})):
        run_net.main(words_of(directory, name, changes))
    return directory


def checkpoint(directory, name, epoch):
    return load_tensors(directory / name / "checkpoints" / f"checkpoint_epoch_{epoch:05d}.pyth")


def expected_statistics(directory, name, state, epoch, count):
    """Mean and variance of each norm over the first `count` batches of an epoch's training clips, of a network with these weights."""
    cfg = load_config(directory / "run.yaml", overrides(directory / "set", directory / name, **PRECISE))
    model = build_model(cfg)
    model.load_state_dict(state)
    loader = build_loader(cfg, "train", "train")
    batches = itertools.islice(loader.batches(epoch=epoch - 1), count)
    prepare = lambda clips: prepare_clip(clips, torch.device("cpu"), cfg.DATA.MEAN, cfg.DATA.STD)  # noqa: E731
    calibrate(model, lambda done: batches, [model.space.largest], prepare=prepare)
    return model.statistics[model.space.largest]


@pytest.mark.parametrize("name", ["precise", "averaged"])
def test_each_checkpoint_has_the_statistics_of_training_clips_of_its_epoch(finished, name):
    for epoch in (1, 2, 3):
        state = checkpoint(finished, name, epoch)["model_state"]
        expected = expected_statistics(finished, name, state, epoch, count=2)
        for norm, mean in expected.mean.items():
            torch.testing.assert_close(state[f"{norm}.running_mean"], mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(state[f"{norm}.running_var"], expected.variance[norm], rtol=1e-4, atol=1e-5)
    whole = expected_statistics(finished, name, state, 3, count=4)
    assert any(not torch.allclose(state[f"{norm}.running_mean"], mean, rtol=1e-3) for norm, mean in whole.mean.items())


def test_weights_are_those_of_the_run_without_and_nothing_is_calibrated(finished):
    running, precise = (checkpoint(finished, name, 3)["model_state"] for name in ("running", "precise"))
    differ = {key for key, value in running.items() if not torch.equal(value, precise[key])}
    assert differ and all(key.endswith(("running_mean", "running_var")) for key in differ)
    for name in ("running", "precise"):
        assert not (finished / name / "statistics.pyth").exists()


def test_what_is_validated_measured_tested_and_deployed_has_them(finished):
    model = mutual3d.load(finished / "precise" / "adaptive.pyth")
    state = checkpoint(finished, "precise", 3)["model_state"]
    assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())
    log = read_json_stats(finished / "precise" / "stdout.log")
    assert [entry["epoch"] for entry in log if entry.get("_type") == "val_epoch"] == ["2/3", "3/3"]
    (row,), results = model.table.rows, read_json(finished / "precise" / "test_results.json")["results"]
    assert float(results["1-24-4"]["top1_acc"]) == row.accuracy["top1_acc"] == 100 - [e for e in log if e.get("_type") == "val_epoch"][-1]["top1_err"]


@pytest.mark.parametrize("name, changes", [("precise", PRECISE), ("averaged", {**PRECISE, "MODEL.EMA": True})])
def test_a_run_that_goes_on_ends_as_one_that_did_not_stop(finished, tmp_path, name, changes):
    output = tmp_path / "set_and_runs"
    words = words_of(finished, name, {**changes, "OUTPUT_DIR": output})
    run_net.main(words)
    for epoch in (2, 3):
        (output / "checkpoints" / f"checkpoint_epoch_{epoch:05d}.pyth").unlink()
    run_net.main(words)
    again = load_tensors(output / "checkpoints" / "checkpoint_epoch_00003.pyth")["model_state"]
    assert same(again, checkpoint(finished, name, 3)["model_state"])


def test_a_stop_in_the_midst_of_it_is_made_up_for(finished, tmp_path, monkeypatch):
    """The last epoch is trained when the stop comes: the next run computes its statistics, saves and validates."""
    import mutual3d.pipeline.training as training
    from mutual3d.utils.stopping import StopRequestedError

    output, calls, compute = tmp_path / "out", [], training.compute_statistics

    def stopped(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise StopRequestedError("a test")
        return compute(*arguments, **keywords)

    words = words_of(finished, "precise", {**PRECISE, "OUTPUT_DIR": output})
    monkeypatch.setattr(training, "compute_statistics", stopped)
    with pytest.raises(StopRequestedError):
        run_net.main(words)
    assert not (output / "checkpoints" / "checkpoint_epoch_00003.pyth").exists()
    run_net.main(words)
    assert [path.name for path in sorted((output / "checkpoints").iterdir())] == [f"checkpoint_epoch_0000{epoch}.pyth" for epoch in (1, 2, 3)]
    again = load_tensors(output / "checkpoints" / "checkpoint_epoch_00003.pyth")["model_state"]
    assert same(again, checkpoint(finished, "precise", 3)["model_state"])


def test_a_run_that_only_tests_leaves_a_checkpoint_s_statistics_alone(finished, tmp_path):
    """PySlowFast's files name no training set where they test, and it computes nothing then."""
    path = finished / "running" / "checkpoints" / "checkpoint_epoch_00003.pyth"
    changes = {**PRECISE, "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": path, "OUTPUT_DIR": tmp_path / "out"}
    run_net.main(words_of(finished, "running", changes))
    network = mutual3d.load(tmp_path / "out" / "adaptive.pyth").network
    assert not network.statistics and len(slimmable_norms(network)) > 3
    state = load_tensors(path)["model_state"]
    assert all(np.array_equal(value, state[key]) for key, value in network.state_dict().items())
