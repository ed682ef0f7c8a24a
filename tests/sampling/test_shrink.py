import pytest
import torch
import torch.nn.functional as F

from mutual3d.sampling import (
    Configuration,
    SearchSpace,
    fit_clip,
    fit_clips,
    normalize_clip,
    shrink_clip,
    temporal_indices,
    view_size,
)

SPACE = SearchSpace([0.5, 1.0], [16, 24, 32], [2, 4, 8])


def make_clip(size=32, frames=8):
    return torch.rand(2, 3, frames, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "num_frames, temporal, indices",
    [
        (32, 4, [0, 10, 20, 31]),
        (16, 6, [0, 3, 6, 9, 12, 15]),
        (16, 9, [0, 1, 3, 5, 7, 9, 11, 13, 15]),
        (8, 3, [0, 3, 7]),
        (8, 5, [0, 1, 3, 5, 7]),
        (4, 4, [0, 1, 2, 3]),
        (16, 1, [0]),
    ],
)
def test_frames_are_evenly_spaced_from_first_to_last(num_frames, temporal, indices):
    assert temporal_indices(num_frames, temporal).tolist() == indices


def test_frames_cannot_be_invented():
    with pytest.raises(ValueError, match="the clip has 4 frames and cannot give 5"):
        temporal_indices(4, 5)


@pytest.mark.parametrize(
    "crop, spatial, train_crop, size",
    [(256, 224, 224, 256), (256, 142, 224, 162), (256, 160, 224, 183), (224, 160, 224, 160), (182, 101, 160, 115)],
)
def test_view_shrinks_in_proportion_to_the_training_crop(crop, spatial, train_crop, size):
    assert view_size(crop, spatial, train_crop) == size


def test_nothing_to_shrink_is_the_same_tensor():
    clip = make_clip()
    assert shrink_clip(clip, 32, 8) is clip
    assert shrink_clip(clip) is clip
    assert fit_clip(clip, SPACE.largest, SPACE) is clip


@pytest.mark.parametrize("size, temporal", [(16, None), (None, 3), (24, 4), (31, 8)])
def test_shrunk_clip_is_each_kept_frame_resized(size, temporal):
    clip = make_clip()
    shrunk = shrink_clip(clip, size, temporal)
    indices = temporal_indices(8, temporal or 8)
    assert shrunk.shape == (2, 3, temporal or 8, size or 32, size or 32)
    for place, index in enumerate(indices):
        frame = clip[:, :, index]
        expected = F.interpolate(frame, size=(size or 32,) * 2, mode="bilinear", antialias=True, align_corners=False)
        torch.testing.assert_close(shrunk[:, :, place], expected)


def test_stripes_do_not_alias():
    """Stripes of a period of 2 pixels at half size vanish; plain bilinear turns them into false, coarse ones."""
    stripes = (torch.arange(224) % 2).float().expand(1, 1, 1, 224, 224)
    plain = F.interpolate(stripes[:, :, 0], size=(110, 110), mode="bilinear", align_corners=False)
    assert plain.std() == pytest.approx(0.29, abs=0.01)
    assert shrink_clip(stripes, 110).std() == pytest.approx(0.01, abs=0.005)


def test_constant_clip_stays_constant():
    clip = torch.full((1, 3, 4, 32, 32), 0.7)
    torch.testing.assert_close(shrink_clip(clip, 17, 3), torch.full((1, 3, 3, 17, 17), 0.7))


@pytest.mark.parametrize("crop, size", [(32, 24), (40, 30)])
def test_configuration_sees_a_larger_cut_in_proportion(crop, size):
    clip = make_clip(crop)
    fitted = fit_clip(clip, Configuration(1.0, 24, 4), SPACE)
    assert torch.equal(fitted, shrink_clip(clip, size, 4))


def test_configurations_of_the_same_sizes_share_one_clip():
    clip = make_clip()
    configurations = SPACE.grid(0.25)
    fitted = list(fit_clips(clip, configurations, SPACE))
    assert sorted(c for c, _ in fitted) == configurations
    shared = {}
    for configuration, shrunk in fitted:
        assert torch.equal(shrunk, fit_clip(clip, configuration, SPACE))
        assert shared.setdefault((configuration.spatial, configuration.temporal), shrunk) is shrunk


def test_clips_are_shrunk_one_after_the_other():
    """Sizes follow one another, so that one shrunk clip is in memory at a time."""
    sizes = [(c.spatial, c.temporal) for c, _ in fit_clips(make_clip(), SPACE.grid(0.25), SPACE)]
    changes = 1 + sum(a != b for a, b in zip(sizes, sizes[1:]))
    assert changes == len(set(sizes)) == 9


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalised_clip_is_pixels_around_their_mean(dtype):
    clip = torch.randint(0, 256, (2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    mean, std = [0.45, 0.4, 0.5], [0.225, 0.2, 0.25]
    normalized = normalize_clip(clip, mean, std)
    assert normalized.dtype == torch.float32
    for channel in range(3):
        expected = (clip[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(normalized[:, channel].double(), expected, rtol=0, atol=1e-6)
