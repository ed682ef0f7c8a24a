"""A query table with costs and metrics of any name, and the files of earlier versions."""

import csv
import gzip
from pathlib import Path

import pytest
import torch

import mutual3d
from mutual3d.report.comparison import Comparison
from mutual3d.report.plots import accuracy_figure
from mutual3d.table.query_table import BudgetTooSmall, QueryTable, Row

# Written by version 0.1, before costs had names; the bundle's weights are all alike, which makes it small.
GOLDEN = Path(__file__).parent / "golden"
WORDS = {"name": "memory_mb", "title": "memory", "unit": "MB", "per": "per clip"}
PROVENANCE = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 64, "costs": {"memory_mb": WORDS}}


def row(name, gflops, accuracy, memory, energy=None):
    costs = {"memory_mb": memory, **({"energy": {"cpu": energy}} if energy else {})}
    return Row(name, (8,), gflops, 100, {"top1_acc": accuracy}, {"cpu": 2 * gflops}, costs)


@pytest.fixture
def table():
    rows = [row("0.6-48-4", 1.0, 50.0, 8.0, 3.0), row("0.8-48-4", 2.0, 60.0, 4.0, 1.0), row("1-48-4", 3.0, 70.0, 16.0)]
    return QueryTable(rows, PROVENANCE)


def names(rows):
    return [str(row.configuration) for row in rows]


def test_front_and_selection_by_any_cost(table):
    assert list(table.costs) == ["gflops", "parameters", "latency_ms", "energy", "memory_mb"]
    assert names(table.pareto_front()) == ["0.6-48-4", "0.8-48-4", "1-48-4"]
    assert names(table.pareto_front("memory_mb")) == ["0.8-48-4", "1-48-4"]
    assert names(table.pareto_front("parameters")) == ["1-48-4"]
    assert names(table.pareto_front("energy", "cpu")) == ["0.8-48-4"]  # of the largest it was not measured
    assert names([table.select(memory_mb=15)]) == names([table.select(memory_mb=99, gflops=2.5)]) == ["0.8-48-4"]
    assert names([table.select(latency_ms=4, device="cpu", memory_mb=9)]) == ["0.8-48-4"]


def test_a_budget_too_small_is_told_in_the_words_of_its_cost(table):
    with pytest.raises(BudgetTooSmall, match="no configuration fits 0.5 energy on cpu and 3 MB; the nearest, 0.8-48-4, needs") as error:
        table.select(memory_mb=3, energy=0.5, device="cpu")
    assert error.value.needed == {"energy": 1.0, "memory_mb": 4.0}


def test_a_cost_that_the_table_lacks_lists_those_that_it_has(table):
    for call in (lambda: table.select(watt=3), lambda: table.pareto_front("watt")):
        with pytest.raises(ValueError, match="'watt' is no cost of this query table: use gflops or parameters or .*GRID.COSTS"):
            call()
    with pytest.raises(ValueError, match="memory_mb is 0: it must be above 0"):
        table.select(memory_mb=0)
    with pytest.raises(ValueError, match="the energy of 1-48-4 was not measured on cpu"):
        table.cost(table.row("1-48-4"), "energy")


def test_files_and_texts_have_every_cost(table, tmp_path):
    table.save_json(tmp_path / "table.json")
    assert QueryTable.load(tmp_path / "table.json") == table
    table.save_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["memory_mb"] for line in lines] == ["8.0", "4.0", "16.0"] and [line["energy:cpu"] for line in lines] == ["3.0", "1.0", ""]
    assert "4 MB per clip" in table.describe(table.rows[1]) and "MB: memory per clip" in table.legend
    assert "MB" in table.format().splitlines()[1].split()


def test_plots_and_comparison_take_any_cost(table):
    assert accuracy_figure(table, cost="memory_mb").axes[0].get_xlabel() == "memory (MB per clip)"
    comparison = Comparison({"ours": table}, cost="memory_mb")
    assert comparison.unit == "MB" and [line.budget for line in comparison.at_equal_cost()] == [4.0, 16.0]


@pytest.mark.parametrize("costs", [{"memory_mb": "8"}, {"memory_mb": 0}, {"memory_mb": {"cpu": None}}, {"gflops": 1}, [1]])
def test_a_cost_that_is_no_number_is_refused(costs):
    with pytest.raises(ValueError, match="0.6-48-4: costs"):
        Row("0.6-48-4", (8,), 1.0, 100, {"top1_acc": 50.0}, {}, costs)


@pytest.mark.parametrize("told", [{"name": 3, "title": "t", "unit": "u"}, {"name": "memory_mb"}, 7, {**WORDS, "other": 1}])
def test_words_that_are_none_are_refused(told):
    with pytest.raises(ValueError, match="cost"):
        QueryTable([row("0.6-48-4", 1.0, 50.0, 8.0)], {**PROVENANCE, "costs": {"memory_mb": told}})


def test_a_metric_whose_lower_values_are_better_turns_the_selection_round():
    facts = {"error": {"label": "mean error", "unit": "px", "higher_is_better": False, "is_share": False}}
    provenance = {**PROVENANCE, "metric": "error", "metrics": facts}
    rows = [Row(f"{w}-48-4", (8,), w, 100, {"error": error}) for w, error in ((0.6, 240.0), (0.8, 300.0), (1.0, 120.0))]
    table = QueryTable(rows, provenance)
    assert names(table.pareto_front()) == ["0.6-48-4", "1-48-4"] and names([table.select(gflops=0.9)]) == ["0.6-48-4"]
    assert "mean error 240.00 px" in table.describe(rows[0])


def test_a_table_of_an_earlier_version_is_read():
    table = QueryTable.load(GOLDEN / "query_table_of_version_0_1.json")
    assert len(table) == 12 and list(table.costs) == ["gflops", "parameters", "latency_ms"]
    assert table.row("0.5-16-2").values("gflops") == {"": 0.000193884} and table.row("0.5-16-2").parameters == 56160
    assert table.words_of_metric().label == "top-1 accuracy" and table.words_of_metric().is_share
    assert table.select(parameters=60_000).parameters == 56160


def test_a_bundle_of_an_earlier_version_is_loaded(tmp_path):
    path = tmp_path / "adaptive.pyth"
    path.write_bytes(gzip.decompress((GOLDEN / "bundle_of_version_0_1.pyth.gz").read_bytes()))
    model = mutual3d.load(path)
    assert model.table == QueryTable.load(GOLDEN / "query_table_of_version_0_1.json")
    assert str(model.set_budget(parameters=60_000).configuration).startswith("0.5-")
    model.activate(model.network.space.largest)
    assert model(torch.zeros(1, 3, 4, 24, 24, dtype=torch.uint8)).shape == (1, 2)
