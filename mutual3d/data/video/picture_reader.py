"""A file of several images as a video: an animated GIF, PNG or WebP, a stack of TIFF pages. A still is one of one frame.

Pillow reads them for every backend, as it reads stills: FFmpeg knows no animated WebP, sees one page of a stack, and takes
no notice of what is transparent.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mutual3d.data.video.reader import VideoError, VideoReader
from mutual3d.data.video.stills import open_image, pictures, rgb_of

# Images a second of a TIFF stack, which knows no time, as for FFmpeg; and milliseconds for an image of an animation that
# is said to be shown for no time, as for browsers.
_USUAL_FPS = 25.0
_NO_TIME_MS = 100.0


class PictureReader(VideoReader):
    """The images of an image file, one after the other, at the times that the file tells. VideoError if unreadable."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        with open_image(path) as image:
            self._places = pictures(image)
            self._size = image.size
            lengths_ms = [self._length_ms(image, place) for place in self._places]
        self.num_frames = len(lengths_ms)
        self._seconds = np.concatenate([[0.0], np.cumsum(lengths_ms)])[:-1] / 1000
        self.fps = 1000 * self.num_frames / sum(lengths_ms)

    def _length_ms(self, image: Image.Image, place: int) -> float:
        """How long an image is shown. Raises VideoError where it has another size than the first one."""
        if len(self._places) > 1:
            image.seek(place)
        if image.size != self._size:
            sizes = ", ".join(f"{width} x {height}" for width, height in (self._size, image.size))
            raise VideoError(self.path, f"its images differ in size ({sizes}): save each as a file of its own")
        if image.format == "WEBP":
            image.load()  # tells the duration only then
        if image.format == "TIFF":
            return 1000 / _USUAL_FPS
        return float(image.info.get("duration", 0)) or _NO_TIME_MS

    def frame_times(self) -> np.ndarray:
        return self._seconds

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        wanted = self._check_indices(indices)
        with open_image(self.path) as image:
            for index in wanted:
                if len(self._places) > 1:
                    image.seek(self._places[index])
                yield index, np.array(rgb_of(image))
