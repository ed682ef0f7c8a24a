"""Windows joined into segments: what overlaps, touches, leaves gaps, and holds several classes."""

from typing import NamedTuple

import pytest
import torch

from mutual3d.deploy.timeline import Segment, TimelineBuilder, join_windows


class Scored(NamedTuple):
    start: float | None
    end: float | None
    scores: torch.Tensor
    class_names: tuple = ("walk", "run", "nothing")


def windows(*rows, length=1.0, step=1.0, start=0.0):
    return [Scored(start + step * k, start + step * k + length, torch.tensor(row)) for k, row in enumerate(rows)]


def rounded(segments):
    return [(round(s.start, 4), round(s.end, 4), s.label, round(s.confidence, 4)) for s in segments]


WALK, RUN, NOTHING, UNSURE = [0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9], [0.4, 0.3, 0.3]


def test_neighbours_that_say_the_same_are_one_segment():
    found = join_windows(windows(WALK, [0.6, 0.2, 0.2], RUN, NOTHING, RUN, UNSURE, WALK, start=0.5), background=["nothing"])
    assert rounded(found) == [(0.5, 2.5, "walk", 0.7), (2.5, 3.5, "run", 0.6), (4.5, 5.5, "run", 0.6), (6.5, 7.5, "walk", 0.8)]
    assert rounded(join_windows(windows(NOTHING))) == [(0, 1, "nothing", 0.9)]
    assert join_windows([]) == [] == join_windows(windows(UNSURE))


def test_a_window_speaks_up_to_the_middle_of_what_it_shares_with_the_next():
    """Each lasts two seconds and begins one after the one before: the first speaks until 1.5, the second until 2.5."""
    found = join_windows(windows(WALK, RUN, [0.2, 0.8, 0.0], length=2.0))
    assert rounded(found) == [(0, 1.5, "walk", 0.8), (1.5, 4, "run", round((0.6 + 1.5 * 0.8) / 2.5, 4))]
    # Windows that share most of their time keep their order all the same.
    many = join_windows(windows(*[WALK] * 10, *[RUN] * 10, length=5.0, step=0.2))
    assert rounded(many) == [(0, round(0.2 * 9.5 + 2.5, 4), "walk", 0.8), (4.4, 8.8, "run", 0.6)]


def test_between_windows_that_leave_a_gap_nothing_is_said():
    assert rounded(join_windows(windows(WALK, WALK, length=1.0, step=3.0))) == [(0, 1, "walk", 0.8), (3, 4, "walk", 0.8)]
    # A clock that rounds to milliseconds leaves none.
    assert rounded(join_windows(windows(WALK, WALK, length=0.999))) == [(0, 1.999, "walk", 0.8)]


def test_a_single_frame_speaks_for_the_time_since_the_one_before():
    """As far back as the next is due: where one was left out there is a gap."""
    frames = [each for each in windows(WALK, WALK, WALK, RUN, RUN, RUN, WALK, length=0.0, step=0.2) if each.start != pytest.approx(0.8)]
    builder = TimelineBuilder(hold=0.2)
    found = [segment for frame in frames for segment in builder.add(frame)] + builder.end()
    assert rounded(found) == [(0, 0.4, "walk", 0.8), (0.4, 0.6, "run", 0.6), (0.8, 1.0, "run", 0.6), (1.0, 1.2, "walk", 0.8)]


def test_several_classes_have_segments_of_their_own():
    rows = windows([0.9, 0.6, 0.0], [0.7, 0.2, 0.0], [0.1, 0.2, 0.5])
    assert rounded(join_windows(rows, several=True)) == [(0, 1, "run", 0.6), (0, 2, "walk", 0.8), (2, 3, "nothing", 0.5)]
    assert [s.label for s in join_windows(rows)] == ["walk", "nothing"]


def test_segments_come_as_soon_as_they_have_ended():
    builder = TimelineBuilder()
    told = [builder.add(window) for window in windows(WALK, RUN, RUN, WALK)]
    assert [rounded(found) for found in told] == [[], [], [(0, 1, "walk", 0.8)], []]
    assert rounded(builder.end()) == [(1, 3, "run", 0.6), (3, 4, "walk", 0.8)] and builder.end() == []


def test_classes_without_names_and_what_is_refused():
    assert join_windows([Scored(0, 1, torch.tensor(RUN), None)]) == [Segment(0, 1, "1", pytest.approx(0.6))]
    with pytest.raises(ValueError, match="made of windows"):
        join_windows([Scored(None, None, torch.tensor(RUN))])
    with pytest.raises(ValueError, match="the background has 'nothign', which is no class of this network: choose among walk, run, nothing"):
        join_windows(windows(WALK), background=["run", "nothign"])
    assert join_windows([Scored(0.0, 1.0, torch.tensor(WALK), None)], background=["0"]) == []
    with pytest.raises(ValueError, match="1.5 is no probability"):
        TimelineBuilder(1.5)
