"""Games as a policy meets them: a picture, one of a few actions, points. Atari's by gymnasium and ale-py, and the small ones of MinAtar."""

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np


class Outcome(NamedTuple):
    """What an action leads to.

    observation: uint8 C, H, W, what is seen next. points: as the game gives them. reward: what a policy learns from. is_end: the value
    of what is seen next is nothing to whoever acted: the game is over, or a life is lost. is_over: the next thing is a new start; it is
    so too, without an end, where the episode has lasted its longest.
    """

    observation: np.ndarray
    points: float
    reward: float
    is_end: bool
    is_over: bool


class Game(ABC):
    """A game that starts anew, and then goes by actions 0 to `num_actions` - 1, at most `max_steps` of them.

    Everything after `start(seed)` depends on the seed and the actions alone. A subclass writes `_start` and `_act`, sets
    `num_actions` and `shape` (C, H, W of an observation) and names its `packages`.
    """

    packages: ClassVar[tuple[str, ...]]
    num_actions: int
    shape: tuple[int, ...]

    def __init__(self, name: str, max_steps: int) -> None:
        self.name, self.max_steps, self._steps = name, max_steps, 0

    def start(self, seed: int) -> np.ndarray:
        """Begin an episode: its first observation, uint8 C, H, W. seed: from 0 to 2^31 - 1."""
        self._steps = 0
        return self._start(seed)

    def act(self, action: int) -> Outcome:
        """One step of the episode."""
        self._steps += 1
        outcome = self._act(action)
        return outcome._replace(is_over=True) if self._steps >= self.max_steps else outcome

    @abstractmethod
    def _start(self, seed: int) -> np.ndarray:
        """As of `start`."""

    @abstractmethod
    def _act(self, action: int) -> Outcome:
        """As of `act`, without the longest episode."""

    @classmethod
    def versions(cls) -> tuple[str, ...]:
        """The packages that the game comes from, with their versions: another one may be another game."""
        with _needing_extra(cls):
            return tuple(f"{package} {version(package)}" for package in cls.packages)


@contextlib.contextmanager
def _needing_extra(kind: type[Game]) -> Iterator[None]:
    """Name the extra where a package is missing."""
    try:
        yield
    except ImportError as error:
        raise ModuleNotFoundError(f"a game of {kind.packages[-1]} needs a package that is not there ({error}): pip install -e .[rl]") from error


def _import(kind: type[Game], *names: str) -> list[ModuleType]:
    with _needing_extra(kind):
        return [importlib.import_module(name) for name in names]


class AtariGame(Game):
    """A game of the Arcade Learning Environment, seen and played as usual (Mnih et al., 2015), by gymnasium's own wrappers.

    An observation is the last four pictures, grey and 84 x 84; an action is repeated for four frames, of which the last two are joined by
    their maximum; an episode begins with 1 to 30 idle frames, as the seed says. A reward is the points within -1 and 1, and a lost life
    ends what is learned but not the game. name: of gymnasium, such as BreakoutNoFrameskip-v4.
    """

    packages = ("gymnasium", "ale-py")
    SIDE, STACK, SKIP, IDLE = 84, 4, 4, 30

    def __init__(self, name: str, max_steps: int) -> None:
        super().__init__(name, max_steps)
        gymnasium, wrappers, ale, _ = _import(type(self), "gymnasium", "gymnasium.wrappers", "ale_py", "cv2")
        gymnasium.register_envs(ale)
        # It greets on standard error whenever a game is made.
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
        legal = "give one of ale-py's games that repeat no actions themselves, such as BreakoutNoFrameskip-v4"
        if "NoFrameskip" not in name:
            raise ValueError(f"CONTROL.GAME is '{name}': {legal}")
        try:
            game = gymnasium.make(name)
        except gymnasium.error.Error as error:
            raise ValueError(f"CONTROL.GAME is '{name}': {error}; {legal}") from None
        game = wrappers.AtariPreprocessing(game, noop_max=self.IDLE, frame_skip=self.SKIP, screen_size=self.SIDE)
        self._game: Any = wrappers.FrameStackObservation(game, self.STACK)
        # Takes half a second, which no later start does.
        self._game.reset(seed=0)
        self.num_actions, self.shape = int(game.action_space.n), (self.STACK, self.SIDE, self.SIDE)
        self._lives = 0

    def _start(self, seed: int) -> np.ndarray:
        # The idle frames are all that is random, and the emulator itself need not be seeded.
        self._game.unwrapped.np_random = np.random.default_rng(seed)
        observation, told = self._game.reset()
        self._lives = int(told["lives"])
        return np.array(observation, np.uint8)

    def _act(self, action: int) -> Outcome:
        observation, points, is_lost, is_stopped, told = self._game.step(action)
        has_lost_life, self._lives = int(told["lives"]) < self._lives, int(told["lives"])
        return Outcome(
            np.array(observation, np.uint8), float(points), float(np.clip(points, -1, 1)), bool(is_lost) or has_lost_life,
            bool(is_lost) or bool(is_stopped),
        )  # fmt: skip


class MinAtarGame(Game):
    """A game of MinAtar (Young and Tian, 2019): 10 x 10 places, a channel for each kind of thing, 255 where one is.

    One action in ten is the one before it again, as the seed says. Actions are those that do something in the game. name: asterix,
    breakout, freeway, seaquest or space_invaders.
    """

    packages = ("minatar",)

    def __init__(self, name: str, max_steps: int) -> None:
        super().__init__(name, max_steps)
        (environment,) = _import(type(self), "minatar.environment")
        self._make = environment.Environment
        try:
            self._game: Any = self._make(name)
        except ModuleNotFoundError:
            raise ValueError(f"CONTROL.GAME is '{name}': MinAtar has asterix, breakout, freeway, seaquest and space_invaders") from None
        self._actions = self._game.minimal_action_set()
        height, width, channels = self._game.state_shape()
        self.num_actions, self.shape = len(self._actions), (channels, height, width)

    def _start(self, seed: int) -> np.ndarray:
        # A new one: MinAtar's own start leaves the action that is repeated as it was.
        self._game = self._make(self.name)
        self._game.seed(seed)
        self._game.reset()
        return self._seen()

    def _act(self, action: int) -> Outcome:
        points, is_over = self._game.act(self._actions[action])
        return Outcome(self._seen(), float(points), float(points), bool(is_over), bool(is_over))

    def _seen(self) -> np.ndarray:
        places_HWC = np.asarray(self._game.state()) != 0
        return np.ascontiguousarray(places_HWC.transpose(2, 0, 1)).astype(np.uint8) * np.uint8(255)


# By the words of TRAIN.DATASET.
GAMES: dict[str, type[Game]] = {"atari": AtariGame, "minatar": MinAtarGame}
