"""Waiting for the other processes of a run: for as long as they live, and minutes when one does not."""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from .processes import this_process
from .stopping import StopRequestedError

logger = logging.getLogger("mutual3d")


class ProcessLostError(RuntimeError):
    """Another process of the run was killed, or ended with an error."""


# How often a loop that asks whether another process has stopped lets the store be asked.
SECONDS_BETWEEN_QUESTIONS = 1.0
# How often the log says who is waited for.
SECONDS_BETWEEN_WORDS = 60.0

_GO_ON = "start the same command again: it goes on from what is saved"


class Peers:
    """The processes of a run, each of which says through a shared store that it lives.

    store: of torch.distributed. interval: seconds between two signs of life. patience: seconds without one after which a
    process is given up. rank, world_size: the number of this process, and how many there are.
    """

    def __init__(self, store: Any, rank: int, world_size: int, interval: float = 5.0, patience: float = 180.0) -> None:
        self.store, self.rank, self.others = store, rank, [r for r in range(world_size) if r != rank]
        self.interval, self.patience = interval, patience
        self._meetings, self._ended = 0, threading.Event()
        self._asked_at = time.monotonic()
        store.set(f"name/{rank}", str(this_process()))
        threading.Thread(target=self._show_life, daemon=True).start()

    def _show_life(self) -> None:
        while not self._ended.is_set():
            try:
                self.store.add(f"alive/{self.rank}", 1)
            except Exception:  # the store is gone: whoever waits for it says so
                return
            self._ended.wait(self.interval)

    def meet(self, what: str) -> None:
        """Return when every process has called this as often; `what` says what is waited for, in the log and in errors.

        Raises ProcessLostError when one of them shows no life for `patience` seconds, or has ended.
        """
        try:
            self._meet(what)
        except ProcessLostError:
            raise
        except RuntimeError as error:  # torch's store, in its own words
            raise ProcessLostError(
                f"waiting for {what}: the process that joins the others no longer answers, it was killed or has "
                f"ended ({_first_line(error)}); {_GO_ON}"
            ) from error

    def _meet(self, what: str) -> None:
        self._meetings += 1
        place = f"met/{self._meetings}"
        self.store.add(f"{place}/{self.rank}", 1)
        start = told = time.monotonic()
        missing, signs, pause = list(self.others), {}, 0.001
        while missing := [other for other in missing if not self.store.check([f"{place}/{other}"])]:
            now = time.monotonic()
            for other in missing:
                self._check_alive(other, signs, now, what)
            if now - told > SECONDS_BETWEEN_WORDS:
                told = now
                logger.info("waiting for %s for %.0f s: %s", self._names(missing), now - start, what)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    def stop_reason(self) -> str | None:
        """Why another process has stopped that was asked to; None where none has. Asked of the store once a second at most."""
        now = time.monotonic()
        if now - self._asked_at < SECONDS_BETWEEN_QUESTIONS:
            return None
        self._asked_at = now
        return self.stop_reason_now()

    def stop_reason_now(self) -> str | None:
        """As `stop_reason`, asked in any case; None too where the store is gone."""
        try:
            return self.store.get("stopped").decode(errors="replace") if self.store.check(["stopped"]) else None
        except RuntimeError:
            return None

    def _check_alive(self, other: int, signs: dict[int, tuple[int, float]], now: float, what: str) -> None:
        if reason := self.stop_reason_now():
            raise StopRequestedError(reason)
        if self.store.check([f"failed/{other}"]):
            cause = self.store.get(f"failed/{other}").decode(errors="replace")
            raise ProcessLostError(f"waiting for {what}: {self._names([other])} ended with an error ({cause}); {_GO_ON}")
        count = self.store.add(f"alive/{other}", 0)
        if signs.get(other, (None,))[0] != count:
            signs[other] = count, now
        elif now - signs[other][1] > self.patience:
            raise ProcessLostError(
                f"waiting for {what}: {self._names([other])} has shown no life for {self.patience:g} s, it was killed or its "
                f"machine is gone; {_GO_ON}"
            )

    def _names(self, ranks: Iterable[int]) -> str:
        names = [self.store.get(f"name/{r}").decode() if self.store.check([f"name/{r}"]) else "a process" for r in ranks]
        return ", ".join(f"{name} (rank {rank})" for name, rank in zip(names, ranks))

    def leave(self, error: BaseException | None = None) -> None:
        """Say that this process ends; without an error, when all others are here too.

        One that was asked to stop makes the others stop as well, where they next look or meet.
        """
        try:
            if isinstance(error, StopRequestedError):
                self.store.set("stopped", f"{error}")
                self.store.add(f"left/{self.rank}", 1)
                self._wait_for_readers()
                return
            if error is not None:
                self.store.set(f"failed/{self.rank}", f"{type(error).__name__}: {_first_line(error)}")
                return
            self.meet("the end of the run")
            self.store.add(f"left/{self.rank}", 1)
            self._wait_for_readers()
        except RuntimeError:
            if error is None:
                raise
        finally:
            self._ended.set()

    def _wait_for_readers(self, seconds: float = 10.0) -> None:
        """The first process may hold the store: it goes when the others have read what is in it."""
        end = time.monotonic() + seconds
        while self.rank == 0 and time.monotonic() < end and not self.store.check([f"left/{other}" for other in self.others]):
            time.sleep(0.01)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]
