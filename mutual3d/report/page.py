"""report.html: one file that shows a run to somebody who was not there, its query table first, and says what to do next."""

import base64
import itertools
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jinja2
import numpy as np
from markupsafe import Markup, escape

from mutual3d.cost.axes import CostWords
from mutual3d.report.advice import class_name, interval_in_words, noun, suggestions
from mutual3d.report.classes import ClassPrecision, Example, Predictions, class_accuracies, right_where_wrong
from mutual3d.report.plots import HISTORY_LABELS, accuracy_png, history_names, history_png, norms_figure, png_bytes
from mutual3d.table.cascade_row import CascadeRow
from mutual3d.table.choice import wrong_choices_in_words
from mutual3d.table.interval import accuracy_interval, num_videos, wilson_interval
from mutual3d.table.query_table import QueryTable, Row, round_up
from mutual3d.table.words import MetricWords, metric_words
from mutual3d.utils.files import atomic_write

# A larger confusion matrix cannot be read: the worst classes are listed alone.
_MAX_MATRIX = 30
_MAX_CLASSES = 30
_MAX_COMPLEMENTARY = 8
_MAX_NAMED = 6


@dataclass(frozen=True)
class MultiViewTest:
    """A test of several views: the split, views as `10x3` (in time x in space), crop in pixels, samples where known, and
    {configuration: {metric: number}}.

    metric: the name of the one that decides, with its `words`; "" takes the first. sample: what one sample is called.
    """

    split: str
    views: str
    crop: int
    results: Mapping[str, Mapping[str, float]]
    num_videos: int | None = None
    metric: str = ""
    words: MetricWords | None = None
    sample: str = "video"

    def __post_init__(self) -> None:
        if not self.metric:
            object.__setattr__(self, "metric", next((name for values in self.results.values() for name in values), ""))
        if self.words is None:
            object.__setattr__(self, "words", metric_words({}, self.metric))

    @property
    def num_views(self) -> int:
        """Clips of each video whose scores are joined."""
        return math.prod(int(part) for part in self.views.split("x") if part.isdecimal())

    @property
    def best(self) -> str | None:
        """The configuration with the best result; None where none has the metric that decides."""
        tested = {c: values[self.metric] for c, values in self.results.items() if self.metric in values}
        sign = 1 if self.words is None or self.words.higher_is_better else -1
        return max(tested, key=lambda configuration: sign * tested[configuration]) if tested else None

    def told(self, configuration: str) -> tuple[str, str]:
        """(a result of the metric that decides, its interval in brackets), as text; "–" where it was not measured."""
        value = self.results[configuration].get(self.metric)
        if value is None:
            return "–", ""
        has_interval = self.num_videos and self.words is not None and self.words.is_share
        interval = wilson_interval(value, self.num_videos) if has_interval and self.num_videos else None
        return f"{value:.2f} {self.words.unit if self.words else '%'}", _in_brackets(interval)

    @classmethod
    def from_dict(cls, content: Any) -> "MultiViewTest":
        """Of what test_results.json holds; ValueError for anything else."""
        try:
            results = {str(c): {str(k): float(v) for k, v in values.items()} for c, values in content["results"].items()}
            metric, sample = str(content.get("metric", "")), str(content.get("sample", "video"))
            words = metric_words(content, metric) if metric else None
            return cls(
                str(content["split"]), str(content["views"]), int(content["crop"]), results, content.get("num_videos"), metric, words, sample
            )
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
        norms: of networks whose widths or sizes have norms of their own, what `norms_figure` takes.
        left_out: what the videos are called that could not be read. has_boxes: the network classifies boxes. takes_images:
            it takes images instead of clips. gives: what it gives, in a word (`AdaptiveNetwork.gives`); commands that ask for classes
            are left out where that is something else.
    """

    command: str = ""
    config: str = ""
    predictions: Sequence[Predictions] = ()
    per_class: Sequence[ClassPrecision] = ()
    examples: Sequence[Example] = ()
    test: MultiViewTest | None = None
    class_names: Sequence[str] = ()
    left_out: Sequence[str] = ()
    norms: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    has_boxes: bool = False
    takes_images: bool = False
    gives: str = "classes"


class _Cell(NamedTuple):
    """text, and the number to sort by; empty where there is none."""

    text: str
    value: str


class _Column(NamedTuple):
    heading: str
    cell: Callable[[Row], _Cell]


def write_report(
    table: QueryTable | None,
    path: str | Path,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    title: str = "",
    findings: Findings = Findings(),
) -> None:
    """Write a self-contained page about a QueryTable: Pareto front, plots, classes, examples, what to do next, every row.

    Without a table it tells what else was found: the test, the training, the command and the config.
    history: what `history_figure` takes, one dictionary an epoch; None or empty leaves the training curve out.
    title: empty for the network and the data set that the provenance names.
    The page loads nothing from anywhere, and its commands name the files beside it.
    """
    page = report_html(table, Path(path).parent, history=history, title=title, findings=findings)
    with atomic_write(path) as temporary:
        # A file name that is no UTF-8 keeps its place, with a question mark.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def report_html(
    table: QueryTable | None,
    directory: str | Path,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    title: str = "",
    findings: Findings = Findings(),
) -> str:
    """The page as text; `directory` is where its commands look for query_table.json and adaptive.pyth."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["with_code"] = _with_code
    template = environment.from_string(resources.files("mutual3d.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    directory, test = Path(directory), findings.test
    return template.render(
        title=title or (_title(table) if table else "A run"),
        summary=_summary(table) if table else _summary_without_table(test),
        table=_of_table(table, findings) if table else None,
        cards=[*(_cards(table) if table else []), *_test_card(test)],
        curves=_curves(history or ()),
        ensemble=_ensemble(history or ()),
        norms=_data_uri("image/png", png_bytes(norms_figure(findings.norms))) if findings.norms else "",
        test=_test(table, test),
        commands=_commands(table, directory, findings),
        snippet="" if findings.has_boxes else _snippet(table, directory / "adaptive.pyth", findings),
        command=findings.command,
        config=findings.config,
        facts=[(name.replace("_", " "), _plain(value)) for name, value in table.provenance.items()] if table else [],
    ).lstrip()


def _of_table(table: QueryTable, findings: Findings) -> dict[str, Any]:
    """What the page tells of the table, and of the classes and videos that its accuracies were counted on."""
    names = findings.class_names
    best = findings.predictions[-1] if findings.predictions else None
    best_per_class = findings.per_class[-1] if findings.per_class else None
    shown = best or best_per_class
    columns = _columns(table, max(len(names), best.num_classes if best else 0) or None)
    lead = _lead_front(table)
    return {
        "noun": noun(table),
        "certainty": interval_in_words(table),
        "left_out": _left_out(findings.left_out, table),
        "legend": table.legend,
        "words": _words(table),
        "columns": columns,
        "fronts": _fronts(table, columns),
        "rows": [(str(row.configuration), _cells(row, columns), row in lead) for row in table.rows],
        "classes": [_classes(predictions, names, noun(table)) for predictions in _ends(findings.predictions)],
        "complementary": _complementary(findings.predictions),
        "precisions": _precisions(_ends(findings.per_class)),
        "examples": _examples(findings.examples),
        "has_several_labels": not findings.predictions, "has_boxes": findings.has_boxes,
        "shown_configuration": shown.configuration if shown else "",
        "suggestions": suggestions(table, best, best_per_class, names),
    }


_Found = TypeVar("_Found")


def _ends(found: Sequence[_Found]) -> list[_Found]:
    """The most accurate and the cheapest of rows that go from the cheapest to the most accurate."""
    return [found[-1], *([found[0]] if len(found) > 1 else [])] if found else []


# ---- In words --------------------------------------------------------------------------------------------------------


def _with_code(sentence: str) -> Markup:
    """A sentence for the page, what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _title(table: QueryTable) -> str:
    """The network and the last two parts of the data set's path, where the provenance says them."""
    model, dataset = (str(table.provenance.get(key) or "") for key in ("model", "dataset"))
    place = "/".join(Path(dataset).parts[-2:]) if dataset else ""
    return " on ".join(filter(None, [model or "Adaptive network", place]))


def _summary(table: QueryTable) -> str:
    measured = f"{table.words_of_metric().label}, {table.conditions}"
    if len(table) == 1:
        return f"One network, measured at one configuration ({measured})."
    row_gflops = [row.gflops for row in table.rows]
    return (
        f"One network that was measured at {len(table)} configurations, of {min(row_gflops):.4g} to {max(row_gflops):.4g} GFLOPs "
        f"per view: whoever uses it chooses one by a budget ({measured})."
    )


def _summary_without_table(test: MultiViewTest | None) -> str:
    tested = f", tested at {', '.join(test.results)}" if test else ""
    return f"One network{tested}. No query table of its configurations was measured (GRID.ENABLE False)."


def _lead(table: QueryTable) -> tuple[str, str | None]:
    """(cost, device key) that the page speaks of first: what was measured on a device, which is what a user waits for."""
    words, key = table.drawn_columns[0]
    return words.name, key or None


def _lead_front(table: QueryTable) -> list[Row]:
    return table.pareto_front(*_lead(table))


def _cards(table: QueryTable) -> list[tuple[str, str, str, str]]:
    """(label, number, its interval, what it belongs to): the most accurate row, the best at half its cost, the cheapest."""
    front, lead = _lead_front(table), _lead(table)
    half = table.cost(front[-1], *lead) / 2
    within_half = [row for row in front if table.cost(row, *lead) <= half]
    found = {"Most accurate" if len(table) > 1 else "Accuracy": front[-1]}
    if within_half and within_half[-1] is not front[0]:
        found["Best at half of that cost"] = within_half[-1]
    if len(front) > 1:
        found["Cheapest"] = front[0]
    return [
        (label, f"{table.accuracy(row):.2f} {table.words_of_metric().unit}", _in_brackets(accuracy_interval(table, row)), _cost_in_words(table, row))
        for label, row in found.items()
    ]


def _test_card(test: MultiViewTest | None) -> list[tuple[str, str, str, str]]:
    """The best result of the test."""
    if test is None or (best := test.best) is None:
        return []
    return [(f"Test, {_views_in_words(test.num_views, test.sample)}", *test.told(best), f"{best}, {test.split} split")]


def _cost_in_words(table: QueryTable, row: Row) -> str:
    """A configuration with one number of each cost that is drawn."""
    first = {words.name: (words, key) for words, key in reversed(table.drawn_columns) if key in row.values(words.name)}
    costs = [words.amount(f"{row.values(words.name)[key]:.4g}") for words, key in reversed(first.values())]
    return ", ".join([str(row.configuration), *costs])


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
    widths = sorted(set(configuration.widths))
    ends, word = (widths, " and ") if len(widths) <= 2 else ([widths[0], widths[-1]], " to ")
    share = word.join(f"{100 * width:.0f} %" for width in ends)
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
            f"{_lead(table)[1]} names what was timed: the device, the runtime, the type of number, b: clips at a time, t: threads." if _lead(table)[1] else ""
        ),
        "plot": (
            ("Each grey point is a configuration; the line is the Pareto front, and its colour says what grows at that step." if several else "")
            + (" A vertical bar is a 95 % interval." if has_intervals else "")
            + (" A diamond is a cascade, at its mean cost." if table.cascades else "")
        ).strip(),
    }  # fmt: skip


def _a(word: str) -> str:
    return f"a{'n' if word[:1] in 'aeiou' else ''} {word}"


def _views_in_words(count: int, sample: str) -> str:
    return f"{count} view{'' if count == 1 else 's'} {_a(sample)}"


def _with_interval(table: QueryTable, row: Row) -> str:
    return f"{table.accuracy(row):.2f} {table.words_of_metric().unit}{_in_brackets(accuracy_interval(table, row))}"


def _in_brackets(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.0f} to {interval[1]:.0f})"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


# ---- Pictures --------------------------------------------------------------------------------------------------------


def _fronts(table: QueryTable, columns: Sequence[_Column]) -> list[dict[str, Any]]:
    """The Pareto front over each cost that is drawn, with its plot: first over what was measured on a device.

    A table of one row has a front and no plot, and rows that are as another front's are not shown again.
    """
    found: list[dict[str, Any]] = []
    for words, key in table.drawn_columns[:1] if len(table) == 1 else table.drawn_columns:
        device = key or None
        front = table.pareto_front(words.name, device)
        wrong = wrong_choices_in_words(table, words.name, device) if words.by_device else ""
        rows = [(str(row.configuration), _cells(row, columns), False) for row in front]
        same = next((other["label"] for other in found if other["rows"] == rows), "")
        picture = _data_uri("image/png", accuracy_png(table, cost=words.name, device=device)) if len(table) > 1 else ""
        shown = _cascade_columns(table, words, key)
        cascades = [(str(row.configuration), [cell(row) for _, cell in shown]) for row in table.cascade_front(words.name, device)]
        found.append({"label": _front_label(words, key), "wrong": wrong, "picture": picture, "description": f"accuracy against {words.label(key)}", "rows": rows, "same": same,
                      "cascade_columns": [heading for heading, _ in shown], "cascades": cascades})  # fmt: skip
    return found


def _cascade_columns(table: QueryTable, words: CostWords, key: str) -> list[tuple[str, Callable[[CascadeRow], str]]]:
    """(heading, cell) of what a cascade is judged by where its mean of one cost counts."""
    unit = table.words_of_metric().unit
    return [
        (f"{table.words_of_metric().label} ({unit})", lambda row: f"{table.accuracy(row):.2f}"),
        (f"mean {words.heading(key)}", lambda row: words.number(row.mean[words.name][key])),
        ("99 of 100 clips at most", lambda row: words.number(row.p99[words.name][key])),
        ("every clip at most", lambda row: words.number(row.worst[words.name][key])),
        ("clips that go on (%)", lambda row: ", then ".join(f"{100 * (1 - answered):.0f}" for answered in itertools.accumulate(row.shares[:-1]))),
    ]


def _front_label(words: CostWords, key: str) -> str:
    return f"{words.title} on {key}" if key else words.full_unit


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(data URI, description) of one small plot for each curve of the training."""
    return [(_data_uri("image/png", history_png(history, name)), f"{HISTORY_LABELS[name]} over epochs") for name in history_names(history)]


def _ensemble(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(configuration, its share in per cent) of the ensemble that teaches, as the last epoch that tells it left them, the largest first."""
    told = [entry["ensemble"] for entry in history if isinstance(entry.get("ensemble"), Mapping)]
    shares = [(str(name), share) for name, share in (told[-1].items() if told else ()) if isinstance(share, (int, float))]
    return [(name, f"{100 * share:.1f} %") for name, share in sorted(shares, key=lambda pair: -pair[1])]


def _examples(examples: Sequence[Example]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, videos): first those that were recognised, then those that were not."""
    groups = {
        "Recognised": [example for example in examples if example.is_right],
        "Mistaken, of those that it was surest of": [example for example in examples if not example.is_right],
    }
    return [(heading, [_example(one) for one in group]) for heading, group in groups.items() if group]


def _example(example: Example) -> dict[str, Any]:
    return {
        "picture": _data_uri("image/jpeg", example.strip_JPEG), "video": Path(example.video).name or example.video,
        "is_right": example.is_right,
        "seen": [
            (", ".join(one.labels), [(name, f"{100 * score:.0f} %", name in one.labels) for name, score in one.scores])
            for one in example.seen
        ],
    }  # fmt: skip


# ---- Tables ----------------------------------------------------------------------------------------------------------


def _columns(table: QueryTable, num_classes: int | None = None) -> list[_Column]:
    """What a reader compares first, accuracy and costs, then what a configuration is made of."""
    return [
        _metric_column(table, table.metric),
        *(_cost_column(words, key) for words, key in table.drawn_columns),
        _Column("width", lambda row: _Cell(_width_in_words(row), repr(row.configuration.widths[0]))),
        _number_column("pixels", lambda row: row.configuration.spatial, "d"),
        _number_column("frames", lambda row: row.configuration.temporal, "d"),
        *(_cost_column(words, key) for words, key in table.shown_columns if not words.is_drawn),
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
    words = table.words_of_metric(name)
    return _Column(f"{words.label} ({words.unit}{', 95 % interval' if has_interval else ''})", cell)


def _width_in_words(row: Row) -> str:
    return row.configuration.width_text


def _cells(row: Row, columns: Sequence[_Column]) -> list[_Cell]:
    return [column.cell(row) for column in columns]


def _classes(predictions: Predictions, names: Sequence[str], sample: str) -> dict[str, Any]:
    """Accuracy of each class and, where it can be read, the confusion matrix."""
    num_classes = max(predictions.num_classes, len(names))
    confusion = predictions.confusion(num_classes)
    present = [k for k in range(num_classes) if confusion[k].any() or confusion[:, k].any()]
    worst = class_accuracies(confusion)
    low, high = wilson_interval(predictions.accuracy, len(predictions.labels))
    return {
        "configuration": predictions.configuration,
        "accuracy": f"{predictions.accuracy:.1f} % right of {len(predictions.labels)} {sample}s ({low:.0f} to {high:.0f} %)",
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


def _complementary(predictions: Sequence[Predictions]) -> dict[str, Any] | None:
    """What one configuration sees and another does not, the most accurate first; None where there is one alone.

    Of many some are shown, evenly spread from the cheapest to the most accurate.
    """
    if len(predictions) < 2:
        return None
    count = min(len(predictions), _MAX_COMPLEMENTARY)
    shown = [predictions[round(place)] for place in np.linspace(len(predictions) - 1, 0, count)]
    shares_RR = right_where_wrong(shown)
    names = [one.configuration for one in shown]
    rows = [(names[i], [f"{shares_RR[i, j]:.1f}" if i != j else "–" for j in range(count)]) for i in range(count)]
    return {"names": names, "rows": rows}


def _precisions(found: Sequence[ClassPrecision]) -> dict[str, Any] | None:
    """Average precision (or what else there is) of each class, the worst at the first configuration first."""
    if not found:
        return None
    order = sorted(found[0].percents, key=lambda name: found[0].percents[name])
    rows = [(name, [f"{one.percents[name]:.1f}" if name in one.percents else "–" for one in found]) for name in order]
    what = found[0].what[:1].upper() + found[0].what[1:]
    return {"configurations": [one.configuration for one in found], "rows": rows, "what": what}


def _test(table: QueryTable | None, test: MultiViewTest | None) -> dict[str, Any] | None:
    """The table's row, where there is a table, and the test's result of each configuration that was tested, and what differs."""
    if test is None:
        return None
    rows = {str(row.configuration): row for row in table.rows} if table else {}
    lines = []
    for configuration in test.results:
        row = rows.get(configuration)
        in_table = "not in the table" if row is None or table is None else _with_interval(table, row)
        lines.append((configuration, [*([in_table] if table else []), "".join(test.told(configuration))]))
    videos = f", {test.num_videos} {test.sample}s" if test.num_videos else ""
    views = f"{test.views} views (in time x in space)" if test.num_views > 1 else "1 view"
    return {
        "heading": "The test of several views" if test.num_views > 1 else "The test",
        "columns": [*([("the table", table.conditions)] if table else []), ("the test", f"{test.split} split, {views}, crop {test.crop}{videos}")],
        "metric": test.words.axis if test.words else test.metric, "sample": test.sample,
        "lines": lines,
        "reasons": _reasons(table, test) if table else [],
    }  # fmt: skip


def _reasons(table: QueryTable, test: MultiViewTest) -> list[str]:
    """Why the two numbers of one configuration differ."""
    split, views = table.provenance["split"], table.provenance["num_views"]
    found = []
    if test.num_views != views:
        plural = "view" if views == 1 else "views"
        found.append(
            f"The table looks at {views:g} {plural} of {_a(noun(table))} and the test at {test.num_views}, whose scores are joined: usually some "
            f"points better, for {test.num_views / views:.3g} times the cost. GFLOPs, here and in budgets, are those of one view."
        )
    if split != test.split:
        found.append(
            f"The table's {noun(table)}s are the {split} split, the test's the {test.split} split."
            + (
                f" The best of many configurations on the {split} split was lucky there too, so the {test.split} split is usually a "
                "little lower, and the number to report."
                if len(table) > 1 else ""
            )
        )
    if table.provenance["crop"] != test.crop:
        found.append(f"The table's crop is {table.provenance['crop']} pixels and the test's {test.crop}.")
    return found or ["Both were measured alike: what differs is chance."]


# ---- What to do next -------------------------------------------------------------------------------------------------


def _middle(rows: Sequence[Row]) -> Row:
    """A row whose budget makes an example that this very table can meet."""
    return rows[len(rows) // 2]


def _commands(table: QueryTable | None, directory: Path, findings: Findings) -> list[tuple[str, str]]:
    """(what it is for, the command line)."""
    model, query_table = (shlex.quote(str(directory / name)) for name in ("adaptive.pyth", "query_table.json"))
    is_image = _takes_images(table, findings)
    what = "an image" if is_image else "a video"
    source = "image.png" if is_image else "clip.mp4 --boxes boxes.csv" if findings.has_boxes else "clip.mp4"
    gives_classes = findings.gives == "classes"
    commands = []
    if table is None:
        return [(f"See what it makes of {what}", f"mutual3d predict {model} {source}")] if gives_classes else []
    if gives_classes:
        within = _budget(table, *_counted(table))
        commands.append((f"See what it makes of {what}, within a budget", f"mutual3d predict {model} {source} {within}"))
    if len(table) > 1:
        first_keys = {words.name: (words, key) for words, key in reversed(table.drawn_columns)}
        for words, key in reversed(first_keys.values()):
            title = words.title if words.by_device else words.full_unit
            commands.append((f"The best configuration within a budget of {title}", f"mutual3d select {model} {_budget(table, words, key)}"))
    if gives_classes:
        purpose = "One configuration as a file for other runtimes, and how long it takes there"
        configuration = _middle(_lead_front(table)).configuration
        commands.append((purpose, f"mutual3d export {model} --config {configuration} --format onnx"))
    return [*commands, ("This run beside another one, in one figure", f"mutual3d compare this={query_table} other=other/query_table.json --output comparison")]


def _takes_images(table: QueryTable | None, findings: Findings) -> bool:
    return findings.takes_images or (table is not None and noun(table) == "image")


def _counted(table: QueryTable) -> tuple[CostWords, str]:
    """A cost that is the same on every machine, and so the safest to ask for: the first one that was counted."""
    return next(column for column in table.drawn_columns if not column[0].by_device)


def _budget(table: QueryTable, words: CostWords, key: str) -> str:
    """The options for a budget that this very table can meet."""
    device = key or None
    amount = round_up(table.cost(_middle(table.pareto_front(words.name, device)), words.name, device))
    return f"{words.option} {amount:g}" + (f" --device {shlex.quote(key)}" if key else "")


def _snippet(table: QueryTable | None, model: Path, findings: Findings) -> str:
    lines = ["import mutual3d", "", f"model = mutual3d.load({str(model)!r})"]
    if table is not None:
        (words, _), row = _counted(table), _middle(table.pareto_front())
        lines.append(f'model.set_budget({words.name}={round_up(table.cost(row, words.name)):g})  # or model.activate("{row.configuration}")')
    if findings.gives != "classes":
        return "\n".join([*lines, f"found = model(images_B3HW)  # uint8 pixels; it gives {findings.gives}"])
    return "\n".join([
        *lines,
        f'print(model.predict("{"image.png" if _takes_images(table, findings) else "clip.mp4"}").top(5))',
        "scores = model(clip)  # uint8 pixels of full size: the model shrinks them to the active configuration",
    ])  # fmt: skip
