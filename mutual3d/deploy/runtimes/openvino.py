"""OpenVINO, on the CPU: an .xml and a .bin that are converted from ONNX, metadata in `rt_info`, under `mutual3d`."""

import functools
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

from .interface import CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, register_runtime
from .onnx_program import write_onnx

# OpenVINO's names of the types of inputs and outputs that networks have here.
_DTYPES = {"f32": torch.float32, "u8": torch.uint8, "i64": torch.int64}


class OpenVino(Runtime):
    """What the runtimes by OpenVINO share. hint: the precision that it is asked for, "" for the one that it takes by itself."""

    extra = "export"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "openvino")
    suffixes = (".xml", ".bin")
    hint: ClassVar[str] = ""

    def package(self, name: str) -> ModuleType:
        # OpenVINO reports its use to its maker, unasked, unless this module cannot be imported.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is what forbids an import
        return super().package(name)

    def save(self, network: ExtractedNetwork, path: Path) -> None:
        package = self.package("openvino")
        converted = self.converted(network)
        for name, text in network.metadata.items():
            converted.set_rt_info(text, ["mutual3d", name])
        package.save_model(converted, str(path), compress_to_fp16=False)

    def converted(self, network: ExtractedNetwork) -> Any:
        """The network as an `openvino.Model`."""
        with tempfile.TemporaryDirectory() as directory:
            source = str(Path(directory) / "network.onnx")
            write_onnx(network, source)
            return self.package("openvino").convert_model(source)

    def load(self, path: Path) -> CompiledNetwork:
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        if self.hint:
            options["INFERENCE_PRECISION_HINT"] = self.hint
        compiled = core(self.package("openvino")).compile_model(str(path), "CPU", options)
        inputs, (output,) = tuple(map(_spec, compiled.inputs)), map(_spec, compiled.outputs)
        requests = _Requests(compiled)

        def run(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
            return torch.from_numpy(requests.own.infer(arrays, share_inputs=True)[0])

        return CompiledNetwork(inputs, output, run)


@functools.cache
def core(package: ModuleType) -> Any:
    """The one `openvino.Core` of this process, which lives as long as it does. package: the module openvino.

    On Intel CPUs with AMX, the first network of each Core gives its thread another stack for signals, and the end of the Core
    frees that stack while the thread may still be told to use it: the next Ctrl-C is then a segmentation fault.
    """
    return package.Core()


class _Requests(threading.local):
    """Each thread's own request of a compiled model: one serves one call at a time."""

    def __init__(self, compiled: Any) -> None:
        self.own = compiled.create_infer_request()


def _spec(port: Any) -> TensorSpec:
    sizes = (size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), _DTYPES[port.get_element_type().get_type_name()], tuple(sizes))


def example_lines(options: str) -> tuple[str, str]:
    """`Runtime.example` with options of `compile_model`, as Python."""
    return (
        "core = openvino.Core()\n"
        "network = core.read_model(path)\n"
        'facts = {name: json.loads(text.astype(str)) for name, text in network.get_rt_info()["mutual3d"].items()}',
        f'scores = core.compile_model(network, "CPU"{options})(INPUTS)[0][0]',
    )


@register_runtime
class OpenVinoFp32(OpenVino):
    """Computes in fp32, as PyTorch does."""

    name, title, format, hint = "openvino", "OpenVINO", "openvino", "f32"
    example = example_lines(', {"INFERENCE_PRECISION_HINT": "f32"}')
