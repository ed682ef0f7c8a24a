"""Objects in images: boxes and masks, by Mask R-CNN on COCO and sets in its form (datasets/COCO.md).

Importing it registers the data set, the metric and the loss function.
"""

from . import loss, metric, source  # noqa: F401
