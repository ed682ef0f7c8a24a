"""1x1x1 convolutions as products of matrices, where PyTorch's own are slow and make all that follows slow: see `depthwise.gets_slow_kernel`."""

import torch
import torch.nn.functional as F

from . import depthwise


def is_faster(x: torch.Tensor, weight: torch.Tensor, groups: int) -> bool:
    """Whether `conv3d` below is for this layer in this training step. x: N, C, T, H, W. weight: outputs, inputs / groups, and three sizes."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and groups == 1
        and weight[0, 0].numel() == 1
        and depthwise.gets_slow_kernel(x, weight)
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last_3d)
    )


def conv3d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The convolution of x (N, C, T, H, W) with a weight of outputs, inputs, 1, 1, 1, with no strides and no padding, in the layout of x."""
    return F.linear(x.permute(0, 2, 3, 4, 1), weight[:, :, 0, 0, 0], bias).permute(0, 4, 1, 2, 3)
