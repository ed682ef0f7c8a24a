"""What a signal does at once, what it leaves for later, and what it leaves to others."""

import os
import signal

import pytest

from mutual3d.utils import stopping
from mutual3d.utils.run_lock import run_lock
from mutual3d.utils.stopping import StopRequestedError, deferred, request_stop, stop_reason, stoppable


@pytest.fixture(autouse=True)
def heard_interrupts():
    """Shells start the background jobs of scripts with Ctrl-C ignored, and the tests may be run by one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_at_once_or_where_the_loop_that_defers_it_ends(number):
    before = signal.getsignal(number)
    with stoppable():
        with pytest.raises(StopRequestedError, match=signal.Signals(number).name):
            send(number)
    steps = []
    with stoppable(), pytest.raises(StopRequestedError), deferred():
        with deferred():  # a loop in a loop leaves it to the outer one
            send(number)
        steps.append(stop_reason())
    assert steps == [signal.Signals(number).name]
    assert signal.getsignal(number) == before and stop_reason() is None


def test_a_loops_own_error_is_not_hidden_by_a_request():
    with stoppable(), pytest.raises(ValueError, match="a mistake"), deferred():
        send(signal.SIGTERM)
        raise ValueError("a mistake")


def test_one_ctrl_c_that_comes_twice_is_one_and_a_later_one_ends_at_once(monkeypatch, capfd):
    with stoppable(), pytest.raises(StopRequestedError), deferred():
        send(signal.SIGINT)
        send(signal.SIGINT)
        send(signal.SIGTERM)
    monkeypatch.setattr(stopping, "_SAME_SIGNAL_SECONDS", 0)
    with stoppable(), pytest.raises(KeyboardInterrupt) as ended, deferred():
        send(signal.SIGINT)
        send(signal.SIGTERM)  # schedulers repeat it: it says nothing new
        send(signal.SIGINT)
    assert not isinstance(ended.value, StopRequestedError)
    assert capfd.readouterr().err.count("SIGINT: saving, then stopping") == 2


def test_a_signal_that_has_a_handler_or_is_ignored_stays_with_it(monkeypatch):
    seen = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, lambda *_: (seen.append("SIGTERM"), request_stop("the scheduler")))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            send(signal.SIGINT)
            assert stop_reason() is None
            send(signal.SIGTERM)
            assert seen == ["SIGTERM"] and stop_reason() == "the scheduler"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_that_lost_its_directory_ends_at_once_and_saves_nothing_more_in_it(tmp_path):
    with stoppable(), pytest.raises(KeyboardInterrupt) as ended, run_lock(tmp_path, interval=0.02), deferred():
        (tmp_path / "run.lock").write_text("another run's")
        while stop_reason() is None:
            signal.sigtimedwait([], 0.02)
    assert not isinstance(ended.value, StopRequestedError)


def test_nothing_is_asked_of_a_program_that_runs_stages_itself():
    request_stop("nobody")
    with deferred():
        assert stop_reason() is None
