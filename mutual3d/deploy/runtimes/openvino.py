"""OpenVINO, on the CPU: an .xml and a .bin that are converted from ONNX, metadata in `rt_info`, under `mutual3d`."""

import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime
from .onnx_program import write_onnx

# OpenVINO's names of the types of inputs and outputs that networks have here.
_DTYPES = {"f32": torch.float32, "u8": torch.uint8, "i64": torch.int64}


@register_runtime
class OpenVinoRuntime(Runtime):
    """Runs networks in fp32 on the CPU."""

    name, title, extra = "openvino", "OpenVINO", "export"
    packages = ("onnx", "onnxscript", "openvino")
    format, suffixes = "openvino", (".xml", ".bin")

    def package(self, name: str) -> ModuleType:
        # OpenVINO reports its use to its maker, unasked, unless this module cannot be imported.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is what forbids an import
        return super().package(name)

    def save(self, network: ExtractedNetwork, path: Path) -> None:
        package = self.package("openvino")
        with tempfile.TemporaryDirectory() as directory:
            source = str(Path(directory) / "network.onnx")
            write_onnx(network, source)
            converted = package.convert_model(source)
            for name, text in network.metadata.items():
                converted.set_rt_info(text, ["mutual3d", name])
            package.save_model(converted, str(path), compress_to_fp16=False)

    def load(self, path: Path) -> CompiledNetwork:
        # Its default precision, bf16 on a CPU that has it, moves logits by a hundredth.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = self.package("openvino").Core().compile_model(str(path), "CPU", options)
        inputs, (output,) = tuple(map(_spec, compiled.inputs)), map(_spec, compiled.outputs)
        requests = _Requests(compiled)

        def run(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
            return torch.from_numpy(requests.own.infer(arrays, share_inputs=True)[0])

        return CompiledNetwork(inputs, output, run)


class _Requests(threading.local):
    """Each thread's own request of a compiled model: one serves one call at a time."""

    def __init__(self, compiled: Any) -> None:
        self.own = compiled.create_infer_request()


def _spec(port: Any) -> TensorSpec:
    sizes = (size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), _DTYPES[port.get_element_type().get_type_name()], tuple(sizes))
