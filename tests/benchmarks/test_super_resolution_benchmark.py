"""The comparison of one US-Net for super-resolution with networks alone, on a set of six images."""

import csv

import super_resolution
from published import write_div2k

SMALL = [
    "WDSR.NUM_FEATURES", "8", "WDSR.NUM_BLOCKS", "1", "SUPER_RESOLUTION.PATCHES_PER_IMAGE", "2", "DATA.TRAIN_CROP_SIZE", "16",
    "DATA.TEST_CROP_SIZE", "16", "MUTUAL.SPATIAL_SIZES", "[16]", "TRAIN.BATCH_SIZE", "4", "GRID.WIDTH_STEP", "0.25", "NUM_GPUS", "0",
    "DATA_LOADER.NUM_WORKERS", "0",
]  # fmt: skip


def test_it_writes_a_row_for_each_width_each_network_alone_and_bicubic_interpolation(tmp_path):
    data = write_div2k(tmp_path / "set")
    words = ["--config", "DIV2K", "--data", data, "--epochs", "1", "--filters", "4", "8", "--output", tmp_path, "--results", tmp_path / "results"]
    super_resolution.main([str(word) for word in [*words, "--opts", *SMALL]])
    with open(tmp_path / "results/super_resolution_div2k.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["filters"]) for row in rows] == [
        *((name, count) for name in super_resolution.ANY_WIDTH for count in "468"), ("alone", "4"), ("alone", "8"), ("bicubic", "0"),
    ]  # fmt: skip
    assert rows[0]["gflops"] == rows[3]["gflops"] == rows[6]["gflops"] == rows[9]["gflops"] and rows[2]["gflops"] == rows[10]["gflops"]
    assert all(5 < float(row["psnr"]) < 60 for row in rows) and float(rows[-1]["psnr"]) > 25
    assert (tmp_path / "results/super_resolution_div2k.png").stat().st_size > 5000
