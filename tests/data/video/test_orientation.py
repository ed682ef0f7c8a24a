"""Turning pictures upright, against Pillow's reading of EXIF and FFmpeg's geometry of display matrices."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from mutual3d.data.video.orientation import Orientation, orientation_of_matrix, upright

ONE = 1 << 16
# (a, b, c, d) as cameras write them.
MATRICES = {
    Orientation.UPRIGHT: (1, 0, 0, 1),
    Orientation.MIRROR: (-1, 0, 0, 1),
    Orientation.TURN_180: (-1, 0, 0, -1),
    Orientation.FLIP: (1, 0, 0, -1),
    Orientation.TRANSPOSE: (0, 1, 1, 0),
    Orientation.TURN_RIGHT: (0, 1, -1, 0),
    Orientation.TRANSVERSE: (0, -1, -1, 0),
    Orientation.TURN_LEFT: (0, -1, 1, 0),
}


def as_matrix(a, b, c, d, scale=ONE):
    return tuple(int(scale * number) for number in (a, b, 0, c, d, 0, 0, 0, 1))


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)


@pytest.mark.parametrize("orientation", range(10))
def test_eight_orientations_as_pillow_has_them(picture, orientation):
    image = Image.fromarray(picture)
    image.getexif()[274] = orientation
    expected = np.array(ImageOps.exif_transpose(image))
    result = upright(picture, orientation)
    np.testing.assert_array_equal(result, expected)
    assert result.flags.c_contiguous
    assert orientation not in set(Orientation) or Orientation(orientation).swaps_sides == (result.shape != picture.shape)


@pytest.mark.parametrize("orientation", Orientation)
def test_a_display_matrix_moves_every_pixel_where_it_says(picture, orientation):
    a, b, c, d = MATRICES[orientation]
    assert orientation_of_matrix(as_matrix(a, b, c, d)) == orientation
    result = upright(picture, orientation)
    for y, x in np.ndindex(picture.shape[:2]):
        shown_x, shown_y = a * x + c * y, b * x + d * y
        # The shift that brings the picture back to zero, as the matrix's last row has it.
        shown_x += (result.shape[1] - 1) * (a + c < 0)
        shown_y += (result.shape[0] - 1) * (b + d < 0)
        np.testing.assert_array_equal(result[shown_y, shown_x], picture[y, x])


@pytest.mark.parametrize("numbers", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1), (1, 0, -1, 0)])
def test_a_matrix_without_area_means_as_it_is(numbers):
    assert orientation_of_matrix(as_matrix(*numbers)) == Orientation.UPRIGHT


def test_the_nearest_orientation_of_a_skewed_or_stretched_matrix():
    assert orientation_of_matrix(as_matrix(2, 0, 0, 1)) == Orientation.UPRIGHT
    assert orientation_of_matrix(as_matrix(0.17, 0.98, -0.98, 0.17)) == Orientation.TURN_RIGHT
    assert orientation_of_matrix(as_matrix(-0.98, 0.17, 0.17, 0.98)) == Orientation.MIRROR
    assert orientation_of_matrix(as_matrix(-1, 0, 0, 1, scale=3)) == Orientation.MIRROR
