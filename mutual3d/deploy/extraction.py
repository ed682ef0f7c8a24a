"""One configuration of a deployed model as what runtimes compile: a module, the tensors that it takes, its metadata."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
import torch.nn as nn

from mutual3d.deploy.runtimes import ExtractedNetwork
from mutual3d.models.adaptive import Inputs
from mutual3d.sampling import Configuration, prepare_clip

if TYPE_CHECKING:  # which imports this
    from mutual3d.deploy.adaptive_model import AdaptiveModel


def extract_network(
    model: "AdaptiveModel", configuration: Configuration, frame: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> ExtractedNetwork:
    """The sub-network of a model at `configuration`, norms folded, with floats of `dtype` on `device`.

    It takes what `fit_clip` makes of a normalised clip of `frame` (height and width in pixels): `clip` B, 3, t, s, s; `slow`
    and `fast` for SlowFast; `images` B, 3, s, s; and `boxes` N, 5 too where the model classifies boxes. It gives `logits`
    B, K (N, K). Other threads may call the model meanwhile. Raises ValueError and NotCalibratedError as `extract` does.
    """
    module = Positional(model.network.extract(configuration, fold_bn=True)).to(device, dtype)
    examples = example_inputs(model, configuration, frame, device, dtype)
    return ExtractedNetwork(module, examples, metadata=metadata(model, configuration, examples))


def example_inputs(
    model: "AdaptiveModel", configuration: Configuration, frame: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """{name: tensor} of two random clips of `frame`, and of boxes where the model takes them, at `configuration`."""
    network, cut = model.network, model.preprocessing
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (2, 3, network.clip_frames, *frame), dtype=torch.uint8, generator=generator)
    clip_BCTHW = prepare_clip(clip, device, cut.mean, cut.std, cut.reverse_channels).to(dtype)
    boxes = [[0, 0.1, 0.2, 0.6, 0.9], [1, 0.0, 0.0, 1.0, 1.0], [1, 0.4, 0.3, 0.7, 0.8]] if network.takes_boxes else None
    tensors = in_a_row(network.fit_clip(clip_BCTHW, configuration), None if boxes is None else torch.tensor(boxes, device=device))
    names = ["images"] if network.takes == "images" else ["slow", "fast"] if network.takes == "pathways" else ["clip"]
    return dict(zip([*names, "boxes"] if network.takes_boxes else names, tensors, strict=True))


def in_a_row(pathways: Inputs, boxes: torch.Tensor | None) -> list[torch.Tensor]:
    """What a network is called with, as the inputs of a compiled one."""
    row = [pathways] if isinstance(pathways, torch.Tensor) else list(pathways)
    return row if boxes is None else [*row, boxes]


class Positional(nn.Module):
    """A network whose inputs are arguments of their own: exporters name arguments, not entries of a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return run_network(self.network, inputs)


def run_network(
    network: nn.Module, inputs: Sequence[torch.Tensor], **options: Configuration | None
) -> torch.Tensor:
    """Call a network, plain or adaptive, with the tensors of `example_inputs`, and with `options`."""
    *pathways, last = inputs
    if last.ndim == 2:
        return network(pathways, last, **options)
    return network(list(inputs) if last.ndim == 5 else last, **options)


def metadata(model: "AdaptiveModel", configuration: Configuration, inputs: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """{name: JSON text}: the configuration, the network's input, how a clip is cut and normalised, the classes.

    size and frames: of the (Slow) input. The other entries are Preprocessing's, of the view that the input is shrunk
    from: frames evenly spaced with both ends, sides bilinear with antialiasing.
    """
    first = next(iter(inputs.values()))
    entries = {
        "configuration": str(configuration),
        "size": list(first.shape[-2:]),
        "frames": first.shape[2] if first.ndim == 5 else 1,
        "classes": model.class_names,
        **asdict(model.preprocessing),
    }
    return {name: json.dumps(value) for name, value in entries.items()}
