"""OpenVINO in int8: NNCF chooses the ranges of numbers by clips of the user's."""

from pathlib import Path
from types import ModuleType

import torch

from .interface import TOLERANCE_OF_LEVELS, ExtractedNetwork, register_runtime
from .openvino import OpenVino, example_lines


@register_runtime
class OpenVinoInt8(OpenVino):
    """Scores move by some hundredths: measure the accuracy with it. Without VNNI it is hardly faster than fp32."""

    name, title, precision, extra = "openvino_int8", "OpenVINO, int8", "int8", "int8"
    packages = ("nncf", *OpenVino.packages)
    format, example = "openvino_int8", example_lines("")
    is_automatic, needs_clips, tolerance = False, True, TOLERANCE_OF_LEVELS

    def package(self, name: str) -> ModuleType:
        if name != "nncf":
            return super().package(name)
        super().package("openvino")  # which forbids both to report their use
        return super().package(name)

    def save(self, network: ExtractedNetwork, path: Path) -> None:
        if not network.clips:
            raise ValueError(f"the runtime {self.name} chooses its ranges by clips, and there are none")
        boxes = [x.numpy() for x in list(network.examples.values())[1:]]
        nncf, openvino = self.package("nncf"), self.package("openvino")
        samples = [[clip.numpy(), *(each[each[:, 0] == 0] for each in boxes)] for batch in network.clips for clip in _each(batch)]
        quantized = nncf.quantize(self.converted(network), nncf.Dataset(samples), subset_size=len(samples))
        for name, text in network.metadata.items():
            quantized.set_rt_info(text, ["mutual3d", name])
        openvino.save_model(quantized, str(path), compress_to_fp16=False)


def _each(batch: torch.Tensor) -> list[torch.Tensor]:
    """The clips of a batch, one by one, each a batch of one."""
    return [clip[None].contiguous() for clip in batch.cpu()]
