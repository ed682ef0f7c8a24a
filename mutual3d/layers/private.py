"""Parts of one's own: several modules at one place in a network, of which the active one runs."""

from typing import ClassVar

import torch
import torch.nn as nn


class PrivateParts(nn.Module):
    """Modules of one place, of which number `active_part` runs; x -> what that one gives.

    Whose they are, a width's (S-Net), a size's (RS-Net) or a number of frames' (FFN), is for the network to say. A subclass keeps them
    as an `nn.ModuleList` called `list_name`, which their names in state dicts begin with.
    """

    list_name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.active_part = 0

    @property
    def parts(self) -> nn.ModuleList:
        """All of them, in the order of what they belong to."""
        parts = self._modules[self.list_name]
        assert isinstance(parts, nn.ModuleList)
        return parts

    @staticmethod
    def settings(index: int) -> dict[str, int]:
        """The attributes that make part number `index` run."""
        return {"active_part": index}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts[self.active_part](x)
