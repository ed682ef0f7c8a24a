"""Weakly supervised localisation: where heat says that an object is, compared with its boxes (paper, Table 2)."""

from collections.abc import Sequence

import torch
from scipy import ndimage  # scikit-learn needs it
from torchvision.ops import box_iou

# An object whose box is below the first share of the image is small, above the second one large (paper, 3.2).
SMALL, LARGE = 0.2, 0.5
# A box is right that overlaps the object's by more than this.
MIN_IOU = 0.5
# Of the largest heat: what is below is background (Zhou et al., CVPR 2016).
THRESHOLD = 0.2
GROUPS = ("all", "small", "large")


def box_of_heat(heat_HW: torch.Tensor, threshold: float = THRESHOLD) -> tuple[float, float, float, float] | None:
    """The normalised xyxy box around the largest connected part of a heat map that is above `threshold` of its maximum.

    Neighbours share a side. Of parts of one size the first is taken, row by row; None where there is no heat.
    """
    largest = float(heat_HW.max())
    if not largest > 0:
        return None
    parts, _ = ndimage.label((heat_HW > threshold * largest).numpy())
    sizes = ndimage.sum_labels(parts > 0, parts, range(1, parts.max() + 1))
    rows, columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    height, width = heat_HW.shape
    return columns.start / width, rows.start / height, columns.stop / width, rows.stop / height


def heat_inside(heat_HW: torch.Tensor, boxes_N4: torch.Tensor) -> tuple[float, float]:
    """(the share of the heat that lies in the boxes, the share of the image that they cover): by pixels whose centres are in one.

    boxes_N4: normalised xyxy. Heat that knows nothing of the boxes has the second share on average; without any heat the first is 0.
    """
    height, width = heat_HW.shape
    down, right = (torch.arange(size) + 0.5 for size in (height, width))
    is_inside = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes_N4.tolist():
        in_rows, in_columns = (down > y1 * height) & (down < y2 * height), (right > x1 * width) & (right < x2 * width)
        is_inside |= in_rows[:, None] & in_columns
    total = float(heat_HW.sum())
    return float(heat_HW[is_inside].sum()) / total if total > 0 else 0.0, float(is_inside.float().mean())


class LocalizationAccuracy:
    """The share of images whose box overlaps an object's by more than 0.5: of all, of small objects, and of large ones.

    Of an image with several objects, the box counts for the one that it overlaps most, and the largest says whether the image is
    among the small ones or the large ones.
    """

    def __init__(self) -> None:
        self.right, self.total = dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)

    def update(self, box: Sequence[float] | None, truth_N4: torch.Tensor) -> None:
        """Take an image. box: normalised xyxy, None where nothing was found. truth_N4: of its objects, one or more."""
        share = float(((truth_N4[:, 2] - truth_N4[:, 0]) * (truth_N4[:, 3] - truth_N4[:, 1])).max())
        overlap = 0.0 if box is None else float(box_iou(torch.tensor([list(box)]), truth_N4.float()).max())
        for group, belongs in zip(GROUPS, (True, share < SMALL, share > LARGE)):
            self.total[group] += belongs
            self.right[group] += belongs and overlap > MIN_IOU

    def merge(self, other: "LocalizationAccuracy") -> None:
        """Take what another one has seen."""
        for group in GROUPS:
            self.right[group] += other.right[group]
            self.total[group] += other.total[group]

    def values(self) -> dict[str, float]:
        """{group: percent}; NaN for a group of which there was none."""
        return {group: 100 * self.right[group] / self.total[group] if self.total[group] else float("nan") for group in GROUPS}
