"""Pages and figures of the database: one of each plan, in docs/results/."""

import ast
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import ROOT, dress_axes, save_figure
from mutual3d.sampling import Configuration
from mutual3d.utils.files import atomic_write

from .database import Database, Result
from .plan import Plan, Run, runs_of
from .statistics import Estimate, estimate, paired

PAGES = ROOT / "docs" / "results"
MARKERS = "os^Dv<>P*X"
# Of fewer repetitions the interval of a single configuration says little (of two it is 13 standard errors), and nothing where shares of a few
# videos happen to be equal.
_FEWEST_REPETITIONS = 3
# Benchmarks that measure what the papers claim too, by a command of their own.
BESIDE = (
    "table1", "methods_2d", "post_statistics", "slim", "aggregation", "cascade", "detection", "segmentation", "super_resolution", "control",
    "quantized", "localization", "explain", "retrieval",
)  # fmt: skip
# From this share on, the GFLOPs of a method differ from those that the table gives, and the page says so.
DIFFERENT_COST = 0.01


class Measured:
    """What the runs of a plan gave.

    `values[method, epochs, configuration]` is {seed: number}; `costs[configuration]` is {method: GFLOPs}.
    """

    def __init__(self, plan: Plan, results: Sequence[tuple[Run, Result]]) -> None:
        self.plan, self.results = plan, results
        self.values: dict[tuple[str, int, Configuration], dict[int, float]] = {}
        self.costs: dict[Configuration, dict[str, float]] = {}
        self.num_videos = max((result.num_videos for _, result in results), default=0)
        for run, result in results:
            if not run.method.hidden:
                self._take(run, result)

    def _take(self, run: Run, result: Result) -> None:
        for configuration in run.configurations:
            row = result.rows.get(str(configuration))
            if row is None:
                raise ValueError(
                    f"{run.plan}, {run.describe()}: its grid has no {configuration}; it has {', '.join(result.rows)}: choose GRID.WIDTH_STEP "
                    "and the sizes so that each configuration of the plan is among them"
                )
            if self.plan.metric not in row:
                numbers = ", ".join(name for name in row if name != "gflops")
                raise ValueError(f"{run.plan}, {run.describe()}: its table has no {self.plan.metric}, the metric of the plan; it has {numbers or 'no number'}")
            self.values.setdefault((run.method.name, run.epochs, configuration), {})[run.seed] = row[self.plan.metric]
            self.costs.setdefault(configuration, {})[run.method.name] = row["gflops"]

    @property
    def gflops(self) -> dict[Configuration, float]:
        """Of each configuration: the reference's, or those of the plan's first method that has it."""
        order = sorted(self.plan.methods, key=lambda name: name != self.plan.reference)
        return {configuration: next(own[name] for name in order if name in own) for configuration, own in self.costs.items()}

    @property
    def methods(self) -> list[str]:
        """Those that gave something, in the plan's order."""
        return [name for name in self.plan.methods if any(key[0] == name for key in self.values)]

    @property
    def epochs(self) -> list[int]:
        return sorted({key[1] for key in self.values})

    @property
    def compared_epochs(self) -> list[int]:
        """Lengths after which a method can be compared with the reference."""
        return [epochs for epochs in self.epochs if any(self.mean_difference(method, epochs) for method in self.methods)]

    @property
    def configurations(self) -> list[Configuration]:
        """By cost, ascending."""
        gflops = self.gflops
        return sorted(gflops, key=lambda configuration: (gflops[configuration], configuration))

    def estimate(self, method: str, epochs: int, configuration: Configuration) -> Estimate | None:
        values = self.values.get((method, epochs, configuration))
        return _told(estimate(list(values.values()))) if values else None

    def difference(self, method: str, epochs: int, configuration: Configuration) -> Estimate | None:
        """To the reference after as many epochs, paired by repetition; None where it has no such run."""
        reference = self.plan.reference
        if reference is None or method == reference:
            return None
        others = self.values.get((reference, epochs, configuration), {})
        found = paired(self.values.get((method, epochs, configuration), {}), others)
        return found and _told(found)

    def mean_difference(self, method: str, epochs: int) -> tuple[Estimate, int] | None:
        """(its difference to the reference, averaged over the configurations of each repetition; of how many configurations), over the
        repetitions that have all of them."""
        reference = self.plan.reference
        if reference is None or method == reference:
            return None
        both = [(values, self.values[reference, epochs, c]) for c in self.configurations if (values := self.values.get((method, epochs, c)))
                and (reference, epochs, c) in self.values]  # fmt: skip
        repetitions = set.intersection(*(own.keys() & others.keys() for own, others in both)) if both else set()
        if not repetitions:
            return None
        return estimate([sum(own[i] - others[i] for own, others in both) / len(both) for i in sorted(repetitions)]), len(both)

    def points(self, method: str, epochs: int) -> list[tuple[float, Estimate]]:
        """[(its own GFLOPs, estimate)] of a method's configurations, by cost."""
        found = ((c, self.estimate(method, epochs, c)) for c in self.configurations)
        return [(self.costs[c][method], value) for c, value in found if value is not None]


def write_page(plan: Plan, database: Database, folder: Path = PAGES) -> str | None:
    """Write a plan's page and figure. Gives one line of what it says, for the index; None where there is nothing to compare yet."""
    runs = list(runs_of(plan))
    measured = Measured(plan, database.results(runs))
    if not measured.values or (plan.reference is not None and len(plan.methods) > 1 and not measured.compared_epochs):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    plot(measured, folder / f"{plan.name}.png")
    text = "\n\n".join([
        f"# {plan.title}", plan.question, f"**The papers.** {plan.paper}", _verdict(measured), _tables(measured),
        f"![{plan.title}]({plan.name}.png)", _how(measured, len(runs)),
    ])  # fmt: skip
    with atomic_write(folder / f"{plan.name}.md") as temporary:
        Path(temporary).write_text(text + "\n", encoding="utf-8")
    return f"[{plan.title}]({plan.name}.md): {_verdict(measured)}"


def _verdict(measured: Measured) -> str:
    """What the differences to the reference say, counted: no adjective of ours."""
    plan = measured.plan
    if not measured.compared_epochs:
        return ""
    epochs = measured.compared_epochs[-1]
    sentences = []
    for method in measured.methods:
        mean = measured.mean_difference(method, epochs)
        if mean is None:
            continue
        differences = [d for c in measured.configurations if (d := measured.difference(method, epochs, c)) is not None]
        tellable = [d for d in differences if d.half is not None]
        told = f"{_signed(mean[0])} points on average over {mean[1]} configurations"
        if tellable:
            above, below = sum(d.low > 0 for d in tellable), sum(d.high < 0 for d in tellable)
            told += f" (above by more than its interval at {above}, below at {below}, within it at {len(tellable) - above - below})"
        count = f"{mean[0].seeds} {_several(plan.repeats)}" if mean[0].seeds > 1 else f"one {plan.repeats}"
        sentences.append(f"`{method}` against `{plan.reference}` after {epochs} epochs, of {count}: {told}.")
    return " ".join(sentences)


def _tables(measured: Measured) -> str:
    return "\n\n".join(_table_of_methods(measured, epochs) for epochs in measured.epochs)


def _table_of_methods(measured: Measured, epochs: int) -> str:
    methods = [name for name in measured.methods if any(key[:2] == (name, epochs) for key in measured.values)]
    reference = measured.plan.reference

    def cell(configuration: Configuration, method: str) -> str:
        value = measured.estimate(method, epochs, configuration)
        difference = measured.difference(method, epochs, configuration)
        if value is None:
            return ""
        return str(value) if difference is None else f"{value} ({_signed(difference)})"

    seeds = sorted({seed for key, values in measured.values.items() if key[1] == epochs for seed in values})
    gflops = measured.gflops
    rows = [
        [str(configuration), f"{gflops[configuration]:.4g}", *(cell(configuration, method) for method in methods)]
        for configuration in measured.configurations
        if any((method, epochs, configuration) in measured.values for method in methods)
    ]
    against = f"; in brackets the difference to `{reference}`, paired by {measured.plan.repeats}" if reference in methods and len(methods) > 1 else ""
    if len(seeds) > 1:
        several = _several(measured.plan.repeats)
        interval = f"with 95 % intervals over the {several}" if len(seeds) >= _FEWEST_REPETITIONS else "without intervals of so few"
        sure = f"{several} {', '.join(map(str, seeds))}, {measured.plan.metric} in per cent {interval}"
    else:
        error = 50 / math.sqrt(max(measured.num_videos, 1))
        sure = f"{measured.plan.repeats} {seeds[0]} alone, {measured.plan.metric} in per cent; a share of {measured.num_videos} has a standard error of up to {error:.1f} points"
    caption = f"{epochs} epochs, {sure}{against}:"
    return "\n\n".join([caption, _markdown(["configuration", "GFLOPs", *methods], rows), *_other_costs(measured, methods)])


def _other_costs(measured: Measured, methods: Sequence[str]) -> list[str]:
    """A sentence on the methods whose own GFLOPs are not those of the table; none where all are."""
    gflops = measured.gflops
    told = []
    for method in methods:
        own = [(c, measured.costs[c][method]) for c in measured.configurations if method in measured.costs[c]]
        other = [f"{cost:.4g} at {c}" for c, cost in own if abs(cost - gflops[c]) > DIFFERENT_COST * gflops[c]]
        if other:
            told.append(f"`{method}` {', '.join(other)}")
    return [f"The networks of other methods cost other GFLOPs: {'; '.join(told)}."] if told else []


def _several(word: str) -> str:
    return {"person": "people"}.get(word, f"{word}s")


def _told(value: Estimate) -> Estimate:
    """A configuration's estimate as it is shown: without an interval where repetitions are few."""
    return value if value.seeds >= _FEWEST_REPETITIONS else value._replace(half=None)


def _signed(value: Estimate) -> str:
    return f"{value.mean:+.1f}" if value.half is None else f"{value.mean:+.1f} ± {value.half:.1f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _how(measured: Measured, wanted: int) -> str:
    """What it cost, and the commands."""
    plan = measured.plan
    costs: dict[tuple[str, int], list[Result]] = {}
    for run, result in measured.results:
        costs.setdefault((run.method.name, run.epochs), []).append(result)
    num_seeds = {key: len({run.seed for run, _ in measured.results if (run.method.name, run.epochs) == key}) for key in costs}
    rows = [
        [
            method, str(epochs), str(len(own)), f"{sum(result.cpu_seconds for result in own) / num_seeds[method, epochs] / 60:.1f}",
            f"{sum(result.training_gflops for result in own) / num_seeds[method, epochs] / 1000:.3g}",
        ]
        for (method, epochs), own in sorted(costs.items(), key=lambda item: (item[0][1], list(plan.methods).index(item[0][0])))
    ]  # fmt: skip
    header = ["method", "epochs", "runs", f"CPU minutes a {plan.repeats}", f"training, 1e12 multiply-adds a {plan.repeats} (forward)"]
    sets = dict.fromkeys(name for name in [plan.data, *(method.data for method in plan.methods.values())] if name)
    data = f" --data {' '.join(f'{name}=FOLDER' for name in sets)}" if sets else ""
    first = measured.results[0][1]
    return (
        f"**How.** {len(measured.results)} of {wanted} runs, measured on {plan.split}. {first.machine}; code {first.code} and later. "
        "All networks that a method needs count as its cost:\n\n"
        f"{_markdown(header, rows)}\n\n"
        f"```\npython -m benchmarks.claims train {plan.name}{data}\npython -m benchmarks.claims report {plan.name}\n```"
    )


def plot(measured: Measured, path: Path) -> None:
    """The metric over GFLOPs, a panel a length of training; and, where there are several, the mean difference over the length."""
    panels: list[Callable[[Axes], None]] = [_panel(measured, epochs) for epochs in measured.epochs]
    if len(measured.epochs) > 1 and measured.plan.reference in measured.methods and len(measured.methods) > 1:
        panels.append(lambda axes: _panel_of_differences(measured, axes))
    figure = Figure(figsize=(5.2 * len(panels), 4.4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        draw(axes)
    save_figure(figure, path)


def _panel(measured: Measured, epochs: int) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for i, method in enumerate(measured.methods):
            points = measured.points(method, epochs)
            if not points:
                continue
            costs = [gflops for gflops, _ in points]
            means = [value.mean for _, value in points]
            halves = [value.half or 0.0 for _, value in points]
            style = "none" if measured.plan.methods[method].each else "-"
            axes.errorbar(
                costs, means, halves, marker=MARKERS[i % len(MARKERS)], markersize=5, linestyle=style, linewidth=1.3, capsize=3, color=f"C{i}", label=method
            )  # fmt: skip
        axes.set_xscale("log")
        dress_axes(axes, "GFLOPs (1e9 multiply-adds)", f"{measured.plan.metric} (%)", f"{epochs} epochs")

    return draw


def _panel_of_differences(measured: Measured, axes: Axes) -> None:
    """One line a configuration and method: its difference to the reference as training gets longer."""
    for method in measured.methods:
        for i, configuration in enumerate(measured.configurations):
            found = [(epochs, measured.difference(method, epochs, configuration)) for epochs in measured.epochs]
            points = [(epochs, value) for epochs, value in found if value is not None]
            if points:
                axes.plot(
                    [epochs for epochs, _ in points], [value.mean for _, value in points], marker=MARKERS[i % len(MARKERS)], markersize=4,
                    linewidth=1.2, label=f"{method} {configuration}",
                )  # fmt: skip
    axes.axhline(0, color="#888888", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(measured.epochs, [str(epochs) for epochs in measured.epochs])
    dress_axes(axes, "epochs", f"difference to {measured.plan.reference} (points)", "as training gets longer")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _beside(name: str) -> str:
    """A line of the index: what a benchmark measures, as it says itself, its command, and its files."""
    told = ast.get_docstring(ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8"))) or ""
    title = " ".join(told.partition("\n\n")[0].split())
    files = ", ".join(f"[{path.name}](../../benchmarks/results/{path.name})" for path in sorted((ROOT / "benchmarks" / "results").glob(f"{name}*.csv")))
    return f"- {title} `python benchmarks/{name}.py`: {files}"


def write_index(lines: Sequence[str], database: Database, folder: Path = PAGES) -> None:
    """Write the page that names all others."""
    count, hours, petas = database.totals()
    text = (
        "# Results\n\n"
        "What one network gives beside the others that the papers compare it with, on what can be trained on a few cores. Each page names its "
        "commands; all numbers are in [the database](../../benchmarks/claims/results.sqlite), a row a run.\n\n"
        + "\n".join(f"- {line}" for line in lines)
        + "\n\nMeasured by commands of their own:\n\n" + "\n".join(map(_beside, BESIDE))
        + f"\n\nAll in all {count} trainings of the database: {hours:.1f} hours of CPU time, {petas:.3g} x 1e15 multiply-adds in their forward passes.\n"
    )
    with atomic_write(folder / "README.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
