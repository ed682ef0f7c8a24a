"""CUDA graphs: on a GPU, a network's kernels are recorded once for each batch size, and started by one call from then on."""

import threading
from collections.abc import Sequence

import torch

from mutual3d.utils.memory_format import in_format, preferred_memory_format, put_in_format

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime

# Before recording: libraries choose their kernels in the first calls.
_WARMUP = 3
# Batch sizes that are recorded; others run as ever.
_MOST_GRAPHS = 8


@register_runtime
class CudaRuntime(Runtime):
    """For small batches, where starting the kernels one by one takes longer than running them."""

    name, title = "cuda", "CUDA graphs"

    @property
    def is_installed(self) -> bool:
        return torch.cuda.is_available()

    def require(self) -> None:
        if not torch.cuda.is_available():
            raise ImportError(f"the runtime {self.name} needs a GPU, and torch sees none here: take another runtime")

    def placement(self, weights: torch.Tensor) -> tuple[torch.device, torch.dtype]:
        return weights.device if weights.device.type == "cuda" else torch.device("cuda"), weights.dtype

    def compile(self, network: ExtractedNetwork) -> CompiledNetwork:
        module = network.module.eval().requires_grad_(False)
        graphs = _Graphs(module, next(iter(network.examples.values())).device)
        example = graphs.run(list(network.examples.values()))
        return CompiledNetwork(network.inputs, TensorSpec(network.output, example.dtype, (None, *example.shape[1:])), graphs.run)


class _Graphs:
    """The recorded graphs of a module by the shapes of its inputs. One call at a time: a graph has one set of buffers."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self._module, self._device = module, device
        self._memory_format = preferred_memory_format(module, device)
        put_in_format(module, self._memory_format)
        self._lock = threading.Lock()
        # After the last call: a thread may have a stream of its own, and would overwrite the buffers that another's still reads.
        self._is_free = torch.cuda.Event()
        self._recorded: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]] = {}

    def run(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        shapes = tuple(x.shape for x in inputs)
        with self._lock, torch.no_grad(), torch.cuda.device(self._device):
            if shapes not in self._recorded:
                if len(self._recorded) >= _MOST_GRAPHS:
                    return self._module(*(x.to(self._device) for x in inputs))
                self._recorded[shapes] = self._record(inputs)
            graph, buffers, output = self._recorded[shapes]
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._is_free)
            for buffer, given in zip(buffers, inputs):
                buffer.copy_(given)
            graph.replay()
            scores = output.clone()
            self._is_free.record(stream)
            return scores

    def _record(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]:
        """A graph, the tensors that it reads, and the one that it writes."""
        buffers = [in_format(x.to(self._device), self._memory_format).clone() for x in inputs]
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARMUP):
                self._module(*buffers)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._module(*buffers)
        return graph, buffers, output
