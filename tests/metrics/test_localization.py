"""Boxes of heat, and how often they are those of objects."""

import math

import pytest
import torch

from mutual3d.metrics.localization import LocalizationAccuracy, box_of_heat, heat_inside


def test_the_box_is_that_of_the_largest_part_above_the_threshold():
    heat = torch.zeros(10, 20)
    heat[1:3, 2:5] = 0.5  # six pixels
    heat[6:9, 10:16] = 0.4  # eighteen
    heat[0, 19] = 1.0
    heat[3, 5] = 0.3  # touches the first part by a corner alone
    heat[9, 10] = 0.1  # below the threshold
    assert box_of_heat(heat) == (10 / 20, 6 / 10, 16 / 20, 9 / 10)
    assert box_of_heat(heat, 0.45) == (2 / 20, 1 / 10, 5 / 20, 3 / 10)
    assert box_of_heat(torch.zeros(3, 3)) is None


def test_heat_inside_boxes_is_compared_with_what_they_cover():
    heat = torch.ones(10, 10)
    heat[:5, :5] = 3.0
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.5, 0.5]])
    assert heat_inside(heat, boxes) == (pytest.approx(75 / 150), pytest.approx(0.25))
    assert heat_inside(torch.zeros(4, 4), boxes[:1]) == (0.0, 0.25)


def test_accuracy_is_counted_of_all_of_small_and_of_large_objects():
    accuracy, other = LocalizationAccuracy(), LocalizationAccuracy()
    small, middle, large = ([0.0, 0.0, side, side] for side in (0.4, 0.6, 0.9))
    accuracy.update(small, torch.tensor([small]))
    accuracy.update(None, torch.tensor([small]))
    other.update(middle, torch.tensor([large]))  # IoU 0.44
    other.update(middle, torch.tensor([small, middle]))
    accuracy.merge(other)
    assert accuracy.values() == {"all": 50.0, "small": 50.0, "large": 0.0}
    assert all(math.isnan(value) for value in LocalizationAccuracy().values().values())
