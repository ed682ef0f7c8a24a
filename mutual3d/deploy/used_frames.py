"""Which frames of a clip a configuration looks at: the others need not be read."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import torch

from mutual3d.models import AdaptiveNetwork
from mutual3d.sampling import Configuration

# Pixels of a side of a clip that stands for one of any size.
_SIDE = 32


def pathway_frames(network: AdaptiveNetwork, configuration: Configuration | str) -> list[list[int]] | None:
    """Of each pathway that `network` sees at `configuration` the positions of its frames in a full-size clip; None where it mixes frames.

    Found by showing a clip whose frames are their numbers to `fit_clip`, so it holds for networks of any pathways.
    """
    every = torch.arange(network.clip_frames, dtype=torch.float32)
    with torch.no_grad():
        inputs = network.fit_clip(every.view(1, 1, -1, 1, 1).expand(1, 3, -1, _SIDE, _SIDE), configuration)
    tensors = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    found = []
    for pathway in tensors:
        # Images have no dimension of frames.
        by_frame = pathway.reshape(1, 3, -1, *pathway.shape[-2:]).transpose(1, 2).flatten(2)[0]
        numbers = by_frame.mean(1).round()
        if not torch.allclose(by_frame, numbers[:, None].expand_as(by_frame), atol=1e-2, rtol=0):
            return None
        found.append([int(number) for number in numbers.tolist()])
    return found


def used_frames(network: AdaptiveNetwork, configuration: Configuration | str) -> list[int]:
    """The positions, ascending, in a full-size clip that `network` sees at `configuration`.

    All positions where a network mixes frames.
    """
    pathways = pathway_frames(network, configuration)
    if pathways is None:
        return list(range(network.clip_frames))
    return sorted({position for frames in pathways for position in frames})


def used_by_all(network: AdaptiveNetwork, configurations: Iterable[Configuration | str]) -> list[int]:
    """The positions that `network` sees at any of the configurations, such as those of a cascade."""
    return sorted({position for configuration in configurations for position in used_frames(network, configuration)})


def fill_in(frames: Sequence[int], used: Sequence[int] | None) -> list[int]:
    """Of a clip's `frames`, by index, those to read for a network that sees the positions `used`, None for all.

    A position that is not used holds the used one before it (the first, the one after): the clip keeps its shape, no score
    changes.
    """
    if used is None:
        return list(frames)
    return [frames[used[max(bisect_right(used, position) - 1, 0)]] for position in range(len(frames))]
