"""report.html: one file that shows a run's query table to somebody who was not there."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from mutual3d.report.plots import accuracy_figure, history_figure, png_bytes
from mutual3d.table.query_table import QueryTable, metric_label, round_up
from mutual3d.utils.files import atomic_write

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note { color: #555; } img { max-width: min(100%, 60rem); height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e3e6ea; white-space: nowrap; }
table.facts td { text-align: left; white-space: normal; } table.facts th { text-align: left; font-weight: 600; }
th { background: #f5f6f8; }
th button { border: 0; padding: 0; background: none; color: inherit; font: inherit; cursor: pointer; }
th button:focus-visible { outline: 2px solid #1f77b4; }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
tr.best td { background: #eef6ee; }
pre { background: #f5f6f8; padding: .8rem 1rem; overflow-x: auto; font-size: .87rem; }
"""

SORT_SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function (table) {
  var heads = table.tHead.rows[0].cells, body = table.tBodies[0];
  Array.prototype.forEach.call(heads, function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var ascending = head.getAttribute("aria-sort") !== "ascending";
      Array.prototype.forEach.call(heads, function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      Array.prototype.slice.call(body.rows).sort(function (a, b) {
        var x = parseFloat(a.cells[column].dataset.value), y = parseFloat(b.cells[column].dataset.value);
        if (isNaN(x) || isNaN(y)) { return isNaN(x) - isNaN(y); }
        return ascending ? x - y : y - x;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
"""


def write_report(
    table: QueryTable, path: str | Path, *, history: Sequence[Mapping] | None = None, title: str = "Adaptive video network"
) -> None:
    """Write a self-contained page about a QueryTable: provenance, plots, Pareto front, every row, and how to use it.

    history: what `history_figure` takes, one dictionary an epoch; None or empty leaves the training curve out.
    The page loads nothing from anywhere, and its commands name the files beside it.
    """
    page = report_html(table, Path(path).parent, history=history, title=title)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def report_html(
    table: QueryTable,
    directory: str | Path | None,
    *,
    history: Sequence[Mapping] | None = None,
    title: str = "Adaptive video network",
) -> str:
    """The page as text; `directory` is where its commands look for query_table.json and adaptive.pyth."""
    sections = [
        _section("The run", _facts(table.provenance)),
        _section("Accuracy for each budget", _budget_plots(table)),
        _section("Best configuration for each budget", _front_table(table)),
        _section("How to use it", _usage(table, Path(directory))),
        _section("Every configuration", _full_table(table)),
    ]
    if history:
        sections.insert(1, _section("Training", _image(history_figure(history), "training curves over epochs")))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{_summary(table)}\n{''.join(sections)}"
        f"<script>{SORT_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(heading, content):
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>\n"


def _note(text):
    return f'<p class="note">{escape(text)}</p>'


def _summary(table):
    front = table.pareto_front()
    cheapest, best = front[0], front[-1]
    return _note(
        f"One network, {len(table)} measured configurations: from {table.accuracy(cheapest):.2f} % at {cheapest.gflops:.4g} "
        f"to {table.accuracy(best):.2f} % at {best.gflops:.4g} GFLOPs per view "
        f"({metric_label(table.metric)}, {table.conditions})."
    )


def _facts(provenance):
    lines = [
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(_plain(value))}</td></tr>"
        for name, value in provenance.items()
    ]
    return f'<table class="facts">{"".join(lines)}</table>'


def _plain(value):
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def _budget_plots(table):
    images = [_image(accuracy_figure(table), "accuracy against GFLOPs")]
    for device in table.devices:
        figure = accuracy_figure(table, cost="latency_ms", device=device)
        images.append(_image(figure, f"accuracy against latency on {device}"))
    return "\n".join(images)


def _image(figure, description):
    data = base64.b64encode(png_bytes(figure)).decode("ascii")
    return f'<p><img src="data:image/png;base64,{data}" alt="{escape(description)}" width="760"></p>'


def _front_table(table):
    return _note(f"No other configuration is as accurate for as few GFLOPs. {table.legend}.") + _table(
        table, table.pareto_front()
    )


def _full_table(table):
    best = {str(row.configuration) for row in table.pareto_front()}
    text = f"Click a heading to sort; shaded rows are the best for their GFLOPs. {table.legend}."
    return _note(text) + _table(table, table.rows, best, sortable=True)


def _table(table, rows, best=frozenset(), sortable=False):
    columns = _columns(table)
    button = "<button>{}</button>" if sortable else "{}"
    head = "".join(f'<th scope="col">{button.format(escape(name))}</th>' for name, _, _ in columns)
    body = "\n".join(_table_row(row, columns, str(row.configuration) in best) for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _columns(table):
    """(heading, value of a row or None, form) for every number of a row."""
    return [
        ("width", lambda row: row.configuration.width, "g"),
        ("pixels", lambda row: row.configuration.spatial, "d"),
        ("frames", lambda row: row.configuration.temporal, "d"),
        *((f"{metric_label(name)} (%)", lambda row, n=name: row.accuracy.get(n), ".2f") for name in table.metrics),
        ("GFLOPs", lambda row: row.gflops, ".4g"),
        ("parameters", lambda row: row.parameters, ",d"),
        *((f"ms, {key}", lambda row, k=key: row.latency_ms.get(k), ".4g") for key in table.devices),
    ]


def _table_row(row, columns, best):
    cells = []
    for _, value_of, form in columns:
        value = value_of(row)
        text = "–" if value is None else format(value, form)
        cells.append(f'<td data-value="{"" if value is None else repr(value)}">{escape(text)}</td>')
    return f'<tr{" class=best" if best else ""}>{"".join(cells)}</tr>'


def _usage(table, directory):
    text = "The most accurate configuration within a budget, and a prediction with it:"
    blocks = [_commands(table, directory / "query_table.json", directory / "adaptive.pyth")]
    blocks.append(_snippet(table, directory / "adaptive.pyth"))
    return "\n".join([_note(text), *(f"<pre>{escape(block)}</pre>" for block in blocks)])


def _middle(rows):
    """A row whose budget makes an example that this very table can meet."""
    return rows[len(rows) // 2]


def _commands(table, query_table, model):
    gflops = round_up(_middle(table.pareto_front()).gflops)
    lines = [f"mutual3d select {query_table} --gflops {gflops:g}"]
    for device in table.devices[:1]:
        latency = round_up(_middle(table.pareto_front("latency_ms", device)).latency_ms[device])
        lines.append(f"mutual3d select {query_table} --latency-ms {latency:g} --device {device}")
    lines.append(f"mutual3d predict {model} clip.mp4 --gflops {gflops:g}")
    return "\n".join(lines)


def _snippet(table, model):
    row = _middle(table.pareto_front())
    return "\n".join(
        [
            "import mutual3d",
            "",
            f'model = mutual3d.load("{model}")',
            f'model.set_budget(gflops={round_up(row.gflops):g})  # or model.activate("{row.configuration}")',
            "scores = model(clip)  # a full-size clip; the model shrinks it to the active configuration",
        ]
    )
