"""Which JPEG pictures stand by themselves."""

import io

import numpy as np
import pytest
from PIL import Image
from videos import moving_frames

from mutual3d.data.video.mjpeg import has_its_tables


def jpeg(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(moving_frames(1)[0]).convert(mode).save(file, "jpeg", **options)
    return file.getvalue()


def without(image, marker, count=None):
    """The picture without its segments of a marker; `count`: without that many of them."""
    while marker in image and count != 0:
        place = image.index(marker)
        image = image[:place] + image[place + 2 + int.from_bytes(image[place + 2 : place + 4], "big") :]
        count = None if count is None else count - 1
    return image


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_whole_pictures_have_their_tables(mode, options):
    assert has_its_tables(jpeg(mode, **options))


def test_a_picture_that_uses_a_table_that_it_lacks():
    image = jpeg()
    assert not has_its_tables(without(image, b"\xff\xdb"))
    assert not has_its_tables(without(image, b"\xff\xdb", 1))
    assert not has_its_tables(without(image, b"\xff\xc4", 1))


def test_no_huffman_table_means_the_standard_ones():
    assert has_its_tables(without(jpeg(), b"\xff\xc4"))


def test_what_ends_before_its_pixels_or_is_noise():
    image = jpeg()
    assert not has_its_tables(image[: image.index(b"\xff\xda")])
    generator = np.random.default_rng(0)
    for length in (0, 1, 5, 200, 5000):
        assert not has_its_tables(generator.bytes(length))
    for _ in range(300):
        damaged = bytearray(image)
        damaged[generator.integers(len(image))] = generator.integers(256)
        assert has_its_tables(bytes(damaged)) in (True, False)
