"""PyTorch: the extracted network itself, its norms folded, in the memory format that is fastest on its device."""

from collections.abc import Sequence

import torch

from mutual3d.utils.memory_format import in_format, preferred_memory_format, put_in_format

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime


@register_runtime
class TorchRuntime(Runtime):
    """It keeps no files: compiling takes milliseconds."""

    name, title, fixes_sizes = "torch", "PyTorch", False

    def placement(self, weights: torch.Tensor) -> tuple[torch.device, torch.dtype]:
        return weights.device, weights.dtype

    def compile(self, network: ExtractedNetwork) -> CompiledNetwork:
        module, first = network.module.eval().requires_grad_(False), next(iter(network.examples.values()))
        memory_format = preferred_memory_format(module, first.device)
        put_in_format(module, memory_format)

        def run(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                return module(*(in_format(x.to(first.device), memory_format) for x in inputs))

        example = run(list(network.examples.values()))
        return CompiledNetwork(network.inputs, TensorSpec(network.output, example.dtype, (None, *example.shape[1:])), run)
