"""Which of the installed runtimes is the fastest for a model on this machine: measured once, and remembered."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mutual3d.cost.latency import measure_latency
from mutual3d.cost.machine import device_name
from mutual3d.deploy.compiled import CompilationError, CompiledConfigurations, RuntimeMismatchError
from mutual3d.deploy.extraction import example_inputs
from mutual3d.deploy.runtimes import RUNTIMES, NetworkCache, Runtime
from mutual3d.sampling import Configuration
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger

if TYPE_CHECKING:  # which calls this
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# What every installation has.
_ALWAYS = "torch"
# About as many seconds as measuring takes, and the fewest and most calls of each runtime.
_SECONDS, _REPEATS = 1.0, (3, 30)


@dataclass(frozen=True)
class RuntimeChoice:
    """The fastest runtime of a model. milliseconds: {runtime: median of one clip} at `configuration`, on `machine`, in turns.

    failed: {runtime: what it said}. is_remembered: an earlier process measured.
    """

    runtime: str
    configuration: str
    milliseconds: dict[str, float]
    failed: dict[str, str]
    machine: str
    is_remembered: bool = False

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.3g} ms" for name, value in sorted(self.milliseconds.items(), key=lambda pair: pair[1]))
        when = "measured before" if self.is_remembered else "measured now"
        return f"runtime {self.runtime}: the fastest one for this model on {self.machine} ({times} at {self.configuration}, {when})"


def measured_configurations(model: "AdaptiveModel") -> list[Configuration]:
    """The configurations of a model's Pareto front over GFLOPs, ascending; without a table all that can be evaluated."""
    if model.table is not None:
        return [row.configuration for row in model.table.pareto_front("gflops")]
    largest = [model.network.space.largest] if model.network.can_evaluate(model.network.space.largest) else []
    return sorted({*model.network.statistics, *largest}, key=lambda c: (c.spatial**2 * c.temporal, c.widths))


def choose_fastest(
    model: "AdaptiveModel", cache: NetworkCache, make: Callable[[Runtime], CompiledConfigurations]
) -> tuple[RuntimeChoice, CompiledConfigurations]:
    """Measure every installed runtime whose scores are PyTorch's at one configuration, the middle one of the front.

    make: what a runtime runs the model by. A runtime that fails is named in the log and left out. What was measured before on
    this machine, with these versions and as many threads, is not measured again.
    """
    weights = next(model.parameters())
    candidates = [
        runtime for runtime in RUNTIMES.values()
        if runtime.name == _ALWAYS
        or (runtime.is_automatic and runtime.is_installed and runtime.placement(weights)[0].type == weights.device.type)
    ]  # fmt: skip
    machine = f"{device_name(weights.device)} ({os.cpu_count()} cores)"
    versions = [(runtime.name, runtime.version()) for runtime in candidates]
    known = [model.network.arguments, model.preprocessing, str(weights.device), str(weights.dtype)]
    key = fingerprint(known, machine, torch.get_num_threads(), versions)
    choice = _remembered(cache.read_choice(key), [runtime.name for runtime in candidates])
    if choice is not None:
        logger.info("%s", choice)
        return choice, make(RUNTIMES[choice.runtime])
    configurations = measured_configurations(model)
    configuration = configurations[len(configurations) // 2] if configurations else model.active
    compiled, failed = {}, {}
    clip, *boxes = (x[:1] for x in example_inputs(model).values())
    for runtime in candidates:
        made = make(runtime)
        try:
            made.run(configuration, clip, boxes[0] if boxes else None)
            compiled[runtime.name] = made
        except (CompilationError, RuntimeMismatchError) as error:
            failed[runtime.name] = str(error)
            logger.warning("runtime %s is left out: %s", runtime.name, error)
    milliseconds = _measure(compiled, configuration, clip, boxes[0] if boxes else None)
    fastest = min(milliseconds, key=lambda name: milliseconds[name]) if milliseconds else _ALWAYS
    choice = RuntimeChoice(fastest, str(configuration), milliseconds, failed, machine)
    logger.info("%s", choice)
    cache.write_choice(key, {name: value for name, value in vars(choice).items() if name != "is_remembered"})
    return choice, compiled.get(fastest) or make(RUNTIMES[fastest])


def _remembered(earlier: Mapping[str, Any] | None, names: Sequence[str]) -> RuntimeChoice | None:
    """The choice that a file tells, of one of the runtimes `names`; None for a file that does not tell one, so that it is measured anew."""
    if earlier is None or earlier.get("runtime") not in names:
        return None
    texts, times, failed = [earlier.get("configuration"), earlier.get("machine")], earlier.get("milliseconds"), earlier.get("failed")
    if not (all(isinstance(text, str) for text in texts) and isinstance(times, dict) and isinstance(failed, dict)):
        return None
    if not all(isinstance(value, (int, float)) for value in times.values()):
        return None
    return RuntimeChoice(earlier["runtime"], earlier["configuration"], times, failed, earlier["machine"], is_remembered=True)


def _measure(
    compiled: dict[str, CompiledConfigurations], configuration: Configuration, clip: torch.Tensor, boxes: torch.Tensor | None
) -> dict[str, float]:
    """{runtime: median ms of one clip}, in turns, for about a second."""

    def runner(made: CompiledConfigurations) -> Callable[[], Callable[[], torch.Tensor]]:
        return lambda: lambda: made.run(configuration, clip, boxes)

    runs = {name: runner(made) for name, made in compiled.items()}
    first = measure_latency(runs, clip.device, repeats=1)
    repeats = math.ceil(1000 * _SECONDS / max(sum(first.values()), 1e-3))
    return measure_latency(runs, clip.device, repeats=min(max(repeats, _REPEATS[0]), _REPEATS[1]), warmup=0)
