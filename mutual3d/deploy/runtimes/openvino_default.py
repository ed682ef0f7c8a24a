"""OpenVINO in the precision that it takes by itself: bf16 on a CPU that has it, which is faster, else fp32."""

from .interface import register_runtime
from .openvino import OpenVino


@register_runtime
class OpenVinoDefault(OpenVino):
    """In bf16 scores move by about a hundredth: measure the accuracy with it."""

    name, title, precision = "openvino_default", "OpenVINO, default precision", "default"
    is_automatic, tolerance = False, 0.05
