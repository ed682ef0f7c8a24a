"""Processes of which one is slow, fails or is killed."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist

from mutual3d.utils import distributed
from mutual3d.utils.command_line import run_command
from mutual3d.utils.peers import Peers, ProcessLostError


def work(end, slow):
    """What each of two processes does: meet, and then end as `end` says, where it is the one that is `slow`."""
    with distributed.process_group(torch.device("cpu"), interval=0.1, patience=0.6):
        rank = distributed.rank()
        if rank == slow:
            time.sleep(1.5)  # longer than the patience: it lives, and is waited for
        assert distributed.gather(rank) == [0, 1]
        assert distributed.from_main(lambda: "told") == "told"
        distributed.barrier()
        print("together", file=sys.stderr)
        if rank == slow and end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier("the main process to measure latency")


def run_alone(path, environment, end, slow):
    """In a process of its own: what the command line would do, with standard error in a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    with open(path, "w", buffering=1) as sys.stderr:
        run_command(lambda: work(end, slow))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_two(tmp_path, end, slow, **environment):
    """(status, standard error, number) of each of two processes, and the seconds that they took."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **environment}
    start, paths = time.monotonic(), [tmp_path / f"{end}{rank}" for rank in range(2)]
    # Forked, because torch takes seconds to import.
    both = [
        multiprocessing.get_context("fork").Process(
            target=run_alone, args=(path, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, end, slow)
        )
        for rank, path in enumerate(paths)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    told = [path.read_text() for path in paths]
    assert all("together\n" in words for words in told), told
    return [(process.exitcode, words, process.pid) for process, words in zip(both, told)], time.monotonic() - start


GO_ON = "start the same command again: it goes on from what is saved"


def test_the_main_process_killed_ends_the_others_with_a_sentence(tmp_path):
    """It held the store of all: no sign of life can be asked for any more."""
    (killed, (status, words, _)), seconds = run_two(tmp_path, "killed", 0)
    assert killed[0] == -signal.SIGKILL and status == 1 and seconds < 60
    assert "waiting for the main process to measure latency: the process that joins the others no longer answers" in words
    assert GO_ON in words and "Traceback" not in words


def test_a_killed_process_ends_the_others_within_the_patience_and_those_that_torchrun_starts_again_are_not_misled(tmp_path):
    """torchrun's store outlives its workers: what those of a killed attempt left is in it when the next one starts."""
    port = free_port()
    agents = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    shared = {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    ((status, words, _), (killed, _, pid)), seconds = run_two(tmp_path, "killed", 1, **shared, TORCHELASTIC_RESTART_COUNT="0")
    assert status == 1 and killed == -signal.SIGKILL and seconds < 60
    assert f"waiting for the main process to measure latency: process {pid} on" in words
    assert "(rank 1) has shown no life for 0.6 s" in words and GO_ON in words and "Traceback" not in words
    results, _ = run_two(tmp_path, "whole", 1, **shared, TORCHELASTIC_RESTART_COUNT="1")
    assert [status for status, *_ in results] == [0, 0], results
    del agents


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
