"""`mutual3d slim` on a tiny set: what it writes, what it goes on from, and what it refuses."""

import csv
import dataclasses
import importlib
import shutil

import common
import pytest
import torch
from tiny import overrides, same, write_set

import mutual3d
from mutual3d import cli
from mutual3d.cli import run as run_net
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.evaluation.calibration import statistics_to_dict
from mutual3d.pipeline import from_config, load_config, slim_network, slim_plan, slimming
from mutual3d.pipeline.workspace import Workspace
from mutual3d.table.query_table import QueryTable

STEP = ("--step", "0.5", "--videos", "8", "--clips", "6")
CHANGES = {
    "MUTUAL.WIDTHS_BY": "layer", "MUTUAL.SUBNETS": ["smallest", "random_widths"], "SOLVER.MAX_EPOCH": 1, "GRID.LATENCY_DEVICES": [],
    "GRID.WIDTH_STEP": 0.5, "TEST.ENABLE": False, "TRAIN.EVAL_PERIOD": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A list of its own for each split: by the test's nothing may be chosen."""
    data = write_set(tmp_path_factory.mktemp("set"))
    lines = (data / "val.csv").read_text().splitlines(keepends=True)
    (data / "val.csv").write_text("".join(lines[:10]))
    (data / "test.csv").write_text("".join(lines[2:]))
    return data


@pytest.fixture(scope="module")
def output(data, tmp_path_factory):
    """The directory of a run whose layers have widths of their own."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text("RNG_SEED: 3\n")
    run_net.main(["--cfg", str(folder / "tiny.yaml"), *overrides(data, folder / "out", **CHANGES)])
    return folder / "out"


@pytest.fixture(scope="module")
def ends(output):
    """GFLOPs of the largest sizes at one width for all: of the min and of the max."""
    table = QueryTable.load(output / "query_table.json")
    return table.row("0.5-24-4").gflops, table.row("1-24-4").gflops


@pytest.fixture(scope="module")
def slimmed(output, ends):
    """(the model that a search has written, its two budgets)."""
    low, high = ends
    budgets = [low + 0.7 * (high - low), low + 0.4 * (high - low)]
    before = (output / "adaptive.pyth").read_bytes()
    assert not cli.main(["slim", str(output / "adaptive.pyth"), *STEP, "--gflops", *map(str, budgets)])
    assert (output / "adaptive.pyth").read_bytes() == before
    return mutual3d.load(output / "slim" / "adaptive.pyth"), budgets


def test_each_budget_has_a_row_with_statistics_and_all_other_rows_stay(slimmed, output):
    model, budgets = slimmed
    earlier = QueryTable.load(output / "query_table.json")
    found = [model.table.row(text) for text in model.table.provenance["slimmed"]]
    assert len(found) == 2 and len(model.table) == len(earlier) + 2
    for row, budget in zip(found, budgets):
        assert row.gflops <= budget and len(set(row.configuration.widths)) > 1
        assert len(row.configuration.widths) == model.network.space.width_groups > 8
        assert row.signature == model.network.signature(row.configuration.width)
        assert row.configuration in model.network.statistics
        assert model.activate(str(row.configuration)).active == row.configuration
    assert [row for row in model.table.rows if row not in found] == list(earlier.rows)
    assert set(model.network.statistics) == {*mutual3d.load(output / "adaptive.pyth").network.statistics, *(row.configuration for row in found)}
    assert QueryTable.load(output / "slim" / "query_table.json") == model.table
    names = {path.name for path in (output / "slim").iterdir()}
    assert names >= {"adaptive.pyth", "query_table.csv", "accuracy_vs_gflops.png", "slim_path.csv", "stdout.log"}
    assert not [name for name in names if name.startswith(".slim")]
    lines = list(csv.DictReader((output / "slim" / "query_table.csv").open()))
    assert {line["width"] for line in lines} >= {row.configuration.width_text for row in found}


def test_a_row_measured_again_gives_its_own_numbers(slimmed, output):
    model, _ = slimmed
    plan = from_config(load_config(output / "config.yaml", ["TRAIN.ENABLE", "False"]))
    network = mutual3d.load(output / "adaptive.pyth").network
    run = Workspace(dataclasses.replace(plan, make_model=lambda: network), torch.device("cpu"))
    wanted = [model.table.row(text).configuration for text in model.table.provenance["slimmed"]]
    run.calibrate(plan.calibration.loader(), wanted, plan.calibration)
    for configuration, metric in run.measure(plan.grid.loader(), wanted, "again").items():
        assert metric.values() == model.table.row(configuration).accuracy
        kept = model.network.statistics[configuration]
        assert same(statistics_to_dict({configuration: network.statistics[configuration]}), statistics_to_dict({configuration: kept}))


def test_the_path_narrows_one_group_a_step_and_says_which(slimmed, output):
    model, budgets = slimmed
    lines = list(csv.DictReader((output / "slim" / "slim_path.csv").open()))
    names = model.network.width_group_names
    assert lines[0]["narrowed"] == "" and lines[0]["configuration"] == "1-24-4" and len(lines) > 3
    costs = [float(line["gflops"]) for line in lines]
    assert costs == sorted(costs, reverse=True) and costs[-1] <= budgets[-1] < costs[-2]
    widths = [model.network.space.check(line["configuration"]).widths for line in lines[1:]]
    for line, before, after in zip(lines[2:], widths, widths[1:]):
        assert [name for name, a, b in zip(names, before, after) if a != b] == [line["narrowed"]]


def test_a_search_that_was_killed_goes_on_and_ends_the_same(slimmed, output, tmp_path, monkeypatch):
    model, budgets = slimmed
    words = ["slim", str(output / "adaptive.pyth"), *STEP, "--output", str(tmp_path), "--gflops", str(budgets[1])]
    measure, calls = Workspace.measure, []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(Workspace, "measure", dying)
    with pytest.raises(KeyboardInterrupt):
        cli.main(words)
    assert not (tmp_path / "adaptive.pyth").exists() and not (tmp_path / "query_table.json").exists()
    calls.clear()
    monkeypatch.setattr(Workspace, "measure", lambda *a, **o: (calls.append(1), measure(*a, **o))[1])
    cli.main(words)
    lines = (output / "slim" / "slim_path.csv").read_text()
    assert (tmp_path / "slim_path.csv").read_text() == lines
    # The start and two steps were measured before; the last one measures what was found.
    assert len(calls) == len(lines.splitlines()) - 2 - 2 + 1
    assert mutual3d.load(tmp_path / "adaptive.pyth").table.row(list(model.table.provenance["slimmed"])[1]).gflops <= budgets[1]


def test_a_python_program_slims_by_an_explicit_plan_at_other_sizes_and_costs(output, tmp_path):
    cfg = load_config(output / "config.yaml")
    largest = mutual3d.load(output / "adaptive.pyth").table.row("1-16-2")
    plan = slim_plan(
        cfg, output / "adaptive.pyth", tmp_path, cost="parameters", budgets=[0.9 * largest.parameters], step=0.5, start="1-16-2",
        num_videos=8, num_clips=6,
    )  # fmt: skip
    table = slim_network(plan, torch.device("cpu"))
    (text,) = table.provenance["slimmed"]
    row = table.row(text)
    assert (row.configuration.spatial, row.configuration.temporal) == (16, 2) and row.parameters <= 0.9 * largest.parameters


def test_a_latency_that_is_budgeted_is_this_machines(output, tmp_path, monkeypatch):
    """Times that follow the arithmetic; a column of the new row alone."""
    real = slimming.measure_costs

    def fake(names, model, configurations, conditions, devices=()):
        found = real([name for name in names if name != "latency_ms"] or ["gflops"], model, configurations, conditions)
        by_arithmetic = {c: 1e3 * value for c, value in found["gflops"][""].items()}
        return {**{name: found[name] for name in names if name in found}, **({"latency_ms": {str(LatencyKey.here(devices[0])): by_arithmetic}} if "latency_ms" in names else {})}

    monkeypatch.setattr(slimming, "measure_costs", fake)
    largest = mutual3d.load(output / "adaptive.pyth").table.row("1-24-4").gflops
    assert not cli.main(["slim", str(output / "adaptive.pyth"), *STEP, "--output", str(tmp_path), "--latency-ms", str(0.9e3 * largest)])
    table = mutual3d.load(tmp_path / "adaptive.pyth").table
    (row,) = [table.row(text) for text in table.provenance["slimmed"]]
    assert table.devices == [str(LatencyKey.here(torch.device("cpu")))] and row.gflops <= 0.9 * largest
    assert [each for each in table.rows if each.latency_ms] == [row]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--gflops", "1e-9"], "1e-09 GFLOPs is too small: at sizes of 1-24-4 the narrowest widths cost .* GFLOPs"),
        (["--gflops", "1e3"], "1000 GFLOPs is what 1-24-4 keeps as it is"),
        (["--gflops", "1e-4", "--start", "1-32-4"], "the size 32 is not one of 16, 24"),
        (["--gflops", "1e-4", "--split", "test"], "split 'test', which is the test's: name another list with --split, such as 'train'"),
        (["GRID.SPLIT", "train", "--gflops", "1e-4"], "was measured with GRID.SPLIT val, and it is train: set them equal"),
        (["GRID.NUM_VIEWS", "2", "--gflops", "1e-4"], "was measured with GRID.NUM_VIEWS 1, and it is 2: set them equal"),
        (["DATA.MEAN", "[0.1,0.1,0.1]", "--gflops", "1e-4"], "the config cuts and normalises clips otherwise"),
        (["MUTUAL.ENABLE", "False", "--gflops", "1e-4"], "MUTUAL.ENABLE is False: a static network has one width"),
        (["--gflops", "1e-4", "--cfg", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_told(output, tmp_path, words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cli.main(["slim", str(output / "adaptive.pyth"), *words[: words.index("--gflops")], *STEP, "--output", str(tmp_path / "o"), *words[words.index("--gflops") :]])
    assert not (tmp_path / "o" / "adaptive.pyth").exists()


def test_a_list_that_is_the_tests_under_another_name_is_refused(output, data, tmp_path):
    (data / "copy.csv").write_bytes((data / "test.csv").read_bytes())
    with pytest.raises(ValueError, match="the split 'copy', which is the test's"):
        cli.main(["slim", str(output / "adaptive.pyth"), "--gflops", "1e-4", "--split", "copy", "--output", str(tmp_path)])


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "give budgets of one cost (--gflops, --parameters, --latency-ms, --weights-mb); none was given"),
        (["--gflops", "1", "--latency-ms", "5"], "several were given"),
        (["--gflops", "-1"], "'-1' is not a number above 0"),
        (["--gflops", "1", "--step", "0"], "'0' is not a number above 0"),
        (["--gflops", "1", "--output", "."], "where the model lies: it would be replaced"),
    ],
)
def test_wrong_words_end_in_one_line(words, told, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["slim", "adaptive.pyth", *words])
    assert told in capsys.readouterr().err


def test_several_processes_are_refused(output, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="a search runs in one process"):
        cli.main(["slim", str(output / "adaptive.pyth"), "--gflops", "1e-4"])


def test_a_model_without_config_or_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file '.*adaptive.pyth': give the adaptive.pyth"):
        cli.main(["slim", str(tmp_path / "adaptive.pyth"), "--gflops", "1"])
    (tmp_path / "adaptive.pyth").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="the config of the run that made .*: name it with --cfg"):
        cli.main(["slim", str(tmp_path / "adaptive.pyth"), "--gflops", "1"])


def test_the_benchmark_sets_both_kinds_side_by_side(output, tmp_path, monkeypatch):
    benchmark = importlib.import_module("slim")
    for module in (benchmark, common):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(output, folder)
    benchmark.main(["--runs", str(folder), "--name", "tiny", "--shares", "0.9", "0.8", "--step", "0.5", "--videos", "8", "--clips", "6"])
    rows = list(csv.DictReader((tmp_path / "slim_tiny.csv").open()))
    assert (tmp_path / "slim_tiny_val.png").is_file() and (tmp_path / "slim_tiny_test.png").is_file()
    assert [row["kind"] for row in rows] == ["greedy", "greedy", "uniform", "uniform"]
    for row in rows:
        assert float(row["gflops"]) <= float(row["budget_gflops"]) and 0 <= float(row["val"]) <= 100 and 0 <= float(row["test"]) <= 100
        assert ("," in row["configuration"]) == (row["kind"] == "greedy")


def test_the_digits_of_the_benchmark_are_in_three_parts(tmp_path):
    benchmark = importlib.import_module("slim")
    folder = benchmark.write_digits(tmp_path / "digits")
    names = {split: {path.name for path in (folder / split).glob("*/*.png")} for split in benchmark.PARTS}
    assert {split: len(found) for split, found in names.items()} == benchmark.PARTS
    assert len(set.union(*names.values())) == 1797 and {path.name for path in (folder / "train").iterdir()} == set("0123456789")
