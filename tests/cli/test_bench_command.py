"""mutual3d bench, and mutual3d select by time, on a tiny network: whole files, several runtimes, nothing of another machine."""

import json
import logging
import re

import pytest
import torch
from networks import calibrate_at_random
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

import mutual3d
from mutual3d import cli
from mutual3d.cli import bench
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.table.query_table import QueryTable, Row

CPU = torch.device("cpu")
ELSEWHERE = "cpu.elsewhere_1-openvino-fp32-b1-t1"
SHORT = ["--repeats", "1", "--seconds", "1"]


@pytest.fixture
def run(tmp_path):
    """A run's directory: adaptive.pyth and query_table.json with a column of another machine. Another's accuracy is never on the front."""
    accuracies = {SPACE.smallest: 50.0, SPACE.largest: 70.0, SPACE.corners()[1]: 40.0}
    rows = [Row(c, (8,), 0.1 + i, 100, {"top1_acc": a}, {ELSEWHERE: 0.01}) for i, (c, a) in enumerate(sorted(accuracies.items()))]
    provenance = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24, "fingerprint": "abc"}
    table, network = QueryTable(rows, provenance), calibrate_at_random(tiny_network(), SPACE.corners())
    cut = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    AdaptiveModel(network, preprocessing=cut, table=table).save(tmp_path / "adaptive.pyth")
    table.save_json(tmp_path / "query_table.json")
    return tmp_path


def test_a_front_is_measured_and_written_beside_other_devices(run, capsys):
    clip = write_video(run / "clip.mp4", moving_frames(40))
    bundle, key = str(run / "adaptive.pyth"), str(LatencyKey.here(CPU, "torch"))
    words = [bundle, "--runtime", "eager", "torch", "--batch", "1", "2", "--video", str(clip), "--json", *SHORT]
    assert cli.main(["bench", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [column["key"].split("-")[1] for column in told["columns"]] == ["eager", "eager", "torch", "torch"]
    table = mutual3d.load(bundle).table
    assert told["written"] == [bundle, str(run / "query_table.json"), str(run / "query_table.csv")]
    assert QueryTable.load(run / "query_table.json") == table and ELSEWHERE in table.devices and len(table.devices) == 5
    front = [row.configuration for row in table.pareto_front()]
    assert [row.configuration for row in table.measured("latency_ms", key)] == sorted(front) and len(front) == 2
    assert table.provenance["latency"][key]["cpu"] and set(table.keys("file_ms")) == {key, key.replace("torch", "eager")}
    model = mutual3d.load(bundle, runtime="torch")
    assert model.set_budget(latency_ms=1e6, source="file").configuration == SPACE.largest
    # The page of the run shows other times from now on.
    (run / "report.html").write_text("earlier")
    assert cli.main(["bench", bundle, "--runtime", "torch", *SHORT]) == 0
    assert f"`mutual3d report {run}` writes it anew" in capsys.readouterr().out.splitlines()[-1]

    # What was measured here is what select takes; the fastest where no runtime is named.
    assert cli.main(["select", bundle, "--latency-ms", "1e6"]) == 0
    assert cli.main(["select", str(run / "query_table.json"), "--latency-ms", "1e6", "--runtime", "torch"]) == 0
    assert cli.main(["select", bundle, "--latency-ms", "0.02", "--runtime", "torch"]) == 2
    assert f"no configuration fits 0.02 ms on {key}" in capsys.readouterr().err
    assert cli.main(["select", bundle, "--list", "--cost", "latency_ms", "--runtime", "torch"]) == 0


def test_select_measures_a_bundle_where_nothing_is_known_and_refuses_a_table(run, capsys, caplog):
    with caplog.at_level(logging.WARNING, "mutual3d"):
        assert cli.main(["select", str(run / "adaptive.pyth"), "--latency-ms", "1e6", "--runtime", "torch"]) == 0
    key = LatencyKey.here(CPU, "torch")
    assert f"no latency was measured on this machine as {key}; the table has {ELSEWHERE}: measuring now (configurations: 2)" in caplog.text
    assert f"ms on {key}" in capsys.readouterr().out
    assert cli.main(["select", str(run / "query_table.json"), "--latency-ms", "5"]) == 1
    assert re.search(f"no latency of this machine .* it has {ELSEWHERE}, to be named by --device", capsys.readouterr().err)
    assert mutual3d.load(run / "adaptive.pyth").table.devices == [ELSEWHERE]  # select writes nothing


def test_a_bench_that_cannot_write_leaves_what_was_there(run, capsys, monkeypatch):
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def full(file, value):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda value, file: full(file, value))
        with pytest.raises(OSError, match="adaptive.pyth.*free space there"):
            bench.main([str(run / "adaptive.pyth"), "--runtime", "eager", *SHORT])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_outputs_of_ones_own_leave_the_model_as_it_is(run, capsys):
    bundle = run / "adaptive.pyth"
    before = bundle.read_bytes()
    words = [str(bundle), "--runtime", "eager", *SHORT]
    for name in ("table.json", "copy.pyth", "times.csv"):
        assert bench.main([*words, "--all", "--output", str(run / name)]) == 0
    assert bundle.read_bytes() == before
    key = str(LatencyKey.here(CPU))
    assert len(QueryTable.load(run / "table.json").measured("latency_ms", key)) == 3
    assert mutual3d.load(run / "copy.pyth").table.devices == sorted([ELSEWHERE, key])
    lines = (run / "times.csv").read_text().splitlines()
    assert lines[0] == "key,configuration,p50_ms,p90_ms,p99_ms,spread,repeats" and len(lines) == 4 and lines[1].startswith(f"{key},")
    assert "written: " in capsys.readouterr().out
    # One that the table does not have is measured and printed.
    other = next(c for c in SPACE.corners() if str(c) not in {str(row.configuration) for row in mutual3d.load(bundle).table.rows})
    assert bench.main([*words, "--config", str(other)]) == 0
    assert "nothing is written" in capsys.readouterr().out and bundle.read_bytes() == before


def test_a_runtime_that_is_not_installed_is_told_and_left_out(run, monkeypatch, caplog):
    model = mutual3d.load(run / "adaptive.pyth")
    monkeypatch.setattr(RUNTIMES["openvino"], "packages", ("no_such_package",))
    with caplog.at_level(logging.WARNING, "mutual3d"):
        assert bench.chosen_runtimes(["eager", "openvino"], model) == [None]
    assert "the runtime openvino is not installed, and not measured: pip install -e .[export]" in caplog.text
    with pytest.raises(ImportError, match="openvino needs the package 'no_such_package'"):
        bench.chosen_runtimes(["openvino"], model)
    usual = bench.chosen_runtimes(None, model)
    assert {None, "torch"} <= set(usual)
    assert not {"openvino", "torch_compile", "openvino_int8"} & set(usual)
    with pytest.raises(ValueError, match="chooses its ranges by clips: give --video"):
        bench.clips_of(model, None)
