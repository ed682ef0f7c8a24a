"""The configurations of a model in a runtime: each is compiled on first use, compared with PyTorch, and kept."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mutual3d.deploy.extraction import extract_network, run_network
from mutual3d.deploy.runtimes import CompiledNetwork, Runtime
from mutual3d.models import AdaptiveNetwork
from mutual3d.sampling import ACTIVATIONS, Configuration

if TYPE_CHECKING:  # which holds one of these
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# Largest difference of a probability that rounding in fp32 explains.
TOLERANCE = 1e-4
# The most networks that are kept in memory; the oldest one makes room.
_KEPT = 128
_Key = tuple[Configuration | str, tuple[int, int] | None]


class CompilationError(RuntimeError):
    """A runtime failed while it compiled a configuration."""


class RuntimeMismatchError(RuntimeError):
    """A runtime computes something else than PyTorch; its network is not used."""


class CompiledConfigurations:
    """What a model runs its configurations by, in `runtime`, from any number of threads.

    A network is compiled when it is first asked for: by one thread, while others that want the same one wait. It is of the
    weights and statistics as they were then; when they change, all are compiled anew.
    """

    def __init__(self, model: "AdaptiveModel", runtime: Runtime) -> None:
        self.__setstate__({"runtime": runtime, "model": model})

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle and a copy carry: compiled networks belong to one process, and to one model's weights."""
        return {"runtime": self.runtime, "model": self._model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.runtime, self._model = state["runtime"], state["model"]
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def run(
        self, configuration: Configuration | str, frame: tuple[int, int], inputs: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Logits of what `fit_clip` makes of clips of `frame` (height, width); on any device.

        Raises CompilationError and RuntimeMismatchError, and ValueError and NotCalibratedError for the configuration.
        """
        kept = self._current()
        key = configuration, frame if self.runtime.fixes_sizes else None
        compiled = kept.networks.get(key)
        compiled = compiled or self._compile_once(kept, key, frame)
        return compiled(*(tensor.to(spec.dtype) for tensor, spec in zip(inputs, compiled.inputs, strict=True)))

    def _current(self) -> "_Kept":
        """The networks of the weights as they are."""
        kept = self._kept
        if kept is not None and kept.is_of(self._model.network):
            return kept
        with self._lock:
            if self._kept is None or not self._kept.is_of(self._model.network):
                self._kept = _Kept(self._model.network)
            return self._kept

    def _compile_once(self, kept: "_Kept", given: _Key, frame: tuple[int, int]) -> CompiledNetwork:
        configuration = self._model.network.space.check(given[0])
        key = configuration, given[1]
        with self._lock:
            lock = kept.locks.setdefault(key, threading.Lock())
        with lock:
            compiled = kept.networks.get(key) or self._compile(configuration, frame)
        with self._lock:
            # By text too: to read it takes longer than to run a small network.
            for each in (key, given):
                while len(kept.networks) >= _KEPT and each not in kept.networks:
                    del kept.networks[next(iter(kept.networks))]
                kept.networks[each] = compiled
        return compiled

    def _compile(self, configuration: Configuration, frame: tuple[int, int]) -> CompiledNetwork:
        """The network in the runtime, compared with PyTorch."""
        model, runtime = self._model, self.runtime
        weights = next(model.network.parameters())
        device, dtype = runtime.placement(weights)
        network = extract_network(model, configuration, frame, device, dtype)
        examples = list(network.examples.values())
        with torch.no_grad():
            own = [x.to(weights.device) if x.ndim == 2 else x.to(weights.device, weights.dtype) for x in examples]
            expected = run_network(model.network, own, configuration=configuration)
        where = f"configuration {configuration} in the runtime {runtime.name} ({runtime.version()})"
        try:
            compiled = runtime.compile(network)
            logits = compiled(*examples)
        except Exception as error:  # a runtime's own, of any kind
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CompilationError(
                f"{where} cannot be compiled: {first_line}; another runtime, or none, runs it: mutual3d.load(path, runtime=None)"
            ) from error
        if compiled.inputs != network.inputs:
            raise RuntimeMismatchError(f"{where} takes {compiled.inputs}, and PyTorch's takes {network.inputs}")
        activation = ACTIVATIONS[model.preprocessing.activation]
        probabilities, expected = (activation(x.cpu().float(), 1) for x in (logits, expected))
        if probabilities.shape != expected.shape:
            shapes = tuple(probabilities.shape), tuple(expected.shape)
            raise RuntimeMismatchError(f"{where} gives scores {shapes[0]}, and PyTorch {shapes[1]}")
        difference, most = (probabilities - expected).abs().max().item(), max(TOLERANCE, 4 * torch.finfo(weights.dtype).eps)
        if not difference <= most:  # which no NaN is
            raise RuntimeMismatchError(
                f"{where} is not the network that PyTorch runs: its scores differ from PyTorch's by up to {difference:.3g} in "
                f"probability, and {most:.3g} is allowed; another runtime, or another version of it, may do better"
            )
        return compiled


class _Kept:
    """The compiled networks of one state of the weights, which version counters and the statistics tell from others."""

    def __init__(self, network: AdaptiveNetwork) -> None:
        self._statistics = network.statistics
        self._tensors = [x for x in (*network.parameters(), *network.buffers()) if not x.is_inference()]
        self._version = self._sum()
        self.networks: dict[_Key, CompiledNetwork] = {}
        self.locks: dict[_Key, threading.Lock] = {}

    def is_of(self, network: AdaptiveNetwork) -> bool:
        # A move to another device or type, and a calibration, put other statistics in place; a load and a step count.
        return network.statistics is self._statistics and self._sum() == self._version

    def _sum(self) -> int:
        return sum([x._version for x in self._tensors])
