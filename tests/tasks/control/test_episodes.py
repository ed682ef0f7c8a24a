"""Episodes as samples: the same by the same seed, played by what the network gives, and the games that come as packages."""

import sys

import numpy as np
import pytest
import torch
from test_rollouts import ACTIONS, SIDE, Walk, dataset

from mutual3d.data.loader import ClipLoader
from mutual3d.metrics.metrics import NotFiniteError
from mutual3d.tasks.control.episodes import EpisodeDataset, draw, evaluation_seed
from mutual3d.tasks.control.games import AtariGame, MinAtarGame

PACKAGES = {MinAtarGame: ("minatar", "breakout"), AtariGame: ("ale_py", "BreakoutNoFrameskip-v4")}


def batch_of(episodes):
    (batch,) = ClipLoader(episodes, len(episodes), shuffle=False)
    return batch


def always(action, clips, asked=None):
    if asked is not None:
        asked.append(len(clips))
    return torch.nn.functional.one_hot(torch.full((len(clips),), action), ACTIONS).float()


def test_a_sample_is_the_start_of_its_episode():
    episodes = dataset("val")
    batch = batch_of(episodes)
    assert batch.clips_BVCTHW.shape == (5, 1, 2, 1, SIDE, SIDE) and batch.labels.tolist() == [evaluation_seed("val", i) for i in range(5)]
    for clip, seed in zip(batch.clips_BVCTHW, batch.labels.tolist()):
        assert np.array_equal(clip[0, :, 0].numpy(), Walk().start(seed))
    assert episodes.name_of(2) == f"walk, seed {evaluation_seed('val', 2)}"


def test_an_episode_is_played_to_its_end_by_the_networks_actions():
    asked = []
    returns = dataset("val").play(batch_of(dataset("val")), lambda clips: always(2, clips, asked))
    assert returns.tolist() == [[5.0]] * 5
    # Side by side, until the last one is over.
    assert asked[0] == 5 and asked == sorted(asked, reverse=True)
    # A lost life does not end it, as the second does.
    assert dataset("val", max_steps=200).play(batch_of(dataset("val")), lambda clips: always(0, clips)).tolist() == [[-2.0]] * 5


def test_episodes_that_last_their_longest_end():
    asked = []
    dataset("val", max_steps=2).play(batch_of(dataset("val")), lambda clips: always(1, clips, asked))
    assert asked == [5, 5]


def test_episodes_are_the_same_again_and_others_by_other_seeds():
    def play(split, policy_seed=0):
        weights = torch.randn(2 * SIDE, ACTIONS, generator=torch.Generator().manual_seed(policy_seed))
        episodes = dataset(split, 40, max_steps=30)
        return episodes.play(batch_of(episodes), lambda clips: ((clips[:, :, 0, 0].float() / 255).flatten(1) @ weights).softmax(1))

    assert torch.equal(play("val"), play("val"))
    assert not torch.equal(play("val"), play("test")) and not torch.equal(play("val"), play("val", 1))


def test_actions_are_drawn_as_often_as_they_are_probable():
    probabilities = np.array([0.5, 0.0, 0.3, 0.2])
    chances = (np.arange(1000) + 0.5) / 1000
    assert np.bincount([draw(probabilities, chance) for chance in chances], minlength=4).tolist() == [500, 0, 300, 200]
    assert draw(np.array([0.0, 0.0, 1.0]), 0.0) == 2 and draw(np.array([0.2, 0.3]), 0.999999) == 1


def test_probabilities_that_are_none_are_refused():
    with pytest.raises(NotFiniteError):
        dataset("val").play(batch_of(dataset("val")), lambda clips: torch.full((len(clips), ACTIONS), float("nan")))


def test_a_game_of_other_actions_or_pictures_is_refused():
    with pytest.raises(ValueError, match="MODEL.NUM_CLASSES is 4, and walk has 3 actions"):
        EpisodeDataset(Walk, "val", 2, num_actions=4, num_channels=2, side=SIDE)
    with pytest.raises(ValueError, match=r"walk shows 2 channels of 8 x 8 places: set DATA.INPUT_CHANNEL_NUM to \[2\]"):
        EpisodeDataset(Walk, "val", 2, num_actions=3, num_channels=4, side=SIDE)


def test_other_episodes_have_another_fingerprint():
    prints = [
        dataset(split, count, max_steps=steps).fingerprint() for split, count, steps in (("val", 5, 9), ("test", 5, 9), ("val", 6, 9), ("val", 5, 8))
    ]
    assert len(set(prints)) == 4 and dataset("val").fingerprint() == prints[0]


# ---- The games that come as packages ---------------------------------------------------------------------------------


def game_of(kind, max_steps=60):
    package, name = PACKAGES[kind]
    pytest.importorskip(package, reason="pip install -e .[rl]")
    if kind is AtariGame:
        pytest.importorskip("cv2", reason="pip install -e .[rl]")
    return kind(name, max_steps)


def follow(game, seed, actions):
    found = [game.start(seed)]
    for action in actions:
        outcome = game.act(action)
        found += [outcome.observation, outcome[1:]]
        if outcome.is_over:
            found.append(game.start(seed + 2))
    return found


def alike(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(first, second))


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_game_goes_by_its_seed_and_its_actions_alone(kind):
    game = game_of(kind)
    actions = np.random.default_rng(0).integers(game.num_actions, size=100).tolist()
    once = follow(game, 8, actions)
    assert alike(once, follow(game, 8, actions)) and alike(once, follow(game_of(kind), 8, actions))
    assert not alike(once, follow(game, 10, actions))
    assert all(seen.dtype == np.uint8 and seen.shape == game.shape for seen in once if isinstance(seen, np.ndarray))
    # What was seen before stays what it was.
    assert alike(once[:1], [game.start(8)])


def test_breakout_of_minatar_has_four_kinds_of_things_and_three_actions():
    game = game_of(MinAtarGame)
    seen = game.start(4)
    assert game.num_actions == 3 and game.shape == (4, 10, 10) and set(np.unique(seen)) == {0, 255}
    # Three rows of bricks, one paddle, one ball.
    assert sorted((seen > 0).sum((1, 2)).tolist())[-1] == 30


def test_breakout_of_atari_has_four_grey_pictures_and_four_actions():
    game = game_of(AtariGame, max_steps=1000)
    seen = game.start(4)
    assert game.num_actions == 4 and game.shape == (4, 84, 84) and seen.any()
    # Who only fires loses five lives, each of which ends what is learned; the fifth ends the game.
    outcomes = []
    while not outcomes or not outcomes[-1].is_over:
        outcomes.append(game.act(1))
    assert sum(outcome.is_end for outcome in outcomes) == 5 and outcomes[-1].is_end and len(outcomes) < 1000
    assert all(outcome.reward == min(outcome.points, 1) for outcome in outcomes)


@pytest.mark.parametrize("kind, name, message", [(MinAtarGame, "tennis", "MinAtar has asterix, breakout"), (AtariGame, "TennisballNoFrameskip-v4", "give one of ale-py's games"), (AtariGame, "CartPole-v1", "repeat no actions themselves")])
def test_a_game_that_there_is_not_is_refused(kind, name, message):
    game_of(kind)
    with pytest.raises(ValueError, match=f"CONTROL.GAME is '{name}'.*{message}"):
        kind(name, 10)


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_missing_package_names_the_extra(kind, monkeypatch):
    for name in ("minatar", "minatar.environment", "gymnasium", "ale_py"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e .\[rl\]"):
        kind(PACKAGES[kind][1], 10)
