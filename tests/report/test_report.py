import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mutual3d.report.advice import suggestions
from mutual3d.report.classes import ClassPrecision, Example, Predictions, Seen, frame_strip
from mutual3d.report.page import Findings, MultiViewTest, write_report
from mutual3d.report.plots import devices_figure, plot_costs
from mutual3d.sampling import Cascade, Configuration
from mutual3d.table.cascade_row import CascadeFacts
from mutual3d.table.query_table import QueryTable, Row

HOSTILE = '<script>alert("1")</script>'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects tags, table rows and text; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], [], 0, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.rows += tag == "tr"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def table():
    conditions = {"metric": "top1_acc", "split": "val", "num_views": 3, "crop": 64}
    rows = [make_row(width, size) for width in (0.6, 1.0) for size in (48, 64)]
    return QueryTable(rows, {**conditions, "dataset": HOSTILE, "versions": {"torch": "9"}})


def make_row(width, size):
    """A row whose latency was measured only at the lesser width."""
    accuracy = {"top1_acc": width * size / 2, "top5_acc": 99.0}
    latency_ms = {"cpu-fp32": 3.25} if width < 1 else {}
    return Row(f"{width}-{size}-8", (int(width * 40),), width * size / 50, 1000, accuracy, latency_ms)


def page_of(table, path, **keywords):
    write_report(table, path, **keywords)
    return path.read_text(encoding="utf-8")


def test_page_nests_and_holds_every_row(table, tmp_path):
    page = Page(page_of(table, tmp_path / "report.html"))
    fronts, headings = len(table.pareto_front()) + len(table.pareto_front("latency_ms")), 3
    assert page.rows == len(table) + fronts + len(table.provenance) + headings
    text = " ".join(page.text)
    assert "val split, 3 views, crop 64" in text and "torch 9" in text


def test_page_loads_nothing_from_elsewhere(table, tmp_path):
    text = page_of(table, tmp_path / "report.html", history=[{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}])
    sources = [attributes["src"] for _, attributes in Page(text).tags if "src" in attributes]
    assert len(sources) == 3  # training, GFLOPs, the one latency device
    for source in sources:
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not re.search(r"https?:|<link|@import|url\(", text)


def test_text_from_outside_is_escaped(table, tmp_path):
    text = page_of(table, tmp_path / "report.html", title=HOSTILE)
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert [tag for tag, _ in Page(text).tags].count("script") == 1


def test_full_table_can_be_sorted_by_number(table, tmp_path):
    page = Page(page_of(table, tmp_path / "report.html"))
    assert ("table", {"class": "sortable"}) in page.tags
    values = [attributes["data-value"] for tag, attributes in page.tags if tag == "td" and "data-value" in attributes]
    assert "" in values and all(value == "" or float(value) >= 0 for value in values)


def test_the_suggested_budgets_can_be_met(table, tmp_path):
    text = page_of(table, tmp_path / "report.html")
    budgets = [float(value) for value in re.findall(r"gflops[ =]([\d.]+)", text)]
    assert len(budgets) == 3
    for budget in budgets:
        table.select(gflops=budget)
    latency, device = re.search(r"--latency-ms (\S+) --device ([^\s<]+)", text).groups()
    table.select(latency_ms=float(latency), device=device)
    assert str(tmp_path / "adaptive.pyth") in text


# ---- What was found beside the table ---------------------------------------------------------------------------------


def predictions(configuration, labels, predicted):
    count = len(labels)
    videos = tuple(f"/videos/{HOSTILE}{i}.mp4" for i in range(count))
    return Predictions(configuration, videos, np.arange(count), np.array(labels), np.array(predicted), np.full(count, 0.5))


def findings(**more):
    frames = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    examples = [
        Example(f"{HOSTILE}.mp4", k % 2 == 0, (Seen(("walk",), ((HOSTILE if k % 2 else "walk", 0.5),)),), frame_strip(frames))
        for k in range(8)
    ]
    return Findings(
        command="mutual3d run --cfg 'a <b>.yaml'",
        config=f"NAME: {HOSTILE}",
        predictions=[predictions("0.6-48-8", [0, 0, 1, 1], [0, 1, 0, 0]), predictions("1.0-64-8", [0, 0, 1, 1], [0, 0, 1, 0])],
        examples=examples,
        class_names=["walk", HOSTILE],
        **more,
    )


def test_everything_from_outside_is_escaped_and_nothing_is_loaded(table, tmp_path):
    test = MultiViewTest(HOSTILE, "10x3", 64, {HOSTILE: {"top1_acc": 50.0}}, 24)
    text = page_of(table, tmp_path / "report.html", findings=findings(test=test))
    page = Page(text)
    assert HOSTILE not in text and [tag for tag, _ in page.tags].count("script") == 1
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?:|<link|@import|url\(", text) and text.startswith("<!DOCTYPE html>")
    assert "mutual3d run --cfg &#39;a &lt;b&gt;.yaml&#39;" in text


def test_frames_are_small_even_where_they_are_noise(table, tmp_path):
    text = page_of(table, tmp_path / "report.html", findings=findings())
    frames = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    assert len(frames) == 8 and sum(map(len, frames)) < 250_000


def test_the_matrix_has_the_counts_and_each_class_its_share(table, tmp_path):
    text = " ".join(" ".join(Page(page_of(table, tmp_path / "report.html", findings=findings())).text).split())
    best, cheapest = text.index("1.0-64-8: 75.0 % right of 4 videos"), text.index("0.6-48-8: 25.0 % right of 4 videos")
    assert best < cheapest
    assert "walk 2 ·" in text[best:cheapest] and f"{HOSTILE} 1 1" in text[best:cheapest]
    assert f"{HOSTILE} 1 of 2 50 % 9 to 91 % walk" in text[best:cheapest]
    assert "walk was taken for" in text


def test_what_configurations_see_of_each_other_is_told(table, tmp_path):
    page = Page(page_of(table, tmp_path / "report.html", findings=findings()))
    assert ("table", {"class": "complementary"}) in page.tags
    text = " ".join(" ".join(page.text).split())
    # Of four videos the dear one knows 0 1 3 and the cheap one 0.
    assert "wrong at ↓, right at → 1.0-64-8 0.6-48-8 1.0-64-8 – 0.0 0.6-48-8 50.0 –" in text
    alone = Findings(predictions=findings().predictions[:1])
    assert "another does not" not in page_of(table, tmp_path / "alone.html", findings=alone)


def test_an_ensemble_and_norms_of_their_own_are_shown(table, tmp_path):
    history = [
        {"_type": "train_epoch", "epoch": f"{epoch}/2", "loss": 1.0, "ensemble": {"1-64": share, HOSTILE: 1 - share, "1-48": "half"}}
        for epoch, share in ((1, 0.5), (2, 0.625))
    ]
    norms = {name: {"mean": [0.0, level], "variance": [1.0, level]} for level, name in enumerate(("1-64", HOSTILE))}
    text = page_of(table, tmp_path / "report.html", history=history, findings=Findings(norms=norms))
    page = Page(text)
    told = " ".join(" ".join(page.text).split())
    assert f"1-64 62.5 % {HOSTILE} 37.5 %" in told and "half" not in told and HOSTILE not in text
    assert "Norms of their own" in told and [tag for tag, _ in page.tags].count("script") == 1
    assert "The ensemble that teaches" not in page_of(table, tmp_path / "other.html", history=[{"epoch": 1, "loss": 1.0}])


def test_many_classes_have_no_matrix(table, tmp_path):
    found = Findings(predictions=[predictions("1.0-64-8", range(40), range(40))])
    page = Page(page_of(table, tmp_path / "report.html", findings=found))
    assert ("table", {"class": "matrix"}) not in page.tags and "and 10 classes" in " ".join(page.text)


def test_average_precision_is_told_by_class(table, tmp_path):
    found = Findings(per_class=[ClassPrecision("0.6-48-8", {"sit": 10.0, "run": 5.0}), ClassPrecision("1-64-8", {"sit": 20.0, "run": 90.0})])
    text = " ".join(" ".join(Page(page_of(table, tmp_path / "report.html", findings=found)).text).split())
    assert "class 1-64-8 0.6-48-8 sit 20.0 10.0 run 90.0 5.0" in text


@pytest.mark.parametrize(
    "test, words",
    [
        (MultiViewTest("test", "10x3", 64, {"1-64-8": {"top1_acc": 40.0}}, 100), ["3 views of a video and the test at 30", "the val split, the test's the test split"]),
        (MultiViewTest("val", "3x1", 64, {"1-64-8": {"top1_acc": 32.0}}), ["Both were measured alike"]),
    ],
)  # fmt: skip
def test_a_test_stands_beside_the_table_with_its_conditions(table, tmp_path, test, words):
    text = " ".join(" ".join(Page(page_of(table, tmp_path / "report.html", findings=Findings(test=test))).text).split())
    assert f"the test: {test.split} split, {test.views} views" in text and "1-64-8 32.00 %" in text
    for word in words:
        assert word in text


def test_results_of_a_test_are_read_or_refused():
    content = {"split": "test", "views": "2x3", "crop": 24, "num_videos": 12, "results": {"1-24-4": {"top1_acc": "50.00"}}}
    assert MultiViewTest.from_dict(content) == MultiViewTest("test", "2x3", 24, {"1-24-4": {"top1_acc": 50.0}}, 12)
    with pytest.raises(ValueError, match="no results of a multi-view test"):
        MultiViewTest.from_dict({"split": "test"})


def rows(accuracies, gflops, latencies, count, metric="top1_acc"):
    made = [
        Row(f"{(i + 1) / 10:g}-32-4", (i + 8,), cost, 9, {metric: accuracy}, {"cpu": ms})
        for i, (accuracy, cost, ms) in enumerate(zip(accuracies, gflops, latencies))
    ]
    return QueryTable(made, {"metric": metric, "split": "val", "num_views": 1, "crop": 32, "num_videos": count})


def test_the_accuracy_comes_with_its_interval(tmp_path):
    text = " ".join(" ".join(Page(page_of(rows([50.0], [1.0], [1.0], 24), tmp_path / "report.html")).text).split())
    assert "50.00 % (31 to 69)" in text and "24 videos: an accuracy is known to about 19 points either way" in text


@pytest.mark.parametrize(
    "table, predicted, word",
    [
        (rows([60.0, 65.0], [1, 2], [1, 2], 24), None, "24 videos are few"),
        (rows([20.0, 80.0], [1, 2], [1, 2], 5000), None, "The configuration of the fewest GFLOPs, 0.1-32-4, is 60 points behind"),
        (rows([78.0, 80.0], [1, 9], [1, 1.2], 5000), None, "has about the same median latency (1 to 1.2 ms, of 9 times different GFLOPs)"),
        (rows([50.0, 60.0], [1, 2], [1, 2], 5000), ([0, 0, 0, 1, 1], [0, 0, 0, 0, 0]), None),
        (rows([50.0, 60.0], [1, 2], [1, 2], 5000), ([0, 0, 1, 1, 1], [0, 0, 0, 0, 0]), "No video was recognised of sit:"),
        (rows([49.0, 50.0], [1, 2], [1, 2], 5000), ([0, 1], [0, 0]), "cannot be told from guessing (50.0 % with 2 classes)"),
        (rows([78.0, 80.0], [1, 2], [1, 2], 5000), None, None),
    ],
)  # fmt: skip
def test_the_numbers_suggest_what_to_do(table, predicted, word):
    found = suggestions(table, predicted and predictions("0.2-32-4", *predicted), None, ["run", "sit"])
    assert len(found) == (word is not None), found
    assert word is None or word in found[0]


def test_a_page_of_images_speaks_of_images(tmp_path):
    made = [Row(f"{width}-32", (int(40 * width),), width, 9, {"top1_acc": 90 * width, "top5_acc": 100.0}) for width in (0.5, 1.0)]
    table = QueryTable(made, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 32, "num_videos": 100, "model": "WideResNet"})
    text = words_of(page_of(table, tmp_path / "report.html", findings=Findings(class_names=["cat", "dog"])))
    assert "100 images: an accuracy is known" in text and "WideResNet: report" in text and "image.png --gflops" in text
    assert "written width-pixels: 1-32 runs 100 % of the channels on an image of 32 x 32 pixels" in text
    assert "top-5" not in text  # of two classes the right one is always among the five


def test_a_network_that_classifies_boxes_is_given_boxes(tmp_path):
    table = rows([20.0, 30.0], [1, 2], [1, 2], 50, metric="map")
    text = words_of(page_of(table, tmp_path / "report.html", findings=Findings(has_boxes=True)))
    assert "clip.mp4 --boxes boxes.csv --gflops" in text and ".predict(" not in text
    assert "mean average precision has no simple interval" in text and "95 %" not in text


def test_a_table_of_one_row_offers_no_choice(tmp_path):
    text = words_of(page_of(rows([50.0], [1], [1], 50), tmp_path / "report.html"))
    assert "measured at one configuration" in text and "mutual3d select" not in text and "whose intervals overlap" not in text


def test_what_could_not_be_read_is_named(tmp_path):
    found = Findings(left_out=[f"/videos/{k}.mp4" for k in range(8)])
    text = words_of(page_of(rows([50.0], [1], [1], 50), tmp_path / "report.html", findings=found))
    assert "8 of 58 videos could not be read and are left out of every number here: 0.mp4, 1.mp4, 2.mp4, 3.mp4, 4.mp4, 5.mp4 and 2 more" in text


def test_widths_of_several_groups_are_told(tmp_path):
    for widths, told in (((0.5, 1.0), "50 % and 100 %"), ((0.5, 1.0, 0.75, 0.5), "50 % to 100 %"), ((1.0, 1.0), "100 %")):
        made = Row(Configuration(widths, 32, 4), (8, 40), 1.0, 9, {"top1_acc": 50.0})
        table = QueryTable([made], {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 32})
        assert f"runs {told} of the channels" in words_of(page_of(table, tmp_path / "report.html"))


def test_the_first_numbers_are_the_best_half_of_its_cost_and_the_cheapest(tmp_path):
    table = rows([40.0, 60.0, 80.0], [1, 7, 8], [1, 1.4, 3], 100)
    test = MultiViewTest("test", "2x3", 32, {"0.3-32-4": {"top1_acc": 83.0}, "0.1-32-4": {"top1_acc": 45.0}}, 100)
    text = words_of(page_of(table, tmp_path / "report.html", findings=Findings(test=test)))
    assert "Most accurate 80.00 % (71 to 87) 0.3-32-4, 3 ms, 8 GFLOPs Best at half of that cost 60.00 %" in text
    assert "Cheapest 40.00 %" in text and "Test, 6 views a video 83.00 % (74 to 89) 0.3-32-4, test split" in text


def words_of(page):
    return " ".join(" ".join(Page(page).text).split())


# ---- Measured time first ----------------------------------------------------------------------------------------------


@pytest.fixture
def timed():
    """Two device keys, of which the second name is the faster one; on it the third row is the fastest of all."""
    times = {"cpu.a-eager-fp32-b1-t2": (8, 9, 10), "cpu.a-openvino-fp32-b1-t2": (2, 3, 1)}
    made = [
        Row(f"{(i + 1) / 10:g}-32-4", (i + 8,), cost, 9, {"top1_acc": accuracy}, {key: ms[i] for key, ms in times.items()})
        for i, (accuracy, cost) in enumerate([(50.0, 1), (60.0, 2), (55.0, 3)])
    ]
    return QueryTable(made, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 32})


def test_fronts_and_plots_over_time_come_first_one_for_each_device_and_gflops_last(timed, tmp_path):
    text = page_of(timed, tmp_path / "report.html")
    assert re.findall(r"<h3>(?:By|And by) (.*)</h3>", text) == [
        "median latency on cpu.a-openvino-fp32-b1-t2", "median latency on cpu.a-eager-fp32-b1-t2", "GFLOPs per view",
    ]  # fmt: skip
    drawn = [attributes["alt"] for tag, attributes in Page(text).tags if tag == "img"]
    assert drawn == [f"accuracy against median latency on cpu.a-{runtime}-fp32-b1-t2 (ms)" for runtime in ("openvino", "eager")] + [
        "accuracy against 1e9 multiply-adds (GFLOPs per view)"
    ]
    words = words_of(text)
    assert "At 1 of the 2 budgets of median latency on cpu.a-openvino-fp32-b1-t2 on this front, a choice by GFLOPs would" in words
    assert "A choice by GFLOPs would have been right at every budget of median latency on cpu.a-eager-fp32-b1-t2" in words
    assert "Its front has the same rows as that by median latency on cpu.a-eager-fp32-b1-t2." in words


def test_a_runtime_that_is_all_overhead_is_named_beside_one_that_is_not(timed):
    (told,) = [sentence for sentence in suggestions(timed) if "about the same" in sentence]
    assert told.startswith("On cpu.a-eager-fp32-b1-t2 every configuration has about the same median latency (8 to 10 ms, of 3 times different GFLOPs)")
    assert told.endswith("On cpu.a-openvino-fp32-b1-t2 they take 1 to 3 ms: choose and serve by that.")


def test_the_first_numbers_are_of_the_front_over_time(timed, tmp_path):
    text = words_of(page_of(timed, tmp_path / "report.html"))
    assert "Most accurate 60.00 % 0.2-32-4, 3 ms, 2 GFLOPs Cheapest 55.00 % 0.3-32-4, 1 ms, 3 GFLOPs" in text


def test_commands_ask_for_time_first_and_can_be_met(timed, tmp_path):
    text = page_of(timed, tmp_path / "report.html")
    asked = re.findall(r"mutual3d select \S+ --(\S+) ([\d.]+)(?: --device ([^\s<]+))?", text)
    assert [name for name, _, _ in asked] == ["latency-ms", "gflops"] and asked[0][2] == "cpu.a-openvino-fp32-b1-t2"
    for name, amount, device in asked:
        timed.select(device=device or None, **{name.replace("-", "_"): float(amount)})


def test_plots_of_a_table_are_a_file_for_each_cost_with_a_front_for_each_device(timed, tmp_path):
    plot_costs(timed, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"accuracy_vs_gflops.png", "accuracy_vs_latency_ms.png"}
    (axes,) = devices_figure(timed, "latency_ms").axes
    assert [(line.get_label(), list(line.get_xdata())) for line in axes.lines] == [
        ("cpu.a-eager-fp32-b1-t2", [8, 9]), ("cpu.a-openvino-fp32-b1-t2", [1, 3]),
    ]  # fmt: skip
    assert axes.get_xlabel() == "median latency (ms)" and axes.get_ylabel().startswith("top-1 accuracy (%)")


# ---- Without a table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "test, words",
    [
        (None, ["One network. No query table", "mutual3d predict", "A: 1"]),
        (MultiViewTest("test", "10x3", 64, {"1-64-8": {"top1_acc": 50.0}}, 24), ["Test, 30 views a video 50.00 % (31 to 69) 1-64-8, test split", "24 videos"]),
        (MultiViewTest("val", "1x1", 64, {"1-64-8": {"map": 20.0}}, 24, sample="keyframe"), ["1 view a keyframe 20.00 % 1-64-8", "mean average precision (%)", "24 keyframes"]),
    ],
)  # fmt: skip
def test_a_page_without_a_table_tells_what_else_was_found(tmp_path, test, words):
    history = [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}]
    text = page_of(None, tmp_path / "report.html", history=history, title="x3d", findings=Findings(command="mutual3d run", config="A: 1", test=test))
    page = Page(text)
    told = words_of(text)
    assert ("img", {"class": "plot"}) not in page.tags and "x3d: report" in told and 'alt="loss over epochs"' in text
    for word in words:
        assert word in told, word
    assert "Pareto front" not in told and "--gflops" not in told and "set_budget" not in told


def test_cascades_are_told_with_what_they_cost_at_most(table, tmp_path):
    facts = CascadeFacts(Cascade.parse("0.6-48-8@0.75T1.6+1-64-8"), {"top1_acc": 31.0}, (0.75, 0.25))
    text = page_of(QueryTable(table.rows, table.provenance, [facts]), tmp_path / "report.html")
    rows = Page(text).rows
    without = page_of(table, tmp_path / "without.html")
    assert rows == Page(without).rows + 2 and "Cascades" not in without
    assert "0.6-48-8@0.75T1.6+1-64-8" in text and "mean GFLOPs" in text and "at its mean cost" in text
    for cell in ("<td>31.00</td>", "<td>0.896</td>", "<td>1.856</td>", "<td>25</td>"):
        assert cell in text


def test_a_command_in_a_sentence_stands_as_code(timed, tmp_path):
    """The third row lies off the front over GFLOPs; where it was not timed, a command that times all is told."""
    last = timed.rows[-1]
    some = QueryTable([*timed.rows[:-1], Row(last.configuration, last.signature, last.gflops, 9, last.accuracy)], dict(timed.provenance))
    text = page_of(some, tmp_path / "report.html")
    assert "<code>mutual3d bench MODEL --all</code> measures every configuration." in text and "`" not in words_of(text)
