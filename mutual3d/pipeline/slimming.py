"""Greedy slimming of a trained network: a search for widths, and a new bundle with what it found."""

import contextlib
import csv
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from mutual3d.cost.axes import COSTS, CostConditions, measure_costs
from mutual3d.data.loader import Batch, ClipLoader
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.adaptive_model import load
from mutual3d.evaluation import PartialResult, VideoPass
from mutual3d.evaluation.grid import rows_of
from mutual3d.evaluation.slimming import Slimmed, narrowest, one_step_narrower, slim, within
from mutual3d.metrics.metrics import Metric
from mutual3d.pipeline.page import write_table_files
from mutual3d.pipeline.plans import SlimPlan
from mutual3d.pipeline.workspace import Workspace, check_same_classes
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import atomic_write, ensure_directory, readable_size
from mutual3d.utils.logging import logger, progress_bar


class _KeptBatches:
    """The samples of a loader, read once and kept in memory: every step of a search sees the same batches."""

    def __init__(self, loader: ClipLoader, description: str, max_unreadable: float, key: str) -> None:
        self.dataset, self.num_samples = loader.dataset, loader.num_samples
        unreadable = VideoPass(len(loader), loader.num_samples, max_unreadable).unreadable(key)
        self._batches: list[Batch] = []
        for batch in progress_bar(loader.batches(), description, len(loader)):
            unreadable.add(batch.bad)
            # What could not be read was counted; a pass over what is kept has nothing to say of it.
            self._batches.append(batch._replace(bad=[]))
        unreadable.check_everywhere()
        size = sum(batch.clips_BVCTHW.nbytes for batch in self._batches)
        count = sum(len(batch.indices) for batch in self._batches)
        logger.info("%s: %d %ss, kept in memory (%s)", description, count, loader.dataset.noun, readable_size(size))

    def __len__(self) -> int:
        return len(self._batches)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches behind the first `start`, the same in every epoch."""
        return iter(self._batches[start:])


class _Costs:
    """What configurations cost, of the cost that is budgeted."""

    def __init__(self, run: Workspace, plan: SlimPlan) -> None:
        cut, grid = run.preprocessing, plan.run.grid
        assert grid is not None, "a plan of a search measures"
        self.model, self.name, self.device = run.model, plan.cost, run.device
        self.conditions = CostConditions(cut.crop, run.device, cut.mean, cut.std, grid.latency_repeats)

    def __call__(self, configurations: Sequence[Configuration]) -> Mapping[Configuration, float]:
        (by_key,) = measure_costs([self.name], self.model, configurations, self.conditions, [self.device]).values()
        (found,) = by_key.values()
        return found


class _Search:
    """The clips and videos of a search, and how good configurations are by them."""

    def __init__(self, run: Workspace, plan: SlimPlan, calibration: ClipLoader, search: ClipLoader) -> None:
        assert plan.run.calibration is not None, "a plan of a search calibrates"
        self.run, self.calibration = run, plan.run.calibration
        bad_clips, bad_videos = self.calibration.max_unreadable, plan.run.measuring.max_unreadable
        self.clips = _KeptBatches(calibration, "clips for statistics", bad_clips, "DATA_LOADER.MAX_UNREADABLE_TRAIN")
        self.videos = _KeptBatches(search, "videos of the search", bad_videos, "DATA_LOADER.MAX_UNREADABLE_TEST")
        # What the network had when it was loaded: tried configurations leave nothing behind.
        self.statistics = dict(run.model.statistics)

    def accuracies(self, configurations: Sequence[Configuration]) -> dict[Configuration, float]:
        """The metric that decides, so that more is better, on the videos of the search, with statistics of the clips."""
        try:
            self.run.calibrate(self.clips, configurations, self.calibration)
            found = self.run.measure(self.videos, configurations, "try")
        finally:
            self.run.model.reset_statistics(self.statistics)
        return {configuration: _merit(metric) for configuration, metric in found.items()}


def _merit(metric: Metric) -> float:
    value = metric.values()[metric.primary]
    return value if metric.facts.higher_is_better else -value


def slim_network(plan: SlimPlan, device: torch.device) -> QueryTable:
    """Search for widths within the plan's budgets, and write what was found; returns the new table.

    Writes into the output folder, each file whole or not at all: slim_path.csv (the search, a line a step), query_table.json with
    its csv and plots (the bundle's table with a row for each budget), and adaptive.pyth (the bundle with the statistics of those
    rows and that table). A search that was killed goes on after its last step. Raises ValueError for a bundle without a table, a
    config of another network or grid, a cost or budget that cannot be, with the legal ones.
    """
    model = load(plan.bundle)
    table = _checked_table(model, plan)
    run = Workspace(dataclasses.replace(plan.run, make_model=lambda: model.network), device)
    run.checkpoint_name = plan.bundle.name
    start = run.model.space.check(plan.start) if plan.start else run.model.space.largest
    costs = _Costs(run, plan)
    whole = _checked_budgets(run, plan, start, costs)
    calibration, search = plan.calibration(), plan.search()
    ensure_directory(plan.output)
    made_under = run.fingerprint(search, calibration.fingerprint, start, plan.cost, plan.step, str(device) if COSTS[plan.cost].by_device else "")
    partial = PartialResult(plan.output / ".slim", made_under, interval=0)
    path = _search(run, plan, Slimmed(start, whole, 0.0), partial, costs, _Search(run, plan, calibration, search))
    found = {budget: within(path, budget) for budget in plan.budgets}
    table = _with_rows(run, plan, table, found)
    _write_path(plan.output / "slim_path.csv", run, plan.cost, path)
    table.save_json(plan.output / "query_table.json")
    write_table_files(plan.output, table)
    bundle = AdaptiveModel(run.model, preprocessing=model.preprocessing, table=table, class_names=model.class_names)
    bundle.save(plan.output / "adaptive.pyth")
    partial.remove()
    return table


def _checked_table(model: AdaptiveModel, plan: SlimPlan) -> QueryTable:
    """The table of the bundle, to which a row can be added under the same conditions; ValueError that says what differs."""
    if plan.cost not in COSTS:
        raise ValueError(f"there is no cost '{plan.cost}': choose among {', '.join(COSTS)}")
    if not plan.budgets or not all(budget > 0 for budget in plan.budgets):
        raise ValueError(f"the budgets are {list(plan.budgets)}: give at least one, each above 0")
    table, grid = model.table, plan.run.grid
    assert grid is not None, "a plan of a search measures"
    if table is None:
        raise ValueError(f"'{plan.bundle}' has no query table to add a row to: run with GRID.ENABLE True")
    check_same_classes(plan.bundle, model.class_names, plan.run.class_names)
    if model.preprocessing != plan.run.measuring.preprocessing:
        raise ValueError(
            f"the config cuts and normalises clips otherwise than '{plan.bundle}' does: give the config.yaml of its run with --cfg"
        )
    for key, measured, now in (
        ("GRID.SPLIT", table.provenance["split"], grid.split),
        ("GRID.NUM_VIEWS", table.provenance["num_views"], grid.loader().dataset.num_views),
    ):
        if measured != now:
            raise ValueError(f"the table of '{plan.bundle}' was measured with {key} {measured}, and it is {now}: set them equal")
    if model.network.space.width_groups < 2:
        raise ValueError(f"the network of '{plan.bundle}' has one group of layers, whose widths are a plain grid: nothing to search for")
    return table


def _checked_budgets(run: Workspace, plan: SlimPlan, start: Configuration, costs: _Costs) -> float:
    """What the start costs; ValueError, with both ends, for a budget that it keeps already and for one that nothing keeps."""
    words, lowest, last = COSTS[plan.cost], min(plan.budgets), narrowest(run.model, start)
    ends = costs([start, last])
    if lowest < ends[last] and not words.by_device:
        raise ValueError(
            f"{words.amount(f'{lowest:g}')} is too small: at sizes of {start} the narrowest widths cost {words.amount(f'{ends[last]:.4g}')}; "
            "give more, or start at a smaller size (--start)"
        )
    if max(plan.budgets) >= ends[start]:
        raise ValueError(
            f"{words.amount(f'{max(plan.budgets):g}')} is what {start} keeps as it is ({words.amount(f'{ends[start]:.4g}')}): give less than that"
        )
    return ends[start]


def _search(
    run: Workspace, plan: SlimPlan, start: Slimmed, partial: PartialResult, costs: _Costs, search: _Search
) -> list[Slimmed]:
    """The path from the start, whose accuracy is measured first, to the smallest budget; what is done of it is in `partial`."""
    words, lowest = COSTS[plan.cost], min(plan.budgets)

    def restored(state: object) -> list[Slimmed]:
        if not isinstance(state, Mapping):
            return []
        return [Slimmed(run.model.space.check(text), float(cost), float(merit)) for text, cost, merit in state["path"]]

    _, path = partial.load(restored)
    if not path:
        path = [dataclasses.replace(start, accuracy=search.accuracies([start.configuration])[start.configuration])]
    whole = path[0].cost - lowest
    bar = progress_bar((), "slim", 100, unit="% of the way")

    def show(path: Sequence[Slimmed]) -> None:
        bar.update(min(100, round(100 * (path[0].cost - path[-1].cost) / whole)) - bar.n)

    def after_step(path: list[Slimmed]) -> None:
        now, before = path[-1], path[-2]
        logger.info(
            "step %d: %s narrower, %s: %s, accuracy %.2f on the videos of the search", len(path) - 1,
            _narrowed(run, before.configuration, now.configuration), now.configuration, words.amount(f"{now.cost:.4g}"), now.accuracy,
        )  # fmt: skip
        show(path)
        partial.save(len(path), lambda: {"path": [[str(p.configuration), p.cost, p.accuracy] for p in path]})

    with contextlib.closing(bar):
        show(path)
        return slim(
            path, lowest, narrower=functools.partial(one_step_narrower, run.model, step=plan.step), costs=costs,
            accuracies=search.accuracies, after_step=after_step,
        )  # fmt: skip


def _narrowed(run: Workspace, before: Configuration, after: Configuration) -> str:
    """The name of the group whose width differs."""
    groups = run.model.width_group_names
    old = before.widths if len(before.widths) > 1 else before.widths * len(groups)
    return next(name for name, a, b in zip(groups, old, after.widths) if a != b)


def _with_rows(run: Workspace, plan: SlimPlan, table: QueryTable, found: Mapping[float, Slimmed]) -> QueryTable:
    """The table with a row for each budget, measured as the run's grid was: the same clips, videos and costs."""
    grid, calibration = plan.run.grid, plan.run.calibration
    assert grid is not None and calibration is not None, "a plan of a search calibrates and measures"
    wanted = list(dict.fromkeys(place.configuration for place in found.values()))
    run.calibrate(calibration.loader(), wanted, calibration)
    loader = grid.loader()
    metrics = run.measure(loader, wanted, "measure what was found")
    metric = next(iter(metrics.values()))
    if metric.primary != table.metric or metric.num_videos != table.provenance.get("num_videos", metric.num_videos):
        raise ValueError(
            f"the table of '{plan.bundle}' is of {table.provenance.get('num_videos')} videos and '{table.metric}', and now there are "
            f"{metric.num_videos} and '{metric.primary}': measure the grid again, or give the run's own config and data"
        )
    cut = run.preprocessing
    conditions = CostConditions(cut.crop, run.device, cut.mean, cut.std, grid.latency_repeats)
    times = [run.device] if grid.latency_devices or COSTS[plan.cost].by_device else []
    costs = measure_costs(list(dict.fromkeys([*grid.costs, plan.cost])), run.model, wanted, conditions, times)
    searched = {
        **table.provenance.get("slimmed", {}),
        **{str(place.configuration): _told(plan, budget, place) for budget, place in found.items()},
    }
    joined = table.with_rows(rows_of(run.model, metrics, costs), {"slimmed": searched})
    for budget, place in found.items():
        logger.info("within %s: %s", COSTS[plan.cost].amount(f"{budget:g}"), joined.describe(joined.row(place.configuration)))
    return joined


def _told(plan: SlimPlan, budget: float, place: Slimmed) -> str:
    """How a row was found: whoever reads its accuracy must know which videos chose it."""
    return f"greedy, {plan.cost} {budget:g}, chosen on videos of the split '{plan.split}', there {abs(place.accuracy):.2f}"


def _write_path(path: Path, run: Workspace, cost: str, places: Sequence[Slimmed]) -> None:
    """The search as a csv, whole or not at all."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "narrowed", "configuration", cost, "accuracy_of_search"])
        for step, (before, place) in enumerate(zip([None, *places], places)):
            narrowed = "" if before is None else _narrowed(run, before.configuration, place.configuration)
            writer.writerow([step, narrowed, place.configuration, f"{place.cost:.6g}", f"{place.accuracy:.4f}"])
