"""Semantic segmentation (RS-Net, appendix B): the class of each pixel. The network is `mutual3d.models.refinenet`.

Importing this package registers the loss function `pixel_cross_entropy`, the metric `segmentation_iou` and the data set `nyudv2`.
"""

from .loss import IGNORED, pixel_distillation_loss, pixel_label_loss
from .metric import SegmentationScores, class_map
from .source import PIXEL_CLASSES

__all__ = ["IGNORED", "PIXEL_CLASSES", "SegmentationScores", "class_map", "pixel_distillation_loss", "pixel_label_loss"]
