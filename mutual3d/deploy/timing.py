"""What the configurations of a model take on this machine, in the runtimes that serve it; and the columns of its table made of it."""

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mutual3d.cost.axes import CostWords
from mutual3d.cost.flops import whole_picture
from mutual3d.cost.latency import Repeating, Timing, time_in_turns
from mutual3d.cost.latency_key import EAGER, LATENCIES, LatencyKey
from mutual3d.cost.machine import describe_device
from mutual3d.deploy.compiled import CompilationError, RuntimeMismatchError
from mutual3d.deploy.controller import TimedConfiguration
from mutual3d.deploy.fastest import measured_configurations
from mutual3d.deploy.runtimes import RUNTIMES, Runtime
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.logging import logger, progress_bar
from mutual3d.utils.threads import computing_threads

if TYPE_CHECKING:  # whose method `set_budget` measures with this
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# What a table says of a latency beside its median: budgets of their own.
P90 = CostWords(name=LATENCIES[1], title="90th percentile of the latency", unit="ms", by_device=True, is_drawn=False)
P99 = CostWords(name=LATENCIES[2], title="99th percentile of the latency", unit="ms", by_device=True, is_drawn=False)
# When a budget is asked for and nothing is known of this machine: seconds, not minutes.
QUICK = Repeating(repeats=20, warmup=1, seconds=5.0, attempts=2)
_MOST_TOLD = 4


@dataclass(frozen=True)
class Column:
    """What was measured under one key. timings: of each configuration. failed: {configuration: why it has none}.

    about: the machine, versions, date, repeats and spread, for a table's provenance.
    """

    key: LatencyKey
    timings: Mapping[Configuration, Timing]
    failed: Mapping[Configuration, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noisy(self) -> list[Configuration]:
        """Those whose calls differed by more than is usual, after all attempts."""
        return [c for c, timing in self.timings.items() if timing.is_noisy]


class _Place(NamedTuple):
    """A model in one runtime on one number of threads."""

    model: "AdaptiveModel"
    runtime: str | None
    threads: int


def latency_key(model: "AdaptiveModel", runtime: str | None, batch: int = 1, threads: int | None = None) -> LatencyKey:
    """The key of what `model` takes on this machine in `runtime`, None for PyTorch on the model's own weights."""
    weights = next(model.parameters())
    if runtime is None:
        return LatencyKey.here(weights.device, EAGER, weights.dtype, batch, threads)
    found = RUNTIMES[runtime]
    device, dtype = found.placement(weights)
    key = LatencyKey.here(device, runtime, dtype, batch, threads)
    # What it computes in where that is not the type of its module's weights, such as int8.
    return key if found.precision == Runtime.precision else dataclasses.replace(key, dtype=found.precision)


def measure_columns(
    model: "AdaptiveModel",
    configurations: Sequence[Configuration],
    *,
    runtimes: Sequence[str | None] = (None,),
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (),
    repeating: Repeating = Repeating(),
    clips: Sequence[torch.Tensor] = (),
    progress: bool = True,
) -> list[Column]:
    """A Column for each runtime, batch and number of threads, of calls with a uint8 clip at full size, warm and in turns.

    runtimes: names of registered ones that are installed; None is PyTorch on the model's own weights. threads: of PyTorch and
    of what is compiled; none take those in use. clips: as of `run_in`. What a runtime cannot compile is in `failed`, told, and
    costs nothing else.
    """
    before = torch.get_num_threads()
    failed: dict[tuple[_Place, Configuration], str] = {}
    with computing_threads(before):
        places = [
            _Place(_serving(model, name, count == before, clips), name, count) for count in threads or [before] for name in runtimes
        ]
        every = [(place, c) for place in places for c in configurations]
        for place, c in progress_bar(every, "preparing", unit="configuration") if progress else every:
            cause = _prepare(place, c)
            if cause:
                failed[place, c] = cause
        groups = [
            {(place, batch, c): _call(place, batch, c) for c in configurations if (place, c) not in failed}
            for place in places for batch in batches
        ]  # fmt: skip
        timed = time_in_turns(groups, next(model.parameters()).device, repeating)
    columns = [
        _column(
            latency_key(model, place.runtime, batch, place.threads), place.runtime,
            {c: timing for (where, size, c), timing in timed.items() if where is place and size == batch},
            {c: cause for (where, c), cause in failed.items() if where is place},
        )
        for place in places for batch in batches
    ]  # fmt: skip
    for column in columns:
        _tell(column)
    return columns


def _serving(
    model: "AdaptiveModel", runtime: str | None, with_these_threads: bool, clips: Sequence[torch.Tensor]
) -> "AdaptiveModel":
    """The model in a runtime, its weights shared; itself where it runs in that already, so that what is compiled is of use."""
    if runtime == model.runtime and with_these_threads:
        return model
    was_training = model.training
    other = type(model)(model.network, preprocessing=model.preprocessing, class_names=model.class_names)
    other.run_in(runtime, clips=clips)
    model.train(was_training)
    return other


def _prepare(place: _Place, configuration: Configuration) -> str:
    """Compile, and say why that fails; "" where it does not."""
    torch.set_num_threads(place.threads)
    try:
        _call(place, 1, configuration)()()
    except (CompilationError, RuntimeMismatchError) as error:
        return str(error)
    return ""


def _call(place: _Place, batch: int, configuration: Configuration) -> Callable[[], Callable[[], object]]:
    """A function that gives what is timed: a call of the model as its users make it."""
    model, cut = place.model, place.model.preprocessing
    clip = torch.randint(0, 256, (batch, len(cut.mean), cut.num_frames, cut.crop, cut.crop), dtype=torch.uint8)
    places = torch.tensor([[i, 0.0, 0.0, 0.0, 0.0] for i in range(batch)])
    boxes = [box + places for box in whole_picture(model.network, "cpu")]

    def prepare() -> Callable[[], object]:
        if torch.get_num_threads() != place.threads:
            torch.set_num_threads(place.threads)
        return lambda: model(clip, *boxes, configuration=configuration)

    return prepare


def _column(
    key: LatencyKey, runtime: str | None, timings: Mapping[Configuration, Timing], failed: Mapping[Configuration, str]
) -> Column:
    device = torch.device("cuda" if key.device == "cuda" else "cpu")
    noisy = [str(c) for c, timing in timings.items() if timing.is_noisy]
    about = {
        **describe_device(device),
        "runtime": f"PyTorch {torch.__version__}" if runtime is None else RUNTIMES[runtime].version(),
        "date": datetime.date.today().isoformat(),
        "repeats": min((timing.repeats for timing in timings.values()), default=0),
        "spread": round(max((timing.spread for timing in timings.values()), default=0.0), 4),
        **({"noisy": noisy} if noisy else {}),
        **({"failed": {str(c): cause for c, cause in failed.items()}} if failed else {}),
    }
    return Column(key, timings, failed, about)


def _tell(column: Column) -> None:
    if column.failed:
        first = next(iter(column.failed.values()))
        logger.warning("%s has no times of %s: %s", column.key, _some(list(column.failed)), first)
    if column.noisy:
        worst = max(column.timings[c].spread for c in column.noisy)
        logger.warning(
            "noisy: on %s the middle half of the calls of %s is spread over up to %.0f %% of the median, after several attempts; "
            "measure again when this machine has nothing else to do", column.key, _some(column.noisy), 100 * worst,
        )  # fmt: skip


def _some(configurations: Sequence[Configuration]) -> str:
    more = f" and {len(configurations) - _MOST_TOLD} more" if len(configurations) > _MOST_TOLD else ""
    return ", ".join(map(str, configurations[:_MOST_TOLD])) + more


# ---- The table -------------------------------------------------------------------------------------------------------


def with_columns(table: QueryTable, columns: Sequence[Column]) -> QueryTable:
    """The table with these columns beside its others: medians, 90th and 99th percentiles, and what is known of each.

    Configurations that are no rows are left out, and so are columns without times.
    """
    costs: dict[str, dict[str, dict[Configuration, float]]] = {name: {} for name in LATENCIES}
    rows = {row.configuration for row in table.rows}
    about = {}
    for column in columns:
        timings = {c: timing for c, timing in column.timings.items() if c in rows}
        if timings:
            known = {str(c) for c in timings}
            failed = {c: cause for c, cause in _failed_before(table, str(column.key)).items() if c not in known}
            failed |= {str(c): cause for c, cause in column.failed.items()}
            about[str(column.key)] = {**column.about, **({"failed": failed} if failed else {})}
            for name, number in zip(LATENCIES, ("p50", "p90", "p99")):
                costs[name][str(column.key)] = {c: getattr(timing, number) for c, timing in timings.items()}
    if not about:
        return table
    return table.with_costs(costs, {"latency": about, "costs": {words.name: words.to_dict() for words in (P90, P99)}})


def _failed_before(table: QueryTable, key: str) -> dict[str, str]:
    """{configuration: why it has no latency under `key`}, as far as the table's provenance, which may be of any form, tells."""
    found: Any = table.provenance.get("latency")
    for name in (key, "failed"):
        found = found.get(name) if isinstance(found, dict) else None
    return {str(c): str(cause) for c, cause in found.items()} if isinstance(found, dict) else {}


def key_here(model: "AdaptiveModel") -> str:
    """The device key of the model's own calls on this machine, its front measured now where the table has nothing under it.

    So is what a column lacks of the front, such as one of a few named configurations, but for what failed in it. What is measured
    is put into the model's table, in memory. Raises ValueError where the runtime can run none of it.
    """
    assert model.table is not None, "a model with a table"
    key = str(latency_key(model, model.runtime))
    failed = _failed_before(model.table, key)
    known = {str(row.configuration) for row in model.table.rows if key in row.latency_ms} | {*failed}
    front = [c for c in measured_configurations(model) if str(c) not in known]
    if front:
        there = f"; the table has {', '.join(model.table.devices)}" if model.table.devices else ""
        what = "no latency" if key not in model.table.devices else "not all of the front"
        logger.warning("%s was measured on this machine as %s%s: measuring now (configurations: %d)", what, key, there, len(front))
        (column,) = measure_columns(model, front, runtimes=[model.runtime], repeating=QUICK)
        failed |= {str(c): cause for c, cause in column.failed.items()}
        model.table = with_columns(model.table, [column])
    if key not in model.table.devices:
        raise ValueError(f"no configuration runs in {model.runtime}: {next(iter(failed.values()))}")
    return key


def timed_front(model: "AdaptiveModel", configurations: Sequence[Configuration] | None = None) -> list[TimedConfiguration]:
    """The configurations whose accuracy nothing faster has, ascending in time, each made ready in the model's runtime.

    Their times are those of this machine and runtime in the table, measured now where it has none. configurations: take
    these, whatever their accuracy. Raises ValueError for a model without a table, where none are given.
    """
    if configurations is not None:
        (column,) = measure_columns(model, configurations, runtimes=[model.runtime], repeating=QUICK)
        _refuse_failed(column)
        return _ascending({c: timing.p50 for c, timing in column.timings.items()})
    if model.table is None:
        raise ValueError(
            "this model has no query table, which says how accurate each configuration is, so that none can be chosen by "
            "time: run with GRID.ENABLE True, or name a configuration (--config, configuration=...)"
        )
    key = key_here(model)
    rows = model.table.pareto_front("latency_ms", key)
    model.prepare(rows)
    # A first call takes many times as long as the next, compiled or not: nobody waits for it then.
    here = _Place(model, model.runtime, torch.get_num_threads())
    for row in rows:
        _call(here, 1, row.configuration)()()
    return _ascending({row.configuration: row.latency_ms[key] for row in rows})


def _refuse_failed(column: Column) -> None:
    if column.failed:
        raise ValueError(next(iter(column.failed.values())))


def _ascending(times: Mapping[Configuration, float]) -> list[TimedConfiguration]:
    return [TimedConfiguration(c, times[c]) for c in sorted(times, key=lambda c: (times[c], c))]
