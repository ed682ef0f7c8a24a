"""The comparison of policies, on the fewest steps: csv and plot, and what is kept is not trained again."""

import csv
import math

import control
import pytest

QUICK = [
    "CONTROL.NUM_GAMES", "4", "CONTROL.STEPS", "16", "CONTROL.ROLLOUTS", "2", "CONTROL.PASSES", "1", "CONTROL.EPISODES", "4",
    "CONTROL.MAX_STEPS", "30", "TRAIN.BATCH_SIZE", "32", "TEST.BATCH_SIZE", "4", "GRID.RUNTIMES", "[]",
]  # fmt: skip


def test_one_policy_beside_others_alone(tmp_path, monkeypatch):
    pytest.importorskip("minatar", reason="pip install -e .[rl]")
    words = ["--output", str(tmp_path / "out"), "--results", str(tmp_path), "--epochs", "1", "--widths", "0.5", "1.0", "--opts", *QUICK]
    control.main(words)
    rows = list(csv.DictReader((tmp_path / "control_demo.csv").open()))
    assert [(row["network"], row["width"]) for row in rows] == [
        ("US-Net", "0.25"), ("US-Net", "0.5"), ("US-Net", "0.75"), ("US-Net", "1"), ("alone", "0.5"), ("alone", "1"),
    ]  # fmt: skip
    by_width = {(row["network"], row["width"]): (row["gflops"], row["parameters"]) for row in rows}
    for width in ("0.5", "1"):
        assert by_width["alone", width] == by_width["US-Net", width]
    assert all(math.isfinite(float(row["mean_return"])) and float(row["steps_per_second"]) > 0 and row["steps"] == "128" for row in rows)
    assert (tmp_path / "control_demo.png").stat().st_size > 10_000

    monkeypatch.setattr(control, "run_net", lambda words: pytest.fail("what is finished is trained again"))
    control.main(words)
