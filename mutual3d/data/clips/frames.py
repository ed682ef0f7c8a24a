"""Which frames make a clip: arithmetic alone, no video (PySlowFast's rules).

Indices count the frames of a video as if each were shown equally long; `VideoReader.evenly` makes of them the frames that
a video of any rate shows at those moments.
"""

import numpy as np


def clip_span(num_frames: int, sampling_rate: int, fps: float, target_fps: float) -> float:
    """Length of a clip of `num_frames` at stride `sampling_rate`, in frames of a video of `fps` (a float)."""
    return num_frames * sampling_rate * fps / target_fps


def is_padded(video_frames: int, fps: float, *, num_frames: int, sampling_rate: int, target_fps: float) -> bool:
    """Whether a clip of several frames is longer than a video, whose last frame is then repeated to fill it."""
    return num_frames > 1 and clip_span(num_frames, sampling_rate, fps, target_fps) >= video_frames + 1


def random_clip(
    video_frames: int, fps: float, *, num_frames: int, sampling_rate: int, target_fps: float, generator: np.random.Generator
) -> list[int]:
    """Indices of a clip that starts anywhere in a video of `video_frames` frames, uniformly; one draw of `generator`.

    `generator` is a numpy.random.Generator. A video shorter than the clip repeats its last frame.
    """
    span = clip_span(num_frames, sampling_rate, fps, target_fps)
    start = generator.random() * max(video_frames - span, 0)
    return _indices(start, span, num_frames, video_frames)


def view_clip(
    video_frames: int,
    fps: float,
    *,
    num_frames: int,
    sampling_rate: int,
    target_fps: float,
    view: int,
    num_views: int,
    offset_sampling: bool = False,
) -> list[int]:
    """Indices of test clip `view` of `num_views`, spread evenly over the video.

    Clip k of K starts at (frames - span) * k / K, or with `offset_sampling` at (frames - span) * k / (K - 1), so that
    the last clip ends with the video. One view alone is the centre clip, for deterministic validation.
    """
    if not 0 <= view < num_views:
        raise ValueError(f"view {view} is outside 0..{num_views - 1}")
    span = clip_span(num_frames, sampling_rate, fps, target_fps)
    slack = max(video_frames - span, 0)
    if num_views == 1:
        place = 0.5
    else:
        place = view / (num_views - 1 if offset_sampling else num_views)
    return _indices(slack * place, span, num_frames, video_frames)


def _indices(start, span, num_frames, video_frames):
    # The small term keeps rounding errors of the arithmetic from turning a whole number into the one below.
    times = np.linspace(start, start + max(span - 1, 0), num_frames) + 1e-6
    return np.clip(times.astype(np.int64), 0, video_frames - 1).tolist()
