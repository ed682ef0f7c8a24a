"""Keys of latencies, the machine's own words, and timing that says where it is noisy."""

import itertools

import pytest
import torch

from mutual3d.cost.latency import Repeating, Timing, time_in_turns
from mutual3d.cost.latency_key import EAGER, LatencyKey, is_here
from mutual3d.cost.machine import cpu_features, cpu_name, describe_device, word_of

CPU = torch.device("cpu")


class Clock:
    """A clock that only what is timed moves on. log: who ran, in order."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def run(self, name, milliseconds):
        """A function for `time_in_turns` whose calls take these milliseconds, one after the other."""
        left = itertools.chain(milliseconds, itertools.repeat(milliseconds[-1]))

        def call():
            self.log.append(name)
            self.now += next(left) / 1000

        return lambda: call


def test_a_key_says_machine_runtime_numbers_batch_and_threads_and_reads_itself():
    key = LatencyKey("cpu", "epyc_7b13", "openvino", "fp32", 1, 2)
    assert str(key) == "cpu.epyc_7b13-openvino-fp32-b1-t2"
    for text in (str(key), "cuda.h100_80gb_hbm3-torch-bf16-b8", "cpu-fp32-b1-t2", "cuda:1-fp32-b1", "cpu-openvino-fp32-b1-t2"):
        assert str(LatencyKey.parse(text)) == text
    for text in ("", "cpu", "cpu-fp32", "cpu.-fp32-b1", "cpu.x-torch-fp32-b0-t2", "cpu.a b-torch-fp32-b1"):
        with pytest.raises(ValueError, match="no key of a latency: such are cpu.epyc_7b13"):
            LatencyKey.parse(text)


def test_only_this_machines_keys_are_here():
    key = LatencyKey.here(CPU, "torch", torch.float64, batch=4, threads=3)
    assert (key.runtime, key.dtype, key.batch, key.threads) == ("torch", "fp64", 4, 3) and is_here(str(key))
    assert LatencyKey.here(CPU).runtime == EAGER and LatencyKey.here(CPU).threads == torch.get_num_threads()
    for other in ("cpu-fp32-b1-t2", "cpu.elsewhere_1-torch-fp32-b1-t2", "cuda.no_such_gpu-torch-fp32-b1", "my laptop"):
        assert not is_here(other)


@pytest.mark.parametrize(
    "name, word",
    [
        ("AMD EPYC 7B13 64-Core Processor", "epyc_7b13"), ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "xeon_platinum_8481c"),
        ("13th Gen Intel(R) Core(TM) i7-13700K", "core_i7_13700k"), ("AMD Ryzen 7 5700G with Radeon Graphics", "ryzen_7_5700g"),
        ("Apple M1 Pro", "apple_m1_pro"), ("NVIDIA H100 80GB HBM3", "h100_80gb_hbm3"), ("", "f6m85"),
        # Names that many processors share.
        ("AMD EPYC", "epyc_f6m85"), ("Intel(R) Xeon(R) CPU @ 2.20GHz", "xeon_f6m85"),
    ],
)  # fmt: skip
def test_a_processor_is_a_word(name, word):
    assert word_of(name, {"cpu family": "6", "model": "85"}) == word


def test_a_machine_describes_itself():
    about = describe_device(CPU)
    assert about["cpu"] == cpu_name() and about["features"].split() == list(cpu_features()) and about["torch"] == torch.__version__


def test_a_timing_has_percentiles_and_the_spread_of_its_middle_half():
    timing = Timing.of([float(ms) for ms in range(1, 102)])
    assert (timing.p50, timing.p90, timing.p99, timing.repeats) == (51.0, 91.0, 100.0, 101)
    assert timing.spread == pytest.approx(50 / 51) and timing.is_noisy
    assert not Timing.of([10, 10, 10, 10, 300]).is_noisy  # one late call is what p99 is for


def test_functions_are_timed_in_turns_and_a_group_runs_untimed_first():
    clock = Clock()
    groups = [{"a": clock.run("a", [1.0]), "b": clock.run("b", [2.0])}, {"c": clock.run("c", [4.0])}]
    found = time_in_turns(groups, CPU, Repeating(repeats=3, warmup=1, clock=clock))
    assert clock.log == list("aabcc") * 4
    assert [found[name].p50 for name in "abc"] == pytest.approx([1, 2, 4]) and {t.repeats for t in found.values()} == {3}


def test_what_is_noisy_is_timed_again_and_alone_and_the_quietest_counts():
    clock = Clock()
    restless = [1, 9] * 2 + [2, 2, 2, 2]  # the second attempt is quiet
    found = time_in_turns([{"a": clock.run("a", [3.0]), "b": clock.run("b", restless)}], CPU, Repeating(4, 0, attempts=3, clock=clock))
    assert clock.log == list("ab") * 4 + list("bbbb")
    assert found["b"].p50 == pytest.approx(2) and not found["b"].is_noisy
    clock = Clock()
    found = time_in_turns([{"b": clock.run("b", [1, 9] * 20)}], CPU, Repeating(4, 0, attempts=3, clock=clock))
    assert len(clock.log) == 12 and found["b"].is_noisy


def test_seconds_bound_an_attempt_but_three_rounds_are_timed():
    clock = Clock()
    found = time_in_turns([{"a": clock.run("a", [1000.0])}], CPU, Repeating(50, 1, seconds=2.5, attempts=1, clock=clock))
    assert found["a"].repeats == 3
    found = time_in_turns([{"a": Clock().run("a", [1.0])}], CPU, Repeating(7, 1, seconds=60, attempts=1))
    assert found["a"].repeats == 7
