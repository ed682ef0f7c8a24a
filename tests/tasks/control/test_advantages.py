"""Advantages against their definition, a sum over later steps."""

import pytest
import torch

from mutual3d.tasks.control.advantages import estimate_advantages


def by_definition(rewards, values, next_values, is_end, is_cut, discount, trace):
    found = torch.zeros_like(rewards)
    steps, games = rewards.shape
    for n in range(games):
        for t in range(steps):
            factor = 1.0
            for later in range(t, steps):
                follows = 0.0 if is_end[later, n] else float(next_values[later, n])
                found[t, n] += factor * (rewards[later, n] + discount * follows - values[later, n])
                if is_cut[later, n]:
                    break
                factor *= discount * trace
    return found


def some_steps(seed=0, steps=13, games=4):
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, steps, games, generator=generator, dtype=torch.float64)
    is_end = torch.rand(steps, games, generator=generator) < 0.2
    is_cut = is_end | (torch.rand(steps, games, generator=generator) < 0.1)
    return rewards, values, next_values, is_end, is_cut


@pytest.mark.parametrize("discount, trace", [(0.99, 0.95), (0.9, 1.0), (1.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_the_sum_that_defines_them(discount, trace, seed):
    given = some_steps(seed)
    assert given[3].any() and (given[4] & ~given[3]).any()
    found = estimate_advantages(*given, discount=discount, trace=trace)
    torch.testing.assert_close(found, by_definition(*given, discount, trace), rtol=1e-12, atol=1e-12)


def test_with_a_whole_trace_they_are_what_a_step_turned_out_to_be_worth():
    """Discounted rewards to the end of the episode, less the value: whatever the values between are."""
    rewards = torch.tensor([[1.0], [0.0], [2.0]])
    values = torch.tensor([[0.5], [7.0], [-3.0]])
    next_values = torch.tensor([[7.0], [-3.0], [99.0]])
    is_end = torch.tensor([[False], [False], [True]])
    found = estimate_advantages(rewards, values, next_values, is_end, is_end, discount=0.5, trace=1.0)
    torch.testing.assert_close(found + values, torch.tensor([[1.5], [1.0], [2.0]]))


def test_an_episode_that_lasted_its_longest_is_worth_what_would_have_followed():
    """No trace crosses to the next game, and what would have followed counts, other than at an end."""
    rewards, values = torch.zeros(2, 1), torch.zeros(2, 1)
    next_values, no, yes = torch.tensor([[4.0], [8.0]]), torch.tensor([[False], [False]]), torch.tensor([[True], [False]])
    stopped = estimate_advantages(rewards, values, next_values, no, yes, discount=0.5, trace=1.0)
    ended = estimate_advantages(rewards, values, next_values, yes, yes, discount=0.5, trace=1.0)
    assert stopped[:, 0].tolist() == [2.0, 4.0] and ended[:, 0].tolist() == [0.0, 4.0]
