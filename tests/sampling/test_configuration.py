import pytest
import torch

from mutual3d.sampling import Configuration, SearchSpace

SPACE = SearchSpace([0.63, 1.0], [224, 142, 192, 160], [6, 16, 9, 12])


@pytest.mark.parametrize("text", ["0.8-160-9", "1-224-16", "0.63-142-6", "0.8-160", "1,0.5,0.75-160-9", "1x3,0.5,0.75x2-160-9", "0.5x40-160"])
def test_configuration_prints_as_it_is_parsed(text):
    assert str(Configuration.parse(text)) == text


def test_configuration_parses_into_its_values():
    configuration = Configuration.parse("0.8-160-9")
    assert configuration == Configuration(0.8, 160, 9)
    assert Configuration.parse(configuration) is configuration
    assert {configuration: 1}[Configuration(0.8, 160, 9)] == 1
    with pytest.raises(AttributeError):
        configuration.width = 1.0


def test_widths_that_follow_themselves_are_written_once():
    widths = (1.0, 1.0, 0.5, 1.0)
    assert str(Configuration(widths, 160, 9)) == "1x2,0.5,1-160-9"
    assert Configuration.parse("1,1.0,0.5x1,1-160-9") == Configuration(widths, 160, 9)
    assert Configuration((0.5,), 160, 9) == Configuration(0.5, 160, 9)


@pytest.mark.parametrize(
    "text",
    ["", "0.8", "0.8-160-9-1", "0.8,-160", "a-160-9", "0.8-160.5-9", "0.8x160x9", "1x0-160", "1x-160", "x3-160", "1x1000000000-160", None],
)
def test_text_that_is_no_configuration_is_shown_the_form(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a configuration.*for example 0.8-160-9"):
        Configuration.parse(text)


def test_configurations_are_ordered_by_width_then_size_then_frames():
    ordered = [Configuration.parse(text) for text in ("0.7-224-16", "0.8-142-16", "0.8-160-6", "0.8-160-9")]
    assert sorted(reversed(ordered)) == ordered


def test_one_width_and_several_are_in_one_order():
    ordered = [Configuration.parse(text) for text in ("0.7-224-16", "0.7,0.5-142-6", "0.7x2-142-6", "0.7x2-142-9", "0.8-142-6")]
    assert sorted(reversed(ordered)) == ordered
    assert min(ordered) == ordered[0] and max(ordered) == ordered[-1] and ordered[0] <= ordered[0] < ordered[1]


def test_ends_of_the_space():
    assert SPACE.largest == Configuration(1.0, 224, 16)
    assert SPACE.smallest == Configuration(0.63, 142, 6)


def test_corners_are_the_ends_of_every_dimension():
    expected = {Configuration(w, s, t) for w in (0.63, 1.0) for s in (142, 224) for t in (6, 16)}
    assert len(SPACE.corners()) == 8
    assert set(SPACE.corners()) == expected
    assert [str(c) for c in SearchSpace([1.0, 1.0], [224], [6, 16]).corners()] == ["1-224-6", "1-224-16"]


def test_grid_is_every_width_with_every_size_ascending():
    widths = [0.63, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]
    assert SPACE.widths(0.05) == widths
    grid = SPACE.grid(0.05)
    assert grid == sorted(grid)
    assert grid == [Configuration(w, s, t) for w in widths for s in (142, 160, 192, 224) for t in (6, 9, 12, 16)]


@pytest.mark.parametrize(
    "width_range, step, widths",
    [
        ([0.5, 1.0], 0.25, [0.5, 0.75, 1.0]),
        ([0.25, 1.5], 0.5, [0.25, 0.5, 1.0, 1.5]),
        ([1.0, 1.0], 0.05, [1.0]),
        ([0.63, 1.0], 5, [0.63, 1.0]),
        ([0.1, 0.3], 0.1, [0.1, 0.2, 0.3]),
    ],
)
def test_widths_hold_both_ends_and_the_multiples_between(width_range, step, widths):
    assert SearchSpace(width_range, [224], [16]).widths(step) == widths


@pytest.mark.parametrize("step", [0, -0.1, 1e-9, float("nan"), float("inf")])
def test_width_step_must_be_positive(step):
    with pytest.raises(ValueError, match="width step"):
        SPACE.widths(step)


@pytest.mark.parametrize("text", ["0.63-142-6", "1-224-16", "0.8123-192-9"])
def test_check_takes_what_lies_inside(text):
    assert SPACE.check(text) == SPACE.check(Configuration.parse(text)) == Configuration.parse(text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("0.62-224-16", r"the width 0.62 is outside the range \[0.63, 1\]"),
        ("1.01-224-16", "the width 1.01 is outside"),
        ("nan-224-16", "the width nan is outside"),
        ("1-200-16", "the size 200 is not one of 142, 160, 192, 224"),
        ("1-224-8", "the number of frames 8 is not one of 6, 9, 12, 16"),
        ("big", "'big' is not a configuration"),
    ],
)
def test_check_refuses_what_lies_outside(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.check(text)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([0.0, 1.0], [224], [16]), "width range"),
        (([-0.5, 1.0], [224], [16]), "width range"),
        (([1.0], [224], [16]), "width range"),
        (([0.5, 0.7, 1.0], [224], [16]), "width range"),
        (([0.5, 1.0], [], [16]), r"spatial_sizes is \[\]"),
        (([0.5, 1.0], [224], []), r"temporal_sizes is \[\]"),
        (([0.5, 1.0], [224, 0], [16]), r"spatial_sizes is \[0, 224\]"),
        (([0.5, 1.0], [224], [16, 2.5]), r"temporal_sizes is \[2.5, 16\]"),
        (([0.5, 1.0], [224], [16], 0), "width divisor is 0"),
        (([0.5, 1.0], [224], [16], 8, (), 1, "block"), "widths_by is 'block': choose among stage, layer"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(*arguments)


def test_samples_cover_the_space_evenly():
    generator = torch.Generator().manual_seed(0)
    samples = [SPACE.check(SPACE.sample(generator)) for _ in range(2000)]
    widths = torch.tensor([c.width for c in samples], dtype=torch.float64)
    assert abs(widths.mean() - 0.815) < 0.01
    assert widths.std() == pytest.approx(0.37 / 12**0.5, rel=0.05)
    assert widths.min() < 0.635 and widths.max() > 0.995
    for values, sizes in (
        ([c.spatial for c in samples], SPACE.spatial_sizes),
        ([c.temporal for c in samples], SPACE.temporal_sizes),
    ):
        assert all(400 < values.count(size) < 600 for size in sizes)


def test_samples_follow_their_generator():
    first, second = ([SPACE.sample(torch.Generator().manual_seed(seed)) for seed in (1, 2)] for _ in range(2))
    assert first == second
    assert first[0] != first[1]
