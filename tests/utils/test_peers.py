"""Processes of which one is slow, fails or is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch.distributed as dist

from mutual3d.utils import distributed
from mutual3d.utils.peers import Peers, ProcessLostError

SCRIPT = """
import os, signal, sys, time
import torch
from mutual3d.utils import distributed
from mutual3d.utils.command_line import run_command

def main():
    rank, end, slow = int(os.environ["RANK"]), sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu"), interval=0.1, patience=1.0):
        if rank == slow:
            time.sleep(2.5)   # longer than the patience: it lives, and is waited for
        assert distributed.gather(rank) == [0, 1]
        assert distributed.from_main(lambda: "told") == "told"
        distributed.barrier()
        print("together", flush=True)
        if rank == slow and end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier("the main process to measure latency")

run_command(main)
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_two(end, slow):
    """[(status, standard error)] of both ranks, and the seconds that they took."""
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, end, str(slow)], env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=120) for process in both]
    assert all(out == "together\n" for out, _ in told), told
    return [(process.returncode, err, process.pid) for process, (_, err) in zip(both, told)], time.monotonic() - start


@pytest.mark.parametrize("slow", [0, 1])
def test_a_killed_process_ends_the_others_within_the_patience_and_says_for_what_they_waited(slow):
    results, seconds = run_two("killed", slow)
    (killed, _, pid), (status, words, _) = results[slow], results[1 - slow]
    assert killed == -signal.SIGKILL and status == 1 and seconds < 60
    if slow == 1:
        assert f"waiting for the main process to measure latency: process {pid} on" in words and "(rank 1) has shown no life for 1 s" in words
    else:  # it held the store of all
        assert "waiting for the main process to measure latency: the process that joins the others no longer answers" in words
    assert "start the same command again: it goes on from what is saved" in words and "Traceback" not in words


class Pair:
    """Two processes' Peers in one process."""

    def __init__(self, patience=0.5):
        store = dist.HashStore()
        self.one, self.other = (Peers(store, rank, 2, interval=0.05, patience=patience) for rank in (0, 1))


def test_a_slow_process_that_lives_is_waited_for_and_said_in_the_log(monkeypatch, caplog):
    caplog.set_level("INFO", "mutual3d")
    pair = Pair()
    monkeypatch.setattr("mutual3d.utils.peers.SECONDS_BETWEEN_WORDS", 0.5)
    late = threading.Timer(1.5, pair.other.meet, ["the table"])
    late.start()
    pair.one.meet("the table")
    late.join()
    assert f"waiting for process {os.getpid()} on" in caplog.text and "(rank 1) for 1 s: the table" in caplog.text


def test_an_error_of_one_ends_the_others_at_once_with_its_words():
    pair = Pair(patience=60)
    pair.other.leave(ValueError("a mistake"))
    with pytest.raises(ProcessLostError, match=r"waiting for the table: .* \(rank 1\) ended with an error \(ValueError: a mistake\)"):
        pair.one.meet("the table")


def test_all_that_live_end_together():
    pair = Pair()
    other = threading.Thread(target=pair.other.leave)
    other.start()
    pair.one.leave()
    other.join()


@pytest.mark.parametrize("error, is_lost", [
    (RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"), True),
    (dist.DistBackendError("NCCL error in ..."), True),
    (dist.DistStoreError("timed out after 100 s"), True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    (RuntimeError("DataLoader timed out after 60 seconds"), False),
    (ValueError("gloo"), False),
])  # fmt: skip
def test_an_exchange_that_breaks_off_is_told_from_other_errors(error, is_lost):
    assert distributed._broke_off(error) is is_lost
