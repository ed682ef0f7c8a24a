import csv
import functools
import itertools
import subprocess
import sys

import pytest
from tiny import ROOT

from mutual3d.cli import complexity as tool
from mutual3d.cost.complexity import counted_step_cost

KINETICS = ROOT / "configs" / "Kinetics"

# One configuration of each width, which is enough to print everything.
ONE_SIZE = {
    "MUTUAL_X3D_XS": ["MUTUAL.SPATIAL_SIZES", "[160]", "MUTUAL.TEMPORAL_SIZES", "[4]"],
    "MUTUAL_SLOW_8x8_R50": ["MUTUAL.SPATIAL_SIZES", "[224]", "MUTUAL.TEMPORAL_SIZES", "[8]"],
    "MUTUAL_SLOWFAST_4x16_R50": ["MUTUAL.SPATIAL_SIZES", "[224]", "MUTUAL.TEMPORAL_SIZES", "[4]"],
    "X3D_XS": [],
    "SLOWFAST_8x8_R50": [],
}


@pytest.fixture
def printed(capsys):
    def run(name, *arguments):
        tool.main(["--cfg", str(KINETICS / f"{name}.yaml"), *arguments])
        return capsys.readouterr().out

    return run


def column(text, heading):
    """{first word: second} of the lines of a table: those under its heading whose second word is a number."""
    lines = [line.split() for line in text[text.index(heading) :].splitlines()[1:]]
    rows = itertools.takewhile(lambda words: len(words) > 1 and words[1].replace(".", "").isdigit(), lines)
    return {words[0]: float(words[1]) for words in rows}


@pytest.fixture(autouse=True)
def coarse_step(monkeypatch):
    """Random widths are averaged over a single one, which saves seconds a test."""
    monkeypatch.setattr(tool, "counted_step_cost", functools.partial(counted_step_cost, width_samples=1))


@pytest.mark.parametrize("name", ONE_SIZE)
def test_every_family_prints_its_grid_and_stages_that_sum_to_the_largest(printed, name):
    text = printed(name, "GRID.WIDTH_STEP", "0.5", *ONE_SIZE[name])
    grid, stages = column(text, "configuration  "), column(text, "stage of")
    *parts, total = stages.values()
    assert list(grid.values()) == sorted(grid.values())
    assert len(grid) == (2 if name.startswith("MUTUAL") else 1)
    assert total == pytest.approx(list(grid.values())[-1], abs=2e-3)
    assert sum(parts) == pytest.approx(total, abs=1e-3 * len(parts))
    assert ("slow" in text.split("stage of")[1].split("\n")[0]) == ("SLOWFAST" in name)
    assert ("training step" in text) == name.startswith("MUTUAL") and "before epoch" not in text
    assert "MiB in fp32" in text


def test_what_is_trained_before_the_sub_networks_is_told(printed):
    text = printed("MUTUAL_X3D_XS", "GRID.WIDTH_STEP", "0.5", *ONE_SIZE["MUTUAL_X3D_XS"], "MUTUAL.SUBNETS_START_EPOCH", "2.5")
    (line,) = (line for line in text.splitlines() if line.startswith("    before epoch 2.5 (MUTUAL.SUBNETS_START_EPOCH): "))
    assert float(line.split(": ")[1].split()[0]) == pytest.approx(list(column(text, "configuration  ").values())[-1], abs=0.01)


def test_a_step_without_the_largest_does_not_count_it(printed):
    text = printed("S_X3D_M", "GRID.WIDTH_STEP", "0.5")
    assert "forward passes of one clip: each_width\n" in text
    (line,) = (line for line in text.splitlines() if line.startswith("every configuration counted"))
    step = float(line.split(": ")[1].split()[0])
    assert step == pytest.approx(sum(column(text, "configuration  ").values()), abs=0.01)


def test_the_papers_factors_give_table_4(printed):
    factors = "--spatial-factors", "0.63", "0.8", "1.0", "--temporal-factors", "0.4", "0.63", "1.0"
    text = printed("MUTUAL_SLOW_8x8_R50", "--crop", "256", "GRID.WIDTH_STEP", "1.0", *factors)
    assert "one view cut at 256 pixels" in text
    assert "largest 1-224-8: 54.52 GFLOPs, 32,454,096 parameters" in text
    (line,) = (line for line in text.splitlines() if line.startswith("by factors w^2 s^2 t"))
    assert float(line.split(": ")[1].split()[0]) == pytest.approx(74.8, rel=5e-3)
    assert "s = 0.63, 0.8, 1; t = 0.4, 0.63, 1" in text


def test_the_grid_is_written_as_csv(printed, tmp_path):
    path = tmp_path / "grid.csv"
    name, options = "MUTUAL_X3D_XS", ["--crop", "160", "--csv", str(path), "GRID.WIDTH_STEP", "0.5"]
    text = printed(name, *options, *ONE_SIZE[name])
    rows = list(csv.DictReader(path.open()))
    gflops = {row["configuration"]: float(row["gflops_per_view"]) for row in rows}
    assert gflops == pytest.approx(column(text, "configuration  "), abs=1e-3)
    assert rows[-1] == {
        "configuration": "1-160-4", "width": "1", "spatial": "160", "temporal": "4", "crop": "160",
        "gflops_per_view": rows[-1]["gflops_per_view"], "parameters": "3794322",
    }  # fmt: skip


def test_factors_of_the_wrong_number_are_refused_before_anything_is_counted(printed, monkeypatch):
    monkeypatch.setattr(tool, "count_costs", None)
    with pytest.raises(ValueError, match="the spatial factors are .*one for each of the sizes 142, 178, 224"):
        printed("MUTUAL_SLOW_8x8_R50", "--spatial-factors", "0.63", "1.0")


def test_a_crop_without_pixels_is_refused(printed):
    for crop in ("0", "7", "-3", "1000000000"):
        with pytest.raises(ValueError, match=f"--crop is {crop}: it must be 8 or more, at most 10000"):
            printed("X3D_XS", "--crop", crop)


@pytest.mark.parametrize("factors", [("nan", "1.0", "1.0"), ("0.5", "nan", "1.0"), ("inf", "1.0", "1.0"), ("0.5", "0.7", "nan")])
def test_factors_that_are_no_numbers_are_refused(printed, factors):
    with pytest.raises(ValueError, match="the spatial factors are .*rising, above 0, the last one 1"):
        printed("MUTUAL_SLOW_8x8_R50", "--spatial-factors", *factors)


@pytest.mark.parametrize("words", [
    ("GRID.WIDTH_STEP", "1e-9"), ("GRID.WIDTH_STEP", "inf"), ("GRID.WIDTH_STEP", "nan"), ("X3D.DEPTH_FACTOR", "-1"),
    ("X3D.WIDTH_FACTOR", "0"), ("X3D.DIM_C5", "-4"), ("X3D.BOTTLENECK_FACTOR", "0.001"),
])  # fmt: skip
def test_values_that_had_no_end_or_no_network_are_refused(printed, words):
    with pytest.raises(ValueError, match=f"{words[0]} is .*: it must be"):
        printed("MUTUAL_X3D_M", *words)


def test_widths_that_all_round_to_the_same_channels_are_one_network(printed):
    words = "MUTUAL.WIDTH_DIVISOR", "1024", "MUTUAL.TEMPORAL_SIZES", "[4]", "MUTUAL.SPATIAL_SIZES", "[160]"
    assert "smallest 1-160-4" in printed("MUTUAL_X3D_XS", *words, "MUTUAL.SUBNETS", "[smallest]")


def test_a_csv_in_the_place_of_a_directory_is_refused_before_anything_is_counted(printed, tmp_path):
    with pytest.raises(ValueError, match="--csv '.*' is a directory: give the name of a file"):
        printed("X3D_XS", "--csv", str(tmp_path))


def test_a_mistake_is_one_line_and_status_1():
    command = [sys.executable, str(ROOT / "tools" / "complexity.py"), "--cfg", "none.yaml"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: there is no config 'none.yaml'") and result.stderr.count("\n") == 1
