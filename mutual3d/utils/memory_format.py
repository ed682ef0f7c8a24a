"""In which order a network's weights, clips and feature maps lie in memory: what is fastest for it on its device."""

import torch
import torch.nn as nn

# What tensors of these many dimensions are in where those of five are in channels last.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def preferred_memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """The format of five-dimensional tensors in which `network` runs fastest on `device`, by the convolutions that it has.

    On a CPU channels last, where depthwise 3D convolutions run several times faster with it. On a GPU channels last where every 3D
    convolution is dense: Slow and SlowFast train 1.2 to 2 times faster with it, and X3D, of depthwise ones, two to five times slower
    (`benchmarks/gpu_training.py`). PyTorch's own format for whatever was not measured.
    """
    if device.type == "cpu":
        return torch.channels_last_3d
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    # A filter of one number for each channel is a product, which is as fast in either.
    is_dense = bool(convolutions) and all(layer.groups == 1 or layer.weight[0].numel() == 1 for layer in convolutions)
    return torch.channels_last_3d if device.type == "cuda" and is_dense else torch.contiguous_format


def in_format(tensor: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """A tensor in a format of five-dimensional ones; one of four dimensions in its counterpart, any other without gaps."""
    is_last = memory_format == torch.channels_last_3d and tensor.ndim in _CHANNELS_LAST
    return tensor.contiguous(memory_format=_CHANNELS_LAST[tensor.ndim] if is_last else torch.contiguous_format)


def put_in_format(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Put the weights of a network in a format, in place; see `in_format`."""
    for parameter in network.parameters():
        parameter.data = in_format(parameter.data, memory_format)
