"""Workers that die, hang or fail: the sample is named, everything else is as without them."""

import gc
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from harm import abort, crash, hang, kill, no_memory

from mutual3d.data.workers.pool import OPTIONS, WorkerError, WorkerPool


class Echo:
    """Reads a number as a tensor of it, or as what `harm` does instead, by number; joins as a list."""

    def __init__(self, harm=None):
        self.harm = harm or {}

    def read(self, key):
        if key in self.harm:
            self.harm[key]()
        return torch.full((3,), key)

    def join(self, items):
        return items

    def name(self, key):
        return f"{key}.mp4"

    def lost(self, key, cause):
        return cause


def leave():
    raise SystemExit(3)


DEATHS = {"SIGSEGV": crash, "SIGKILL": kill, "SIGABRT": abort, "status 3": lambda: os._exit(3), "status 3 ": leave}


def read(pool, tasks):
    return [[item.tolist() if isinstance(item, torch.Tensor) else item for item in task] for task in pool.map(tasks)]


TASKS = [[0, 1, 2], [3], [4, 5], [6, 7, 8], [9]]
WHOLE = [[[key] * 3 for key in task] for task in TASKS]


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(num_workers):
    pool = WorkerPool(Echo(), num_workers)
    assert read(pool, TASKS) == read(pool, TASKS) == WHOLE
    assert read(pool, []) == []


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("words", DEATHS)
def test_a_sample_that_kills_its_worker_is_named_and_the_others_are_read(num_workers, words):
    harmful = {key: DEATHS[words] for key in (0, 4, 5, 8, 9)}
    pool = WorkerPool(Echo(harmful), num_workers)
    for _ in range(2):
        for told, right in zip(read(pool, TASKS), WHOLE, strict=True):
            for item, expected in zip(told, right, strict=True):
                if expected[0] in harmful:
                    assert "decoder crashed" in item and words.strip() in item
                else:
                    assert item == expected


def test_a_crash_leaves_no_core_file_behind(tmp_path):
    resource = pytest.importorskip("resource")
    told = tmp_path / "limit"
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        read(WorkerPool(Echo({0: lambda: told.write_text(str(resource.getrlimit(resource.RLIMIT_CORE)[0]))}), 1), [[0]])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert told.read_text() == "0"


class _FreedElsewhere:
    """Garbage that ends every process but the one that made it, when it is freed: as a tensor of a GPU does."""

    def __init__(self):
        self.itself, self.owner = self, os.getpid()

    def __del__(self):
        if os.getpid() != self.owner:
            os.abort()


class _Collecting(Echo):
    def read(self, key):
        gc.collect()
        return super().read(key)


def test_garbage_of_the_main_process_is_not_freed_in_a_worker():
    gc.disable()
    try:
        _FreedElsewhere()
        assert read(WorkerPool(_Collecting(), 2), TASKS) == WHOLE
    finally:
        gc.enable()


def test_what_is_lost_is_not_read_again_by_any_pool_that_shares_it(tmp_path):
    def count_and_crash():
        with open(tmp_path / "reads", "a") as file:
            file.write("x")
        crash()

    lost = {}
    for _ in range(2):
        pool = WorkerPool(Echo({3: count_and_crash}), 1, lost=lost)
        assert read(pool, TASKS) == read(pool, TASKS)
    assert (tmp_path / "reads").read_text() == "xx" and list(lost) == ["3.mp4"]
    assert read(WorkerPool(Echo({3: crash}), 0, lost=lost), TASKS)[1] == [lost["3.mp4"]]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_killed_from_outside_changes_nothing(num_workers):
    pool = WorkerPool(Echo(), num_workers)
    results = pool.map(TASKS * 3)
    told = [next(results)]
    for worker in pool._workers:
        os.kill(worker.process.pid, signal.SIGKILL)
    told += results
    assert [[item.tolist() for item in task] for task in told] == WHOLE * 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_sample_that_never_comes_is_given_up(num_workers):
    pool = WorkerPool(Echo({0: hang, 7: hang}), num_workers, timeout=1)
    start = time.monotonic()
    told = read(pool, TASKS)
    assert 0.9 < time.monotonic() - start
    assert told[0][0] == told[3][1] == "it did not answer within 1 s (--timeout)"
    assert told[0][1:] == WHOLE[0][1:] and told[4] == WHOLE[4]


def test_the_time_that_nobody_waits_is_not_counted():
    pool = WorkerPool(Echo({key: lambda: time.sleep(0.2) for key in range(4)}), 1, timeout=1)
    told = []
    for result in pool.map(TASKS[:2]):
        told.append([item.tolist() for item in result])
        time.sleep(1.2)
    assert told == WHOLE[:2]


def test_workers_that_fail_at_no_sample_end_the_reading():
    class Fails(Echo):
        def join(self, items):
            self.harm["join"]()

    for harm, words in ((kill, "at no video in particular .*SIGKILL"), (lambda: [][1], "(?s)do not fit .*IndexError")):
        with pytest.raises(WorkerError, match=words):
            read(WorkerPool(Fails({"join": harm}), 1), TASKS)

    with pytest.raises(WorkerError, match="no memory for a batch of 3 .* lower --num-workers"):
        read(WorkerPool(Fails({"join": no_memory}), 2), TASKS)


def test_another_map_ends_the_one_before():
    pool = WorkerPool(Echo(), 2)
    first = pool.map(TASKS)
    next(first)
    assert read(pool, TASKS[1:]) == WHOLE[1:]
    assert list(first) == []


def test_workers_end_with_their_pool():
    pool = WorkerPool(Echo({1: hang}), 2)
    next(pool.map(TASKS[1:]))
    processes = [worker.process for worker in pool._workers]
    assert all(process.is_alive() for process in processes)
    del pool
    assert not any(process.is_alive() for process in processes)


def test_workers_end_with_a_killed_main_process():
    """Even those whose decoder hangs."""
    program = """
import os, sys, time
from mutual3d.data.workers.pool import WorkerPool
class Job:
    def read(self, key):
        print(os.getpid(), flush=True)
        time.sleep(1000 * (key == 1))
    def join(self, items): return items
    def name(self, key): return str(key)
for _ in WorkerPool(Job(), 2).map([[0], [1], [2]]): pass
"""
    main = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids = {int(main.stdout.readline()) for _ in range(2)}
    main.kill()
    main.wait()
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


class Things:
    """Sends what tasks name."""

    values = {
        "transposed": torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1),
        "strided": torch.arange(10)[::2],
        "expanded": torch.arange(3)[:, None].expand(3, 2),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "bool": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.empty((0,) * 6, dtype=torch.uint8),
        "large": torch.arange(2**20, dtype=torch.int32),
        "array": np.arange(3),
        "none": None,
    }

    def read(self, key):
        return self.values[key]

    def join(self, items):
        return {"items": items, "twice": items}

    def name(self, key):
        return key


def test_everything_arrives_as_it_was_sent():
    (result,) = WorkerPool(Things(), 1).map([list(Things.values)])
    for value, told, again in zip(Things.values.values(), result["items"], result["twice"], strict=True):
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, told) and value.dtype == told.dtype and torch.equal(told, again)
        else:
            assert np.array_equal(value, told)
    assert result["items"][0].stride() == Things.values["transposed"].stride()
    result["items"][0][0, 0, 0] = 5.0
    assert result["items"][0][0, 0, 0] == 5


def test_jobs_may_start_in_fresh_processes(monkeypatch):
    """As where the start method is not fork: Python 3.14, macOS."""
    import multiprocessing

    from mutual3d.data.workers import pool

    monkeypatch.setattr(pool, "multiprocessing", multiprocessing.get_context("spawn"))
    assert read(WorkerPool(Echo(), 1), TASKS) == WHOLE


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux has anonymous memory")
def test_a_full_dev_shm_changes_nothing(tmp_path):
    """In a mount of its own with 64 kB of shared memory, as little as any container has."""
    program = """
import torch
from mutual3d.data.workers.pool import WorkerPool
class Job:
    def read(self, key): return torch.full((2**22,), key, dtype=torch.uint8)
    def join(self, items): return torch.stack(items)
    def name(self, key): return str(key)
print([int(batch.sum()) for batch in WorkerPool(Job(), 2).map([[1, 2], [3]])])
"""
    words = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k shm /dev/shm && cat /dev/zero > /dev/shm/full 2>/dev/null; exec "$@"']
    try:
        subprocess.run([*words, "sh", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount of one's own here")
    done = subprocess.run([*words, "sh", sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == str([3 * 2**22, 3 * 2**22]), done.stderr


class _NoMemory:
    def read(self, key):
        return key

    def join(self, items):
        raise MemoryError

    def name(self, key):
        return str(key)

    def lost(self, key, cause):
        return None


def test_failures_name_the_settings_of_whoever_reads():
    pool = WorkerPool(_NoMemory(), 1, settings=OPTIONS)
    with pytest.raises(WorkerError, match="lower --num-workers; or give") as raised:
        next(pool.map([[1, 2]]))
    assert "a batch of 2 samples" in str(raised.value) and "DATA_LOADER" not in str(raised.value)
    pool.close()


def test_what_is_lost_is_never_read_also_where_its_item_is_none():
    assert next(WorkerPool(_Lost(), 0, lost={"1": "it crashed"}).map([[1, 2]])) == [None, 2]


class _Lost(_NoMemory):
    def read(self, key):
        assert key != 1
        return key

    def join(self, items):
        return items
