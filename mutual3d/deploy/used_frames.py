"""Which frames of a clip a configuration looks at: the others need not be read."""

import torch

from mutual3d.models import AdaptiveNetwork
from mutual3d.sampling import Configuration

# Pixels of a side of a clip that stands for one of any size.
_SIDE = 32


def used_frames(network: AdaptiveNetwork, configuration: Configuration | str) -> list[int]:
    """The positions, ascending, in a full-size clip that `network` sees at `configuration`.

    Found by showing a clip whose frames are their numbers to `fit_clip`, so it holds for networks of any pathways; all
    positions where a network mixes frames.
    """
    every = torch.arange(network.clip_frames, dtype=torch.float32)
    with torch.no_grad():
        inputs = network.fit_clip(every.view(1, 1, -1, 1, 1).expand(1, 3, -1, _SIDE, _SIDE), configuration)
    tensors = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    seen = torch.cat([tensor.flatten() for tensor in tensors]).unique()
    numbers = seen.round()
    if not torch.allclose(seen, numbers, atol=1e-2, rtol=0):
        return list(range(network.clip_frames))
    return sorted(set(numbers.int().tolist()))


def fill_in(frames: list[int], used: list[int]) -> list[int]:
    """Of a clip's `frames`, by index, what is read for a network that sees positions `used`: at each position the used one before it.

    What stands at a position that is not used changes no score; the clip keeps its shape.
    """
    filled, last = list(frames), frames[used[0]]
    for position in range(len(frames)):
        last = frames[position] if position in used else last
        filled[position] = last
    return filled
