"""The configurations of a model in a runtime: each is compiled on first use, compared with PyTorch, and kept."""

import contextlib
import operator
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mutual3d.deploy.extraction import allowed_difference, example_inputs, expected_scores, extract_network
from mutual3d.deploy.runtimes import CompiledNetwork, ExtractedNetwork, NetworkCache, Runtime
from mutual3d.deploy.runtimes.interface import package_version
from mutual3d.models import AdaptiveNetwork
from mutual3d.sampling import Configuration
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger, progress_bar
from mutual3d.utils.memory import resident_bytes

if TYPE_CHECKING:  # which holds one of these
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# The most networks that are kept in memory; the oldest one makes room.
_KEPT = 128
# Processes that ended while a network was compiled, after which it is not compiled any more.
_MOST_CRASHES = 2
# What a network on disk is known by changes with this.
_FORMAT = 1


class CompilationError(RuntimeError):
    """A runtime failed while it compiled a configuration."""


class RuntimeMismatchError(RuntimeError):
    """A runtime computes something else than PyTorch; its network is not used."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made ready: configurations, in how many seconds, and by how many bytes the process grew (None where the
    system does not tell)."""

    configurations: tuple[Configuration, ...]
    seconds: float
    num_bytes: int | None

    def __str__(self) -> str:
        memory = "" if self.num_bytes is None else f", {self.num_bytes / 1e6:.0f} MB of memory"
        return f"{len(self.configurations)} configurations are ready: {self.seconds:.1f} s{memory}"


@dataclass(frozen=True)
class _Call:
    """What tells one compiled network of a model from another: the configuration, and what the clip is."""

    configuration: Configuration | str
    is_normalized: bool
    frame: tuple[int, int] | None


class _Place(NamedTuple):
    """Where a network is kept on disk: what its model's weights are known by, and what it is itself."""

    model_key: str
    key: str


class CompiledConfigurations:
    """What a model runs its configurations by, in `runtime`, from any number of threads.

    A network is compiled when it is first asked for: by one thread, while others that want the same one wait. It is of the
    weights and statistics as they were then; when they change, all are compiled anew. One that fails is not tried again.

    cache: where compiled networks are kept beyond this process. clips: the user's, for runtimes that need such. fallback: the
    runtime of configurations that fail in `runtime`, which is said once; without it they raise.
    """

    def __init__(
        self,
        model: "AdaptiveModel",
        runtime: Runtime,
        *,
        cache: NetworkCache,
        clips: Sequence[torch.Tensor] = (),
        fallback: Runtime | None = None,
    ) -> None:
        state = {"runtime": runtime, "model": model, "cache": cache, "clips": tuple(clips), "fallback": fallback}
        self.__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle and a copy carry: compiled networks belong to one process, and to one model's weights."""
        names = ("runtime", "model", "cache", "clips", "fallback")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.runtime: Runtime = state["runtime"]
        self.model: AdaptiveModel = state["model"]
        self.cache: NetworkCache = state["cache"]
        self.clips: tuple[torch.Tensor, ...] = state["clips"]
        self.fallback: Runtime | None = state["fallback"]
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def run(self, configuration: Configuration | str, clip: torch.Tensor, boxes: torch.Tensor | None) -> torch.Tensor:
        """Scores of a clip as the model takes it, and of boxes where it takes them, on the weights' device.

        Raises CompilationError and RuntimeMismatchError, and ValueError and NotCalibratedError for the configuration.
        """
        kept, compiled = self.find(configuration, clip)
        if boxes is None:
            return compiled.run((clip.to(compiled.inputs[0].dtype),)).to(kept.device)
        row = [x.to(spec.dtype) for x, spec in zip((clip, boxes), compiled.inputs, strict=True)]
        return compiled.run(row).to(kept.device)

    def find(self, configuration: Configuration | str, clip: torch.Tensor) -> "tuple[_Kept, CompiledNetwork]":
        """What runs a configuration on clips such as this one, compiled if it is not yet, in microseconds if it is."""
        kept = self._current()
        # Text too: to read it takes longer than to run a small network.
        by_frame = kept.networks.get(configuration)
        key = clip.dtype, clip.shape[-2:] if self.runtime.fixes_sizes else None
        compiled = by_frame.get(key) if by_frame is not None else None
        if compiled is None:
            compiled = self._find(kept, configuration, clip)
            kept.keep(configuration, key, compiled)
        return kept, compiled

    def prepare(
        self, configurations: Sequence[Configuration], frame: tuple[int, int] | None = None, *, progress: bool = True
    ) -> Prepared:
        """Compile configurations for uint8 clips ahead of their first call. frame: see `extract_network`."""
        start, before = time.perf_counter(), resident_bytes()
        kept = self._current()
        kept.limit = max(kept.limit, 2 * len(configurations))
        crop = self.model.preprocessing.crop
        shape = torch.Size(frame or (crop, crop))
        key = torch.uint8, shape if self.runtime.fixes_sizes else None
        for configuration in progress_bar(configurations, "compile", unit="configuration") if progress else configurations:
            kept.keep(configuration, key, self._find(kept, configuration, torch.empty(0, *shape, dtype=torch.uint8)))
        after = resident_bytes()
        grown = None if before is None or after is None else max(0, after - before)
        return Prepared(tuple(configurations), time.perf_counter() - start, grown)

    def _current(self) -> "_Kept":
        """The networks of the weights as they are."""
        kept = self._kept
        if kept is not None and kept.is_of(self.model.network):
            return kept
        with self._lock:
            if self._kept is None or not self._kept.is_of(self.model.network):
                self._kept = _Kept(self.model.network)
            return self._kept

    def _find(self, kept: "_Kept", given: Configuration | str, clip: torch.Tensor) -> CompiledNetwork:
        """The network of a configuration for clips of a kind: compiled by one thread, while others wait for it."""
        height, width = clip.shape[-2:]
        call = _Call(
            self.model.network.space.check(given), clip.is_floating_point(), (height, width) if self.runtime.fixes_sizes else None
        )
        with kept.lock_of(call):
            if call not in kept.found:
                kept.found[call] = self._compile_or_fall_back(kept, call, (height, width))
            found = kept.found[call]
        if isinstance(found, (CompilationError, RuntimeMismatchError)):
            raise type(found)(str(found)) from found.__cause__
        return found

    def _compile_or_fall_back(
        self, kept: "_Kept", call: _Call, frame: tuple[int, int]
    ) -> "CompiledNetwork | CompilationError | RuntimeMismatchError":
        try:
            return self._compile(self.runtime, kept, call, frame)
        except (CompilationError, RuntimeMismatchError) as error:
            if self.fallback is None:
                return error
            logger.warning("%s runs %s instead", self.fallback.title, error)
            return self._compile(self.fallback, kept, call, frame)

    def _compile(self, runtime: Runtime, kept: "_Kept", call: _Call, frame: tuple[int, int]) -> CompiledNetwork:
        """The network in the runtime, compared with PyTorch: from the disk, or made and kept there."""
        model, configuration = self.model, self.model.network.space.check(call.configuration)
        examples = example_inputs(model, frame, is_normalized=call.is_normalized)
        weights = next(model.network.parameters())
        device, dtype = runtime.placement(weights)
        tolerance = max(allowed_difference(runtime, model.network), 4 * max(_rounding(weights.device, weights.dtype), _rounding(device, dtype)))
        where = f"configuration {configuration} in the runtime {runtime.name} ({runtime.version()})"
        place = self._place(runtime, kept, configuration, examples)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"network{(*runtime.suffixes, '')[0]}"
            if place is not None:
                found = self._take(place, runtime, path, examples, tolerance)
                if found is not None:
                    return found
                self._check_crashes(place, where)
            expected = expected_scores(model, examples, configuration)
            network = extract_network(model, configuration, examples, device, dtype, self.clips)
            try:
                with contextlib.nullcontext() if place is None else self.cache.compiling(*place):
                    compiled = _make(runtime, network, path)
                    scores = compiled(*network.examples.values())
            except Exception as error:  # a runtime's own, of any kind
                raise CompilationError(
                    f"{where} cannot be compiled: {_first_line(error)}; another runtime, or none, runs it: mutual3d.load(path, runtime=None)"
                ) from error
            if compiled.inputs != network.inputs:
                raise RuntimeMismatchError(f"{where} takes {compiled.inputs}, and PyTorch's takes {network.inputs}")
            problem = _difference(scores, expected, tolerance)
            if problem:
                raise RuntimeMismatchError(f"{where} {problem}")
            if place is not None:
                self.cache.forget_crashes(*place)
                files = [path.with_suffix(suffix) for suffix in runtime.suffixes]
                facts = {**_facts(model, runtime, configuration, examples), "scores": expected.tolist()}
                self.cache.keep(*place, files, facts)
        return compiled

    def _place(
        self, runtime: Runtime, kept: "_Kept", configuration: Configuration, examples: Mapping[str, torch.Tensor]
    ) -> _Place | None:
        """Where the network is kept on disk; None for a runtime without files, and for weights that no text tells."""
        if not runtime.suffixes or kept.fingerprint is None:
            return None
        return _Place(kept.fingerprint, self._key(runtime, configuration, examples))

    def _take(
        self, place: _Place, runtime: Runtime, path: Path, examples: Mapping[str, torch.Tensor], tolerance: float
    ) -> CompiledNetwork | None:
        """The network that the disk holds, if it still gives the scores that PyTorch gave; else it is not asked for again."""
        facts = self.cache.take(*place, path.parent)
        if facts is None:
            return None
        try:
            compiled = runtime.load(path)
            problem = _difference(compiled(*examples.values()), torch.tensor(facts["scores"]), tolerance)
        except Exception as error:  # a runtime's own, of any kind
            problem = _first_line(error)
        if not problem:
            return compiled
        self.cache.refuse(*place, problem)
        return None

    def _check_crashes(self, place: _Place, where: str) -> None:
        if self.cache.num_crashes(*place) >= _MOST_CRASHES:
            raise CompilationError(
                f"{where} is not compiled: {_MOST_CRASHES} processes ended while they compiled it, by a crash of the runtime or killed from "
                "outside; another runtime, or none, runs it: mutual3d.load(path, runtime=None). `mutual3d cache --clear` lets it be tried again"
            )

    def _key(self, runtime: Runtime, configuration: Configuration, examples: Mapping[str, torch.Tensor]) -> str:
        """What changes with anything that decides a compiled network, but for the weights."""
        model = self.model
        inputs = {name: (str(x.dtype), tuple(x.shape[1:])) for name, x in examples.items()}
        return fingerprint(
            _FORMAT, package_version("mutual3d"), runtime.name, runtime.version(), configuration, model.network.find_statistics(configuration),
            model.preprocessing, inputs, self.clips if runtime.needs_clips else None,
        )  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def model_fingerprint(network: AdaptiveNetwork) -> str | None:
    """What stands for a network's weights on disk; None for one that was built by hand, whose layers no text tells."""
    return fingerprint(network.arguments, dict(network.state_dict())) if network.arguments else None


def _facts(
    model: "AdaptiveModel", runtime: Runtime, configuration: Configuration, examples: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """What `mutual3d cache` tells of a network."""
    return {
        "network": model.network.arguments.get("name", type(model.network).__name__),
        "bundle": None if model.path is None else str(model.path),
        "configuration": str(configuration),
        "runtime": runtime.name,
        "version": runtime.version(),
        "inputs": {name: [str(x.dtype).removeprefix("torch."), *x.shape[1:]] for name, x in examples.items()},
    }


def _make(runtime: Runtime, network: ExtractedNetwork, path: Path) -> CompiledNetwork:
    """Compile by files, which may be kept, where the runtime has such."""
    if not runtime.suffixes:
        return runtime.compile(network)
    runtime.save(network, path)
    return runtime.load(path)


def _difference(scores: torch.Tensor, expected: torch.Tensor, tolerance: float) -> str:
    """What is wrong with scores, in words; "" where they are PyTorch's."""
    scores = scores.cpu().float()
    if scores.shape != expected.shape:
        return f"gives scores {tuple(scores.shape)}, and PyTorch {tuple(expected.shape)}"
    difference = (scores - expected).abs().max().item()
    if difference <= tolerance:  # which no NaN is
        return ""
    return (
        f"is not the network that PyTorch runs: its scores differ from PyTorch's by up to {difference:.3g} in probability, and "
        f"{tolerance:.3g} is allowed; another runtime, or another version of it, may do better"
    )


def _rounding(device: torch.device, dtype: torch.dtype) -> float:
    """The share of a number that convolutions lose where they are computed: GPUs take float32 as TF32, which has 10 bits, by default."""
    is_tf32 = device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return 2**-10 if is_tf32 else torch.finfo(dtype).eps


_version_of = operator.attrgetter("_version")


class _Kept:
    """The compiled networks of one state of the weights, which version counters and the statistics tell from others."""

    def __init__(self, network: AdaptiveNetwork) -> None:
        self._network = network
        self._statistics = network.statistics
        # Every call asks this. Norms count their batches together, so that one counter stands for all.
        counters = [x for name, x in network.named_buffers() if name.endswith("num_batches_tracked")][:1]
        self._tensors = [x for x in (*network.parameters(), *counters) if not x.is_inference()]
        self._version = self._sum()
        self._guard = threading.Lock()
        self._fingerprint: str | None | bool = False
        self.device, self.limit = next(network.parameters()).device, _KEPT
        # By what a call gives, for the quick way; and by what it means, with what failed.
        self.networks: dict[Configuration | str, dict[Any, CompiledNetwork]] = {}
        self.found: dict[_Call, CompiledNetwork | CompilationError | RuntimeMismatchError] = {}
        self._locks: dict[_Call, threading.Lock] = {}

    def is_of(self, network: AdaptiveNetwork) -> bool:
        # A move to another device or type, and a calibration, put other statistics in place; a load and a step count.
        return network.statistics is self._statistics and self._sum() == self._version

    def _sum(self) -> int:
        return sum(map(_version_of, self._tensors))

    @property
    def fingerprint(self) -> str | None:
        """Of the weights: computed once, when a network is first looked for on disk."""
        with self._guard:
            if isinstance(self._fingerprint, bool):
                self._fingerprint = model_fingerprint(self._network)
            return self._fingerprint

    def lock_of(self, call: _Call) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(call, threading.Lock())

    def keep(self, given: Configuration | str, key: Any, compiled: CompiledNetwork) -> None:
        """Let the next call that gives the same find the network; the oldest ones make room."""
        with self._guard:
            self.networks.setdefault(given, {})[key] = compiled
            while len(self.networks) > self.limit:
                del self.networks[next(iter(self.networks))]
            while len(self.found) > self.limit:
                del self.found[next(iter(self.found))]
