"""Which frames make a clip: arithmetic alone, no video (PySlowFast's rules).

Indices count the frames of a video as if each were shown equally long; `VideoReader.evenly` makes of them the frames that
a video of any rate shows at those moments.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClipSampling:
    """The frames of a clip: their number, their stride, and the frames a second that the stride refers to.

    (DATA.NUM_FRAMES, DATA.SAMPLING_RATE, DATA.TARGET_FPS.) Raises ValueError for what is not positive.
    """

    num_frames: int
    sampling_rate: int
    target_fps: float = 30

    def __post_init__(self) -> None:
        for name in ("num_frames", "sampling_rate", "target_fps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)} and must be positive")

    def span(self, fps: float) -> float:
        """Length of a clip in frames of a video of `fps`, a fraction too."""
        return self.num_frames * self.sampling_rate * fps / self.target_fps

    def is_padded(self, video_frames: int, fps: float) -> bool:
        """Whether a clip of several frames is longer than a video, whose last frame is then repeated to fill it.

        video_frames: the number of its frames. fps: its frames a second.
        """
        return self.num_frames > 1 and self.span(fps) >= video_frames + 1


@dataclass(frozen=True)
class Views:
    """The clips of a sample: `num_views` in time, each cut at `num_crops` places: 1, the centre, or 3 along the longer side.

    offset_sampling: the last test clip ends with the video (DATA.USE_OFFSET_SAMPLING). Raises ValueError for other numbers.
    """

    num_views: int = 1
    num_crops: int = 1
    offset_sampling: bool = False

    def __post_init__(self) -> None:
        if self.num_views <= 0:
            raise ValueError(f"num_views is {self.num_views} and must be positive")
        if self.num_crops not in (1, 3):
            raise ValueError(f"TEST.NUM_SPATIAL_CROPS is {self.num_crops}: legal are 1 (centre) and 3")


def random_clip(video_frames: int, fps: float, sampling: ClipSampling, generator: np.random.Generator) -> list[int]:
    """Indices of a clip that starts anywhere in a video of `video_frames` frames, uniformly; one draw of `generator`.

    A video shorter than the clip repeats its last frame. fps: frames a second of the video.
    """
    span = sampling.span(fps)
    start = generator.random() * max(video_frames - span, 0)
    return _indices(start, span, sampling.num_frames, video_frames)


def view_clip(video_frames: int, fps: float, sampling: ClipSampling, view: int, views: Views) -> list[int]:
    """Indices of test clip `view` of those of `views`, spread evenly over the video.

    Clip k of K starts at (frames - span) * k / K, or with offset sampling at (frames - span) * k / (K - 1), so that
    the last clip ends with the video. One view alone is the centre clip, for deterministic validation. video_frames, fps:
    the number of the video's frames, and how many a second it has.
    """
    num_views = views.num_views
    if not 0 <= view < num_views:
        raise ValueError(f"view {view} is outside 0..{num_views - 1}")
    span = sampling.span(fps)
    slack = max(video_frames - span, 0)
    if num_views == 1:
        place = 0.5
    else:
        place = view / (num_views - 1 if views.offset_sampling else num_views)
    return _indices(slack * place, span, sampling.num_frames, video_frames)


def _indices(start: float, span: float, num_frames: int, video_frames: int) -> list[int]:
    # The small term keeps rounding errors of the arithmetic from turning a whole number into the one below.
    times = np.linspace(start, start + max(span - 1, 0), num_frames) + 1e-6
    return np.clip(times.astype(np.int64), 0, video_frames - 1).tolist()
