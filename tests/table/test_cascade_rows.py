"""Cascades as rows of a query table: costs that follow from their stages, files, text, budgets on the mean and on every clip."""

import csv
import json

import pytest

from mutual3d.cost.axes import CostWords
from mutual3d.sampling import Cascade
from mutual3d.table.cascade_row import CascadeFacts, CascadeRow
from mutual3d.table.query_table import BudgetTooSmall, QueryTable, Row

CPU, GPU = "cpu-fp32-b1-t2", "cuda-fp16-b8-t2"
PROVENANCE = {
    "metric": "top1_acc", "split": "val", "num_views": 1, "crop": 64, "num_videos": 200,
    "costs": {"peak_mb": CostWords(name="peak_mb", title="peak memory", unit="MB", adds=False).to_dict()},
}  # fmt: skip
ROWS = [
    Row("0.5-32-4", (8,), 1.0, 100, {"top1_acc": 50.0, "top5_acc": 90.0}, {CPU: 2.0, GPU: 1.0}, {"peak_mb": 3.0}),
    Row("0.5-64-4", (8,), 4.0, 100, {"top1_acc": 60.0, "top5_acc": 95.0}, {CPU: 8.0}, {"peak_mb": 9.0}),
    Row("1-64-8", (16, 24), 10.0, 400, {"top1_acc": 70.0, "top5_acc": 99.0}, {CPU: 20.0, GPU: 3.0}, {"peak_mb": 20.0}),
]
SMALL_TO_LARGE, MIDDLE_TO_LARGE = "0.5-32-4@0.8T1.6+1-64-8", "0.5-64-4@0.7+1-64-8"
THREE = "0.5-32-4@0.8+0.5-64-4@0.7+1-64-8"


def facts(text=SMALL_TO_LARGE, accuracy=68.0, shares=(0.6, 0.4)):
    return CascadeFacts(Cascade.parse(text), {"top1_acc": accuracy}, shares)


FOUND = (facts(), facts(MIDDLE_TO_LARGE, 69.0, (0.5, 0.5)), facts(THREE, 71.0, (0.3, 0.695, 0.005)))


@pytest.fixture(scope="module")
def table():
    return QueryTable(ROWS, PROVENANCE, FOUND)


def test_costs_are_means_of_what_adds_and_the_max_of_what_does_not(table):
    row = table.cascade(SMALL_TO_LARGE)
    assert isinstance(row, CascadeRow)
    assert row.gflops == pytest.approx(1 + 0.4 * 10) and row.parameters == 400 and row.signature == (8, 16, 24)
    assert row.latency_ms == {CPU: pytest.approx(2 + 0.4 * 20), GPU: pytest.approx(1 + 0.4 * 3)}
    assert row.values("peak_mb") == {"": 20.0} and row.values("unheard") == {}
    assert row.p99["gflops"][""] == row.worst["gflops"][""] == 11.0
    rare = table.cascade(THREE)
    assert (rare.p99["gflops"][""], rare.worst["gflops"][""]) == (5.0, 15.0)
    # A cascade has no latency where one of its stages has none.
    assert table.cascade(MIDDLE_TO_LARGE).latency_ms == {CPU: 8 + 0.5 * 20}
    assert table.cost(rare, "latency_ms", CPU) == pytest.approx(2 + 0.7 * 8 + 0.005 * 20)


def test_single_configurations_stay_what_they_were(table):
    alone = QueryTable(ROWS, PROVENANCE)
    assert table.rows == alone.rows and table.pareto_front() == alone.pareto_front() and len(table) == 3
    for budget in (1.0, 5.0, 12.0):
        assert table.select(gflops=budget) == alone.select(gflops=budget)
    assert "cascades" not in alone.to_dict() and alone.to_dict()["rows"] == table.to_dict()["rows"]
    assert table.cascade("0.5-32-4@0.1+1-64-8") is None


def test_a_file_keeps_them_and_one_without_loads(table, tmp_path):
    table.save_json(tmp_path / "query_table.json")
    loaded = QueryTable.load(tmp_path / "query_table.json")
    assert loaded == table and loaded.cascades == table.cascades
    entries = json.loads((tmp_path / "query_table.json").read_text())["cascades"]
    (entry,) = [entry for entry in entries if entry["configuration"] == SMALL_TO_LARGE]
    assert entry["mean_costs"]["latency_ms"][CPU] == pytest.approx(10.0) and entry["worst_costs"]["gflops"] == 11.0
    assert QueryTable.from_dict({k: v for k, v in table.to_dict().items() if k != "cascades"}).cascades == ()


def test_further_columns_of_the_stages_are_theirs_too(table):
    key = "cpu-openvino-fp32-b1-t2"
    more = table.with_costs({"latency_ms": {key: {row.configuration: 1.0 + i for i, row in enumerate(table.rows)}}}, {})
    assert more.cascade(SMALL_TO_LARGE).latency_ms[key] == pytest.approx(1 + 0.4 * 3)


def test_csv_and_text_show_them(table, tmp_path):
    table.save_csv(tmp_path / "query_table.csv")
    with open(tmp_path / "query_table.csv", newline="") as file:
        lines = {line["configuration"]: line for line in csv.DictReader(file)}
    line = lines[SMALL_TO_LARGE]
    assert (float(line["gflops"]), line["width"], line["shares"], float(line["worst_gflops"])) == (5.0, "", "0.6 0.4", 11.0)
    assert float(line[f"p99_latency_ms:{CPU}"]) == 22.0 and lines["1-64-8"]["shares"] == ""
    text = table.format()
    assert len(text.splitlines()) == 2 + 6 and SMALL_TO_LARGE in text and "the mean over clips" in text
    told = table.describe(table.cascade(THREE))
    assert "mean 3.85 GFLOPs per view (99 of 100 clips at most 5, every clip 15)" in told


def test_the_front_of_cascades_leaves_out_what_single_configurations_beat(table):
    assert [str(row.configuration) for row in table.cascade_front()] == [THREE]
    beaten = QueryTable(ROWS, PROVENANCE, [facts(accuracy=59.0)])
    assert beaten.cascade_front() == [] and [row.accuracy["top1_acc"] for row in beaten.cascades] == [59.0]


# ---- Budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ({"mean_gflops": 1.5}, "0.5-32-4"),
        ({"mean_gflops": 4.9}, THREE),
        ({"mean_gflops": 50.0}, THREE),
        ({"mean_gflops": 50.0, "gflops": 14.0}, "1-64-8"),
        ({"mean_gflops": 9.9, "gflops": 14.0}, MIDDLE_TO_LARGE),
        ({"mean_gflops": 9.9, "gflops": 11.0}, SMALL_TO_LARGE),
        ({"mean_gflops": 9.9, "gflops": 10.0}, "0.5-64-4"),
        ({"mean_latency_ms": 8.0, "device": CPU}, THREE),
        ({"mean_latency_ms": 2.5, "device": GPU}, SMALL_TO_LARGE),
        ({"mean_gflops": 9.9, "parameters": 100}, "0.5-64-4"),
    ],
)
def test_a_budget_on_the_mean_may_have_a_cascade_and_one_on_every_clip_bounds_its_worst_case(table, budgets, expected):
    assert str(table.select_mean(**budgets).configuration) == expected


def test_budgets_that_nothing_keeps_say_what_is_nearest(table):
    with pytest.raises(BudgetTooSmall, match="no configuration fits a mean of 0.5 GFLOPs; the nearest, 0.5-32-4, needs a mean of 1 GFLOPs"):
        table.select_mean(mean_gflops=0.5)
    with pytest.raises(BudgetTooSmall, match="a mean of 5 GFLOPs and 0.5 ms on cpu-fp32-b1-t2; the nearest, 0.5-32-4"):
        table.select_mean(mean_gflops=5, latency_ms=0.5, device=CPU)
    for budgets, words in (
        ({"gflops": 5}, "give a budget on a mean: mean_gflops, mean_latency_ms"),
        ({"mean_parameters": 5}, "which all clips have alike: give parameters"),
        ({"mean_gflops": -1}, "above 0"),
        ({"mean_watts": 1}, "'watts' is no cost"),
        ({"mean_latency_ms": 9}, "was not measured on this machine"),
    ):
        with pytest.raises(ValueError, match=words):
            table.select_mean(**budgets)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shares": [0.5, 0.4]}, "their sum must be 1"),
        ({"shares": [1.5, -0.5]}, "one from 0 to 1"),
        ({"shares": [1.0]}, "one from 0 to 1 for each"),
        ({"shares": 1}, r"shares \(a list\)"),
        ({"accuracy": {}}, "no accuracy under 'top1_acc'"),
        ({"accuracy": {"top1_acc": 170.0}}, "from 0 to 100"),
        ({"accuracy": {"top1_acc": "high"}}, "numbers are needed"),
        ({"configuration": "0.5-32-4"}, "not a cascade"),
        ({"configuration": "0.5-32-4@0.5+1-32-8"}, "1-32-8 is not in the query table"),
    ],
)
def test_a_files_cascades_that_cannot_be_are_refused(table, changes, words):
    data = table.to_dict()
    data["cascades"] = [{**table.cascade(SMALL_TO_LARGE).to_dict(), **changes}]
    with pytest.raises(ValueError, match=words):
        QueryTable.from_dict(data)
