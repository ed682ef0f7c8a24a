"""Roll-outs of a game that a test can follow, by a policy that changes after each batch as if it learned."""

import numpy as np
import pytest
import torch

from mutual3d.data.loader import Share
from mutual3d.tasks.control.episodes import EpisodeDataset, evaluation_seed, next_training_seed, training_seeds
from mutual3d.tasks.control.games import Game, Outcome
from mutual3d.tasks.control.objective import COLUMNS
from mutual3d.tasks.control.rollouts import RolloutLoader, RolloutSettings

SIDE, ACTIONS = 8, 3
SETTINGS = RolloutSettings(num_games=4, steps=6, passes=2, rollouts=3, discount=0.9, trace=0.8, clip_range=0.2, max_epoch=4)


class Walk(Game):
    """A place in a row that actions move to the left, nowhere, or to the right, and chance by one more. It ends at the right end, which
    gives 5 points, and at the left one, where a life is lost at first. The picture shows place and lives."""

    packages = ("torch",)

    def __init__(self, max_steps=9):
        super().__init__("walk", max_steps)
        self.num_actions, self.shape = ACTIONS, (2, SIDE, SIDE)

    def _start(self, seed):
        self.chance = np.random.default_rng(seed)
        self.place, self.lives = 2 + int(self.chance.integers(3)), 2
        return self._seen()

    def _act(self, action):
        self.place += action - 1 + int(self.chance.integers(2))
        won, lost = self.place >= SIDE - 1, self.place <= 0
        self.place = min(max(self.place, 0), SIDE - 1)
        self.lives -= lost
        points = 5.0 * won - lost
        return Outcome(self._seen(), points, float(np.clip(points, -1, 1)), won or lost, won or self.lives == 0)

    def _seen(self):
        seen = np.zeros(self.shape, np.uint8)
        seen[0, 0, self.place], seen[1, 0, self.lives] = 255, 255
        return seen


def dataset(split="train", episodes=5, **options):
    return EpisodeDataset(lambda: Walk(**options), split, episodes, num_actions=ACTIONS, num_channels=2, side=SIDE)


class Learner:
    """A policy whose weights depend on how many batches it has learned from."""

    def __init__(self, batches=0):
        self.batches, self.asked = batches, []

    def __call__(self, clips):
        assert clips.dtype == torch.uint8 and clips.shape[1:] == (2, 1, SIDE, SIDE)
        self.asked.append((self.batches, len(clips)))
        weights = torch.randn(2 * SIDE, ACTIONS + 1, generator=torch.Generator().manual_seed(self.batches))
        return (clips[:, :, 0, 0].float() / 255).flatten(1) @ weights


def learn(loader, learner, epoch=0, start=0):
    """The batches of an epoch, the learner being one further after each."""
    found = []
    for batch in loader.batches(epoch, start):
        found.append(batch)
        learner.batches += 1
    return found


def make(learner=None, batch_size=8, settings=SETTINGS, seed=3, share=Share(), **options):
    return RolloutLoader(dataset(**options), learner or Learner(), settings, batch_size, seed=seed, share=share)


def parts_of(batch):
    return batch.clips_BVCTHW, batch.labels, batch.indices


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second) for a, b in zip(parts_of(one), parts_of(other))
    )


def test_an_epoch_has_each_step_as_often_as_there_are_passes():
    loader = make()
    batches = learn(loader, loader.policy)
    assert len(loader) == len(batches) == 3 * 2 * 3 and loader.num_samples == 3 * 6 * 4
    assert all(batch.clips_BVCTHW.shape == (8, 1, 2, 1, SIDE, SIDE) and batch.labels.shape == (8, len(COLUMNS)) for batch in batches)
    for one_pass in (batches[i : i + 3] for i in range(0, len(batches), 3)):
        assert sorted(torch.cat([batch.indices for batch in one_pass]).tolist()) == list(range(24))
    orders = [torch.cat([batch.indices for batch in batches[i : i + 3]]).tolist() for i in range(0, 18, 3)]
    assert len({tuple(order) for order in orders}) == 6


def test_the_newest_policy_plays_and_is_asked_once_a_step():
    learner = Learner()
    learn(make(learner), learner)
    full = [done for done, count in learner.asked if count == 4]
    # Six steps and the value of what follows, before and after each six batches.
    assert full == [0] * 7 + [6] * 7 + [12] * 7


def played_again(batches, policy, max_steps, epoch=0):
    """What the first roll-out's labels are to be: the games played by the actions in them, and the policy asked about everything."""
    rows = {int(i): (label, clip) for batch in batches[:6] for i, label, clip in zip(batch.indices, batch.labels, batch.clips_BVCTHW)}
    seeds = [training_seeds(3, epoch, i) for i in range(4)]
    games = [Walk(max_steps) for _ in range(4)]
    seen = [game.start(next_training_seed(own)) for game, own in zip(games, seeds)]
    steps = {n: [] for n in range(4)}
    for t in range(6):
        for n, game in enumerate(games):
            label, clip = rows[4 * t + n]
            assert np.array_equal(clip[0, :, 0].numpy(), seen[n])
            outcome = game.act(int(label[0]))
            steps[n].append((seen[n], int(label[0]), outcome))
            seen[n] = game.start(next_training_seed(seeds[n])) if outcome.is_over else outcome.observation
    expected = torch.zeros(24, 4)
    for n, own in steps.items():
        later = 0.0
        for t in range(5, -1, -1):
            before, action, outcome = own[t]
            outputs, follows = (policy(torch.from_numpy(each)[None, :, None])[0] for each in (before, outcome.observation))
            delta = outcome.reward + 0.9 * float(follows[-1]) * (not outcome.is_end) - float(outputs[-1])
            later = delta + 0.9 * 0.8 * later * (not outcome.is_end and not outcome.is_over)
            expected[4 * t + n] = torch.tensor([action, outputs[:-1].log_softmax(0)[action], later, later + outputs[-1]])
    return torch.stack([rows[i][0] for i in range(24)]), expected, [outcome for own in steps.values() for *_, outcome in own]


@pytest.mark.parametrize("max_steps", [9, 2])
def test_labels_are_what_the_games_and_the_policy_say(max_steps):
    """Also of episodes that last their longest, whose last state is no end."""
    learner = Learner()
    batches = learn(make(learner, max_steps=max_steps), learner)
    found, expected, outcomes = played_again(batches, Learner(), max_steps)
    assert any(outcome.is_over and not outcome.is_end for outcome in outcomes) or max_steps == 9
    advantages = expected[:, 2]
    expected[:, 2] = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    torch.testing.assert_close(found[:, :4], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, 4], torch.full((24,), 0.2))


def test_a_lost_life_ends_what_is_learned_and_not_the_game():
    loader = make(settings=RolloutSettings(num_games=4, steps=24, passes=1, rollouts=1), max_steps=100)
    table = loader._begin(0)
    rollout = loader._replay(table, torch.zeros(24, 4, dtype=torch.int64))
    lost = rollout.rewards == -1
    assert lost.any() and rollout.is_end[lost].all()
    # Two lives are lost in an episode that goes to the left only.
    assert all(points == -2 for points in table.finished) and 2 * len(table.finished) <= int(lost.sum()) < 2 * len(table.finished) + 5


def test_the_clip_range_falls_to_nothing():
    loader = make()
    ranges = [float(learn(loader, loader.policy, epoch)[i].labels[0, 4]) for epoch in (0, 3) for i in (0, 6, 12)]
    assert ranges == pytest.approx([0.2 * (1 - done / 12) for done in (0, 1, 2, 9, 10, 11)])


def test_epochs_depend_on_the_seed_and_their_number_alone():
    def epoch(number, seed=3):
        learner = Learner()
        return learn(make(learner, seed=seed), learner, number)

    assert equal(epoch(1), epoch(1))
    assert not equal(epoch(1), epoch(0)) and not equal(epoch(1), epoch(1, seed=4))


@pytest.mark.parametrize("start", range(1, 18))
def test_a_stopped_epoch_goes_on_to_the_bit_wherever_it_was(start):
    learner = Learner()
    whole = learn(make(learner), learner, 1)

    learner = Learner()
    stopped = make(learner)
    for _, _ in zip(range(start), stopped.batches(1)):
        learner.batches += 1
    state = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in stopped.state().items()}

    learner = Learner(start)
    resumed = make(learner)
    resumed.load_state([state])
    assert equal(learn(resumed, learner, 1, start), whole[start:])


def test_a_stopped_epoch_can_be_stopped_again():
    learner = Learner()
    whole = learn(make(learner), learner)
    state, done = None, 0
    for stop in (4, 5, 6, 11, 14):
        learner = Learner(done)
        loader = make(learner)
        if state:
            loader.load_state([state])
        for batch, expected in zip(loader.batches(0, done), whole[done:stop]):
            assert equal([batch], [expected])
            learner.batches += 1
        state, done = loader.state(), stop
    learner = Learner(done)
    loader = make(learner)
    loader.load_state([state])
    assert equal(learn(loader, learner, 0, done), whole[done:])


def test_what_cannot_go_on_says_so():
    learner = Learner()
    stopped = make(learner)
    for _, _ in zip(range(7), stopped.batches(1)):
        learner.batches += 1
    state = stopped.state()
    with pytest.raises(ValueError, match="follows from games of which nothing is known here: remove this checkpoint"):
        next(make().batches(1, 7))
    other_epoch = make()
    other_epoch.load_state([state])
    with pytest.raises(ValueError, match="batch 7 of epoch 3 follows"):
        next(other_epoch.batches(2, 7))
    too_far = make()
    too_far.load_state([state])
    with pytest.raises(ValueError, match="batch 13 of epoch 2 follows"):
        next(too_far.batches(1, 13))
    with pytest.raises(ValueError, match="2 processes played the epoch .* and 1 would go on"):
        make().load_state([state, state])
    with pytest.raises(ValueError, match="says nothing of the games"):
        make().load_state([{}])
    with pytest.raises(ValueError, match="it is of another training"):
        make(settings=RolloutSettings(num_games=8, steps=3)).load_state([state])
    with pytest.raises(ValueError, match="cannot start at batch 19"):
        next(make().batches(0, 19))


def test_processes_play_games_of_their_own():
    whole = make()
    halves = [make(share=Share(rank, 2), batch_size=4) for rank in range(2)]
    assert {len(half) for half in halves} == {len(whole)} and halves[0].num_samples == whole.num_samples
    seen = [torch.stack([torch.from_numpy(each) for each in loader._begin(1).observations]) for loader in (whole, *halves)]
    assert torch.equal(seen[0], torch.cat(seen[1:]))
    first, second = (learn(half, half.policy) for half in halves)
    assert not equal(first, second)


def test_numbers_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="CONTROL.STEPS 6 x CONTROL.NUM_GAMES 4 samples, which TRAIN.BATCH_SIZE 7 does not divide"):
        make(batch_size=7)
    with pytest.raises(ValueError, match="CONTROL.NUM_GAMES is 4: it must be a multiple of the 3 processes"):
        make(share=Share(0, 3))


def test_training_and_evaluation_share_no_seed():
    trained = {next_training_seed(own) for epoch in range(5) for game in range(8) for own in [training_seeds(0, epoch, game)] for _ in range(20)}
    evaluated = {evaluation_seed(split, index) for split in ("train", "val", "test") for index in range(200)}
    assert len(trained) == 800 and len(evaluated) == 600
    assert all(seed % 2 for seed in trained) and not any(seed % 2 for seed in evaluated)
    assert max(trained | evaluated) < 2**31
