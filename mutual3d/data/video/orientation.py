"""How a stored image is turned and mirrored to stand upright: the one place, for videos and for photographs.

There are eight ways, numbered as EXIF numbers them: what a photograph says in its EXIF data, a video says in its display
matrix.
"""

from enum import IntEnum

import numpy as np


class Orientation(IntEnum):
    """What makes a stored image upright; the values are those of EXIF's tag 274."""

    UPRIGHT = 1
    MIRROR = 2
    TURN_180 = 3
    FLIP = 4
    TRANSPOSE = 5
    TURN_RIGHT = 6
    TRANSVERSE = 7
    TURN_LEFT = 8

    @property
    def swaps_sides(self) -> bool:
        """Whether the upright image is as wide as the stored one is high."""
        return self >= Orientation.TRANSPOSE


# (a, b, c, d): a stored pixel (x, y), y downwards, is shown at (a x + c y, b x + d y), up to the shift into the image.
_MATRICES = {
    Orientation.UPRIGHT: (1, 0, 0, 1),
    Orientation.MIRROR: (-1, 0, 0, 1),
    Orientation.TURN_180: (-1, 0, 0, -1),
    Orientation.FLIP: (1, 0, 0, -1),
    Orientation.TRANSPOSE: (0, 1, 1, 0),
    Orientation.TURN_RIGHT: (0, 1, -1, 0),
    Orientation.TRANSVERSE: (0, -1, -1, 0),
    Orientation.TURN_LEFT: (0, -1, 1, 0),
}
# A matrix whose columns are so nearly parallel squeezes the image into a line: it tells no orientation.
_MIN_SINE = 1e-3


def upright(image_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """The image as it is meant to be seen, contiguous; `orientation` is one of EXIF's numbers.

    Numbers outside 1 to 8, which some cameras write, mean that the image is upright as it is.
    """
    if orientation in (Orientation.TRANSPOSE, Orientation.TURN_RIGHT, Orientation.TRANSVERSE, Orientation.TURN_LEFT):
        image_HWC = image_HWC.swapaxes(0, 1)
    if orientation in (Orientation.MIRROR, Orientation.TURN_180, Orientation.TURN_RIGHT, Orientation.TRANSVERSE):
        image_HWC = image_HWC[:, ::-1]
    if orientation in (Orientation.FLIP, Orientation.TURN_180, Orientation.TRANSVERSE, Orientation.TURN_LEFT):
        image_HWC = image_HWC[::-1]
    return np.ascontiguousarray(image_HWC)


def orientation_of_matrix(matrix: tuple[int, ...]) -> Orientation:
    """The orientation that comes nearest to a display matrix: its nine numbers a, b, u, c, d, v, x, y, w row by row.

    An all-zero matrix and any other one that has no area tells nothing: players show such an image as it is.
    """
    a, b, c, d = (float(matrix[place]) for place in (0, 1, 3, 4))
    lengths = np.hypot(a, b) * np.hypot(c, d)
    determinant = a * d - b * c
    if not lengths or abs(determinant) < _MIN_SINE * lengths:
        return Orientation.UPRIGHT
    # Scaling each column to length 1 leaves a non-square pixel's stretch out of the choice.
    columns = np.array([a, b, c, d]) / np.repeat([np.hypot(a, b), np.hypot(c, d)], 2)
    mirrored = [key for key, (p, q, r, s) in _MATRICES.items() if (p * s - q * r) * determinant > 0]
    return max(mirrored, key=lambda key: float(np.dot(columns, _MATRICES[key])))
