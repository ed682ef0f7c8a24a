"""What the benchmark of segmentation trains is legal, each size is there once to compare with, and a plot shows the seeds."""

import pytest
import segmentation

from mutual3d.models.build import own_statistics
from mutual3d.pipeline import load_config

RUNS = {name: run for runs in segmentation.METHODS.values() for name, run in runs.items()}


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_a_legal_config_of_the_same_pictures(name):
    words = [str(word) for pair in RUNS[name].changes.items() for word in pair]
    cfg, base = load_config(segmentation.CONFIG, words), load_config(segmentation.CONFIG)
    assert set(RUNS[name].sizes) <= set(cfg.MUTUAL.SPATIAL_SIZES) and max(cfg.MUTUAL.SPATIAL_SIZES) == cfg.DATA.TRAIN_CROP_SIZE
    for section in ("DATA", "SOLVER", "RESNET", "REFINENET"):
        assert cfg[section] == base[section]
    if name.startswith("alone"):
        # No statistics of another size are taken for its own.
        assert own_statistics(cfg) == "none" and cfg.MUTUAL.BATCHNORM == "calibrated"


def test_each_size_is_trained_alone_once():
    sizes = [size for run in segmentation.METHODS["alone"].values() for size in run.sizes]
    assert sorted(sizes) == list(segmentation.SIZES)


def test_points_are_means_over_seeds_at_full_width(tmp_path):
    rows = [
        {"method": "rs_net", "configuration": configuration, "miou": miou}
        for configuration, miou in (("1-32", "10"), ("1-32", "20"), ("0.5-32", "90"), ("1-96", "40"))
    ]
    assert segmentation.points(rows, "rs_net") == [(32, 15.0, 10.0, 20.0), (96, 40.0, 40.0, 40.0)]
    segmentation.plot(rows, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
