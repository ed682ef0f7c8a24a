"""Moving along the front so that a deadline holds: simulated machines, no clock."""

import random

import pytest

from mutual3d.deploy.controller import DeadlineController, TimedConfiguration
from mutual3d.sampling import Configuration

FRONT = [TimedConfiguration(Configuration(width, 48, 8), ms) for width, ms in [(0.25, 5), (0.5, 10), (0.75, 20), (1.0, 35)]]
SMALLEST, LARGEST = FRONT[0].configuration, FRONT[-1].configuration


def simulate(controller, loads):
    """Requests one after the other on a machine of these loads: [(configuration, milliseconds)]."""
    quiet = {timed.configuration: timed.quiet_ms for timed in controller.front}
    answered = []
    for load in loads:
        configuration = controller.choose()
        elapsed = quiet[configuration] * load
        controller.observe(configuration, elapsed)
        answered.append((configuration, elapsed))
    return answered


def share_met(answered, deadline):
    return sum(elapsed <= deadline for _, elapsed in answered) / len(answered)


def test_starts_at_the_most_accurate_that_leaves_headroom():
    assert DeadlineController(FRONT, 100).configuration == LARGEST
    assert DeadlineController(FRONT, 40).configuration == FRONT[2].configuration
    assert DeadlineController(FRONT, 1).configuration == SMALLEST


def test_one_late_request_moves_down_to_what_the_load_allows():
    controller = DeadlineController(FRONT, 50)
    controller.observe(LARGEST, 35 * 3)
    assert controller.configuration == FRONT[1].configuration  # 10 x 3 fits in 40, 20 x 3 does not
    controller.observe(controller.configuration, 10 * 20)
    assert controller.configuration == SMALLEST and controller.is_hopeless


def test_a_late_request_always_moves_down():
    controller = DeadlineController(FRONT, 50)
    controller.observe(FRONT[1].configuration, 51)  # on the quiet proportions even 35 x 5.1 was not it
    assert controller.configuration == SMALLEST
    slow = DeadlineController(FRONT, 36, headroom=0.0)
    slow.observe(LARGEST, 36.5)
    assert slow.configuration == FRONT[2].configuration


def test_moves_up_after_patience_and_not_before():
    controller = DeadlineController(FRONT, 50, patience=10)
    simulate(controller, [3])
    answered = simulate(controller, [1] * 9)
    assert all(configuration == FRONT[1].configuration for configuration, _ in answered)
    assert controller.configuration == FRONT[1].configuration
    simulate(controller, [1])
    assert controller.configuration == LARGEST


def test_an_upward_move_that_fails_doubles_the_wait():
    controller = DeadlineController(FRONT, 50, patience=10)
    waits = []
    simulate(controller, [3])
    for _ in range(6):
        waited = 0
        while controller.configuration != LARGEST:
            simulate(controller, [1])
            waited += 1
        waits.append(waited)
        simulate(controller, [3])
    assert waits == [10, 20, 40, 80, 160, 160]


def test_the_wait_is_short_again_once_an_upward_move_held():
    controller = DeadlineController(FRONT, 50, patience=10)
    simulate(controller, [3, *[1] * 10, 3, *[1] * 20, *[1] * 40, 3])
    simulate(controller, [1] * 10)
    assert controller.configuration == LARGEST


def test_first_runs_say_nothing():
    controller = DeadlineController(FRONT, 50)
    controller.observe(LARGEST, 5000, is_first_run=True)
    assert controller.configuration == LARGEST and not controller.is_hopeless


def test_a_deadline_that_nothing_meets_is_known_at_once():
    assert DeadlineController(FRONT, 4).is_hopeless and not DeadlineController(FRONT, 5).is_hopeless


def test_slack_of_the_most_urgent_request_chooses():
    controller = DeadlineController(FRONT, 50)
    assert controller.choose(50) == controller.choose() == LARGEST
    assert controller.choose(36) == LARGEST  # it is expected to do it
    assert controller.choose(34) == FRONT[2].configuration
    assert controller.choose(20) == FRONT[1].configuration  # 20 ms would leave nothing for what cannot be foreseen
    assert controller.choose(-5) == SMALLEST
    controller.observe(LARGEST, 35 * 1.4)
    assert controller.choose(34) == FRONT[1].configuration
    assert controller.configuration == LARGEST


def test_requests_that_always_wait_are_held_to_what_is_left():
    controller = DeadlineController(FRONT, 50, patience=10)
    for _ in range(100):  # 35 ms of the deadline are left, and the largest takes 35.5
        slack = 35
        chosen = controller.choose(slack)
        controller.observe(chosen, 35.5 if chosen == LARGEST else 20, slack_ms=slack)
    assert controller.configuration == FRONT[2].configuration


def test_one_request_that_waited_long_does_not_move_the_others():
    controller = DeadlineController(FRONT, 50)
    assert controller.choose(-100) == SMALLEST
    controller.observe(SMALLEST, 5, slack_ms=-100)
    assert controller.choose(50) == LARGEST
    controller.observe(SMALLEST, 51, slack_ms=-100)  # the machine is slow too
    assert controller.choose(50) == SMALLEST


@pytest.mark.parametrize("seed", range(5))
def test_holds_the_deadline_while_load_comes_and_goes(seed):
    noise = random.Random(seed)
    loads = [busy * noise.lognormvariate(0, 0.1) for busy in [1.0] * 1500 + [2.2] * 1500 + [1.0] * 1500 + [2.2] * 1500]
    deadline = 50
    answered = simulate(DeadlineController(FRONT, deadline), loads)
    fixed = [(LARGEST, 35 * load) for load in loads]
    assert share_met(answered, deadline) >= 0.99 > 0.75 > share_met(fixed, deadline)
    # It is no cheapest network under another name: where the machine is quiet, most requests run at the largest.
    quiet = [configuration for configuration, _ in answered[200:1500]]
    assert quiet.count(LARGEST) > 0.6 * len(quiet)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="ascending in time"):
        DeadlineController(FRONT[::-1], 50)
    with pytest.raises(ValueError, match="at least one"):
        DeadlineController([], 50)
    with pytest.raises(ValueError, match="the deadline is 0 ms"):
        DeadlineController(FRONT, 0)
    with pytest.raises(ValueError, match="headroom is 1"):
        DeadlineController(FRONT, 50, headroom=1)
    with pytest.raises(ValueError, match="patience is 0"):
        DeadlineController(FRONT, 50, patience=0)
    with pytest.raises(ValueError, match="0.3-48-8 took 5 ms: .* one of 0.25-48-8"):
        DeadlineController(FRONT, 50).observe(Configuration(0.3, 48, 8), 5)


def test_a_move_that_wins_no_time_is_not_made():
    """Where the network is so small that all configurations take nearly the same, going down gives accuracy away for nothing."""
    flat = [TimedConfiguration(Configuration(width, 48, 8), ms) for width, ms in [(0.5, 0.73), (0.75, 0.74), (1.0, 0.76)]]
    controller = DeadlineController(flat, 20)
    for elapsed in (0.8, 40, 1.5, 25, 25, 0.8):
        assert controller.choose(15) == flat[-1].configuration and controller.choose(0.5) == flat[-1].configuration
        controller.observe(controller.configuration, elapsed, slack_ms=15)
        # That it stays does not mean that the deadline can be met.
        assert controller.is_hopeless == (elapsed > 20)
    mixed = [flat[0], *(TimedConfiguration(each.configuration, 10 * each.quiet_ms) for each in flat[1:])]
    controller = DeadlineController(mixed, 20)
    controller.observe(controller.configuration, 21)
    assert controller.configuration == mixed[0].configuration  # the middle one would win 3 %
