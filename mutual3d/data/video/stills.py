"""Image files: one image in RGB, 8 bits a channel, upright; or, where a file holds several, what makes it a video.

A file of one image is a still. A file of several images (an animated GIF, PNG or WebP, a stack of TIFF pages) is a
video wherever it is named, see `picture_reader`, and never passes for a still.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from mutual3d.data.video.orientation import Orientation, upright
from mutual3d.data.video.reader import VideoError, check_file

# What is opened, by content: Pillow knows others, such as PostScript, which it would have another program run.
# A build of Pillow may lack some.
Image.init()
_KNOWN = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
FORMATS: list[str] = [name for name in _KNOWN if name in Image.ID]
# Pages of a TIFF file that this tag calls reduced are previews of another page.
_TIFF_SUBFILE_TYPE, _TIFF_BITS, _TIFF_PHOTOMETRIC = 254, 258, 262
_ORIENTATION = 0x0112


def has_image_name(path: str | Path) -> bool:
    """Whether a file's name ends as those of image files do."""
    return Image.registered_extensions().get(Path(path).suffix.lower()) in (*FORMATS, "MPO")


def is_still(path: str | Path) -> bool:
    """Whether a file is to be read as one image: it is named as an image, and does not hold several images.

    True also for one that does not open, so that `read_image` says why.
    """
    if not has_image_name(path):
        return False
    try:
        with open_image(path) as image:
            return len(pictures(image, max_count=2)) < 2
    except VideoError:
        return True


def read_image(path: str | Path) -> Image.Image:
    """The one image of an image file, in RGB, upright.

    16 bits a channel are scaled to 8; what is transparent is shown on white, as a page shows it. Raises VideoError, naming
    the file, when it is missing, damaged or no image, when it holds several images, and when its pixels are numbers that
    no range is told of (32-bit integers, floating-point numbers).
    """
    with open_image(path) as image:
        if len(pictures(image, max_count=2)) > 1:
            raise VideoError(path, "it holds several images, which makes it a video, and one image is needed here")
        return rgb_of(image)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file, upright, without decoding its pixels. Raises VideoError as `open_image` does."""
    with open_image(path) as image:
        width, height = image.size
        # Pillow turns TIFF itself, and knows their size turned before it has read them.
        told = None if image.format == "TIFF" else image.getexif().get(_ORIENTATION)
        swaps_sides = any(told == orientation and orientation.swaps_sides for orientation in Orientation)
        return (height, width) if swaps_sides else (width, height)


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """A Pillow image, open; whatever goes wrong in the block while it is read becomes a VideoError with the cause."""
    check_file(str(path))
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except VideoError:
        raise
    except UnidentifiedImageError:
        raise VideoError(path, "it is not an image") from None
    except _UnknownRange as error:
        raise VideoError(path, str(error)) from None
    except Exception as error:  # what Pillow raises on a damaged file is of any kind: OSError, SyntaxError, struct.error
        cause = str(error) or type(error).__name__
        raise VideoError(path, f"the image is damaged ({cause})") from error


def pictures(image: Image.Image, max_count: int | None = None) -> list[int]:
    """The places, for `seek`, of the images that an open image shows one after the other; at most `max_count` of them.

    Previews are none: of a TIFF file the pages that are called reduced, of a camera's MPO file all but the first.
    """
    places = range(getattr(image, "n_frames", 1))
    if image.format == "MPO":
        return [0]
    if getattr(image, "default_image", False):  # what programs show that know no animated PNG
        return list(places)[1:][:max_count]
    if image.format != "TIFF":
        return list(places)[:max_count]
    found = []
    for place in places:
        image.seek(place)
        if not _tiff_tag(image, _TIFF_SUBFILE_TYPE, 0) & 1:
            found.append(place)
        if len(found) == max_count:
            break
    image.seek(found[0] if found else 0)
    return found or [0]


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    """What the page of a TIFF file that is open says of itself; a tag may be of any type."""
    return image.tag_v2.get(tag, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default


class _UnknownRange(ValueError):
    """Pixels whose black and white nobody knows."""


def rgb_of(image: Image.Image) -> Image.Image:
    """The image that an open image is at, as a Pillow image in RGB, upright. Raises what Pillow raises on damage."""
    image.load()
    eight_bits = _to_eight_bits(image)
    if eight_bits.has_transparency_data:
        page = Image.new("RGBA", eight_bits.size, "white")
        eight_bits = Image.alpha_composite(page, eight_bits.convert("RGBA"))
    rgb = eight_bits.convert("RGB")
    orientation = image.getexif().get(_ORIENTATION, Orientation.UPRIGHT)
    return rgb if orientation == Orientation.UPRIGHT else Image.fromarray(upright(np.asarray(rgb), orientation))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (or of 12, in TIFF) as grey of 8; others as they are. Pillow would cut off all above 255."""
    is_tiff = image.format == "TIFF"
    if image.mode == "F" or image.mode == "I" and image.format not in ("PPM", "PNG"):
        kind = "floating-point numbers" if image.mode == "F" else "integers with a sign or of 32 bits"
        raise _UnknownRange(f"its pixels are {kind}, and nothing says which one is white: save it with 8 or 16 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    bits = max(_tiff_tag(image, _TIFF_BITS, (16,))) if is_tiff else 16
    # The upper 8 bits, as for colours of 16 bits.
    grey_HW = (np.asarray(image).astype(np.uint32) >> (bits - 8)).clip(max=255).astype(np.uint8)
    if is_tiff and _tiff_tag(image, _TIFF_PHOTOMETRIC, 1) == 0:  # zero is white; Pillow turns only 8 bits round
        grey_HW = 255 - grey_HW
    return Image.fromarray(grey_HW)
