"""ONNX Runtime, on the CPU: an .onnx file, its metadata in `metadata_props`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime
from .onnx_program import write_onnx

# What ONNX calls the types of inputs and outputs that networks have here.
_DTYPES = {"tensor(float)": torch.float32, "tensor(uint8)": torch.uint8, "tensor(int64)": torch.int64}


@register_runtime
class OnnxRuntime(Runtime):
    """Runs networks in fp32 on the CPU."""

    name, title, extra = "onnxruntime", "ONNX Runtime", "export"
    packages = ("onnx", "onnxscript", "onnxruntime")
    format, suffixes = "onnx", (".onnx",)
    example = (
        "session = onnxruntime.InferenceSession(path)\n"
        "facts = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}",
        "scores = session.run(None, {node.name: x for node, x in zip(session.get_inputs(), INPUTS)})[0][0]",
    )

    def save(self, network: ExtractedNetwork, path: Path) -> None:
        write_onnx(network, str(path))

    def load(self, path: Path) -> CompiledNetwork:
        package = self.package("onnxruntime")
        options = package.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = package.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs, (output,) = tuple(map(_spec, session.get_inputs())), map(_spec, session.get_outputs())
        names = [spec.name for spec in inputs]

        def run(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
            return torch.from_numpy(session.run(None, dict(zip(names, arrays)))[0])

        return CompiledNetwork(inputs, output, run)


def _spec(node: Any) -> TensorSpec:
    """Of a session's node; a size that may be any is a name there."""
    return TensorSpec(node.name, _DTYPES[node.type], tuple(size if isinstance(size, int) else None for size in node.shape))
