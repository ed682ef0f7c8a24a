"""What samples are learned from, where that is no single tensor, and tensors inside containers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """`value` with every tensor in it, also in lists, tuples and dicts, replaced by what `function` makes of it."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, each) for key, each in value.items()}
    if isinstance(value, list):
        return [map_tensors(function, each) for each in value]
    if isinstance(value, tuple):
        return tuple(map_tensors(function, each) for each in value)
    return value


class Targets:
    """Labels of a batch whose samples have any number of them, such as the objects of images.

    samples: of each sample a dict of tensors, as torchvision's detectors take them. It moves, and is cut into parts, as the tensor of
    labels does that it stands for.
    """

    def __init__(self, samples: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self.samples: tuple[Mapping[str, torch.Tensor], ...] = tuple(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Targets":
        """The targets of what `function` makes of each tensor."""
        return Targets([map_tensors(function, sample) for sample in self.samples])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Targets":
        """The targets on `device`. non_blocking: as of `torch.Tensor.to`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Targets":
        """The targets in memory that a GPU copies from faster."""
        return self.map(torch.Tensor.pin_memory)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """As of `torch.Tensor.record_stream`, for each tensor."""
        for sample in self.samples:
            for tensor in sample.values():
                tensor.record_stream(stream)

    def chunk(self, chunks: int) -> list["Targets"]:
        """At most `chunks` parts of consecutive samples, cut where `torch.Tensor.chunk` cuts."""
        places = torch.arange(len(self)).chunk(chunks)
        return [Targets(self.samples[int(part[0]) : int(part[-1]) + 1]) for part in places]


Labels = torch.Tensor | Targets
