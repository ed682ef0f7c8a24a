"""What runs an extracted configuration: PyTorch, ONNX Runtime, OpenVINO; another one is a file with a `Runtime` in it."""

from . import onnxruntime, openvino, torch  # noqa: F401  (each registers its runtime)
from .interface import RUNTIMES, CompiledNetwork, ExtractedNetwork, Runtime, TensorSpec, find_runtime, register_runtime

__all__ = [
    "CompiledNetwork",
    "ExtractedNetwork",
    "RUNTIMES",
    "Runtime",
    "TensorSpec",
    "find_runtime",
    "register_runtime",
]
