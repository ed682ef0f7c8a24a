"""PyTorch: the extracted network itself, its norms folded, in the memory format that is fastest on its device."""

from collections.abc import Sequence

import torch

from mutual3d.sampling import preferred_memory_format

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime


@register_runtime
class TorchRuntime(Runtime):
    """It keeps no files: compiling takes milliseconds."""

    name, title, fixes_sizes = "torch", "PyTorch", False

    def placement(self, weights: torch.Tensor) -> tuple[torch.device, torch.dtype]:
        return weights.device, weights.dtype

    def compile(self, network: ExtractedNetwork) -> CompiledNetwork:
        module, first = network.module.eval().requires_grad_(False), next(iter(network.examples.values()))
        formats = _memory_formats(first.device)
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous(memory_format=formats.get(parameter.ndim, torch.contiguous_format))

        def run(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                return module(
                    *(x.to(first.device).contiguous(memory_format=formats.get(x.ndim, torch.contiguous_format)) for x in inputs)
                )

        example = run(list(network.examples.values()))
        return CompiledNetwork(network.inputs, TensorSpec(network.output, example.dtype, (None, *example.shape[1:])), run)


def _memory_formats(device: torch.device) -> dict[int, torch.memory_format]:
    """{dimensions: the memory format of such weights and inputs}."""
    if preferred_memory_format(device) == torch.contiguous_format:
        return {}
    return {4: torch.channels_last, 5: torch.channels_last_3d}
