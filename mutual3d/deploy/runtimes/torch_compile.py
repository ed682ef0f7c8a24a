"""torch.compile: the extracted network as C++ (on a GPU, as Triton kernels) that PyTorch writes, compiles and keeps itself."""

import os
import shutil
import threading
from collections.abc import Sequence
from typing import ClassVar

import torch

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime

_COMPILERS = ("g++", "clang++", "c++")


@register_runtime
class TorchCompileRuntime(Runtime):
    """It takes a minute for each configuration and batch size, of which PyTorch keeps the results on disk."""

    name, title = "torch_compile", "torch.compile"
    is_automatic = False
    backend: ClassVar[str] = "inductor"

    def placement(self, weights: torch.Tensor) -> tuple[torch.device, torch.dtype]:
        return weights.device, weights.dtype

    @property
    def is_installed(self) -> bool:
        return find_compiler() is not None

    def require(self) -> None:
        if find_compiler() is None:
            raise ImportError(
                f"the runtime {self.name} needs a C++ compiler, and there is none of {', '.join(_COMPILERS)} here: install one "
                "(apt install g++), name it in the variable CXX, or take another runtime"
            )

    def compile(self, network: ExtractedNetwork) -> CompiledNetwork:
        self.require()
        module = network.module.eval().requires_grad_(False)
        device = next(iter(network.examples.values())).device
        compiled = torch.compile(module, dynamic=False, backend=self.backend)
        known, lock = set[tuple[int, ...]](), threading.Lock()

        def run(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            moved, batch = [x.to(device).contiguous() for x in inputs], tuple(len(x) for x in inputs)
            with torch.no_grad():
                if batch in known:
                    return compiled(*moved)
                with lock:  # the first call of each batch size is the one that compiles
                    scores = compiled(*moved)
                    known.add(batch)
                    return scores

        example = run(list(network.examples.values()))
        return CompiledNetwork(network.inputs, TensorSpec(network.output, example.dtype, (None, *example.shape[1:])), run)


def find_compiler() -> str | None:
    """The C++ compiler that PyTorch will take: the variable CXX, or the first of the usual ones."""
    named = os.environ.get("CXX", "")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _COMPILERS)), None)
