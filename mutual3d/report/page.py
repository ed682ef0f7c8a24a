"""report.html: one file that shows a run's query table to somebody who was not there, and says what to do next."""

import base64
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from mutual3d.report.advice import class_name, interval_in_words, suggestions
from mutual3d.report.classes import ClassPrecision, Example, Predictions, class_accuracies
from mutual3d.report.plots import accuracy_figure, history_figure, png_bytes
from mutual3d.table.interval import SHARES, accuracy_interval, wilson_interval
from mutual3d.table.query_table import QueryTable, Row, metric_label, round_up
from mutual3d.utils.files import atomic_write

# A larger confusion matrix cannot be read: the worst classes are listed alone.
_MAX_MATRIX = 30
_MAX_CLASSES = 30
_THUMBNAIL = 96
_JPEG_QUALITY = 75


@dataclass(frozen=True)
class MultiViewTest:
    """A test of several views: the split, views as `10x3` (in time x in space), crop in pixels, videos where known, and
    {configuration: {metric: per cent}}."""

    split: str
    views: str
    crop: int
    results: Mapping[str, Mapping[str, float]]
    num_videos: int | None = None

    @classmethod
    def from_dict(cls, content: Any) -> "MultiViewTest":
        """Of what test_results.json holds; ValueError for anything else."""
        try:
            results = {str(c): {str(k): float(v) for k, v in values.items()} for c, values in content["results"].items()}
            return cls(str(content["split"]), str(content["views"]), int(content["crop"]), results, content.get("num_videos"))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"these are no results of a multi-view test: {error}") from None


@dataclass(frozen=True)
class Findings:
    """What a page tells beside the table; whatever is empty is left out.

    Args:
        command: the command line of the run. config: its merged config, as text.
        predictions, per_class: of rows of the Pareto front, cheapest first, one or the other.
        examples: videos with frames, of the most accurate row.
        class_names: by label.
    """

    command: str = ""
    config: str = ""
    predictions: Sequence[Predictions] = ()
    per_class: Sequence[ClassPrecision] = ()
    examples: Sequence[Example] = ()
    test: MultiViewTest | None = None
    class_names: Sequence[str] = field(default_factory=tuple)


class _Column(NamedTuple):
    """heading, the number of a row or None, how it is written, and the text of a row where it is more than that number."""

    heading: str
    value: Callable[[Row], float | None]
    form: str


class _Cell(NamedTuple):
    text: str
    value: str


def write_report(
    table: QueryTable,
    path: str | Path,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    title: str = "Adaptive video network",
    findings: Findings = Findings(),
) -> None:
    """Write a self-contained page about a QueryTable: Pareto front, plots, classes, examples, what to do next, every row.

    history: what `history_figure` takes, one dictionary an epoch; None or empty leaves the training curve out.
    The page loads nothing from anywhere, and its commands name the files beside it.
    """
    page = report_html(table, Path(path).parent, history=history, title=title, findings=findings)
    with atomic_write(path) as temporary:
        # A file name that is no UTF-8 keeps its place, with a question mark.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def report_html(
    table: QueryTable,
    directory: str | Path,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    title: str = "Adaptive video network",
    findings: Findings = Findings(),
) -> str:
    """The page as text; `directory` is where its commands look for query_table.json and adaptive.pyth."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("mutual3d.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    front, names, directory = table.pareto_front(), findings.class_names, Path(directory)
    best = findings.predictions[-1] if findings.predictions else None
    best_per_class = findings.per_class[-1] if findings.per_class else None
    return template.render(
        title=title,
        summary=_summary(table),
        certainty=interval_in_words(table),
        legend=table.legend,
        columns=_columns(table),
        front=[_cells(row, _columns(table)) for row in front],
        rows=[(_cells(row, _columns(table)), row in front) for row in table.rows],
        plots=_plots(table),
        history=_png(history_figure(history)) if history else None,
        classes=[_classes(predictions, names) for predictions in _ends(findings.predictions)],
        precisions=_precisions(_ends(findings.per_class)),
        examples=[_example(example, names) for example in findings.examples],
        shown_configuration=best.configuration if best else "",
        test=_test(table, findings.test),
        suggestions=suggestions(table, best, best_per_class, names),
        commands=_commands(table, directory),
        snippet=_snippet(table, directory / "adaptive.pyth"),
        command=findings.command,
        config=findings.config,
        facts=[(name.replace("_", " "), _plain(value)) for name, value in table.provenance.items()],
    ).lstrip()


def _ends(found):
    """The most accurate and the cheapest of rows that go from the cheapest to the most accurate."""
    return [found[-1], *([found[0]] if len(found) > 1 else [])] if found else []


def _summary(table: QueryTable) -> str:
    cheapest, best = table.pareto_front()[0], table.pareto_front()[-1]
    return (
        f"One network, {len(table)} measured configurations: from {_with_interval(table, cheapest)} at {cheapest.gflops:.4g} "
        f"to {_with_interval(table, best)} at {best.gflops:.4g} GFLOPs per view ({metric_label(table.metric)}, {table.conditions})."
    )


def _with_interval(table, row):
    interval = accuracy_interval(table, row)
    return f"{table.accuracy(row):.2f} %" + ("" if interval is None else f" ({interval[0]:.0f} to {interval[1]:.0f})")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


# ---- Pictures --------------------------------------------------------------------------------------------------------


def _plots(table: QueryTable) -> list[tuple[str, str]]:
    """(data URI, description) of accuracy against each cost."""
    plots = [(_png(accuracy_figure(table)), "accuracy against GFLOPs")]
    for device in table.devices:
        figure = accuracy_figure(table, cost="latency_ms", device=device)
        plots.append((_png(figure), f"accuracy against latency on {device}"))
    return plots


def _png(figure):
    return _data_uri("image/png", png_bytes(figure))


def _data_uri(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _strip(frames_THWC: np.ndarray) -> str:
    """Frames beside each other as a small JPEG, some kB."""
    images = [Image.fromarray(frame) for frame in frames_THWC]
    images = [image.resize((max(1, round(image.width * _THUMBNAIL / image.height)), _THUMBNAIL)) for image in images]
    joined = Image.new("RGB", (sum(image.width for image in images), _THUMBNAIL))
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width
    buffer = io.BytesIO()
    joined.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return _data_uri("image/jpeg", buffer.getvalue())


def _example(example: Example, names: Sequence[str]) -> dict[str, Any]:
    return {
        "picture": _strip(example.frames_THWC), "video": Path(example.video).name or example.video, "is_right": example.is_right,
        "label": class_name(example.label, names), "predicted": class_name(example.predicted, names),
        "confidence": f"{100 * example.confidence:.0f} %",
    }  # fmt: skip


# ---- Tables ----------------------------------------------------------------------------------------------------------


def _columns(table: QueryTable) -> list[_Column]:
    def interval_end(row: Row, end: int) -> float | None:
        interval = accuracy_interval(table, row)
        return None if interval is None else interval[end]

    intervals = [
        _Column("95 % from", lambda row: interval_end(row, 0), ".1f"), _Column("to", lambda row: interval_end(row, 1), ".1f"),
    ]  # fmt: skip
    metrics = [
        _Column(f"{metric_label(name)} (%)", lambda row, n=name: row.accuracy.get(n), ".2f") for name in table.metrics
    ]
    return [
        _Column("width", lambda row: row.configuration.width, "g"),
        _Column("pixels", lambda row: row.configuration.spatial, "d"),
        _Column("frames", lambda row: row.configuration.temporal, "d"),
        metrics[0],
        *(intervals if accuracy_interval(table, table.rows[0]) else []),
        *metrics[1:],
        _Column("GFLOPs", lambda row: row.gflops, ".4g"),
        _Column("parameters", lambda row: row.parameters, ",d"),
        *(_Column(f"ms, {key}", lambda row, k=key: row.latency_ms.get(k), ".4g") for key in table.devices),
    ]


def _cells(row: Row, columns: Sequence[_Column]) -> list[_Cell]:
    values = [(column.value(row), column.form) for column in columns]
    return [_Cell("–", "") if value is None else _Cell(format(value, form), repr(value)) for value, form in values]


def _classes(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy of each class and, where it can be read, the confusion matrix."""
    num_classes = max(predictions.num_classes, len(names))
    confusion = predictions.confusion(num_classes)
    present = [k for k in range(num_classes) if confusion[k].any() or confusion[:, k].any()]
    worst = class_accuracies(confusion)
    low, high = wilson_interval(predictions.accuracy, len(predictions.labels))
    return {
        "configuration": predictions.configuration,
        "accuracy": f"{predictions.accuracy:.1f} % right of {len(predictions.labels)} videos ({low:.0f} to {high:.0f} %)",
        "names": [class_name(k, names) for k in present],
        "matrix": _matrix(confusion[np.ix_(present, present)], [class_name(k, names) for k in present]),
        "worst": [
            (class_name(c.label, names), f"{c.right} of {c.total}", f"{c.percent:.0f} %", _range(c.percent, c.total),
             "–" if c.confused is None else class_name(c.confused, names))
            for c in worst[:_MAX_CLASSES]
        ],
        "left_out": max(0, len(worst) - _MAX_CLASSES),
    }  # fmt: skip


def _range(percent, count):
    return "{:.0f} to {:.0f} %".format(*wilson_interval(percent, count))


def _matrix(counts_KK, names):
    """A row for each class: (name, [(count, share of the class, is it right)]); None where there are too many classes."""
    if len(names) > _MAX_MATRIX:
        return None
    shares = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    return [
        (name, [(int(counts_KK[i, j]), f"{shares[i, j]:.2f}", i == j) for j in range(len(names))]) for i, name in enumerate(names)
    ]


def _precisions(found: Sequence[ClassPrecision]) -> dict[str, Any] | None:
    """Average precision of each class, the worst at the first configuration first."""
    if not found:
        return None
    order = sorted(found[0].percents, key=lambda name: found[0].percents[name])
    rows = [(name, [f"{one.percents[name]:.1f}" if name in one.percents else "–" for one in found]) for name in order]
    return {"configurations": [one.configuration for one in found], "rows": rows}


def _test(table: QueryTable, test: MultiViewTest | None) -> dict[str, Any] | None:
    """The table's row and the test's result of each configuration that was tested, and what differs."""
    if test is None:
        return None
    rows = {str(row.configuration): row for row in table.rows}
    lines = []
    for configuration, values in test.results.items():
        row, tested = rows.get(configuration), values.get(table.metric)
        interval = None
        if tested is not None and test.num_videos and table.metric in SHARES:
            interval = wilson_interval(tested, test.num_videos)
        lines.append((
            configuration, "not in the table" if row is None else _with_interval(table, row),
            "–" if tested is None else f"{tested:.2f} %" + (f" ({interval[0]:.0f} to {interval[1]:.0f})" if interval else ""),
        ))  # fmt: skip
    videos = f", {test.num_videos} videos" if test.num_videos else ""
    return {
        "table": table.conditions, "lines": lines,
        "test": f"{test.split} split, {test.views} views (in time x in space), crop {test.crop}{videos}",
        "reasons": _reasons(table, test),
    }  # fmt: skip


def _reasons(table, test):
    """Why the two numbers of one configuration differ."""
    split, views = table.provenance["split"], table.provenance["num_views"]
    total = int(np.prod([int(part) for part in test.views.split("x") if part.isdecimal()] or [1]))
    found = []
    if total != views:
        plural = "view" if views == 1 else "views"
        found.append(
            f"The table looks at {views:g} {plural} of a video and the test at {total}, whose scores are averaged: usually some points "
            f"better, for {total / views:g} times the cost. Budgets are those of the table: one view."
        )
    if split != test.split:
        found.append(
            f"The table's videos are the {split} split, the test's the {test.split} split. The best of many configurations on the "
            f"{split} split was lucky there too, so the {test.split} split is usually a little lower, and the number to report."
        )
    if table.provenance["crop"] != test.crop:
        found.append(f"The table's crop is {table.provenance['crop']} pixels and the test's {test.crop}.")
    return found or ["Both were measured alike: what differs is chance."]


# ---- What to do next -------------------------------------------------------------------------------------------------


def _middle(rows):
    """A row whose budget makes an example that this very table can meet."""
    return rows[len(rows) // 2]


def _commands(table: QueryTable, directory: Path) -> list[tuple[str, str]]:
    """(what it is for, the command line)."""
    model, query_table = (shlex.quote(str(directory / name)) for name in ("adaptive.pyth", "query_table.json"))
    row = _middle(table.pareto_front())
    gflops = f"{round_up(row.gflops):g}"
    commands = [
        ("See what it makes of a video, within a budget", f"mutual3d predict {model} clip.mp4 --gflops {gflops}"),
        ("The best configuration within a budget", f"mutual3d select {model} --gflops {gflops}"),
    ]
    for device in table.devices[:1]:
        latency = round_up(_middle(table.pareto_front("latency_ms", device)).latency_ms[device])
        command = f"mutual3d select {model} --latency-ms {latency:g} --device {shlex.quote(device)}"
        commands.append(("The same for a latency", command))
    return [
        *commands,
        ("One configuration without PyTorch, timed beside it", f"mutual3d export {model} --config {row.configuration} --format onnx"),
        ("Beside another run", f"mutual3d compare this={query_table} other=other/query_table.json --output comparison"),
    ]


def _snippet(table: QueryTable, model: Path) -> str:
    row = _middle(table.pareto_front())
    return "\n".join(
        [
            "import mutual3d",
            "",
            f"model = mutual3d.load({str(model)!r})",
            f'model.set_budget(gflops={round_up(row.gflops):g})  # or model.activate("{row.configuration}")',
            "scores = model(clip)  # a full-size clip; the model shrinks it to the active configuration",
        ]
    )
