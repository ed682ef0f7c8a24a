"""The axes of cost: what a configuration may cost, in which words it is told, and how it is counted or measured.

An axis is an entry of `COSTS`, by its name: a column of the query table, a keyword of `set_budget`, an option of
`mutual3d select`, an axis of the plots, and a word of GRID.COSTS. Nobody else knows the axes by name, but that GFLOPs are what
is shown where nothing is asked for.
"""

import dataclasses
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from mutual3d.cost.flops import count_costs, count_parameters, count_weight_bits
from mutual3d.cost.latency import measure_latencies
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.sampling import Configuration

# Names that calls have another meaning for.
_TAKEN = ("accuracy", "configuration", "device", "self", "source")
# What the name of a budget begins with that is one on the mean over clips.
MEAN = "mean_"


@dataclass(frozen=True, kw_only=True)
class CostWords:
    """What a cost is called, wherever it is shown or asked for.

    name: a Python name, lower case. title: what it is, in words. unit: of a number. per: what a number is of, said behind the
    unit, such as `per view`. by_device: a configuration has a number for each device key, such as `cpu.epyc_7b13-openvino-fp32-b1-t2`, and not
    one for all. is_whole: numbers are whole ones. is_drawn: the report draws accuracy against it. adds: a clip that runs at several
    configurations, one after the other, costs their sum, as of time; False: the max of them, as of memory. Raises ValueError for a name that cannot be a keyword of a call.
    """

    name: str
    title: str
    unit: str
    per: str = ""
    by_device: bool = False
    is_whole: bool = False
    is_drawn: bool = True
    adds: bool = True

    def __post_init__(self) -> None:
        for field in fields(CostWords):
            value, kind = getattr(self, field.name), type(field.default) if isinstance(field.default, bool) else str
            if not isinstance(value, kind):
                raise ValueError(f"{field.name} of a cost is {value!r:.80}: {'True or False' if kind is bool else 'text'} is needed")
        if not self.name.isidentifier() or self.name != self.name.lower() or keyword.iskeyword(self.name) or self.name in _TAKEN or self.name.startswith(MEAN):
            raise ValueError(f"a cost cannot be called {self.name!r:.80}: give a Python name in lower case, none of {', '.join(_TAKEN)}, that does not begin with {MEAN}")

    @property
    def option(self) -> str:
        """The budget's option of a command line: `--latency-ms`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def mean_name(self) -> str:
        """The keyword of a budget on the mean over clips: `mean_latency_ms`."""
        return f"{MEAN}{self.name}"

    @property
    def full_unit(self) -> str:
        """Unit and what it is per: `GFLOPs per view`."""
        return f"{self.unit} {self.per}".rstrip()

    def heading(self, key: str = "") -> str:
        """Of a column: the unit, and the device key where there is one."""
        return f"{self.unit} {key}".rstrip()

    def label(self, key: str = "") -> str:
        """Of an axis of a plot: `median latency on cpu.epyc_7b13-torch-fp32-b1-t2 (ms)`."""
        name = f"{self.title} on {key}" if key else self.title
        return name if self.title == self.full_unit else f"{name} ({self.full_unit})"

    def amount(self, text: str, key: str = "") -> str:
        """A number, as text, in a sentence: `5 ms on cpu.epyc_7b13-torch-fp32-b1-t2`."""
        return f"{text} {self.unit} on {key}" if key else f"{text} {self.unit}"

    def number(self, value: float) -> str:
        """A number as text, without its unit."""
        return f"{value:,d}" if isinstance(value, int) else f"{value:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a file that outlives the registration."""
        return {field.name: getattr(self, field.name) for field in fields(CostWords)}


@dataclass(frozen=True)
class CostConditions:
    """Under what a cost is measured.

    crop: pixels of the view that configurations shrink. device: where the network runs. mean, std: of the pixels, three each.
    repeats: timed runs, of which the median counts.
    """

    crop: int
    device: torch.device
    mean: Sequence[float]
    std: Sequence[float]
    repeats: int = 10


# (AdaptiveNetwork, configurations, conditions) -> {configuration: number}. The network is not to be changed.
Measure = Callable[[Any, Sequence[Configuration], CostConditions], Mapping[Configuration, float]]


@dataclass(frozen=True, kw_only=True)
class CostAxis(CostWords):
    """A cost, and how it is had: `measure(network, configurations, conditions)` gives {configuration: number above 0}.

    The network is left as it is. An axis with `by_device` is measured once for each device of GRID.LATENCY_DEVICES.
    """

    measure: Measure


COSTS: dict[str, CostAxis] = {}


def register_cost(axis: CostAxis) -> None:
    """Make an axis known by its name. Raises ValueError for a name that is there already."""
    if axis.name in COSTS:
        raise ValueError(f"the cost '{axis.name}' is there already: choose another name than {', '.join(COSTS)}")
    COSTS[axis.name] = axis


def measure_costs(
    names: Sequence[str],
    model: Any,
    configurations: Sequence[Configuration],
    conditions: CostConditions,
    devices: Sequence[torch.device] = (),
) -> dict[str, dict[str, Mapping[Configuration, float]]]:
    """{cost: {device key: {configuration: number}}} of the costs called `names`; the key is "" where a cost has one number for all.

    devices: those that costs with `by_device` are measured on, instead of the conditions' own; without any they are left out.
    """
    found: dict[str, dict[str, Mapping[Configuration, float]]] = {}
    for axis in (COSTS[name] for name in names):
        if axis.by_device:
            places = {str(LatencyKey.here(device)): device for device in devices}
        else:
            places = {"": conditions.device}
        by_key = {
            key: axis.measure(model, configurations, dataclasses.replace(conditions, device=device))
            for key, device in places.items()
        }
        if by_key:
            found[axis.name] = by_key
    return found


# ---- Built in --------------------------------------------------------------------------------------------------------


def _gflops(model: Any, configurations: Sequence[Configuration], conditions: CostConditions) -> dict[Configuration, float]:
    return {c: cost.gflops for c, cost in count_costs(model, configurations, conditions.crop).items()}


def _parameters(model: Any, configurations: Sequence[Configuration], conditions: CostConditions) -> dict[Configuration, int]:
    return count_parameters(model, configurations)


def _weights_mb(model: Any, configurations: Sequence[Configuration], conditions: CostConditions) -> dict[Configuration, float]:
    return {c: bits / 8e6 for c, bits in count_weight_bits(model, configurations).items()}


def _latency(model: Any, configurations: Sequence[Configuration], conditions: CostConditions) -> dict[Configuration, float]:
    device = conditions.device
    found = measure_latencies(
        model, configurations, conditions.crop, device, repeats=conditions.repeats, mean=conditions.mean, std=conditions.std
    )  # fmt: skip
    return found[str(LatencyKey.here(device))]


register_cost(CostAxis(name="gflops", title="1e9 multiply-adds", unit="GFLOPs", per="per view", measure=_gflops))
register_cost(CostAxis(name="parameters", title="parameters", unit="parameters", is_whole=True, is_drawn=False, adds=False, measure=_parameters))
register_cost(CostAxis(name="latency_ms", title="median latency", unit="ms", by_device=True, measure=_latency))
register_cost(CostAxis(name="weights_mb", title="size of the weights", unit="MB", adds=False, measure=_weights_mb))
# Every row has these, whatever GRID.COSTS names.
ALWAYS_COUNTED = ("gflops", "parameters")
