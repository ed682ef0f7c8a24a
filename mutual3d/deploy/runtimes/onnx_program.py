"""A network as an ONNX program: what runtimes that do not know PyTorch take."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn

from mutual3d.models.adaptive import replace_shrink
from mutual3d.sampling import shrink_clip, temporal_indices

from .interface import ExtractedNetwork

# The exporter keeps state of the whole process: one network at a time.
_EXPORTING = threading.Lock()


def onnx_program(network: ExtractedNetwork) -> torch.onnx.ONNXProgram:
    """The ONNX program of a network, for any batch and number of boxes, without traces of its making."""
    examples = tuple(network.examples.values())
    with _EXPORTING, warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), torch.no_grad():
        warnings.simplefilter("ignore")
        # Between fixed sizes, which running it once decides.
        replace_shrink(network.module, FixedShrink)
        network.module(*examples)
        sizes = tuple({0: torch.export.Dim("boxes" if name == "boxes" else "batch")} for name in network.examples)
        program = torch.onnx.export(
            _Positional(network.module), examples, dynamo=True, dynamic_shapes=(sizes,),
            input_names=list(network.examples), output_names=[network.output], verbose=False,
        )  # fmt: skip
    assert program is not None, "torch.onnx.export with dynamo gives a program"
    graph = program.model.graph
    parts: list[Any] = [program.model, graph, *graph.all_nodes(), *graph.inputs, *graph.initializers.values()]
    for part in parts:
        part.metadata_props.clear()  # stack traces, with the paths of this machine: a quarter of a small file
    return program


def write_onnx(network: ExtractedNetwork, path: str) -> None:
    """Write the ONNX program of a network, its metadata in `metadata_props`."""
    program = onnx_program(network)
    program.model.metadata_props.update(network.metadata)
    program.save(path)


class _Positional(nn.Module):
    """A module whose arguments have no names: the exporter takes the shapes of all of them in one tuple then."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.module(*inputs)


class FixedShrink(nn.Module):
    """`shrink_clip` from one fixed size to another, which the first call decides, as two matrix products.

    A resize is linear. Runtimes disagree about antialiasing (OpenVINO 2026.4 leaves it out in silence), not about
    matrix products.
    """

    frames: torch.Tensor
    rows: torch.Tensor | None
    columns: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", None)

    def forward(self, features: torch.Tensor, size: tuple[int, int], temporal: int) -> torch.Tensor:
        if tuple(features.shape[2:]) == (temporal, *size):
            return features
        if self.rows is None:
            self._learn(features.shape[2:], size, temporal)
            assert self.rows is not None
        return self.rows @ features.index_select(2, self.frames) @ self.columns

    def _learn(self, source: torch.Size, size: tuple[int, int], temporal: int) -> None:
        self.register_buffer("frames", temporal_indices(source[0], temporal))
        self.register_buffer("rows", _resize_matrix(source[1], size[0]))
        self.register_buffer("columns", _resize_matrix(source[2], size[1]).T.contiguous())


def _resize_matrix(source: int, target: int) -> torch.Tensor:
    """target x source: what shrinking does to a column of `source` pixels."""
    return shrink_clip(torch.eye(source)[None, None, None], (target, source))[0, 0, 0]


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """A context in which the loggers say what is wrong and nothing else."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
