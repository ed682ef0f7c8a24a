"""report.html: one file that shows a run's query table to somebody who was not there, and says what to do next."""

import base64
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jinja2
import numpy as np
from matplotlib.figure import Figure

from mutual3d.cost.axes import ALWAYS_COUNTED, CostWords
from mutual3d.report.advice import class_name, interval_in_words, noun, suggestions
from mutual3d.report.classes import ClassPrecision, Example, Predictions, class_accuracies
from mutual3d.report.plots import HISTORY_LABELS, accuracy_figure, history_figure, history_names, png_bytes
from mutual3d.table.interval import accuracy_interval, num_videos, wilson_interval
from mutual3d.table.query_table import QueryTable, Row, metric_label, round_up
from mutual3d.utils.files import atomic_write

# A larger confusion matrix cannot be read: the worst classes are listed alone.
_MAX_MATRIX = 30
_MAX_CLASSES = 30
_MAX_NAMED = 6


@dataclass(frozen=True)
class MultiViewTest:
    """A test of several views: the split, views as `10x3` (in time x in space), crop in pixels, videos where known, and
    {configuration: {metric: per cent}}."""

    split: str
    views: str
    crop: int
    results: Mapping[str, Mapping[str, float]]
    num_videos: int | None = None

    @property
    def num_views(self) -> int:
        """Clips of each video whose scores are joined."""
        return math.prod(int(part) for part in self.views.split("x") if part.isdecimal())

    def interval(self, table: QueryTable, percent: float) -> tuple[float, float] | None:
        """The 95 % interval of a result of the metric that decides in `table`, in per cent; None where it is no share of a known number of videos."""
        return wilson_interval(percent, self.num_videos) if self.num_videos and table.words_of_metric().is_share else None

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
        left_out: what the videos are called that could not be read. has_boxes: the network classifies boxes.
    """

    command: str = ""
    config: str = ""
    predictions: Sequence[Predictions] = ()
    per_class: Sequence[ClassPrecision] = ()
    examples: Sequence[Example] = ()
    test: MultiViewTest | None = None
    class_names: Sequence[str] = ()
    left_out: Sequence[str] = ()
    has_boxes: bool = False


class _Cell(NamedTuple):
    """text, and the number to sort by; empty where there is none."""

    text: str
    value: str


class _Column(NamedTuple):
    heading: str
    cell: Callable[[Row], _Cell]


def write_report(
    table: QueryTable,
    path: str | Path,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    title: str = "",
    findings: Findings = Findings(),
) -> None:
    """Write a self-contained page about a QueryTable: Pareto front, plots, classes, examples, what to do next, every row.

    history: what `history_figure` takes, one dictionary an epoch; None or empty leaves the training curve out.
    title: empty for the network and the data set that the provenance names.
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
    title: str = "",
    findings: Findings = Findings(),
) -> str:
    """The page as text; `directory` is where its commands look for query_table.json and adaptive.pyth."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("mutual3d.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    front, names, directory = table.pareto_front(), findings.class_names, Path(directory)
    best = findings.predictions[-1] if findings.predictions else None
    best_per_class = findings.per_class[-1] if findings.per_class else None
    columns = _columns(table, max(len(names), best.num_classes if best else 0) or None)
    return template.render(
        title=title or _title(table),
        summary=_summary(table),
        cards=_cards(table, findings.test),
        certainty=interval_in_words(table),
        left_out=_left_out(findings.left_out, table),
        legend=table.legend,
        words=_words(table),
        columns=columns,
        front=[(str(row.configuration), _cells(row, columns), False) for row in front],
        rows=[(str(row.configuration), _cells(row, columns), row in front) for row in table.rows],
        plots=_plots(table),
        curves=_curves(history or ()),
        classes=[_classes(predictions, names) for predictions in _ends(findings.predictions)],
        precisions=_precisions(_ends(findings.per_class)),
        examples=_examples(findings.examples, names),
        shown_configuration=best.configuration if best else "",
        test=_test(table, findings.test),
        suggestions=suggestions(table, best, best_per_class, names),
        commands=_commands(table, directory, findings.has_boxes),
        snippet="" if findings.has_boxes else _snippet(table, directory / "adaptive.pyth"),
        command=findings.command,
        config=findings.config,
        facts=[(name.replace("_", " "), _plain(value)) for name, value in table.provenance.items()],
    ).lstrip()


_Found = TypeVar("_Found")


def _ends(found: Sequence[_Found]) -> list[_Found]:
    """The most accurate and the cheapest of rows that go from the cheapest to the most accurate."""
    return [found[-1], *([found[0]] if len(found) > 1 else [])] if found else []


# ---- In words --------------------------------------------------------------------------------------------------------


def _title(table: QueryTable) -> str:
    """The network and the last two parts of the data set's path, where the provenance says them."""
    model, dataset = (str(table.provenance.get(key) or "") for key in ("model", "dataset"))
    place = "/".join(Path(dataset).parts[-2:]) if dataset else ""
    return " on ".join(filter(None, [model or "Adaptive network", place]))


def _summary(table: QueryTable) -> str:
    measured = f"{metric_label(table.metric)}, {table.conditions}"
    if len(table) == 1:
        return f"One network, measured at one configuration ({measured})."
    row_gflops = [row.gflops for row in table.rows]
    return (
        f"One network that was measured at {len(table)} configurations, of {min(row_gflops):.4g} to {max(row_gflops):.4g} GFLOPs "
        f"per view: whoever uses it chooses one by a budget ({measured})."
    )


def _cards(table: QueryTable, test: MultiViewTest | None) -> list[tuple[str, str, str, str]]:
    """(label, number, its interval, what it belongs to): the most accurate row, the best at half its cost, the cheapest, and the best test."""
    front = table.pareto_front()
    within_half = [row for row in front if row.gflops <= front[-1].gflops / 2]
    found = {"Most accurate": front[-1]}
    if within_half and within_half[-1] is not front[0]:
        found["Best at half of that cost"] = within_half[-1]
    if len(front) > 1:
        found["Cheapest"] = front[0]
    cards = [
        (label, f"{table.accuracy(row):.2f} %", _in_brackets(accuracy_interval(table, row)), _cost_in_words(table, row))
        for label, row in found.items()
    ]
    tested = {c: values[table.metric] for c, values in test.results.items() if table.metric in values} if test else {}
    if test and tested:
        best = max(tested, key=lambda configuration: tested[configuration])
        interval = _in_brackets(test.interval(table, tested[best]))
        cards.append((f"Test, {_views_in_words(test.num_views)}", f"{tested[best]:.2f} %", interval, f"{best}, {test.split} split"))
    return cards


def _cost_in_words(table: QueryTable, row: Row) -> str:
    latencies = (f"{row.latency_ms[key]:.3g} ms" for key in table.devices[:1] if key in row.latency_ms)
    return ", ".join([str(row.configuration), f"{row.gflops:.4g} GFLOPs", *latencies])


def _left_out(videos: Sequence[str], table: QueryTable) -> str:
    """Which videos the accuracies leave out, since they could not be read; empty for none."""
    if not videos:
        return ""
    named = ", ".join(Path(video).name or video for video in videos[:_MAX_NAMED])
    more = f" and {len(videos) - _MAX_NAMED} more" if len(videos) > _MAX_NAMED else ""
    verb = "is" if len(videos) == 1 else "are"
    return (
        f"{len(videos)} of {len(videos) + (num_videos(table) or 0)} {noun(table)}s could not be read and {verb} left out of every number "
        f"here: {named}{more}. The causes are in stdout.log."
    )


def _words(table: QueryTable) -> dict[str, str]:
    """What the words of the tables and plots mean, each once."""
    row = table.pareto_front()[-1]
    configuration, temporal = row.configuration, row.configuration.temporal
    share = " and ".join(f"{100 * width:.0f} %" for width in configuration.widths)
    frames = f"a clip of {temporal} frames of" if temporal > 1 else "an image of"
    form = "width-pixels-frames" if temporal > 1 else "width-pixels"
    has_intervals = accuracy_interval(table, row) is not None
    several = len(table) > 1
    return {
        "configuration": (
            f"A configuration is written {form}: {configuration} runs {share} of the channels on {frames} {configuration.spatial} x "
            f"{configuration.spatial} pixels."
        ),
        "latency": (
            f"{table.devices[0]} names what was timed: the device, the type of number, b: clips at a time, t: threads." if table.devices else ""
        ),
        "plot": (
            ("Each grey point is a configuration; the line is the Pareto front, and its colour says what grows at that step." if several else "")
            + (" A vertical bar is a 95 % interval." if has_intervals else "")
        ).strip(),
    }  # fmt: skip


def _views_in_words(count: int) -> str:
    return f"{count} view{'' if count == 1 else 's'} a video"


def _with_interval(table: QueryTable, row: Row) -> str:
    return f"{table.accuracy(row):.2f} %{_in_brackets(accuracy_interval(table, row))}"


def _in_brackets(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.0f} to {interval[1]:.0f})"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


# ---- Pictures --------------------------------------------------------------------------------------------------------


def _plots(table: QueryTable) -> list[tuple[str, str]]:
    """(data URI, description) of accuracy against each cost."""
    return [
        (_png(accuracy_figure(table, cost=words.name, device=key or None)), f"accuracy against {words.label(key)}")
        for words, key in table.cost_columns
        if words.is_drawn
    ]


def _png(figure: Figure) -> str:
    return _data_uri("image/png", png_bytes(figure))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(data URI, description) of one small plot for each curve of the training."""
    return [(_png(history_figure(history, [name])), f"{HISTORY_LABELS[name]} over epochs") for name in history_names(history)]


def _examples(examples: Sequence[Example], names: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, videos): first those that were recognised, then those that were not."""
    groups = {
        "Recognised": [example for example in examples if example.is_right],
        "Mistaken, of those that it was surest of": [example for example in examples if not example.is_right],
    }
    return [(heading, [_example(one, names) for one in group]) for heading, group in groups.items() if group]


def _example(example: Example, names: Sequence[str]) -> dict[str, Any]:
    return {
        "picture": _data_uri("image/jpeg", example.strip_JPEG), "video": Path(example.video).name or example.video,
        "is_right": example.is_right, "label": class_name(example.label, names),
        "predicted": class_name(example.predicted, names), "confidence": f"{100 * example.confidence:.0f} %",
    }  # fmt: skip


# ---- Tables ----------------------------------------------------------------------------------------------------------


def _columns(table: QueryTable, num_classes: int | None = None) -> list[_Column]:
    """What a reader compares first, accuracy and costs, then what a configuration is made of."""
    return [
        _metric_column(table, table.metric),
        *(_cost_column(words, key) for words, key in table.cost_columns if words.is_drawn),
        _Column("width", lambda row: _Cell(_width_in_words(row), repr(row.configuration.widths[0]))),
        _number_column("pixels", lambda row: row.configuration.spatial, "d"),
        _number_column("frames", lambda row: row.configuration.temporal, "d"),
        *(_cost_column(words, key) for words, key in table.cost_columns if not words.is_drawn),
        *(_metric_column(table, name) for name in table.metrics[1:] if _says_something(name, num_classes)),
    ]


def _says_something(metric: str, num_classes: int | None) -> bool:
    """The right class is always among the five highest where there are no more."""
    return metric != "top5_acc" or num_classes is None or num_classes > 5


def _number_column(heading: str, value: Callable[[Row], float | None], form: str) -> _Column:
    def cell(row: Row) -> _Cell:
        number = value(row)
        return _Cell("–", "") if number is None else _Cell(format(number, form), repr(number))

    return _Column(heading, cell)


def _cost_column(words: CostWords, key: str) -> _Column:
    heading = f"{words.unit}, {key}" if key else words.unit
    return _number_column(heading, lambda row: row.values(words.name).get(key), ",d" if words.is_whole else ".4g")


def _metric_column(table: QueryTable, name: str) -> _Column:
    def cell(row: Row) -> _Cell:
        if name not in row.accuracy:
            return _Cell("–", "")
        text = f"{row.accuracy[name]:.2f}"
        return _Cell(text + _in_brackets(accuracy_interval(table, row, name)), repr(row.accuracy[name]))

    has_interval = accuracy_interval(table, table.rows[0], name) is not None
    return _Column(f"{metric_label(name)} (%{', 95 % interval' if has_interval else ''})", cell)


def _width_in_words(row: Row) -> str:
    return ", ".join(f"{width:g}" for width in row.configuration.widths)


def _cells(row: Row, columns: Sequence[_Column]) -> list[_Cell]:
    return [column.cell(row) for column in columns]


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


def _range(percent: float, count: int) -> str:
    return "{:.0f} to {:.0f} %".format(*wilson_interval(percent, count))


def _matrix(counts_KK: np.ndarray, names: Sequence[str]) -> list[tuple[str, list[tuple[int, str, bool]]]] | None:
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
        lines.append((
            configuration, "not in the table" if row is None else _with_interval(table, row),
            "–" if tested is None else f"{tested:.2f} %{_in_brackets(test.interval(table, tested))}",
        ))  # fmt: skip
    videos = f", {test.num_videos} {noun(table)}s" if test.num_videos else ""
    views = f"{test.views} views (in time x in space)" if test.num_views > 1 else "1 view"
    return {
        "heading": "The test of several views" if test.num_views > 1 else "The test",
        "table": table.conditions, "lines": lines,
        "test": f"{test.split} split, {views}, crop {test.crop}{videos}",
        "reasons": _reasons(table, test),
    }  # fmt: skip


def _reasons(table: QueryTable, test: MultiViewTest) -> list[str]:
    """Why the two numbers of one configuration differ."""
    split, views = table.provenance["split"], table.provenance["num_views"]
    found = []
    if test.num_views != views:
        plural = "view" if views == 1 else "views"
        found.append(
            f"The table looks at {views:g} {plural} of a video and the test at {test.num_views}, whose scores are joined: usually some "
            f"points better, for {test.num_views / views:.3g} times the cost. GFLOPs, here and in budgets, are those of one view."
        )
    if split != test.split:
        found.append(
            f"The table's {noun(table)}s are the {split} split, the test's the {test.split} split. The best of many configurations on the "
            f"{split} split was lucky there too, so the {test.split} split is usually a little lower, and the number to report."
        )
    if table.provenance["crop"] != test.crop:
        found.append(f"The table's crop is {table.provenance['crop']} pixels and the test's {test.crop}.")
    return found or ["Both were measured alike: what differs is chance."]


# ---- What to do next -------------------------------------------------------------------------------------------------


def _middle(rows: Sequence[Row]) -> Row:
    """A row whose budget makes an example that this very table can meet."""
    return rows[len(rows) // 2]


def _commands(table: QueryTable, directory: Path, has_boxes: bool) -> list[tuple[str, str]]:
    """(what it is for, the command line)."""
    model, query_table = (shlex.quote(str(directory / name)) for name in ("adaptive.pyth", "query_table.json"))
    row, is_image = _middle(table.pareto_front()), noun(table) == "image"
    gflops = f"{round_up(row.gflops):g}"
    source = "image.png" if is_image else "clip.mp4 --boxes boxes.csv" if has_boxes else "clip.mp4"
    commands = [(f"See what it makes of {'an image' if is_image else 'a video'}, within a budget", f"mutual3d predict {model} {source} --gflops {gflops}")]
    if len(table) > 1:
        commands.append(("The best configuration within a budget of GFLOPs", f"mutual3d select {model} --gflops {gflops}"))
        for words in table.costs.values():
            if words.name not in ALWAYS_COUNTED:
                key = table.keys(words.name)[0]
                budget = round_up(table.cost(_middle(table.pareto_front(words.name, key)), words.name, key))
                command = f"mutual3d select {model} {words.option} {budget:g}" + (f" --device {shlex.quote(key)}" if key else "")
                commands.append((f"The best configuration within a budget of {words.title}", command))
    purpose = "One configuration as a file for other runtimes, and how long it takes there"
    commands.append((purpose, f"mutual3d export {model} --config {row.configuration} --format onnx"))
    return [*commands, ("This run beside another one, in one figure", f"mutual3d compare this={query_table} other=other/query_table.json --output comparison")]


def _snippet(table: QueryTable, model: Path) -> str:
    row = _middle(table.pareto_front())
    return "\n".join(
        [
            "import mutual3d",
            "",
            f"model = mutual3d.load({str(model)!r})",
            f'model.set_budget(gflops={round_up(row.gflops):g})  # or model.activate("{row.configuration}")',
            f'print(model.predict("{"image.png" if noun(table) == "image" else "clip.mp4"}").top(5))',
            "scores = model(clip)  # uint8 pixels of full size: the model shrinks them to the active configuration",
        ]
    )
