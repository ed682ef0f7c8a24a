"""Temporal adapters (FFN): a filter of its own for each number of frames, before each residual block of a network."""

import torch.nn as nn

from mutual3d.layers import AdaptsInput
from mutual3d.sampling import SearchSpace

from ..arguments import wrong_frames


def put_adapters(network: nn.Module, space: SearchSpace) -> list[int]:
    """Give each block that takes some (`AdaptsInput`) adapters, one for each number of frames; returns these, in the adapters' order.

    Blocks of every pathway have them. What the Fast pathway of a SlowFast network sees is the same at every number of frames, but what
    the Slow one takes of it is not: as with norms of their own, the configuration's number of frames, the Slow pathway's, chooses for both.
    Raises ValueError for a single number of frames, and for a network without such blocks.
    """
    if mistake := wrong_frames(space.temporal_sizes):
        raise ValueError(mistake)
    blocks = [module for module in network.modules() if isinstance(module, AdaptsInput)]
    if not blocks:
        raise ValueError(
            "MUTUAL.TEMPORAL_ADAPTERS is True, and no block of this network takes adapters: make its blocks of mutual3d.layers.AdaptsInput, "
            "or set it False"
        )
    frames = [*reversed(space.temporal_sizes)]
    for block in blocks:
        block.add_adapters(len(frames))
    return frames
