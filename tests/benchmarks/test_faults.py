"""The command that injects faults: that it sees a fault that is not survived, and a few quick ones that are."""

import csv
import os
import subprocess
import sys

import pytest
import torch
from injecting.runs import NotSurvived, Outcome, Workshop, equal
from tiny import ROOT

KINDS = ["signals", "replacements", "damage", "replaced data", "settings", "two runs"]
QUICK = [
    "decoding ends in SIGSEGV, in a worker",
    "SIGKILL before the replacement of checkpoint_epoch_00002.pyth",
    "checkpoint_epoch_00002.pyth, a bit flipped (1), of a finished run",
    "statistics.pyth, truncated, of a finished run",
    "other videos in val, in the grid",
    "SOLVER.WEIGHT_DECAY 0.01",
    "a second run while one trains",
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The command's own csv of the quick faults, from one process that has imported everything once."""
    path = tmp_path_factory.mktemp("faults") / "faults.csv"
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--csv", str(path), "--processes", "1"]
    command += ["--kinds", *KINDS, "--only", *QUICK]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert path.is_file(), done.stdout + done.stderr
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("fault", QUICK)
def test_a_fault_is_survived(rows, fault):
    found = [row for row in rows if fault in row["fault"]]
    assert found and all(row["survived"] == "True" for row in found), found


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setattr("injecting.runs.make_demo", lambda directory, **options: directory)
    return Workshop(tmp_path)


@pytest.mark.parametrize(
    "outcome, words",
    [
        (Outcome(None, ""), "hangs"),
        (Outcome(0, "done"), "should not"),
        (Outcome(-11, ""), "SIGSEGV"),
        (Outcome(1, "Traceback (most recent call last)\nKeyError: 1"), "a traceback"),
        (Outcome(1, "error: something else"), "names none"),
    ],
)
def test_only_a_sentence_that_names_the_file_is_a_refusal(shop, outcome, words):
    with pytest.raises(NotSurvived, match=words):
        shop.refused(outcome, "statistics.pyth")
    assert shop.refused(Outcome(1, "error: 'statistics.pyth' is damaged"), "statistics.pyth") == "refused"


def test_a_run_without_its_results_is_not_survived(shop, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(NotSurvived, match="different: weights"):
        shop.finished(Outcome(0, ""), tmp_path / "a", tmp_path / "b")


def test_results_are_compared_to_the_bit():
    one = {"a": [torch.zeros(2), 1.0]}
    assert equal(one, {"a": [torch.zeros(2), 1.0]})
    assert not equal(one, {"a": [torch.tensor([0.0, 1e-30]), 1.0]})
    assert not equal(one, {"a": [torch.zeros(2, dtype=torch.float64), 1.0]})
    assert not equal(one, {"b": [torch.zeros(2), 1.0]})
