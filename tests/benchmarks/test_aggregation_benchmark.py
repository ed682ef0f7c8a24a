"""The benchmark of feature aggregation, in little."""

import csv

import aggregation
import common
import pytest
from streams import make_stream_model
from videos import moving_frames, write_video


def test_it_writes_a_row_for_each_layer_and_number_of_inputs(tmp_path, monkeypatch):
    for module in (aggregation, common):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    make_stream_model().save(tmp_path / "adaptive.pyth")
    write_video(tmp_path / "a.mp4", moving_frames(20))
    aggregation.main([str(tmp_path / "adaptive.pyth"), str(tmp_path / "a.mp4"), "--name", "tiny", "--widths", "3"])
    rows = list(csv.DictReader((tmp_path / "aggregation_tiny.csv").open()))
    layers = dict.fromkeys(row["layer"] for row in rows)
    assert len(layers) > 3
    for layer in layers:
        own = [row for row in rows if row["layer"] == layer]
        assert [int(row["k"]) for row in own] == sorted(int(row["k"]) for row in own) and own[-1]["k"] == own[-1]["n"]
        assert float(own[-1]["residual"]) == pytest.approx(0, abs=1e-4) and all(0 <= float(row["bounded"]) <= 1 for row in own)
    assert (tmp_path / "aggregation_tiny.png").read_bytes()[1:4] == b"PNG"
