"""Soft labels and mixed clips: label smoothing, mixup and CutMix, on a step's uint8 clips before any sub-network sees them.

The largest configuration learns from the mixed labels, and whatever the others learn from, it is of the same mixed clip.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

# (clips uint8 B, C, T, H, W, labels B or B, K) -> the same, changed. What is random comes from PyTorch's CPU generator, which
# the training loop seeds with every step.
BatchTransform = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Mixing:
    """A `BatchTransform`: soft labels, and with `probability` clips that are each two of the batch.

    num_classes: K. alpha: of mixup's Beta distribution (Zhang et al., 2018), cutmix_alpha: of CutMix's (Yun et al., 2019); 0
    leaves the one out, and `switch_probability` is CutMix's share where neither is. smoothing: of a clip with one label this
    much is spread over all classes; of several labels each moves so far towards one half. The one draw of a step is for its
    whole batch. Raises ValueError for values that mean nothing.
    """

    num_classes: int
    alpha: float = 0.8
    cutmix_alpha: float = 1.0
    probability: float = 1.0
    switch_probability: float = 0.5
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.probability, self.switch_probability, self.smoothing)
        if self.num_classes < 1 or min(self.alpha, self.cutmix_alpha) < 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"{self}: alphas are 0 or more, probabilities and smoothing from 0 to 1")
        if self.probability and not self.alpha and not self.cutmix_alpha:
            raise ValueError("MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are 0: give one of them, or MIXUP.PROB 0 to smooth labels alone")

    def __call__(self, clips_BCTHW: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips uint8 B, C, T, H, W and labels, int64 B or float B, K -> clips uint8 and labels float B, K."""
        soft = self._smoothed(labels)
        if torch.rand(()).item() >= self.probability:
            return clips_BCTHW, soft
        # The whole batch is its own classes: what comes back for them is how much of each clip is in each, which holds for
        # labels of any kind.
        places = torch.arange(len(labels), device=labels.device)
        if torch.rand(()).item() < self._share_of_cutmix():
            mixed, shares = v2.CutMix(alpha=self.cutmix_alpha, num_classes=len(labels))(tv_tensors.Video(clips_BCTHW), places)
        else:
            mixed, shares = v2.MixUp(alpha=self.alpha, num_classes=len(labels))(tv_tensors.Video(clips_BCTHW.float()), places)
        # Whole numbers again, which a step may hold in parts: at most half of 1 / 255 away, and normalised like any others.
        clips = mixed.as_subclass(torch.Tensor).round().to(torch.uint8)
        return clips, shares.to(soft.dtype) @ soft

    def _share_of_cutmix(self) -> float:
        if not self.alpha or not self.cutmix_alpha:
            return float(self.cutmix_alpha > 0)
        return self.switch_probability

    def _smoothed(self, labels: torch.Tensor) -> torch.Tensor:
        if labels.ndim > 1:
            return labels * (1 - self.smoothing) + self.smoothing / 2
        return F.one_hot(labels, self.num_classes).float() * (1 - self.smoothing) + self.smoothing / self.num_classes
