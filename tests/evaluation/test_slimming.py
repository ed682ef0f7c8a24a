"""The search for widths: against brute force where the best answer is known, and what it tries of a network."""

import itertools

import pytest
import torch
from tiny import SPACE, tiny_network

from mutual3d.evaluation.slimming import Slimmed, narrowest, one_step_narrower, slim, within
from mutual3d.sampling import Configuration

STEPS = (1.0, 0.875, 0.75, 0.625, 0.5)
# What each step of a group saves, and what it loses: ever more, so that no group is narrowed before its turn.
SAVES = (1.0, 3.0, 2.0)
LOSES = ((0.5, 1.0, 4.0, 9.0), (0.25, 7.0, 8.0, 9.5), (0.0, 0.5, 3.0, 20.0))


def places(configuration):
    return [STEPS.index(width) for width in configuration.widths]


def cost(configuration):
    return sum(save * (len(STEPS) - 1 - place) for save, place in zip(SAVES, places(configuration))) + 5.0


def accuracy(configuration):
    return 90.0 - sum(sum(loses[:place]) for loses, place in zip(LOSES, places(configuration)))


def narrower(configuration):
    found = {}
    for group, place in enumerate(places(configuration)):
        if place + 1 < len(STEPS):
            widths = [*configuration.widths]
            widths[group] = STEPS[place + 1]
            found[group] = Configuration(tuple(widths), 16)
    return found


def search(budget, path=None, **options):
    def costs(configurations):
        return {c: cost(c) for c in configurations}

    def accuracies(configurations):
        return {c: accuracy(c) for c in configurations}

    start = Configuration((1.0,) * len(SAVES), 16)
    path = path or [Slimmed(start, cost(start), accuracy(start))]
    return slim(path, budget, **{"narrower": narrower, "costs": costs, "accuracies": accuracies, **options})


def test_what_it_finds_is_the_best_of_all_that_cost_no_more():
    path = search(5.0)
    everything = [Configuration(widths, 16) for widths in itertools.product(STEPS, repeat=len(SAVES))]
    assert len(path) == 1 + len(SAVES) * (len(STEPS) - 1) and len(everything) == 125
    for place in path:
        best = max(accuracy(c) for c in everything if cost(c) <= place.cost)
        assert place.accuracy == accuracy(place.configuration) == pytest.approx(best)
        assert place.cost == cost(place.configuration)
    assert path[-1].configuration == Configuration((0.5,) * 3, 16)


@pytest.mark.parametrize("budget", [28.9, 20.0, 11.5, 5.0])
def test_it_ends_within_the_budget_and_not_before(budget):
    path = search(budget)
    assert path[-1].cost <= budget < path[-2].cost
    assert within(path, budget) == path[-1] and within(path, path[1].cost) == path[1]


def test_a_search_that_goes_on_ends_as_one_that_did_not_stop():
    seen = []
    whole = search(8.0, after_step=lambda path: seen.append(list(path)))
    assert [len(path) for path in seen] == list(range(2, len(whole) + 1))
    for path in seen:
        assert search(8.0, path=path) == whole


def test_of_losses_that_are_none_the_largest_saving_wins():
    def gains(configurations):
        # All gain, the one that saves least the most: noise of few videos is no reason for a smaller step.
        return {c: 90.0 + 10.0 / (29.0 - cost(c)) for c in configurations}

    assert search(28.9, accuracies=gains)[1].cost == 29.0 - max(SAVES)


def test_a_budget_below_everything_is_told():
    with pytest.raises(ValueError, match="the budget is 4.5, and nothing narrower than 0.5x3-16, which costs 5, costs less"):
        search(4.5)
    with pytest.raises(ValueError, match="the budget is 4, and the path ends at 5"):
        within(search(5.0), 4.0)


def test_what_is_no_cheaper_is_not_tried():
    """As where a latency is noise."""
    asked = []

    def accuracies(configurations):
        asked.extend(configurations)
        return {c: accuracy(c) for c in configurations}

    def costs(configurations):
        return {c: cost(c) + (10.0 if c.widths[0] < 1.0 else 0.0) for c in configurations}

    path = search(18.0, costs=costs, accuracies=accuracies)
    assert {c.widths[0] for c in asked} == {1.0} == {place.configuration.widths[0] for place in path}


def test_each_group_of_a_network_is_tried_with_a_channel_less_at_least():
    torch.manual_seed(0)
    network = tiny_network()
    groups, start = network.space.width_groups, SPACE.largest
    tried = one_step_narrower(network, start, 0.1)
    assert list(tried) == list(range(groups)) and groups > 2
    full = network.signature(start.width)
    for group, configuration in tried.items():
        assert network.space.check(configuration) == configuration and configuration.spatial == start.spatial
        assert [i for i, width in enumerate(configuration.widths) if width != 1.0] == [group]
        assert [i for i, (a, b) in enumerate(zip(network.signature(configuration.width), full)) if a != b] == [group]
        # Its texts stay short.
        assert len(str(configuration)) < 25
    end = narrowest(network, start)
    assert one_step_narrower(network, end, 0.1) == {} and end.widths == (0.5,) * groups
    while tried:
        last, tried = tried, one_step_narrower(network, tried[next(iter(tried))], 0.25)
    assert len(last) == 1 and network.signature(next(iter(last.values())).width) == network.signature(end.width)
    with pytest.raises(ValueError, match="the width step is 0: it must be above 0"):
        one_step_narrower(network, start, 0)
