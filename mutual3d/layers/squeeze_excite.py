"""Squeeze-excite whose hidden width shrinks with its block (paper, 6.1)."""

import torch
import torch.nn as nn

from .channels import Channels
from .slimmable import SlimmableConv2d, SlimmableConv3d


class SqueezeExcite(nn.Module):
    """x -> global mean -> fc1 -> ReLU -> fc2 -> sigmoid -> times x. Works on B, C, *sizes with `dimensions` sizes."""

    def __init__(self, channels: Channels | int, hidden: Channels | int, dimensions: int = 3) -> None:
        super().__init__()
        convolution = {2: SlimmableConv2d, 3: SlimmableConv3d}[dimensions]
        self.pooled_dimensions = tuple(range(2, 2 + dimensions))
        self.fc1 = convolution(channels, hidden, kernel_size=1)
        self.fc2 = convolution(hidden, channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean(self.pooled_dimensions, keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))
