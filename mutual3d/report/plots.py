"""Pictures of a query table: accuracy against cost, each step in the colour of what pays for it (paper, Fig. 18)."""

import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from mutual3d.table.interval import accuracy_interval
from mutual3d.table.query_table import QueryTable, Row, paid_dimension
from mutual3d.utils.files import atomic_write
from mutual3d.utils.fingerprint import fingerprint

# Okabe and Ito's colours, which people who see fewer colours can tell apart too.
STEP_COLORS = {"spatial": "#d55e00", "temporal": "#009e73", "width": "#0072b2", "several": "#000000"}
STEP_LABELS = {"spatial": "pixels", "temporal": "frames", "width": "width", "several": "several of them"}
SERIES_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# In inches: small, so that the letters can be read on a page as wide as a phone.
_SIZE, _WIDE_SIZE = (5.6, 4.4), (7.6, 5.4)
# The methods of a comparison differ in more than their colour.
SERIES_MARKERS, SERIES_STYLES = "osD^vPX", ("-", "--", ":")
REFERENCE_MARKERS = "s^Dv"
ROW_COLOR = "#9aa2ac"
CASCADE_COLOR, CASCADE_MARKER = "#cc79a7", "D"
# matplotlib leaves lines whose label begins so out of its own legends.
_INTERVAL = "_interval"
TEXT_COLOR = "#333333"
# Characters of a configuration beside its point.
_LONGEST_LABEL = 24
HISTORY_LABELS = {"loss": "loss", "top1_err": "top-1 error (%)", "map": "mAP (%)", "lr": "learning rate"}


def plot_accuracy(
    table: QueryTable,
    path: str | Path,
    *,
    title: str | None = None,
    cost: str = "gflops",
    device: str | None = None,
    references: Any = (),
) -> None:
    """Write `accuracy_figure` as a png, whole or not at all."""
    figure = accuracy_figure(table, title=title, cost=cost, device=device, references=references)
    with atomic_write(path) as temporary:
        temporary.write_bytes(png_bytes(figure))


def plot_costs(table: QueryTable, directory: str | Path) -> None:
    """Write accuracy_vs_COST.png for each cost that is drawn: of one measured on several devices, the Pareto front on each."""
    for name in dict.fromkeys(words.name for words, _ in table.drawn_columns):
        picture = accuracy_png(table, cost=name) if len(table.keys(name)) == 1 else png_bytes(devices_figure(table, name))
        with atomic_write(Path(directory) / f"accuracy_vs_{name}.png") as temporary:
            temporary.write_bytes(picture)


def devices_figure(table: QueryTable, cost: str) -> Figure:
    """A matplotlib figure of the Pareto fronts over a cost on each of the device keys that it was measured on."""
    keys = table.keys(cost)
    fronts = {key: _points(table, table.pareto_front(cost, key), cost, key) for key in keys}
    label = f"{table.words_of_metric().axis}\n{table.conditions}"
    return comparison_figure(fronts, cost_label=table.words_of_cost(cost).label(), accuracy_label=label)


def accuracy_figure(
    table: QueryTable, *, title: str | None = None, cost: str = "gflops", device: str | None = None, references: Any = ()
) -> Figure:
    """A matplotlib figure of every row of a QueryTable as a faint point and its Pareto front as a coloured line.

    Cascades that the front does not beat at equal mean cost have a marker of their own.

    cost: a name of the table's `costs`, such as "gflops", or "latency_ms" measured on `device`. references: (name, [(cost, accuracy), ...]) for each series
    to compare with, such as independently trained networks, in the units of the axes.
    Raises ValueError for a cost that was not measured, and when the device is unknown or ambiguous.
    """
    figure, axes = empty_figure(_SIZE)
    _draw_rows(axes, table, cost, device)
    _draw_references(axes, references)
    _draw_front(axes, table, cost, device)
    _draw_cascades(axes, table, cost, device)
    _scale_cost_axis(axes)
    axes.set_xlabel(table.cost_label(cost, device))
    axes.set_ylabel(f"{table.words_of_metric().axis}\n{table.conditions}")
    if title:
        axes.set_title(title, loc="left", fontsize=11, color=TEXT_COLOR)
    figure.legend(handles=_legend(axes, table.pareto_front(cost, device)), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def comparison_figure(
    fronts: Mapping[str, Sequence[tuple[float, float]]],
    *,
    points: Sequence[tuple[str, float, float]] = (),
    cost_label: str = "GFLOPs",
    accuracy_label: str = "top-1 accuracy (%)",
) -> Figure:
    """A matplotlib figure of several Pareto fronts, {label: [(cost, accuracy), ...]}, on a log axis of cost.

    points: (label, cost, accuracy) of networks that have no other configuration, which are named beside their point.
    accuracy_label: of the other axis.
    """
    figure, axes = empty_figure(_WIDE_SIZE)
    for index, (label, front) in enumerate(fronts.items()):
        turn, color = divmod(index, len(SERIES_COLORS))
        style = SERIES_STYLES[turn % len(SERIES_STYLES)]
        axes.plot(
            *zip(*front), marker=SERIES_MARKERS[index % len(SERIES_MARKERS)], linestyle=style, color=SERIES_COLORS[color],
            linewidth=1.6, markersize=5, label=label,
        )  # fmt: skip
    for index, (label, cost, accuracy) in enumerate(sorted(points, key=lambda point: point[1])):
        axes.plot([cost], [accuracy], "*", color=TEXT_COLOR, markersize=9, label="_point")
        # Names below and above in turns: published networks of one size lie close together.
        axes.annotate(label, (cost, accuracy), xytext=(0, 7 if index % 2 else -14), textcoords="offset points", ha="center", fontsize=9, color=TEXT_COLOR)
    axes.margins(x=0.1, y=0.1)
    _scale_cost_axis(axes)
    axes.set_xlabel(cost_label)
    axes.set_ylabel(accuracy_label)
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    return figure


History = Iterable[Mapping[str, Any]]


def history_names(history: History) -> list[str]:
    """Which of loss, top1_err, map and lr the epochs hold: the panels of `history_figure`."""
    epochs = _epochs(history)
    return [name for name in HISTORY_LABELS if any(entry.get(name) is not None for entry in epochs)]


def _epochs(history: History) -> list[Mapping[str, Any]]:
    return [entry for entry in history if str(entry.get("_type", "epoch")).endswith("epoch") and "epoch" in entry]


def history_figure(history: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> Figure:
    """A matplotlib figure of training: one panel for each of `names`, or for each of `history_names`.

    history: one dictionary an epoch with `epoch` (a number, or "3/20") and values; `_type`, where given, tells
    train_epoch from val_epoch. Other types of line are left out. Raises ValueError when nothing can be drawn.
    """
    epochs, names = _epochs(history), history_names(history) if names is None else list(names)
    if not names:
        raise ValueError(f"no epoch of the training history holds any of {', '.join(HISTORY_LABELS)}")
    figure, *panels = empty_figure((3.6 * len(names), 2.8), columns=len(names))
    for axes, name in zip(panels, names):
        _draw_history(axes, epochs, name)
    return figure


def norms_figure(norms: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A matplotlib figure of norms that configurations have for themselves: a panel for each of their numbers (RS-Net, Fig. 6).

    norms: {configuration: {name of a number, such as mean: its mean over the channels of each norm, from the first layer to the last}}.
    """
    names = list(next(iter(norms.values())))
    figure, *panels = empty_figure((3.6 * len(names), 3.4), columns=len(names))
    for axes, name in zip(panels, names):
        for index, (configuration, numbers) in enumerate(norms.items()):
            turn, color = divmod(index, len(SERIES_COLORS))
            axes.plot(
                range(1, len(numbers[name]) + 1), numbers[name], color=SERIES_COLORS[color], linestyle=SERIES_STYLES[turn % len(SERIES_STYLES)],
                marker=SERIES_MARKERS[index % len(SERIES_MARKERS)], markersize=3, linewidth=1.2, label=configuration,
            )  # fmt: skip
        axes.set_title(f"{name}, mean over channels", loc="left", fontsize=10, color=TEXT_COLOR)
        axes.set_xlabel("norm, from the input on")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    return figure


@dataclass(frozen=True)
class _Picture:
    """A figure that is known by the fingerprint of what it shows."""

    shown: str
    draw: Callable[[], Figure] = field(compare=False)


@functools.lru_cache(maxsize=32)
def _drawn_once(picture: _Picture) -> bytes:
    return png_bytes(picture.draw())


def accuracy_png(table: QueryTable, *, cost: str = "gflops", device: str | None = None) -> bytes:
    """`accuracy_figure` as a png. A run shows one table in several files, and its page after several stages: it is drawn once."""
    shown = fingerprint("accuracy", table.to_dict(), table.cost_label(cost, device), cost, device)
    return _drawn_once(_Picture(shown, lambda: accuracy_figure(table, cost=cost, device=device)))


def history_png(history: Sequence[Mapping[str, Any]], name: str) -> bytes:
    """`history_figure` of one name as a png, drawn once for the same numbers."""
    numbers = [(str(entry.get("_type")), str(entry["epoch"]), str(entry.get(name))) for entry in _epochs(history)]
    return _drawn_once(_Picture(fingerprint("history", name, numbers), lambda: history_figure(history, [name])))


def png_bytes(figure: Figure) -> bytes:
    """The figure as the bytes of a png."""
    # A dollar in a name is a dollar: matplotlib would read what stands between two of them as a formula.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def empty_figure(size: tuple[float, float], columns: int = 1) -> tuple[Any, ...]:
    """A figure of its own, outside pyplot, so that no display and no global state are touched."""
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=TEXT_COLOR, labelsize=9)
    return figure, *panels


def _points(table, rows, cost, device):
    return [(table.cost(row, cost, device), table.accuracy(row)) for row in rows]


def _draw_rows(axes, table, cost, device):
    points = _points(table, table.measured(cost, device), cost, device)
    axes.scatter(*zip(*points), s=14, color=ROW_COLOR, linewidths=0, label=f"measured ({len(points)})")


def _draw_references(axes, references):
    for index, (name, points) in enumerate(references):
        marker = REFERENCE_MARKERS[index % len(REFERENCE_MARKERS)]
        axes.plot(*zip(*sorted(points)), marker + "--", color="#8a5fbf", markersize=5, linewidth=1, label=name)


def _draw_front(axes, table, cost, device):
    rows = table.pareto_front(cost, device)
    points = _points(table, rows, cost, device)
    steps = [paid_dimension(*pair) for pair in zip(rows, rows[1:])]
    lines = LineCollection(
        list(zip(points, points[1:])), colors=[STEP_COLORS[step] for step in steps], linewidths=2, capstyle="round"
    )
    lines.set_gid("pareto-front")
    axes.add_collection(lines)
    axes.scatter(*zip(*points), s=16, color="white", edgecolors=TEXT_COLOR, linewidths=0.9, zorder=3)
    _draw_intervals(axes, table, rows, points)
    axes.margins(x=0.19, y=0.09)  # room for the text left of the cheapest row
    for end in sorted({0, len(rows) - 1}):
        _annotate(axes, rows[end], points[end])


def _draw_cascades(axes, table, cost, device):
    points = _points(table, table.cascade_front(cost, device), cost, device)
    if points:
        axes.scatter(
            *zip(*points), s=20, marker=CASCADE_MARKER, facecolors="none", edgecolors=CASCADE_COLOR, linewidths=1.2, zorder=4,
            label=f"cascades, mean cost ({len(points)})",
        )  # fmt: skip


def _draw_intervals(axes, table, rows, points):
    """Faint bars over the 95 % intervals of the front, where the number of videos is known."""
    for row, (cost, _) in zip(rows, points):
        interval = accuracy_interval(table, row)
        if interval is not None:
            axes.plot([cost, cost], interval, color=ROW_COLOR, linewidth=1, zorder=1, label=_INTERVAL)


def _annotate(axes, row, point):
    """Write a configuration beside its point, up and to the left: nothing lies above a Pareto front."""
    axes.annotate(
        _short(row),
        point,
        xytext=(2, 8),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color=TEXT_COLOR,
    )


def _short(row: Row) -> str:
    """A configuration as it is written; of one with many widths their ends alone."""
    configuration, text = row.configuration, str(row.configuration)
    if len(text) <= _LONGEST_LABEL:
        return text
    ends = f"{min(configuration.widths):g}..{max(configuration.widths):g}"
    return text.replace(configuration.width_text, ends, 1)


def _scale_cost_axis(axes):
    """A log axis with plain numbers, and enough of them to read a budget off even within one decade."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(_cost_ticks(*axes.get_xlim()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _cost_ticks(low: float, high: float) -> Locator:
    """So many that a budget can be read off, and so few that numbers such as 0.0015 do not touch."""
    if high < 3 * low:
        return MaxNLocator(nbins=6)
    return LogLocator(subs=(1, 1.5, 2, 3, 5) if high < 12 * low else (1, 2, 5) if high < 200 * low else (1,))


def _legend(axes: Axes, front: Sequence[Row]) -> list[Artist]:
    """What the colours of this Pareto front mean, then what the axes name."""
    named, _ = axes.get_legend_handles_labels()
    steps = {paid_dimension(*pair) for pair in zip(front, front[1:])}
    lines = [Line2D([], [], color=color, linewidth=2, label=f"step paid by {STEP_LABELS[name]}") for name, color in STEP_COLORS.items() if name in steps]
    if any(line.get_label() == _INTERVAL for line in axes.lines):
        named.append(Line2D([], [], color=ROW_COLOR, linewidth=1, label="95 % interval"))
    return [*lines, *named]


def _draw_history(axes, epochs, name):
    kinds = sorted({entry.get("_type", "epoch") for entry in epochs if entry.get(name) is not None})
    for kind in kinds:
        points = _last_run([
            (_epoch_number(entry["epoch"]), entry[name])
            for entry in epochs
            if entry.get("_type", "epoch") == kind and entry.get(name) is not None
        ])
        axes.plot(*zip(*points), linewidth=1.6, marker="." if len(points) < 30 else None, label=kind.removesuffix("_epoch").replace("_", " "))
    axes.set_xlabel("epoch")
    axes.set_title(HISTORY_LABELS[name], loc="left", fontsize=10, color=TEXT_COLOR)
    if len(kinds) > 1:
        axes.legend(frameon=False, fontsize=9)


def _last_run(points):
    """(epoch, value) pairs without what a resume or a new start ran again."""
    kept = []
    for epoch, value in points:
        kept = [*(pair for pair in kept if pair[0] < epoch), (epoch, value)]
    return kept


def _epoch_number(epoch):
    """PySlowFast's logs write `3/20`."""
    return int(str(epoch).split("/")[0])
