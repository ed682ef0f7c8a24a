"""Episodes as a data set: a sample is the start of one, and what the network makes of it is played."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mutual3d.data.datasets.dataset import PlayedDataset, Sample
from mutual3d.metrics.metrics import check_finite
from mutual3d.utils.fingerprint import fingerprint

from .games import Game

SEEDS = 2**31


def training_seeds(seed: int, epoch: int, game: int) -> np.random.Generator:
    """What `next_training_seed` draws from: a generator for each game that is played side by side in an epoch."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch, game)))


def next_training_seed(generator: np.random.Generator) -> int:
    """The seed of the next episode that is learned from: odd, where those that are evaluated are even."""
    return int(generator.integers(SEEDS // 2)) * 2 + 1


def evaluation_seed(split: str, index: int) -> int:
    """The seed of an episode of a split: even, the same for every run, another for every (split, index) but for chance."""
    words = np.random.SeedSequence((*split.encode(), 0, index)).generate_state(1)
    return int(words[0]) % (SEEDS // 2) * 2


class EpisodeDataset(PlayedDataset):
    """`num_episodes` episodes of a game, each with a seed of its own that training never uses.

    A sample is the first observation, uint8 1, C, 1, H, W; its label is the seed. make_game: makes one game, `fingerprint` knows it by
    its name, versions and longest episode. split: a word that the seeds depend on. Raises ValueError for a game that is not the
    network's: num_actions and num_channels are what the network has.
    """

    noun = "episode"

    def __init__(self, make_game: Callable[[], Game], split: str, num_episodes: int, *, num_actions: int, num_channels: int, side: int) -> None:
        self.split, self.num_episodes, self.num_actions = split, num_episodes, num_actions
        self._make_game, self._made = make_game, list[Game]()
        (game,) = self.games(1)
        if game.num_actions != num_actions:
            raise ValueError(f"MODEL.NUM_CLASSES is {num_actions}, and {game.name} has {game.num_actions} actions: set it to that")
        if game.shape != (num_channels, side, side):
            raise ValueError(
                f"{game.name} shows {game.shape[0]} channels of {' x '.join(map(str, game.shape[1:]))} places: set DATA.INPUT_CHANNEL_NUM to "
                f"[{game.shape[0]}], give DATA.MEAN and DATA.STD as many numbers, and set DATA.TRAIN_CROP_SIZE, DATA.TEST_CROP_SIZE and "
                f"MUTUAL.SPATIAL_SIZES to {game.shape[-1]}"
            )
        self.name = game.name
        self._content = (type(game).__name__, game.name, game.versions(), game.max_steps)

    def games(self, count: int) -> list[Game]:
        """So many games to be started; the same ones each time, since some take long to make."""
        self._made += [self._make_game() for _ in range(count - len(self._made))]
        return self._made[:count]

    def __len__(self) -> int:
        return self.num_episodes

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        _, index = key
        seed = evaluation_seed(self.split, index)
        (game,) = self.games(1)
        return Sample(as_clips([game.start(seed)]), seed, index)

    def name_of(self, index: int) -> str:
        return f"{self.name}, seed {evaluation_seed(self.split, index)}"

    def fingerprint(self) -> str:
        return fingerprint(type(self).__name__, self._content, self.split, self.num_episodes)

    def play(self, batch: Any, network: Callable[[torch.Tensor], Any]) -> torch.Tensor:
        """Returns B, 1 of the batch's episodes, played side by side to their ends.

        network: uint8 clips N, C, 1, H, W -> probabilities N, A of the actions, of which each episode draws by its own seed. The points
        count as the game gives them, lost lives end nothing. NotFiniteError for probabilities that are none.
        """
        seeds = batch.labels.tolist()
        games = self.games(len(seeds))
        observations = [game.start(seed) for game, seed in zip(games, seeds)]
        chances = [np.random.default_rng(np.random.SeedSequence((seed, 1))) for seed in seeds]
        returns = torch.zeros(len(games), 1, dtype=torch.float64)
        playing = list(range(len(games)))
        while playing:
            probabilities = network(as_clips([observations[i] for i in playing]))
            check_finite(probabilities)
            still = []
            for i, probability_A in zip(playing, probabilities.double().numpy()):
                outcome = games[i].act(draw(probability_A, chances[i].random()))
                observations[i] = outcome.observation
                returns[i] += outcome.points
                still += [] if outcome.is_over else [i]
            playing = still
        return returns


def draw(probability_A: np.ndarray, chance: float) -> int:
    """The action that `chance`, uniform in [0, 1), falls on."""
    ends = probability_A.cumsum()
    return min(int(np.searchsorted(ends, chance * ends[-1], side="right")), len(ends) - 1)


def as_clips(observations: list[np.ndarray]) -> torch.Tensor:
    """Observations uint8 C, H, W -> clips of one frame, uint8 N, C, 1, H, W."""
    return torch.from_numpy(np.stack(observations))[:, :, None]
