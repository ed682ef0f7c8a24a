"""Batches of what the largest configuration experiences: it plays some steps of several games, and learns from them before it plays on."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mutual3d.data.loader import Batch, Share
from mutual3d.utils import distributed
from mutual3d.utils.logging import log_json_stats

from .advantages import estimate_advantages
from .episodes import EpisodeDataset, as_clips, next_training_seed, training_seeds
from .games import Game
from .objective import COLUMNS, split_outputs

_logger = logging.getLogger(__name__)

# uint8 clips N, C, 1, H, W -> float32 N, A + 1 on the CPU: logits of A actions and the value, by the policy that plays.
Policy = Callable[[torch.Tensor], torch.Tensor]
# What a roll-out heard from the policy: logarithms of the probabilities of what was done, values, and values of what followed.
_HEARD = 3


@dataclass(frozen=True)
class RolloutSettings:
    """How games are played and learned from (PPO, Table 5, for Atari).

    num_games: played side by side, over all processes. steps: of each game before the policy learns. passes: how often it learns from
    each step. rollouts: in an epoch, which begins with new games. discount: of rewards to come. trace: lambda of the advantages.
    clip_range: how far from 1 a ratio of probabilities pays at the start; it falls linearly to 0 at `max_epoch` epochs.
    """

    num_games: int = 8
    steps: int = 128
    passes: int = 3
    rollouts: int = 100
    discount: float = 0.99
    trace: float = 0.95
    clip_range: float = 0.1
    max_epoch: int = 100


@dataclass
class _Memory:
    """What an epoch that is not finished can be played again from: the actions of its roll-outs, each T, N, and what the newest one heard,
    `_HEARD`, T, N. Games do the same again by the same actions, so that nothing of them need be kept."""

    epoch: int
    actions: list[torch.Tensor] = field(default_factory=list)
    heard: torch.Tensor | None = None


@dataclass
class _Table:
    """Games that are played side by side, each with what it shows, the seeds of its episodes to come and what they gave so far."""

    games: list[Game]
    observations: list[np.ndarray]
    seeds: list[np.random.Generator]
    points: list[float]
    finished: list[float] = field(default_factory=list)


@dataclass
class _Rollout:
    """T steps of N games: observations uint8 T, N, C, 1, H, W, and what came of them, each T, N."""

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    is_end: torch.Tensor
    is_cut: torch.Tensor


class RolloutLoader:
    """A loader whose batches come of what a policy does: see `mutual3d.training.loop.BatchSource`.

    An epoch begins `num_games` games by seeds of (seed, epoch), and has `rollouts` roll-outs: the policy as it then is plays `steps` steps
    of each, and their samples are given `passes` times in an order that (seed, epoch, roll-out, pass) decides. Labels are float B, 5, of
    `objective.COLUMNS`; advantages have mean 0 and standard deviation 1 in each roll-out of a process. A batch is asked for after the
    step of the one before it, so that every roll-out is the newest policy's.

    dataset: of which the games are. policy: asked once a step, for all games. batch_size: samples of this process's batch.
    share: which of the games are this process's. Raises ValueError for numbers that do not divide.
    """

    def __init__(
        self, dataset: EpisodeDataset, policy: Policy, settings: RolloutSettings, batch_size: int, *, seed: int = 0, share: Share = Share()
    ) -> None:
        if settings.num_games % share.world_size:
            raise ValueError(
                f"CONTROL.NUM_GAMES is {settings.num_games}: it must be a multiple of the {share.world_size} processes that play"
            )
        self.dataset, self.policy, self.settings = dataset, policy, settings
        self.batch_size, self.seed, self.share = batch_size, seed, share
        self._num_games = settings.num_games // share.world_size
        samples = settings.steps * self._num_games
        if samples % batch_size:
            raise ValueError(
                f"a roll-out has CONTROL.STEPS {settings.steps} x CONTROL.NUM_GAMES {settings.num_games} samples, which TRAIN.BATCH_SIZE "
                f"{batch_size * share.world_size} does not divide: choose one that does"
            )
        self._per_pass = samples // batch_size
        self.num_samples = settings.rollouts * settings.steps * settings.num_games
        self._memory = _Memory(-1)

    def __len__(self) -> int:
        return self.settings.rollouts * self.settings.passes * self._per_pass

    # ---- What a checkpoint inside an epoch keeps ----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What this process's part of the epoch can be played again from: some bytes a step, whatever the game."""
        memory = self._memory
        actions = torch.stack(memory.actions).to(torch.uint8) if memory.actions else torch.empty(0, dtype=torch.uint8)
        return {"epoch": memory.epoch, "actions": actions, "heard": torch.empty(0) if memory.heard is None else memory.heard}

    def load_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what `state` gave in each process. states: in the order of ranks.

        Raises ValueError where there were more or fewer processes, whose games were others, and for what is no such state.
        """
        world = self.share.world_size
        if len(states) != world:
            raise ValueError(
                f"{len(states)} processes played the epoch that this checkpoint is inside of, and {world} would go on: each plays games of its own; "
                f"start {len(states)}, or remove this checkpoint to go on from the last finished epoch"
            )
        state = states[self.share.rank]
        shape = (self.settings.steps, self._num_games)
        if not {"epoch", "actions", "heard"} <= state.keys():
            raise ValueError("the checkpoint says nothing of the games that its epoch played: it is of another training")
        actions, heard = state["actions"], state["heard"]
        if actions.shape[1:] not in ((), shape) or heard.shape not in ((0,), (_HEARD, *shape)) or len(actions) and len(heard) != _HEARD:
            raise ValueError(
                f"the checkpoint has played {tuple(actions.shape)} steps and heard {tuple(heard.shape)}, and a roll-out is of {shape}: it is "
                "of another training"
            )
        self._memory = _Memory(int(state["epoch"]), list(actions.long()), heard if len(heard) else None)

    # ---- Batches ------------------------------------------------------------------------------------------------------

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; of the first `start`, which a checkpoint's state is to have been loaded for, none is given.

        Raises ValueError for a start that the state does not reach.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"cannot start at batch {start}: an epoch has {len(self)} batches")
        per_rollout = self.settings.passes * self._per_pass
        first, skipped = divmod(start, per_rollout)
        memory, self._memory = self._memory, _Memory(epoch)
        if start and (memory.epoch != epoch or len(memory.actions) < first + bool(skipped)):
            raise ValueError(
                f"batch {start} of epoch {epoch + 1} follows from games of which nothing is known here: remove this checkpoint to go on from the "
                "last finished epoch"
            )
        known = memory.actions if start else []
        table = self._begin(epoch)
        for number in range(self.settings.rollouts):
            if number < len(known):
                rollout, heard = self._replay(table, known[number]), memory.heard
            else:
                rollout, heard = self._play(table, epoch, number)
            self._memory.actions.append(rollout.actions)
            self._memory.heard = heard
            if number < first:
                continue
            assert heard is not None, "the newest roll-out's is kept, and no other is given"
            labels = self._labels(rollout, heard, epoch, number)
            for place in range(skipped if number == first else 0, per_rollout):
                yield self._batch(rollout, labels, epoch, number, place)
        self._tell(table, epoch)

    def _batch(self, rollout: _Rollout, labels: torch.Tensor, epoch: int, number: int, place: int) -> Batch:
        """The batch at `place` of a roll-out."""
        order = self._generator(epoch, number, 1 + place // self._per_pass).permutation(len(labels))
        begin = place % self._per_pass * self.batch_size
        chosen = torch.from_numpy(order[begin : begin + self.batch_size])
        return Batch(rollout.observations.flatten(0, 1)[chosen][:, None], labels[chosen], chosen, [])

    def _generator(self, epoch: int, number: int, purpose: int) -> np.random.Generator:
        """Random numbers of one purpose in a roll-out; 0 is the choice of actions, 1 and on the order of a pass."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, epoch, number, purpose, self.share.rank)))

    # ---- Playing ------------------------------------------------------------------------------------------------------

    def _begin(self, epoch: int) -> _Table:
        first = self.share.rank * self._num_games
        seeds = [training_seeds(self.seed, epoch, first + i) for i in range(self._num_games)]
        games = self.dataset.games(len(seeds))
        observations = [game.start(next_training_seed(own)) for game, own in zip(games, seeds)]
        return _Table(games, observations, seeds, [0.0] * len(games))

    def _play(self, table: _Table, epoch: int, number: int) -> tuple[_Rollout, torch.Tensor]:
        """A roll-out by the policy, and what was heard from it."""
        chances = self._generator(epoch, number, 0)
        steps, games = self.settings.steps, len(table.games)
        heard = torch.zeros(_HEARD, steps + 1, games)
        stopped: list[tuple[int, int, np.ndarray]] = []

        def choose(t: int, clips: torch.Tensor) -> torch.Tensor:
            logits, values = split_outputs(self.policy(clips))
            logs = logits.log_softmax(1)
            ends = logs.double().exp().cumsum(1)
            # The action that a chance in [0, 1) falls on.
            drawn = torch.from_numpy(chances.random((games, 1))) * ends[:, -1:]
            actions = (ends <= drawn).sum(1).clamp(max=logits.shape[1] - 1)
            heard[0, t], heard[1, t] = logs.gather(1, actions[:, None])[:, 0], values
            return actions

        rollout = self._run(table, choose, stopped)
        _, heard[1, steps] = split_outputs(self.policy(as_clips(table.observations)))
        heard[2, :-1] = heard[1, 1:]
        if stopped:
            # Where a new episode began without an end, what would have followed is not what is seen next.
            _, values = split_outputs(self.policy(as_clips([seen for _, _, seen in stopped])))
            for (t, i, _), value in zip(stopped, values):
                heard[2, t, i] = value
        return rollout, heard[:, :-1].clone()

    def _replay(self, table: _Table, actions_TN: torch.Tensor) -> _Rollout:
        """A roll-out by actions that were chosen before."""
        return self._run(table, lambda t, clips: actions_TN[t])

    def _run(
        self,
        table: _Table,
        choose: Callable[[int, torch.Tensor], torch.Tensor],
        stopped: list[tuple[int, int, np.ndarray]] | None = None,
    ) -> _Rollout:
        """Play the steps of a roll-out. choose: step and clips N, C, 1, H, W -> actions N. stopped: takes (step, game, what was seen last) of
        each episode that lasted its longest."""
        shape = self.settings.steps, len(table.games)
        seen: list[torch.Tensor] = []
        actions, rewards = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        is_end, is_cut = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        for t in range(shape[0]):
            seen.append(as_clips(table.observations))
            actions[t] = choose(t, seen[-1])
            for i, action in enumerate(actions[t].tolist()):
                outcome = table.games[i].act(action)
                table.points[i] += outcome.points
                table.observations[i] = outcome.observation
                rewards[t, i], is_end[t, i], is_cut[t, i] = outcome.reward, outcome.is_end, outcome.is_end or outcome.is_over
                if outcome.is_over:
                    if stopped is not None and not outcome.is_end:
                        stopped.append((t, i, outcome.observation))
                    table.finished.append(table.points[i])
                    table.points[i] = 0.0
                    table.observations[i] = table.games[i].start(next_training_seed(table.seeds[i]))
        return _Rollout(torch.stack(seen), actions, rewards, is_end, is_cut)

    def _labels(self, rollout: _Rollout, heard: torch.Tensor, epoch: int, number: int) -> torch.Tensor:
        """float T * N, 5, of `COLUMNS`."""
        settings = self.settings
        logs, values, next_values = heard
        advantages = estimate_advantages(
            rollout.rewards, values, next_values, rollout.is_end, rollout.is_cut, discount=settings.discount, trace=settings.trace
        )
        outcomes = advantages + values
        normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        done = (epoch + number / settings.rollouts) / settings.max_epoch
        clip_range = torch.full_like(values, settings.clip_range * max(0.0, 1 - done))
        columns = dict(zip(COLUMNS, (rollout.actions.float(), logs, normal, outcomes, clip_range)))
        return torch.stack([columns[name].flatten() for name in COLUMNS], 1)

    def _tell(self, table: _Table, epoch: int) -> None:
        """What the episodes of all processes gave that ended in an epoch, as a line of the log: the curve of training."""
        finished = [points for own in distributed.gather(table.finished) for points in own]
        told: dict[str, Any] = {"_type": "play_epoch", "epoch": f"{epoch + 1}/{self.settings.max_epoch}", "episodes": len(finished)}
        if finished:
            told["mean_return"] = float(np.mean(finished))
        log_json_stats({**told, "steps": self.num_samples * (epoch + 1)})
