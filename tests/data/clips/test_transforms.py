"""Crops of uint8 frames."""

import numpy as np
import pytest
import torch

from mutual3d.data.clips.transforms import (
    RandomCrop,
    TrainingCrop,
    UniformCrops,
    fill_clips,
    random_crop,
    resize,
    short_side_size,
    stack_clips,
)


def smooth_frame(height, width):
    """Three smooth patterns, so that half a pixel changes little."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [np.sin(y / 9), np.cos(x / 11), np.sin((x + y) / 13)]
    return (np.stack(planes, axis=-1) * 100 + 128).astype(np.uint8)


@pytest.mark.parametrize("height, width", [(256, 340), (340, 256), (90, 120), (120, 640), (480, 480)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.3), (0.999, 0.999)])
def test_crop_first_is_resize_then_crop(height, width, place):
    frame = smooth_frame(height, width)
    crop = RandomCrop(112, 128, *place, flip=False)
    scaled = resize(torch.from_numpy(frame), *short_side_size(height, width, 128))
    top, left = (int(p * (side - 112 + 1)) for p, side in zip(place, scaled.shape[:2]))
    expected = scaled[top : top + 112, left : left + 112].int()
    difference = (crop(frame).int() - expected).abs().float()
    assert difference.mean() < 4.5 and crop(frame).dtype == torch.uint8
    assert crop(frame).shape == (112, 112, 3)


def test_flip_mirrors_the_same_crop():
    frame = smooth_frame(100, 150)
    plain = RandomCrop(64, 80, 0.4, 0.6, flip=False)(frame)
    assert torch.equal(plain.flip(1), RandomCrop(64, 80, 0.4, 0.6, flip=True)(frame))


@pytest.mark.parametrize("height, width", [(3, 2), (20, 200), (200, 20), (1080, 1920)])
def test_boxes_stay_inside_for_any_source(height, width):
    generator = np.random.default_rng(0)
    for _ in range(200):
        crop = random_crop(generator, 64, TrainingCrop((64, 90)))
        top, left, box_height, box_width = crop.box(height, width)
        assert top >= 0 and left >= 0 and box_height >= 1 and box_width >= 1
        assert top + box_height <= height and left + box_width <= width


def test_whole_range_of_scales_and_places_is_drawn():
    generator = np.random.default_rng(0)
    crops = [random_crop(generator, 64, TrainingCrop((70, 90))) for _ in range(500)]
    assert {crop.short_side for crop in crops} == set(range(70, 91))
    assert 0.4 < np.mean([crop.flip for crop in crops]) < 0.6
    boxes = [crop.box(256, 340) for crop in crops]
    assert min(box[0] for box in boxes) == 0 and max(box[0] + box[2] for box in boxes) == 256
    assert not any(random_crop(generator, 64, TrainingCrop((70, 90), flip=False)).flip for _ in range(50))


def test_inverse_uniform_prefers_small_scales():
    def mean(inverse_uniform):
        generator = np.random.default_rng(0)
        draw = TrainingCrop((100, 400), inverse_uniform)
        return np.mean([random_crop(generator, 100, draw).short_side for _ in range(4000)])

    assert mean(False) == pytest.approx(250, rel=0.02)
    assert mean(True) == pytest.approx(np.log(4) * 400 / 3, rel=0.02)


@pytest.mark.parametrize("scales", [(50, 100), (120, 100), (100,)])
def test_impossible_scales_are_refused(scales):
    with pytest.raises(ValueError, match="TRAIN_JITTER_SCALES"):
        random_crop(np.random.default_rng(0), 64, TrainingCrop(scales))


def test_three_crops_along_the_longer_side():
    wide = smooth_frame(64, 101)
    left, centre, right = UniformCrops(64, 3)(wide)
    frame = torch.from_numpy(wide)
    assert torch.equal(left, frame[:, :64]) and torch.equal(right, frame[:, 37:])
    assert torch.equal(centre, frame[:, 19:83]) and torch.equal(centre, UniformCrops(64)(wide)[0])
    top, _, bottom = UniformCrops(64, 3)(smooth_frame(101, 64))
    tall = torch.from_numpy(smooth_frame(101, 64))
    assert torch.equal(top, tall[:64]) and torch.equal(bottom, tall[37:])


def test_test_resize_is_plain_bilinear_within_one_level():
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    ours = UniformCrops(64)(frame)[0].permute(2, 0, 1)
    exact = torch.nn.functional.interpolate(
        frame.permute(2, 0, 1)[None].float(), size=(64, 85), mode="bilinear", align_corners=False
    )[0, :, :, 11:75]
    assert (ours.float() - exact).abs().max() <= 1.01


@pytest.mark.parametrize("height, width", [(20, 31), (31, 20), (1, 1)])
def test_small_sources_are_enlarged(height, width):
    frame = np.full((height, width, 3), 77, np.uint8)
    assert all(crop.shape == (64, 64, 3) and (crop == 77).all() for crop in UniformCrops(64, 3)(frame))
    assert (RandomCrop(64, 80, 0.9, 0.9, flip=True)(frame) == 77).all()


def test_clips_are_filled_as_their_crops_come():
    crops = {key: torch.randint(0, 256, (6, 6, 3), dtype=torch.uint8) for key in "dbca"}
    clips = ["abca", "ddbb"]
    found = fill_clips(clips, crops.items(), 6)
    expected = stack_clips([[crops[key] for key in clip] for clip in clips])
    assert torch.equal(found, expected) and found.stride() == expected.stride()
    with pytest.raises(AssertionError, match="every frame of the clips was read"):
        fill_clips(clips, [("a", crops["a"])], 6)


def test_stacked_clips_are_channels_last_in_memory():
    crops = torch.randint(0, 255, (2, 4, 8, 8, 3), dtype=torch.uint8)
    clips_VCTHW = stack_clips([list(clip) for clip in crops])
    assert clips_VCTHW.shape == (2, 3, 4, 8, 8) and torch.equal(clips_VCTHW, crops.permute(0, 4, 1, 2, 3))
    assert clips_VCTHW.is_contiguous(memory_format=torch.channels_last_3d)
