"""One thread that computes: it gathers waiting clips of one configuration, and goes down the Pareto front before anybody is late."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from mutual3d.deploy.controller import TimedConfiguration
from mutual3d.sampling import Configuration

# Share of the time that is left which a plan leaves for what cannot be foreseen.
_HEADROOM = 0.1
# How much of the load that was met last the estimate takes over.
_LEARNING = 0.2


class Overloaded(RuntimeError):
    """A request would be late even at its cheapest configuration, or too many wait. seconds: after which to try again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the service is busy: try again in {seconds:.3g} s")
        self.seconds = seconds


class Answered(NamedTuple):
    """Scores K of a request. timed: the configuration that it ran at. wait_ms: until it was taken up. network_ms: of the
    whole batch, of `batch` clips. is_met: within its deadline."""

    scores_K: torch.Tensor
    timed: TimedConfiguration
    wait_ms: float
    network_ms: float
    batch: int
    is_met: bool


@dataclass(eq=False)
class Request:
    """A clip that waits: uint8 or float 1, 3, T, S, S.

    ladder: the configurations that it may run at, ascending in time; the last is the one that its budget chose. deadline: in
    seconds of `time.perf_counter`.
    """

    clip_1CTHW: torch.Tensor
    ladder: tuple[TimedConfiguration, ...]
    deadline: float
    arrival: float = field(default_factory=time.perf_counter)
    future: "Future[Answered]" = field(default_factory=Future)

    @property
    def kind(self) -> tuple[object, ...]:
        """What clips must share to be computed together."""
        return self.clip_1CTHW.dtype, tuple(self.clip_1CTHW.shape)


class Batcher:
    """Computes requests, the most urgent first, in a thread of its own, from `start` to `close`.

    Each runs at the most accurate configuration of its ladder at which, as far as the last calls tell, it and all that wait
    are answered in time. Requests that thereby run at one configuration are computed together, as long as the most urgent one
    is not late by it. When others are still being decoded, it waits for them up to `gather_ms`, under the same condition.

    Args:
        run: scores B, K of clips at a configuration.
        limit: requests that may wait.
        max_batch: clips that are computed together.
        gather_ms: see above.
        num_coming: how many requests are being decoded now.
        watch: is told each batch and what became of it.
    """

    def __init__(
        self,
        run: Callable[[torch.Tensor, Configuration], torch.Tensor],
        *,
        limit: int = 64,
        max_batch: int = 8,
        gather_ms: float = 2.0,
        num_coming: Callable[[], int] = lambda: 0,
        watch: Callable[[list[Request], list[Answered]], None] = lambda requests, answers: None,
    ) -> None:
        self._run, self._limit, self._max_batch, self._gather = run, limit, max_batch, gather_ms / 1000
        self._num_coming, self._watch = num_coming, watch
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._busy_until = 0.0
        # {clips of a batch: its time over that of as many single clips on the quiet machine}, of the last batches.
        self._loads: dict[int, float] = {}
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def close(self) -> None:
        """Compute what waits, and end the thread; nothing is taken any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Requests that were not taken up yet."""
        return len(self._waiting)

    def seconds_of(self, timed: TimedConfiguration, count: int) -> float:
        """Seconds that `count` clips at a configuration take, one after the other as far as they are not computed together."""
        with self._changed:
            together = min(count, self._max_batch)
            return self._estimate(timed, together) * count / together

    def seconds_until(self, timed: TimedConfiguration) -> float:
        """Seconds until a clip that came now would be answered at `timed`, were what waits computed at its cheapest."""
        with self._changed:
            return self._ahead(time.perf_counter()) + self._estimate(timed, 1)

    def _ahead(self, now: float) -> float:
        """Seconds that what is computed and what waits takes at its cheapest; what waits will be computed together, as batches so far were."""
        load = min(self._loads.values(), default=1.0)
        return max(self._busy_until - now, 0.0) + load * sum(other.ladder[0].quiet_ms for other in self._waiting) / 1000

    def submit(self, request: Request) -> "Future[Answered]":
        """The answer to come. Raises Overloaded where it would be late even at the cheapest configurations, or too many wait."""
        with self._changed:
            if self._is_closed:
                raise Overloaded(1.0)
            now = time.perf_counter()
            ahead = self._ahead(now)
            own = self._estimate(request.ladder[0], 1)
            is_alone = not self._waiting and self._busy_until <= now
            if len(self._waiting) >= self._limit or (not is_alone and now + ahead + own > request.deadline):
                raise Overloaded(max(ahead, own))
            self._waiting.append(request)
            self._changed.notify_all()
        return request.future

    def _estimate(self, timed: TimedConfiguration, count: int) -> float:
        """Seconds that `count` clips at a configuration take, by what the last batches took."""
        known = [size for size in self._loads if size <= count]
        load = self._loads[max(known)] if known else 1.0
        return timed.quiet_ms / 1000 * count * load

    def _serve(self) -> None:
        while (planned := self._next()) is not None:
            self._answer(*planned)

    def _next(self) -> tuple[TimedConfiguration, list[Request]] | None:
        """What to compute next; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            now = time.perf_counter()
            end = now + self._gather
            while True:
                timed, chosen = self._plan(now)
                spare = min(request.deadline for request in chosen) - now - self._estimate(timed, len(chosen) + 1)
                left = min(end - now, spare)
                if len(chosen) >= self._max_batch or left <= 0 or self._is_closed or not self._num_coming():
                    break
                self._changed.wait(left)
                now = time.perf_counter()
            for request in chosen:
                self._waiting.remove(request)
            self._busy_until = now + self._estimate(timed, len(chosen))
            return timed, chosen

    def _plan(self, now: float) -> tuple[TimedConfiguration, list[Request]]:
        """The configuration of the most urgent request, and those that are computed with it.

        If every one of the waiting took `allowed` seconds, one after the other, all would be answered in time.
        """
        ordered = sorted(self._waiting, key=lambda request: request.deadline)
        allowed = (1 - _HEADROOM) * min((request.deadline - now) / place for place, request in enumerate(ordered, start=1))
        first = ordered[0]
        timed, chosen = self._rung(first, allowed), [first]
        for request in ordered[1:]:
            if len(chosen) == self._max_batch or now + self._estimate(timed, len(chosen) + 1) > first.deadline:
                break
            if request.kind == first.kind and self._rung(request, allowed).configuration == timed.configuration:
                chosen.append(request)
        return timed, chosen

    def _rung(self, request: Request, allowed: float) -> TimedConfiguration:
        """The last of a request's configurations that takes at most `allowed` seconds; the first where none does."""
        fitting = [timed for timed in request.ladder if self._estimate(timed, 1) <= allowed]
        return fitting[-1] if fitting else request.ladder[0]

    def _answer(self, timed: TimedConfiguration, requests: list[Request]) -> None:
        requests = [request for request in requests if request.future.set_running_or_notify_cancel()]
        if not requests:
            return
        start = time.perf_counter()
        try:
            scores_BK = self._run(torch.cat([request.clip_1CTHW for request in requests]), timed.configuration)
        except Exception as error:  # of any kind: the clients are told, and the next ones are served
            self._busy_until = 0.0
            for request in requests:
                request.future.set_exception(error)
            return
        end = time.perf_counter()
        count = len(requests)
        self._learn(timed, count, end - start)
        answers = [
            Answered(
                scores_K, timed, 1000 * (start - request.arrival), 1000 * (end - start), count, end <= request.deadline
            )
            for request, scores_K in zip(requests, scores_BK)
        ]  # fmt: skip
        self._watch(requests, answers)
        for request, answer in zip(requests, answers):
            request.future.set_result(answer)

    def _learn(self, timed: TimedConfiguration, count: int, seconds: float) -> None:
        load = seconds / (timed.quiet_ms / 1000 * count)
        with self._changed:
            self._busy_until = 0.0
            before = self._loads.get(count, 1.0 if count == 1 else load)
            self._loads[count] = before + _LEARNING * (load - before)


def retry_after(seconds: float) -> str:
    """The header of a refusal: whole seconds, 1 or more."""
    return str(max(1, math.ceil(seconds)))

