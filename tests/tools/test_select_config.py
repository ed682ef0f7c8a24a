import json

import pytest

from mutual3d.cli.select import main
from mutual3d.sampling import Cascade
from mutual3d.table.cascade_row import CascadeFacts
from mutual3d.table.query_table import QueryTable, Row


@pytest.fixture
def path(tmp_path):
    rows = [
        Row("0.6-48-4", (8,), 0.5, 100, {"top1_acc": 50.0}, {"cpu": 10.0, "gpu": 4.0}),
        Row("0.6-64-4", (8,), 1.0, 100, {"top1_acc": 60.0}, {"cpu": 30.0, "gpu": 1.0}),
        Row("1-64-4", (16,), 2.0, 200, {"top1_acc": 70.0}, {"cpu": 20.0, "gpu": 5.0}),
    ]
    provenance = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 64}
    QueryTable(rows, provenance).save_json(tmp_path / "query_table.json")
    return str(tmp_path / "query_table.json")


def test_a_budget_gives_the_best_row_in_words(path, capsys):
    assert main(["--table", path, "--gflops", "1.5"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("0.6-64-4: top-1 accuracy 60.00 % (val split, 1 view, crop 64), 1 GFLOPs per view")
    assert "30 ms on cpu" in out and err == ""


@pytest.mark.parametrize(
    "budget, expected",
    [
        (["--latency-ms", "25", "--device", "cpu"], "1-64-4"),
        (["--latency-ms", "25", "--device", "cpu", "--gflops", "1"], "0.6-48-4"),
        (["--latency-ms", "4.5", "--device", "gpu"], "0.6-64-4"),
    ],
)
def test_json_is_one_object_with_its_conditions(path, capsys, budget, expected):
    assert main(["--table", path, "--json", *budget]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["configuration"], answer["fits"]) == (expected, True)
    assert (answer["provenance"]["split"], answer["provenance"]["crop"]) == ("val", 64)


@pytest.fixture
def longer(tmp_path):
    """Eight rows, of which the third is beaten by the second but for its time: it is on the front over time alone."""
    costs = [(1, 50, 1), (2, 62, 4), (2.5, 60, 2), (3, 64, 5), (4, 66, 6), (5, 68, 7), (6, 70, 8), (7, 10, 9)]
    rows = [
        Row(f"{(i + 1) / 10:g}-64-4", (i,), gflops, 100, {"top1_acc": accuracy}, {"cpu": ms, "gpu": 1}) for i, (gflops, accuracy, ms) in enumerate(costs)
    ]
    QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 64}).save_json(tmp_path / "longer.json")
    return str(tmp_path / "longer.json")


def test_the_next_two_rows_on_either_side_stand_beside_the_chosen_one(longer, capsys):
    assert main([longer, "--latency-ms", "5.5", "--device", "cpu"]) == 0
    first, _, heading, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("0.4-64-4: ") and heading == "Beside it, of the best within a budget of median latency on cpu (ms):"
    marked = [line.split()[:2] for line in lines[2:7]]
    assert [words[0] for words in marked[:2] + marked[3:]] == ["0.3-64-4", "0.2-64-4", "0.5-64-4", "0.6-64-4"] and marked[2] == [">", "0.4-64-4"]
    assert lines[8].startswith("At 1 of the 7 budgets of median latency on cpu on this front, a choice by GFLOPs would have been the wrong one, by up to 10 points")
    assert main([longer, "--gflops", "2.2"]) == 0
    told = capsys.readouterr().out
    assert "> 0.2-64-4" in " ".join(told.split()) and "wrong one" not in told
    assert main([longer, "--latency-ms", "5.5", "--device", "cpu", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [[row["configuration"] for row in answer[side]] for side in ("cheaper", "dearer")] == [["0.3-64-4", "0.2-64-4"], ["0.5-64-4", "0.6-64-4"]]


def test_of_several_budgets_the_rows_beside_are_of_the_time(longer, capsys):
    assert main([longer, "--latency-ms", "5.5", "--gflops", "2.2", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("0.2-64-4: ") and "best within a budget of median latency on cpu (ms)" in told


def test_a_budget_too_small_prints_the_nearest_row_and_fails(path, capsys):
    assert main(["--table", path, "--gflops", "0.1"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("0.6-48-4:")
    assert "no configuration fits 0.1 GFLOPs; the nearest, 0.6-48-4, needs 0.5 GFLOPs" in err
    assert main(["--table", path, "--gflops", "0.1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["fits"] is False


def test_list_prints_the_pareto_front(path, capsys):
    assert main(["--table", path, "--list"]) == 0
    parts = capsys.readouterr().out.split("best within a budget of ")[1:]
    assert [(part.splitlines()[0], [line.split()[0] for line in part.splitlines()[2:]]) for part in parts] == [
        ("median latency on gpu (ms):", ["0.6-64-4", "1-64-4"]),
        ("median latency on cpu (ms):", ["0.6-48-4", "1-64-4"]),
        ("1e9 multiply-adds (GFLOPs per view):", ["0.6-48-4", "0.6-64-4", "1-64-4"]),
    ]
    assert main(["--table", path, "--list", "--cost", "gflops"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["0.6-48-4", "0.6-64-4", "1-64-4"]
    assert main(["--table", path, "--list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(front["cost"], front["device"], [row["configuration"] for row in front["rows"]]) for front in answer["fronts"]] == [
        ("latency_ms", "gpu", ["0.6-64-4", "1-64-4"]),
        ("latency_ms", "cpu", ["0.6-48-4", "1-64-4"]),
        ("gflops", None, ["0.6-48-4", "0.6-64-4", "1-64-4"]),
    ]
    assert main(["--table", path, "--list", "--device", "cpu", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["configuration"] for row in answer["rows"]] == ["0.6-48-4", "1-64-4"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--latency-ms", "25"], "it has cpu, gpu, to be named by --device"),
        (["--gflops", "-1"], "above 0"),
        (["--gflops", "1", "--device", "cpu"], "give latency_ms"),
    ],
)
def test_what_the_table_cannot_answer_goes_to_stderr(path, capsys, arguments, message):
    assert main(["--table", path, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_a_missing_table_is_named(tmp_path, capsys):
    assert main(["--table", str(tmp_path / "none.json"), "--gflops", "1"]) == 1
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--list", "--gflops", "1"]])
def test_contradictory_options_are_refused(path, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["--table", path, *arguments])
    assert stopped.value.code == 2


@pytest.mark.parametrize("content", ["[" * 100_000, "null", "[]", "\x00", '{"format": "mutual3d.query_table", "version": 1, "rows": [], "provenance": {"metric": []}}'])
def test_a_table_of_nonsense_is_one_line_that_names_it(tmp_path, capsys, content):
    path = tmp_path / "t\x1b[2Jable.json"
    path.write_text(content)
    assert main(["--table", str(path), "--gflops", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "t\\x1b[2Jable.json" in error


def test_a_budget_on_the_mean_may_choose_a_cascade(path, capsys):
    table = QueryTable.load(path)
    facts = CascadeFacts(Cascade.parse("0.6-48-4@0.75T1.6+1-64-4"), {"top1_acc": 66.0}, (0.5, 0.5))
    QueryTable(table.rows, table.provenance, [facts]).save_json(path)
    assert main(["--table", path, "--mean-gflops", "1.7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0.6-48-4@0.75T1.6+1-64-4: top-1 accuracy 66.00 %")
    assert "mean 1.5 GFLOPs per view (99 of 100 clips at most 2.5, every clip 2.5)" in out
    assert main(["--table", path, "--mean-latency-ms", "21", "--device", "cpu", "--latency-ms", "25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["configuration"] == "1-64-4"
    assert main(["--table", path, "--mean-gflops", "0.1"]) == 2
    assert "no configuration fits a mean of 0.1 GFLOPs" in capsys.readouterr().err
