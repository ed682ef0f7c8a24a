"""PSNR against its definition, in numpy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mutual3d.metrics.build import build_metric
from mutual3d.metrics.metrics import NotFiniteError
from mutual3d.tasks.super_resolution.metric import HIGHEST, PeakSignalToNoise, luma, psnr, quantised


def batch_of(count=3, height=40, width=36, seed=0):
    """Images in [0, 1] and beyond, and a batch with the true ones."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    scores = truth / 255 + 0.1 * torch.randn(truth.shape, generator=generator)
    return scores, SimpleNamespace(labels=truth, indices=torch.arange(count))


def by_definition(score_3HW, truth_3HW, scale):
    """(PSNR of Y, PSNR of RGB), in dB, of one image."""
    pixels = np.clip(np.rint(score_3HW.numpy().astype(np.float32) * np.float32(255)), 0, 255).astype(np.float64)
    truth = truth_3HW.numpy().astype(np.float64)
    # ITU-R BT.601, from full-range RGB to Y from 16 to 235.
    y, true_y = (16 + (65.481 * rgb[0] + 128.553 * rgb[1] + 24.966 * rgb[2]) / 255 for rgb in (pixels, truth))

    def ratio(a, b, border):
        errors = [
            (float(p) - float(q)) ** 2
            for p, q in zip(a[..., border:-border, border:-border].ravel(), b[..., border:-border, border:-border].ravel())
        ]
        return 10 * math.log10(255.0**2 / (sum(errors) / len(errors)))

    return ratio(y, true_y, scale), ratio(pixels, truth, scale + 6)


@pytest.mark.parametrize("scale", [2, 3])
def test_it_is_the_mean_of_the_definition_over_images_of_any_size(scale):
    metric, expected = PeakSignalToNoise(scale), []
    for scores, batch in (batch_of(3), batch_of(2, 30, 50, seed=1)):
        metric.update(scores, batch)
        expected += [by_definition(score, truth, scale) for score, truth in zip(scores, batch.labels)]
    of_luma, of_all = (sum(column) / len(expected) for column in zip(*expected))
    assert metric.values() == {"psnr": pytest.approx(of_luma, abs=1e-9), "psnr_rgb": pytest.approx(of_all, abs=1e-9)}
    assert metric.num_videos == 5 and metric.primary == "psnr"


def test_luma_of_black_white_and_the_primaries():
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]).view(-1, 3, 1, 1)
    assert luma(colours).flatten().tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966], abs=1e-9)


def test_one_grey_level_everywhere_has_48_dB_and_pixels_are_rounded_and_clipped():
    truth = torch.full((1, 3, 20, 20), 100, dtype=torch.uint8)
    assert psnr(truth + 1.0, truth).item() == pytest.approx(20 * math.log10(255), abs=1e-9)
    assert quantised(torch.tensor([-1.0, 0.0019, 0.002, 1.4])).tolist() == [0, 0, 1, 255]


def test_an_image_that_is_exactly_right_counts_as_the_highest():
    _, batch = batch_of()
    metric = PeakSignalToNoise()
    metric.update(batch.labels / 255, batch)
    assert metric.values() == {"psnr": HIGHEST, "psnr_rgb": HIGHEST}


def test_the_border_does_not_count():
    scores, batch = batch_of(1)
    before, after = PeakSignalToNoise(), PeakSignalToNoise()
    before.update(scores, batch)
    scores[..., :2] = scores[..., :2, :] = scores[..., -2:] = scores[..., -2:, :] = 0.5
    after.update(scores, batch)
    assert before.values() == after.values()
    scores[..., 2, 2] += 0.5
    changed = PeakSignalToNoise()
    changed.update(scores, batch)
    assert changed.values()["psnr"] != after.values()["psnr"] and changed.values()["psnr_rgb"] == after.values()["psnr_rgb"]


def test_parts_merge_and_go_on_after_a_kill():
    whole, first, second = PeakSignalToNoise(), PeakSignalToNoise(), PeakSignalToNoise()
    for part, seed in ((first, 1), (second, 2)):
        scores, batch = batch_of(seed=seed)
        part.update(scores, batch)
        whole.update(scores, batch)
    resumed = PeakSignalToNoise()
    resumed.load_state(first.state())
    resumed.merge(second)
    assert resumed.values() == pytest.approx(whole.values(), abs=1e-12) and resumed.num_videos == 6


@pytest.mark.parametrize(
    "state", [None, torch.zeros(2, dtype=torch.float64), torch.zeros(3), torch.tensor([1.5, 1, 1]).double(), torch.tensor([1, math.nan, 1]).double()]
)
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(ValueError, match="3 sums of torch.float64 are needed|cannot be a number of samples"):
        PeakSignalToNoise().load_state(state)


def test_what_cannot_be_measured_is_refused():
    scores, batch = batch_of()
    with pytest.raises(ValueError, match="no image was evaluated"):
        PeakSignalToNoise().values()
    with pytest.raises(ValueError, match="need one SUPER_RESOLUTION.SCALE"):
        PeakSignalToNoise().update(scores[..., :-2, :-2], batch)
    with pytest.raises(ValueError, match="36 x 40 pixels has none inside a border of 20"):
        PeakSignalToNoise(scale=20).update(scores, batch)
    scores[1, 0, 0, 0] = math.nan
    with pytest.raises(NotFiniteError, match="1 of 3 images"):
        PeakSignalToNoise().update(scores, batch)


def test_it_is_found_by_its_word_and_takes_the_scale_of_the_data_set():
    metric = build_metric("psnr", SimpleNamespace(scale=4))()
    assert isinstance(metric, PeakSignalToNoise) and metric.scale == 4
    assert metric.facts.unit == "dB" and metric.facts.higher_is_better
