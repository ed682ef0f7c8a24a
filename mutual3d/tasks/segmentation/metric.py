"""How well each pixel's class is recognised: pixel accuracy, mean accuracy and mean IoU of one confusion matrix (RS-Net, Table 7)."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F

from mutual3d.metrics.build import METRICS
from mutual3d.metrics.metrics import Metric, MetricFacts, check_finite

from .loss import IGNORED

# Below it a score counts as none: logarithms are finite.
_SMALLEST = 1e-30


def class_map(scores_BKHW: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The class of each pixel of images of `size` (height, width), int64 B, height, width, of softmax scores of a map of any size.

    RS-Net resizes logits before it compares them (B). The logarithms of their softmax are the logits less one number a pixel, so that
    resizing those, bilinearly, has the same classes.
    """
    logits = scores_BKHW.float().clamp(min=_SMALLEST).log()
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False).argmax(1)


class SegmentationScores(Metric):
    """Numbers of the confusion matrix of all pixels that count, of all images together, each compared at its own map's size.

    Pixel accuracy is the share of right pixels. A class's accuracy is the share of its pixels that are right, its IoU the share of the
    pixels that have it or are taken for it that are both. Means are over the classes that have such pixels.
    """

    facts = MetricFacts(
        {"miou": "mean IoU", "pixel_acc": "pixel accuracy", "mean_acc": "mean accuracy"}, "one class for each pixel", of_class="IoU"
    )

    def __init__(self) -> None:
        # Row: the class of a pixel; column: what it was taken for. Without classes until an image was seen.
        self.confusion_KK = torch.zeros(0, 0, dtype=torch.int64)
        self._num_images = 0

    def update(self, scores: Any, batch: Any) -> None:
        """scores: float B, K, h, w of softmax, on the CPU; batch: what the loader gave, with labels B, H, W, of any size of their own."""
        labels_BHW = batch.labels
        if not isinstance(scores, torch.Tensor) or scores.ndim != 4 or len(scores) != len(labels_BHW):
            form = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else f"the type {type(scores).__name__}"
            raise ValueError(f"scores of {form} for {len(labels_BHW)} maps: a network that gives a map of classes is needed")
        check_finite(scores.flatten(1))
        # One after the other: maps of many classes, as large as photographs, would take much memory.
        for scores_KHW, labels_HW in zip(scores, labels_BHW):
            self._count(class_map(scores_KHW[None], labels_HW.shape)[0], labels_HW, scores.shape[1])
        self._num_images += len(scores)

    def _count(self, predicted_HW: torch.Tensor, labels_HW: torch.Tensor, num_classes: int) -> None:
        counted = labels_HW != IGNORED
        labels, predicted = labels_HW[counted].long(), predicted_HW[counted]
        if len(labels) and int(labels.max()) >= num_classes:
            raise ValueError(f"a pixel has the class {int(labels.max())}, and the network {num_classes} classes: raise MODEL.NUM_CLASSES")
        counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)
        self._add(counts)

    def _add(self, counts_KK: torch.Tensor) -> None:
        self.confusion_KK = self.confusion_KK + counts_KK if len(self.confusion_KK) else counts_KK

    def merge(self, other: Any) -> None:
        if len(other.confusion_KK):
            self._add(other.confusion_KK)
        self._num_images += other.num_videos

    def values(self) -> dict[str, float]:
        """{name: percent}; ValueError when no pixel counts."""
        right, of_class, total = self._sums()
        accuracies, ious = right / of_class, right / self._union()
        return {
            "miou": 100.0 * float(ious.nanmean()),
            "pixel_acc": 100.0 * float(right.sum() / total),
            "mean_acc": 100.0 * float(accuracies.nanmean()),
        }

    def per_class(self) -> dict[int, float]:
        """{class: IoU in percent}, without classes that no pixel has or is taken for; ValueError when no pixel counts."""
        right, _, _ = self._sums()
        ious = right / self._union()
        return {label: 100.0 * float(iou) for label, iou in enumerate(ious) if not iou.isnan()}

    def _sums(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(right pixels of each class, its pixels, all pixels), float64."""
        counts = self.confusion_KK.double()
        total = counts.sum()
        if not total:
            raise ValueError(f"none of the {self._num_images} images that were evaluated has a pixel with a label")
        return counts.diagonal(), counts.sum(1), total

    def _union(self) -> torch.Tensor:
        """Of each class the pixels that have it or are taken for it."""
        counts = self.confusion_KK.double()
        return counts.sum(0) + counts.sum(1) - counts.diagonal()

    @property
    def num_videos(self) -> int:
        """Images that were seen."""
        return self._num_images

    def state(self) -> dict[str, Any]:
        return {"confusion_KK": self.confusion_KK.clone(), "num_images": self._num_images}

    def load_state(self, state: Any) -> None:
        """Take what `state` gave; ValueError for anything else."""
        counts, num_images = (state.get("confusion_KK"), state.get("num_images")) if isinstance(state, dict) else (None, None)
        if not _is_matrix(counts) or type(num_images) is not int or num_images < 0:
            raise ValueError(f"a square matrix of counts and a number of images are needed, not {state!r:.80}")
        self.confusion_KK, self._num_images = counts.clone(), num_images


def _is_matrix(counts: object) -> TypeGuard[torch.Tensor]:
    """Whether these are counts, int64 K, K."""
    if not isinstance(counts, torch.Tensor) or counts.dtype != torch.int64 or counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        return False
    return bool((counts >= 0).all())


METRICS["segmentation_iou"] = SegmentationScores
