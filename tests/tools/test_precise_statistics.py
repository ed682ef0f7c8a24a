"""BN.USE_PRECISE_STATS: a static network is tested with statistics that were computed, not with training's running ones."""

import pytest
import torch
from tiny import overrides, write_set

import mutual3d
from mutual3d.cli import run as run_net
from mutual3d.utils.files import load_tensors

STATIC = {"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "TEST.NUM_SPATIAL_CROPS": 1, "TEST.NUM_ENSEMBLE_VIEWS": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("static")
    (directory / "run.yaml").write_text("RNG_SEED: 3\n")
    write_set(directory / "set", num_videos=4)
    for name, precise in (("running", False), ("precise", True)):
        words = overrides(directory / "set", directory / name, **{**STATIC, "BN.USE_PRECISE_STATS": precise})
        run_net.main(["--cfg", str(directory / "run.yaml"), *words])
    return directory


def scores(directory, name):
    model = mutual3d.load(directory / name / "adaptive.pyth")
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (1, 3, 4, 24, 24), dtype=torch.uint8, generator=generator)
    return model.activate(model.network.space.largest)(clip)


def test_the_statistics_are_computed_used_and_deployed(finished):
    assert not (finished / "running" / "statistics.pyth").exists()
    assert list(load_tensors(finished / "precise" / "statistics.pyth")["statistics"]) == ["1-24-4"]
    assert "calibrate" in (finished / "precise" / "stdout.log").read_text()
    running, precise = (load_tensors(finished / n / "checkpoints" / "checkpoint_epoch_00001.pyth") for n in ("running", "precise"))
    assert all(torch.equal(value, precise["model_state"][key]) for key, value in running["model_state"].items())
    assert not torch.equal(scores(finished, "running"), scores(finished, "precise"))


def test_they_are_taken_again_where_the_run_goes_on(finished):
    words = overrides(finished / "set", finished / "precise", **{**STATIC, "BN.USE_PRECISE_STATS": True})
    before = scores(finished, "precise")
    run_net.main(["--cfg", str(finished / "run.yaml"), *words])
    assert "calibrated statistics from" in (finished / "precise" / "stdout.log").read_text()
    assert torch.equal(before, scores(finished, "precise"))
