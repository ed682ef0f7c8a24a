"""What every decoding backend offers, and the error that all of them raise."""

import os

import numpy as np


class VideoError(ValueError):
    """A video that cannot be read, with its `path` and the `cause` in words."""

    def __init__(self, path, cause):
        super().__init__(f"cannot read video '{path}': {cause}")
        self.path = str(path)
        self.cause = cause

    def __reduce__(self):
        return VideoError, (self.path, self.cause)


class VideoReader:
    """An open video: `num_frames` that really decode, `fps` (average, float), and its frames by display index.

    A context manager; not to be shared between threads. Subclasses set `path`, `num_frames`, `fps` and write `frames`.
    """

    path: str
    num_frames: int
    fps: float

    def frames(self, indices):
        """Yield (index, uint8 RGB array H, W, 3) for each distinct index, each decoded once, in one pass.

        Raises ValueError for an index outside [0, num_frames) and VideoError for a frame that does not decode.
        """
        raise NotImplementedError

    def read(self, indices):
        """Frames `indices` (display order; unsorted and repeated ones allowed) as a uint8 array T, H, W, 3."""
        indices = [int(index) for index in indices]
        decoded = dict(self.frames(indices))
        return np.stack([decoded[index] for index in indices])

    def close(self):
        """Release the file."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _check_indices(self, indices):
        """Distinct frame indices in ascending order."""
        wanted = sorted({int(index) for index in indices})
        if not wanted:
            raise ValueError(f"no frame of '{self.path}' was asked for: give at least one index")
        if wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(
                f"frame indices {wanted[0]}..{wanted[-1]} of '{self.path}' are outside its frames "
                f"0..{self.num_frames - 1}"
            )
        return wanted


def check_file(path):
    """Raise VideoError when `path` is missing, no regular file, empty or unreadable."""
    if not os.path.exists(path):
        raise VideoError(path, "the file does not exist")
    if not os.path.isfile(path):
        raise VideoError(path, "it is not a file")
    if not os.access(path, os.R_OK):
        raise VideoError(path, "no permission to read the file")
    if os.path.getsize(path) == 0:
        raise VideoError(path, "the file is empty (0 bytes)")
