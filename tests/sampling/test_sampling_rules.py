import dataclasses
import itertools

import pytest
import torch

from mutual3d.sampling import (
    RULES,
    SearchSpace,
    expected_step_cost,
    first_contains_others,
    sample_subnets,
    step_generator,
)

SPACE = SearchSpace([0.63, 1.0], [142, 160, 192, 224], [6, 9, 12, 16])
# What each rule leaves free; the rest is fixed at the value given.
FREE = object()
EXPECTED = {
    "smallest": (0.63, 142, 6),
    "random": (FREE, FREE, FREE),
    "smallest_width": (0.63, FREE, FREE),
    "smallest_width_full_size": (0.63, 224, 16),
    "random_width": (FREE, 224, 16),
    "random_size": (1.0, FREE, FREE),
    "shared_size": (1.0, FREE, FREE),
    "smallest_width_shared_size": (0.63, FREE, FREE),
    "random_width_shared_size": (FREE, FREE, FREE),
}


def draws(names, count=400, seed=0):
    return [sample_subnets(SPACE, names, step_generator(seed, step)) for step in range(count)]


@pytest.mark.parametrize("name", EXPECTED)
def test_rule_draws_what_it_says(name):
    configurations = [SPACE.check(c) for (c,) in draws([name])]
    for values, expected in zip(zip(*((c.width, c.spatial, c.temporal) for c in configurations)), EXPECTED[name]):
        assert len(set(values)) > 3 if expected is FREE else set(values) == {expected}


def test_rules_that_share_a_size_see_the_same_one_in_a_step():
    names = ["shared_size", "smallest_width_shared_size", "random_width_shared_size", "random_size"]
    for sizes in ([(c.spatial, c.temporal) for c in drawn] for drawn in draws(names, count=50)):
        assert len(set(sizes[:3])) == 1
    assert len({drawn[3].spatial == drawn[0].spatial for drawn in draws(names, count=50)}) == 2


def test_rules_that_list_run_everything_from_the_greatest_down():
    space = dataclasses.replace(SPACE, listed_widths=(0.7, 1.0, 0.85))
    widths = sample_subnets(space, ["each_width"], step_generator(0, 0))
    assert [str(c) for c in widths] == ["1-224-16", "0.85-224-16", "0.7-224-16"]
    sizes = sample_subnets(SPACE, ["each_size"], step_generator(0, 0))
    pixels = [c.spatial**2 * c.temporal for c in sizes]
    assert pixels == sorted(pixels, reverse=True) and len(set(sizes)) == 16 and sizes[0] == SPACE.largest
    frames = sample_subnets(SPACE, ["each_temporal"], step_generator(0, 0))
    assert [str(c) for c in frames] == ["1-224-16", "1-224-12", "1-224-9", "1-224-6"]
    assert first_contains_others(["each_temporal", "smallest", "random"])
    with pytest.raises(ValueError, match="set MUTUAL.WIDTHS"):
        sample_subnets(SPACE, ["each_width"], step_generator(0, 0))


def test_widths_may_differ_from_layer_to_layer():
    (drawn,) = sample_subnets(dataclasses.replace(SPACE, width_groups=3), ["random_widths"], step_generator(0, 0))
    assert len(set(drawn.width)) == 3 and (drawn.spatial, drawn.temporal) == (224, 16)


def test_a_listing_rule_costs_all_that_it_lists():
    cost = {c: c.spatial * c.temporal for c in SPACE.grid(1.0)}
    expected = sum(value for c, value in cost.items() if c.width == 1.0)
    assert expected_step_cost(SPACE, ["each_size"], cost.get, largest=False) == expected


def test_a_step_has_one_configuration_for_each_name_in_order():
    for smallest, first, second in draws(["smallest", "random", "random"], count=50):
        assert smallest == SPACE.smallest
        assert first != second


def test_static_training_samples_nothing():
    assert sample_subnets(SPACE, [], step_generator(0, 0)) == []


def test_unknown_rule_lists_the_legal_ones():
    with pytest.raises(ValueError, match="no sampling rule 'medium': choose among smallest, random, "):
        sample_subnets(SPACE, ["smallest", "medium"], step_generator(0, 0))
    with pytest.raises(ValueError, match="no sampling rule 'medium'"):
        expected_step_cost(SPACE, ["medium"], lambda c: 1.0)


def test_a_step_is_drawn_from_its_seed_and_number_alone():
    names = ["smallest", "random", "random"]
    expected = draws(names, count=20)
    torch.manual_seed(5)
    assert sample_subnets(SPACE, names, step_generator(0, 13)) == expected[13]
    assert draws(names, count=20) == expected
    assert draws(names, count=20, seed=1) != expected
    # Seed and step are not added up: step 1 of seed 0 is not step 0 of seed 1.
    assert draws(["random"], count=1, seed=1)[0] != draws(["random"], count=2)[1]


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draws(["random"], count=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_even_and_independent_over_the_steps():
    configurations = [c for (c,) in draws(["random"], count=2000)]
    widths = torch.tensor([c.width for c in configurations], dtype=torch.float64)
    assert abs(widths.mean() - 0.815) < 0.01
    assert abs(torch.corrcoef(torch.stack([widths[1:], widths[:-1]]))[0, 1]) < 0.1
    pairs = [(c.spatial, c.temporal) for c in configurations]
    assert all(70 < pairs.count(pair) < 190 for pair in itertools.product(SPACE.spatial_sizes, SPACE.temporal_sizes))


def test_expected_cost_is_the_mean_cost_of_a_step():
    def cost(configuration):
        return configuration.width**2 * configuration.spatial**2 * configuration.temporal

    names = ["smallest", "random", "smallest_width"]
    mean = sum(sum(map(cost, step)) for step in draws(names, count=3000)) / 3000 + cost(SPACE.largest)
    assert expected_step_cost(SPACE, names, cost) == pytest.approx(mean, rel=0.02)


def factors_cost(full_cost, largest_size, largest_frames):
    """Cost as the papers count it: the full network's times the factors of width, size and frames."""

    def cost(configuration):
        size, frames = configuration.spatial / largest_size, configuration.temporal / largest_frames
        return full_cost * configuration.width**2 * size**2 * frames

    return cost


@pytest.mark.parametrize("names, gflops", [(["smallest", "random"], 74.8), (["random", "random"], 88.3), ([], 54.5)])
def test_step_cost_of_the_3d_paper(names, gflops):
    """Table 4: Slow-8x8 at 54.5 GFLOPs; sizes and frames in percent."""
    space = SearchSpace([0.63, 1.0], [63, 80, 100], [40, 63, 100])
    assert expected_step_cost(space, names, factors_cost(54.5, 100, 100)) == pytest.approx(gflops, rel=0.005)


def test_step_cost_of_the_2d_paper():
    """Table 3: MobileNet v1 at 569 MFLOPs."""
    space = SearchSpace([0.25, 1.0], [224, 192, 160, 128], [1])
    names = ["smallest_width", "random", "random"]
    assert expected_step_cost(space, names, factors_cost(569, 224, 1)) == pytest.approx(910, rel=0.005)


def test_the_first_contains_the_others_exactly_where_every_draw_says_so():
    space = SearchSpace((0.5, 1.0), (16, 24, 32), (2, 4, 8), listed_widths=(0.5, 0.75, 1.0))
    for names in itertools.product([name for name in RULES if name != "random_widths"], repeat=2):
        draws = [sample_subnets(space, names, step_generator(0, step)) for step in range(40)]
        holds = all(
            first.width >= c.width and first.spatial >= c.spatial and first.temporal >= c.temporal
            for first, *others in draws
            for c in others
        )
        # What is drawn at random and not shared contains the min by chance alone: it is no teacher.
        is_random = "random" in (RULES[names[0]].width, RULES[names[0]].spatial, RULES[names[0]].temporal)
        assert first_contains_others(names) == (holds and not is_random), names
    assert not first_contains_others([]) and not first_contains_others(["random"])
