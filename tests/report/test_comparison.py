import csv

import pytest
from tiny import tiny_network

from mutual3d.cli import compare
from mutual3d.deploy import AdaptiveModel
from mutual3d.report.comparison import Comparison, ReferencePoint
from mutual3d.report.plots import comparison_figure
from mutual3d.sampling import Cascade, Preprocessing
from mutual3d.table.cascade_row import CascadeFacts
from mutual3d.table.query_table import QueryTable, Row


def table(accuracies, **provenance):
    """GFLOPs 1, 2, 4, ... with these accuracies; latencies fall as costs rise, so that the axes tell apart."""
    rows = [
        Row(f"{(i + 1) / 10:g}-32-4", (8 + i,), 2.0**i, 100, {"top1_acc": value, "map": value / 2}, {"cpu": 10.0 / (i + 1)})
        for i, value in enumerate(accuracies)
    ]
    return QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 32, **provenance})


def test_the_best_of_each_table_within_the_cost_of_the_first_ones_front():
    comparison = Comparison({"ours": table([50.0, 40.0, 70.0]), "alone": table([45.0, 60.0, 65.0, 80.0])})
    found = [
        (line.budget, {name: row and str(row.configuration) for name, row in line.best.items()})
        for line in comparison.at_equal_cost()
    ]
    assert found == [(1.0, {"ours": "0.1-32-4", "alone": "0.1-32-4"}), (4.0, {"ours": "0.3-32-4", "alone": "0.3-32-4"})]


def test_a_table_with_nothing_so_cheap_has_none():
    cheap, dear = table([50.0, 60.0]), QueryTable([Row("1-32-4", (64,), 1.5, 9, {"top1_acc": 90.0})], table([1.0]).provenance)
    lines = Comparison({"cheap": cheap, "dear": dear}).at_equal_cost()
    assert [line.best["dear"] and line.best["dear"].gflops for line in lines] == [None, 1.5]
    assert "-" in Comparison({"cheap": cheap, "dear": dear}).format().splitlines()[-2].split()


def test_latency_is_an_axis_of_its_own():
    lines = Comparison({"ours": table([50.0, 60.0])}, cost="latency_ms", device="cpu").at_equal_cost()
    assert [line.budget for line in lines] == [5.0]  # the second row is faster and better
    with pytest.raises(ValueError, match="no median latency on 'gpu': name one of cpu"):
        Comparison({"ours": table([50.0])}, cost="latency_ms", device="gpu")


@pytest.mark.parametrize("changes", [{"split": "test"}, {"num_views": 10}, {"metric": "map"}, {"num_videos": 50}])
def test_other_conditions_are_refused_unless_told(changes):
    tables = {"ours": table([50.0], num_videos=24), "alone": table([60.0], **{"num_videos": 24, **changes})}
    with pytest.raises(ValueError, match=f"'alone' was measured under other conditions than 'ours' .{next(iter(changes))}"):
        Comparison(tables)
    assert len(Comparison(tables, any_conditions=True).at_equal_cost()) == 1


def test_the_command_writes_a_figure_and_every_row(tmp_path, capsys):
    for name, accuracies in (("ours", [50.0, 60.0]), ("alone", [40.0, 65.0])):
        table(accuracies).save_json(tmp_path / f"{name}.json")
    words = [f"{name}={tmp_path / name}.json" for name in ("ours", "alone")]
    main = compare.main
    main([*words, "--point", "published $1$", "3", "70.5", "--output", str(tmp_path / "figure")])
    with open(tmp_path / "figure.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], float(row["gflops"]), float(row["accuracy"])) for row in rows] == [
        ("ours", 1, 50), ("ours", 2, 60), ("alone", 1, 40), ("alone", 2, 65), ("published $1$", 3, 70.5),
    ]  # fmt: skip
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "ours (val split, 1 view, crop 32)" in out and "65.00 0.2-32-4" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["x.json"], "'x.json' is not NAME=TABLE"),
        (["a={}", "a={}"], "the name 'a' stands twice"),
        (["a={}", "--point", "p", "x", "1"], "after the name come two numbers"),
        (["a={}", "--point", "p", "nan", "1"], "the cost must be above 0"),
        (["a={}", "--point", "p", "1", "250"], "the accuracy from 0 to 100"),
        (["a=nowhere.json"], "there is no query table 'nowhere.json'"),
    ],
)
def test_mistakes_are_explained(tmp_path, words, message):
    table([50.0]).save_json(tmp_path / "t.json")
    with pytest.raises((ValueError, OSError), match=message):
        compare.main([word.format(tmp_path / "t.json") for word in words])


def test_the_bundle_of_a_run_is_compared_by_the_table_that_it_holds(tmp_path, capsys):
    network = tiny_network()
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    rows = [Row(c, network.signature(c.width), 1.0, 9, {"top1_acc": 75.0}) for c in [network.space.largest]]
    for name, own in (("with", QueryTable(rows, table([1.0]).provenance)), ("without", None)):
        AdaptiveModel(network, preprocessing=preprocessing, table=own).save(tmp_path / f"{name}.pyth")
    main = compare.main
    main([f"ours={tmp_path / 'with.pyth'}", "--output", str(tmp_path / "figure")])
    assert "75.00 1-24-4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="without.pyth' holds no query table"):
        main([f"ours={tmp_path / 'without.pyth'}"])


def test_a_published_network_has_a_line_of_its_own():
    comparison = Comparison({"ours": table([50.0, 60.0, 70.0])}, points=[ReferencePoint("Slow 8x8", 3.0, 65.0)])
    assert [(line.budget, line.point and line.point.name) for line in comparison.at_equal_cost()] == [
        (1.0, None), (2.0, None), (3.0, "Slow 8x8"), (4.0, None),
    ]  # fmt: skip
    assert "3 60.00 0.2-32-4 65.00 Slow 8x8" in " ".join(comparison.format().split())


def test_the_legend_tells_the_metric_where_it_differs():
    tables = {"ours": table([50.0], num_videos=24), "alone": table([60.0], metric="map")}
    comparison = Comparison(tables, any_conditions=True)
    assert comparison.legend("ours") == "ours (top-1 accuracy, val split, 1 view, crop 32, 24 videos)"
    assert Comparison({"ours": tables["ours"]}).legend("ours") == "ours (val split, 1 view, crop 32, 24 videos)"


def test_methods_are_told_apart_by_more_than_colour_and_points_by_their_name():
    fronts = {f"m{k}": [(1.0, 50.0 + k), (2.0, 60.0 + k)] for k in range(9)}
    axes = comparison_figure(fronts, points=[("X3D $M$", 1.5, 55.0)]).axes[0]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines if line.get_label() in fronts}
    assert len(looks) == 9 and [text.get_text() for text in axes.texts] == ["X3D $M$"]


def test_cascades_are_in_the_csv_and_no_budget_of_every_clip(tmp_path):
    alone = table([50.0, 40.0, 70.0])
    ours = QueryTable(alone.rows, alone.provenance, [CascadeFacts(Cascade.parse("0.1-32-4@0.5+0.3-32-4"), {"top1_acc": 66.0}, (0.7, 0.3))])
    comparison = Comparison({"ours": ours, "alone": alone})
    assert comparison.format() == Comparison({"ours": alone, "alone": alone}).format()
    comparison.save_csv(tmp_path / "c.csv")
    comparison.save_plot(tmp_path / "c.png")
    with open(tmp_path / "c.csv", newline="") as file:
        (line,) = [line for line in csv.DictReader(file) if "@" in line["configuration"]]
    assert (line["name"], float(line["gflops"]), float(line["accuracy"]), line["pareto"]) == ("ours", pytest.approx(2.2), 66.0, "False")
