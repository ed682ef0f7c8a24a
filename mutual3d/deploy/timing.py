"""The Pareto front over time, as this machine runs it."""

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mutual3d.cost.latency import measure_latency
from mutual3d.deploy.controller import TimedConfiguration
from mutual3d.sampling import Configuration
from mutual3d.utils.logging import progress_bar

if TYPE_CHECKING:  # whose method `stream` uses this
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# Seconds that measuring may take, and the rounds that it takes at least and at most.
_SECONDS, _ROUNDS = 10.0, (3, 20)


def timed_front(model: "AdaptiveModel", configurations: Sequence[Configuration] | None = None) -> list[TimedConfiguration]:
    """The configurations whose accuracy nothing faster has, ascending in time, each made ready in the model's runtime.

    They are chosen among the rows of the table's Pareto front, and measured now, which takes seconds: a table's column may be of
    another machine or runtime. configurations: take these, whatever their accuracy. Raises ValueError for a model without a
    table, where none are given.
    """
    merits: dict[Configuration, float] = {}
    if configurations is None:
        if model.table is None:
            raise ValueError(
                "this model has no query table, which says how accurate each configuration is, so that none can be chosen by "
                "time: run with GRID.ENABLE True, or name a configuration (--config, configuration=...)"
            )
        merits = {row.configuration: model.table.merit(row) for row in model.table.pareto_front()}
    chosen = list(merits) if configurations is None else list(configurations)
    times = _measure(model, chosen)
    ascending = sorted(chosen, key=lambda c: (times[c], c))
    front: list[Configuration] = []
    for configuration in ascending:
        if not merits or not front or merits[configuration] > merits[front[-1]]:
            front.append(configuration)
    return [TimedConfiguration(c, times[c]) for c in front]


def _measure(model: "AdaptiveModel", configurations: Sequence[Configuration]) -> dict[Configuration, float]:
    """{configuration: median milliseconds of one clip}, in turns."""
    cut, device = model.preprocessing, next(model.parameters()).device
    clip = torch.randint(0, 256, (1, 3, cut.num_frames, cut.crop, cut.crop), dtype=torch.uint8)
    is_quiet = len(configurations) == 1
    for configuration in configurations if is_quiet else progress_bar(configurations, "preparing", unit="configuration"):
        model(clip, configuration=configuration)
    start = time.perf_counter()
    for configuration in configurations:
        model(clip, configuration=configuration)
    rounds = range(min(max(int(_SECONDS / (time.perf_counter() - start)), _ROUNDS[0]), _ROUNDS[1]))
    runs = {c: lambda c=c: lambda: model(clip, configuration=c).cpu() for c in configurations}
    times = [
        measure_latency(runs, device, repeats=1, warmup=0)
        for _ in (rounds if is_quiet else progress_bar(rounds, f"timing {len(configurations)} configurations", unit="round"))
    ]
    return {c: statistics.median(each[c] for each in times) for c in configurations}
