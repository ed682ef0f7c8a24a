"""Temporal sampling: the arithmetic of the recipes."""

import numpy as np
import pytest

from mutual3d.data.clips.frames import ClipSampling, Views, random_clip, view_clip

CLIP = ClipSampling(num_frames=8, sampling_rate=8, target_fps=30)


def test_span_follows_the_frame_rate():
    assert CLIP.span(30.0) == 64
    assert ClipSampling(16, 5, 30).span(15.0) == 40


def test_first_view_starts_at_zero():
    assert view_clip(300, 30.0, CLIP, 0, Views(10)) == [0, 9, 18, 27, 36, 45, 54, 63]


def test_views_follow_k_over_views_or_end_with_the_video():
    starts = [view_clip(300, 30.0, CLIP, view, Views(4))[0] for view in range(4)]
    assert starts == [0, 59, 118, 177]
    last = view_clip(300, 30.0, CLIP, 3, Views(4, offset_sampling=True))
    assert (last[0], last[-1]) == (236, 299)


@pytest.mark.parametrize("offset_sampling", [False, True])
def test_one_view_is_the_centre(offset_sampling):
    clip = view_clip(300, 30.0, CLIP, 0, Views(1, offset_sampling=offset_sampling))
    assert (clip[0], clip[-1]) == (118, 181)


def test_view_outside_is_refused():
    with pytest.raises(ValueError, match="view 4 is outside 0..3"):
        view_clip(300, 30.0, CLIP, 4, Views(4))


def test_whole_steps_are_not_rounded_down():
    for sampling_rate in (3, 5, 7):
        span = (16 - 1) * sampling_rate + 1
        clip = view_clip(span, 30.0, ClipSampling(16, span / 16, 30), 0, Views())
        assert clip == list(range(0, span, sampling_rate))


@pytest.mark.parametrize("video_frames", [1, 5, 63])
def test_short_videos_repeat_their_last_frame(video_frames):
    generator = np.random.default_rng(0)
    for clip in (
        random_clip(video_frames, 30.0, CLIP, generator),
        view_clip(video_frames, 30.0, CLIP, 2, Views(3)),
    ):
        assert len(clip) == 8 and clip[0] == 0 and clip[-1] == video_frames - 1 and clip == sorted(clip)


def test_one_frame_clip():
    assert len(view_clip(10, 30.0, ClipSampling(1, 1), 0, Views())) == 1


def test_random_clips_cover_the_video_and_repeat_with_the_seed():
    clips = [random_clip(300, 30.0, CLIP, np.random.default_rng(seed)) for seed in range(200)]
    starts = [clip[0] for clip in clips]
    assert min(starts) < 12 and max(starts) > 224 and max(clip[-1] for clip in clips) <= 299
    assert clips[3] == random_clip(300, 30.0, CLIP, np.random.default_rng(3))
