"""What runs an extracted configuration: PyTorch, ONNX Runtime, OpenVINO, ...; another one is a file with a `Runtime` in it."""

from . import cuda, onnxruntime, openvino, openvino_default, openvino_int8, torch, torch_compile  # noqa: F401  (each registers)
from .cache import NetworkCache
from .interface import RUNTIMES, CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, find_runtime, register_runtime

__all__ = [
    "CompiledNetwork",
    "ExtractedNetwork",
    "NetworkCache",
    "RUNTIMES",
    "Runtime",
    "TensorSpec",
    "find_runtime",
    "register_runtime",
]
