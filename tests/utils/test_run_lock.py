import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mutual3d.utils import run_lock as module
from mutual3d.utils.processes import this_process
from mutual3d.utils.run_lock import DirectoryInUseError, run_lock

HOLDING = """
import sys, time
from mutual3d.utils.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def left_lock(directory, touched=0.0, **changes):
    """A lock of a process that this one cannot see, touched so many seconds ago."""
    owner = dataclasses.replace(this_process(), **{"place": "elsewhere", "host": "node7", **changes})
    content = json.dumps({**dataclasses.asdict(owner), "since": "2026-01-01T00:00:00+00:00", "token": "x"})
    (directory / "run.lock").write_text(content)
    os.utime(directory / "run.lock", (time.time() - touched,) * 2)


def test_a_second_run_is_refused_and_told_whose_the_directory_is(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = f"'{tmp_path}' is in use by process {holder.pid} on {this_process().host} since 2.*choose another OUTPUT_DIR"
    with pytest.raises(DirectoryInUseError, match=message), run_lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with run_lock(tmp_path) as said:
        assert f"by process {holder.pid} on" in said and "which is gone: it is taken over" in said
    assert os.listdir(tmp_path) == []


def test_it_is_released_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path) as said:
        assert said is None and os.listdir(tmp_path) == ["run.lock"]
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_another_machines_run_that_lives_is_seen_by_its_touches(tmp_path):
    left_lock(tmp_path)
    ended = threading.Event()

    def touch():
        while not ended.wait(0.05):
            os.utime(tmp_path / "run.lock")

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(DirectoryInUseError, match="in use by process .* on node7 since 2026-01-01"), run_lock(tmp_path, patience=5):
            pass
    finally:
        ended.set()
        thread.join()
    assert os.listdir(tmp_path) == ["run.lock"]


@pytest.mark.parametrize("touched, patience", [(100, 90), (0, 0.3)])
def test_another_machines_run_that_is_gone_is_taken_over(tmp_path, touched, patience):
    left_lock(tmp_path, touched)
    start = time.monotonic()
    with run_lock(tmp_path, patience=patience) as said:
        assert "on node7 since 2026-01-01T00:00:00+00:00, which is gone" in said
    assert time.monotonic() - start < 5 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", "hello", "[1]", '{"pid": 3}', "[" * 50_000])
def test_a_lock_that_names_nobody_is_judged_by_its_touches(tmp_path, content):
    (tmp_path / "run.lock").write_text(content)
    with run_lock(tmp_path, patience=0.2) as said:
        assert "by a process that the lock does not name, which is gone" in said


def test_a_number_that_another_process_has_by_now_is_no_owner(tmp_path):
    left_lock(tmp_path, place=this_process().place, started=this_process().started - 5)
    with run_lock(tmp_path) as said:
        assert "taken over" in said


def test_it_is_touched_while_it_is_held_and_made_again_when_somebody_removes_it(tmp_path):
    with run_lock(tmp_path, interval=0.02):
        os.utime(tmp_path / "run.lock", (0, 0))
        time.sleep(0.2)
        assert (tmp_path / "run.lock").stat().st_mtime > 1
        (tmp_path / "run.lock").unlink()
        time.sleep(0.2)
        assert os.listdir(tmp_path) == ["run.lock"]


def test_a_run_whose_lock_was_taken_stops_itself(tmp_path):
    with pytest.raises(KeyboardInterrupt), run_lock(tmp_path, interval=0.02):
        left_lock(tmp_path)
        time.sleep(5)
    assert "node7" in (tmp_path / "run.lock").read_text(), "the other one's lock stays"


@pytest.fixture
def ignored_interrupts():
    """As in the background job of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_in_a_scripts_background_stops_itself_too(tmp_path, ignored_interrupts):
    with pytest.raises(KeyboardInterrupt), run_lock(tmp_path, interval=0.02):
        signal.raise_signal(signal.SIGINT)  # Ctrl-C is not for it
        left_lock(tmp_path)
        time.sleep(5)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_one_of_many_that_find_a_stale_lock_gets_it(tmp_path):
    left_lock(tmp_path, touched=1000)
    holding, most, lock, ready = [], [0], threading.Lock(), threading.Barrier(6)

    def enter():
        ready.wait()
        try:
            with run_lock(tmp_path):
                with lock:
                    holding.append(1)
                    most[0] = max(most[0], len(holding))
                time.sleep(0.5)
                with lock:
                    holding.pop()
        except DirectoryInUseError:
            pass

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_file_system_without_links_has_locks_too(tmp_path, monkeypatch):
    def no_links(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", no_links)
    with run_lock(tmp_path):
        with pytest.raises(DirectoryInUseError), run_lock(tmp_path):
            pass
    assert os.listdir(tmp_path) == []
