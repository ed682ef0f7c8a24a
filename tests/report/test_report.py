import base64
import re
from html.parser import HTMLParser

import pytest

from mutual3d.report.page import write_report
from mutual3d.table.query_table import QueryTable, Row

HOSTILE = '<script>alert("1")</script>'
VOID = {"meta", "img"}


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
    front, provenance, headings = len(table.pareto_front()), len(table.provenance), 2
    assert page.rows == len(table) + front + provenance + headings
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
    latency, device = re.search(r"--latency-ms (\S+) --device (\S+)", text).groups()
    table.select(latency_ms=float(latency), device=device)
    assert str(tmp_path / "adaptive.pyth") in text
