"""The fuzzing command: that its judge sees what it is there for, and that a few dozen mutations bring nothing of it."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from fuzzing.children import Ended, run_in_children
from fuzzing.judge import FAILURES, Originals, PlainDecode, Reading, judge
from fuzzing.mutations import MUTATIONS, RECIPES, write_mutation, write_videos
from tiny import ROOT


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return {path.stem: path for path in write_videos(tmp_path_factory.mktemp("videos"))}


def pictures(path):
    """The right reading of a file."""
    frames = PlainDecode(path).frames
    return [(k, None, frame.to_ndarray(format="rgb24")) for k, frame in enumerate(frames)]


def outcome(reading, path, source, backend="pyav", documented=""):
    return judge(reading, PlainDecode(path), Originals(source), backend, documented).outcome


@pytest.mark.parametrize("name", RECIPES)
def test_undamaged_videos_are_decoded(videos, name):
    path = videos[name]
    frames = pictures(path)
    assert len(frames) == 48
    assert outcome(Reading(48, frames), path, path) == "decoded"


def test_another_frame_is_wrong_and_a_time_can_make_it_right(videos):
    path = videos["h264_b_mp4"]
    frames = pictures(path)
    shifted = [(k, None, frames[k + 1][2]) for k in range(4)]
    assert outcome(Reading(48, shifted), path, path) == "wrong in silence"
    timed = [(k, (k + 1) / 30, frames[k + 1][2]) for k in range(4)]
    assert outcome(Reading(48, timed), path, path) == "decoded"


def test_a_changed_pixel_is_wrong(videos):
    path = videos["mpeg4_avi"]
    index, second, picture = pictures(path)[20]
    picture = picture.copy()
    picture[10, 10] ^= 32
    assert outcome(Reading(48, [(index, second, picture)]), path, path) == "wrong in silence"
    assert outcome(Reading(48, [(index, second, picture)]), path, path, "decord") == "wrong in silence"


def test_fewer_frames_than_announced_are_short(videos, tmp_path):
    source = videos["mjpeg_avi"]
    cut = tmp_path / "cut.avi"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    frames = pictures(cut)
    assert len(frames) < 38
    assert outcome(Reading(len(frames), frames), cut, source) == "short in silence"


def test_a_damaged_picture_that_the_decoder_flags_is_wrong(videos, tmp_path):
    source = videos["h264_mkv"]
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(byte ^ 0xFF for byte in data[middle : middle + 40])
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(data)
    flagged = [k for k, frame in enumerate(PlainDecode(damaged).frames) if frame.is_corrupt]
    frames = pictures(damaged)
    assert flagged
    assert outcome(Reading(48, [frames[flagged[0]]]), damaged, source) == "wrong in silence"


def test_frames_of_what_holds_none_are_wrong(tmp_path, videos):
    text = tmp_path / "text.mp4"
    text.write_text("no video\n" * 100)
    reading = Reading(1, [(0, None, np.zeros((48, 64, 3), np.uint8))])
    assert outcome(reading, text, videos["h264_mp4"]) == "wrong in silence"


def test_decords_limits_count_apart_only_where_they_are_documented(videos):
    path = videos["h264_b_ts"]
    frames = pictures(path)
    shifted = Reading(48, [(k, None, frames[k + 1][2]) for k in range(4)])
    assert outcome(shifted, path, path, "decord", "It errs in MPEG-TS.") == "decord, documented"
    assert outcome(shifted, path, path, "decord", "It is exact.") == "wrong in silence"
    assert outcome(shifted, path, path, "pyav", "It errs in MPEG-TS.") == "wrong in silence"


def test_mutations_are_the_same_for_a_seed_and_of_every_kind(videos, tmp_path):
    sources = list(videos.values())
    made = [write_mutation(sources, number, 7, tmp_path) for number in range(len(MUTATIONS))]
    assert {mutation.kind for mutation in made} == set(MUTATIONS)
    again = write_mutation(sources, 3, 7, tmp_path / "..")
    assert again.path.read_bytes() == made[3].path.read_bytes()
    changed = [m for m in made if m.kind != "renamed" and m.path.read_bytes() == m.source.read_bytes()]
    assert not changed


def _misbehave(task):
    if task == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "hang":
        time.sleep(60)
    if task == "memory":
        return len(bytearray(2**30))
    return task


def test_children_that_crash_or_hang_are_named_and_replaced():
    tasks = ["a", "crash", "hang", "memory", "b"]
    answers = dict(run_in_children(_misbehave, iter(tasks), processes=1, seconds=1.0, memory=2**28))
    assert answers["a"] == "a" and answers["b"] == "b"
    assert answers["crash"] == Ended("crashed", "SIGKILL") and answers["hang"].outcome == "hung"
    assert answers["memory"].outcome == "crashed" and "MemoryError" in answers["memory"].detail


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """{(backend, outcome): accesses} of thirty-six mutations, by the command."""
    pytest.importorskip("decord")
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.csv"
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz_videos.py"), "--count", "36", "--csv", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert path.is_file(), done.stdout + done.stderr
    found = Counter()
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            found[row["backend"], row["outcome"]] += int(row["count"])
    assert (done.returncode == 0) == (not any(found[key] for key in found if key[1] in FAILURES))
    return found


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_mutations_crash_and_hang_nothing(counts, backend):
    assert sum(count for (name, _), count in counts.items() if name == backend) == 36 * 2
    assert counts[backend, "decoded"] and counts[backend, "named as bad"]
    assert not counts[backend, "crashed"] and not counts[backend, "hung"]


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_mutations_are_neither_short_nor_wrong_in_silence(counts, backend):
    assert not counts[backend, "short in silence"] and not counts[backend, "wrong in silence"]
