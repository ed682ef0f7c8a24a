"""Which configuration to run next so that a deadline holds, whatever else the machine does: logic without a clock.

A stream of requests is answered by sub-networks of one network; the controller moves along their Pareto front over time. It
follows SuperServe (Khare et al., NSDI 2025): the slack of the most urgent request chooses, and switching costs nothing.
"""

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mutual3d.sampling import Configuration


@dataclass(frozen=True)
class TimedConfiguration:
    """A configuration and the milliseconds that it took, one request, when this machine had nothing else to do."""

    configuration: Configuration
    quiet_ms: float


class _Request(NamedTuple):
    """A request that was answered: the load it met, and the milliseconds that it might have taken."""

    load: float
    allowed_ms: float


class DeadlineController:
    """Chooses a configuration for each request from what the last ones took.

    The load is what a request took over what it takes on a quiet machine. A late request moves down at once, to the most
    accurate configuration that this load allows, and that takes less by `headroom` at least: where all take nearly the same, a
    move gives accuracy away and wins no time. It moves up to what would have answered each of the last `patience` requests
    in time and left `headroom`; after an upward move that failed it waits twice as long (up to 16 times). Only measured times
    count: `quiet_ms` gives the proportions between configurations, and never decides alone. A request that has waited has less
    time than the others: see `choose`.

    Args:
        front: the Pareto front over time, ascending in time (and accuracy).
        deadline_ms: milliseconds that a request may take, from its arrival to its answer.
        headroom: share of its time that a move leaves for what cannot be foreseen.
        patience: requests that must have gone well before an upward move.

    Raises ValueError for an empty or unordered front and for a deadline, headroom or patience that cannot be.
    """

    def __init__(
        self, front: Sequence[TimedConfiguration], deadline_ms: float, *, headroom: float = 0.2, patience: int = 20
    ) -> None:
        _check(front, deadline_ms, headroom, patience)
        self.front, self.deadline_ms, self.headroom, self.patience = tuple(front), deadline_ms, headroom, patience
        self._position = self._most_accurate_within((1 - headroom) * deadline_ms, load=1.0)
        self._requests: collections.deque[_Request] = collections.deque(maxlen=16 * patience)
        self._since_move = 0
        self._moved_up = False
        self._waiting = patience

    @property
    def configuration(self) -> Configuration:
        """What the next request runs at when it has the whole deadline."""
        return self.front[self._position].configuration

    @property
    def is_hopeless(self) -> bool:
        """Whether even the cheapest configuration takes longer than the deadline at the present load."""
        return self.front[0].quiet_ms * self._load > self.deadline_ms

    def choose(self, slack_ms: float | None = None) -> Configuration:
        """The configuration for a request that must be answered in `slack_ms`, what is left of its deadline after waiting.

        It is `configuration` where that takes no longer at the present load; otherwise the most accurate one that leaves
        headroom, and the cheapest where nothing does, if it takes less by `headroom` at least. None: the request has not waited.
        """
        if slack_ms is None or slack_ms >= self.deadline_ms or self.front[self._position].quiet_ms * self._load <= slack_ms:
            return self.configuration
        return self.front[self._lowered(self._most_accurate_within((1 - self.headroom) * slack_ms, self._load))].configuration

    def observe(
        self, configuration: Configuration, elapsed_ms: float, *, slack_ms: float | None = None, is_first_run: bool = False
    ) -> None:
        """Take in that a request at `configuration` took `elapsed_ms`, waiting apart.

        slack_ms: what `choose` was told. is_first_run: it compiled or loaded the configuration, which says nothing about the
        next one: ignored. Raises ValueError for a configuration that is not on the front, and a time that is not above 0.
        """
        positions = [i for i, timed in enumerate(self.front) if timed.configuration == configuration]
        if not positions or not elapsed_ms > 0:
            known = ", ".join(str(timed.configuration) for timed in self.front)
            raise ValueError(f"{configuration} took {elapsed_ms} ms: give a time above 0 of one of {known}")
        if is_first_run:
            return
        allowed = self.deadline_ms if slack_ms is None else min(slack_ms, self.deadline_ms)
        self._requests.append(_Request(elapsed_ms / self.front[positions[0]].quiet_ms, allowed))
        self._since_move += 1
        # One that ran below `configuration`, as it had waited, and was late nevertheless, says nothing about the next one.
        if elapsed_ms > self.deadline_ms or (elapsed_ms > allowed and positions[0] >= self._position):
            self._move_down()
        elif self._since_move >= self._waiting:
            self._move_up()

    @property
    def _load(self) -> float:
        return self._requests[-1].load if self._requests else 1.0

    def _move_down(self) -> None:
        if self._moved_up and self._since_move <= self._waiting:
            self._waiting = min(2 * self._waiting, 16 * self.patience)
        fitting = self._position_with_headroom(self._requests[-1])
        self._move(self._lowered(min(fitting, max(self._position - 1, 0))), is_up=False)

    def _lowered(self, wanted: int) -> int:
        """The position for going down to `wanted`: there or below, where time is won; the present one where none is."""
        limit_ms = (1 - self.headroom) * self.front[self._position].quiet_ms
        saving = [i for i in range(min(wanted, self._position) + 1) if self.front[i].quiet_ms <= limit_ms]
        return saving[-1] if saving else self._position

    def _move_up(self) -> None:
        if self._moved_up:  # the last upward move has held: trust the next one as much as the first
            self._waiting = self.patience
        fitting = min(map(self._position_with_headroom, list(self._requests)[-self._waiting :]))
        if fitting > self._position:
            self._move(fitting, is_up=True)

    def _move(self, position: int, *, is_up: bool) -> None:
        self._position, self._moved_up, self._since_move = position, is_up, 0

    def _position_with_headroom(self, request: "_Request") -> int:
        return self._most_accurate_within((1 - self.headroom) * request.allowed_ms, request.load)

    def _most_accurate_within(self, budget_ms: float, load: float) -> int:
        """The position of the last configuration that takes at most `budget_ms` at a load; 0 where none does."""
        fitting = [i for i, timed in enumerate(self.front) if timed.quiet_ms * load <= budget_ms]
        return fitting[-1] if fitting else 0


def _check(front: Sequence[TimedConfiguration], deadline_ms: float, headroom: float, patience: int) -> None:
    times = [timed.quiet_ms for timed in front]
    if not times or times != sorted(times) or times[0] <= 0:
        raise ValueError(f"the front takes {times} ms: give at least one configuration, ascending in time, each above 0")
    if not deadline_ms > 0:
        raise ValueError(f"the deadline is {deadline_ms} ms: give a number above 0")
    if not 0 <= headroom < 1:
        raise ValueError(f"headroom is {headroom}: give a share of the deadline, 0 or more and below 1")
    if patience < 1:
        raise ValueError(f"patience is {patience}: give a whole number, 1 or more")
