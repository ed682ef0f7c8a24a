"""The whole job on a tiny set, through the command line that a user types."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny import ROOT, overrides, same, write_set

import mutual3d
from mutual3d import cli
from mutual3d.cli import predict
from mutual3d.cli import run as run_net
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.evaluation import PartialResult
from mutual3d.pipeline import calibration, grid, load_config
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import load_tensors, read_json, save_tensors, write_json
from mutual3d.utils.logging import read_json_stats
from mutual3d.utils.processes import this_process
from mutual3d.utils.run_lock import DirectoryInUseError, run_lock


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("RNG_SEED: 3\n")
    return path


@pytest.fixture(scope="module")
def finished(data, config, tmp_path_factory):
    """The output directory of a whole run."""
    output = tmp_path_factory.mktemp("run") / "out"
    run_net.main(["--cfg", str(config), *overrides(data, output)])
    return output


def command(config, *words):
    return [sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(config), *map(str, words)]


def test_a_run_writes_everything_that_it_promises(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"adaptive.pyth", "query_table.json", "query_table.csv", "accuracy_vs_gflops.png", "report.html"} <= names
    assert {"test_results.json", "statistics.pyth", "stdout.log", "checkpoints"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert len(list((finished / "checkpoints").iterdir())) == 2


def test_the_log_begins_with_command_and_settings_which_are_saved_to_repeat_the_run(finished, config, data):
    first, second, *rest = (finished / "stdout.log").read_text().splitlines()
    assert f"command: mutual3d run --cfg {config} DATA.PATH_TO_DATA_DIR {data} " in first and second.endswith("settings:")
    saved = finished / "config.yaml"
    settings = load_config(config, overrides(data, finished)).dump()
    assert load_config(saved).dump() == settings and "\n".join(rest).startswith(settings.strip())


def test_json_stats_have_pyslowfasts_schema(finished):
    stats = read_json_stats(finished / "stdout.log")
    kinds = [entry.get("_type", entry.get("split")) for entry in stats]
    assert kinds == ["train_epoch", "train_epoch", "val_epoch", "test_final"]
    assert {"epoch", "dt", "dt_data", "dt_net", "eta", "lr", "loss", "top1_err", "top5_err", "gpu_mem"} <= stats[0].keys()
    assert {"epoch", "time_diff", "top1_err", "top5_err"} <= stats[2].keys()
    assert {"top1_acc", "top5_acc"} <= stats[3].keys()


def test_the_table_says_under_which_conditions_it_was_measured(finished):
    table = QueryTable.load(finished / "query_table.json")
    assert table.provenance["split"] == "val" and table.provenance["crop"] == 24 and table.provenance["num_views"] == 1
    assert table.provenance["num_videos"] == 12 and table.provenance["checkpoint"] == "checkpoint_epoch_00002.pyth"
    with open(finished / "query_table.csv", newline="") as file:
        assert len(list(csv.reader(file))) == len(table.all_rows) + 1
    assert json.loads((finished / "test_results.json").read_text())["views"] == "2x3"


def test_the_deployed_file_runs_at_every_measured_configuration(finished):
    model = mutual3d.load(finished / "adaptive.pyth")
    assert model.class_names == ["right", "down"]
    for row in model.table.rows:
        assert model.activate(row.configuration)(torch.zeros(1, 3, 4, 24, 24, dtype=torch.uint8)).shape == (1, 2)


def test_predict_prints_classes_configuration_cost_and_time(finished, data, capsys):
    video = str(data / "0.mp4")
    predict.main(["--model", str(finished / "adaptive.pyth"), "--video", video, "--config", "0.5-16-2"])
    printed = capsys.readouterr().out
    assert "configuration 0.5-16-2" in printed and "GFLOPs" in printed and "right" in printed and " ms" in printed
    predict.main(["--model", str(finished / "adaptive.pyth"), "--video", video, "--gflops", "100", "--views", "2"])
    assert "2 view(s)" in capsys.readouterr().out


def test_the_same_command_again_repeats_nothing(finished, data, config):
    before = load_tensors(finished / "statistics.pyth")["statistics"]
    log = (finished / "stdout.log").read_text()
    run_net.main(["--cfg", str(config), *overrides(data, finished, **{"TEST.ENABLE": False})])
    added = (finished / "stdout.log").read_text()[len(log) :]
    assert "training is finished: 2 epochs" in added and "calibrated statistics from" in added
    assert same(load_tensors(finished / "statistics.pyth")["statistics"], before)


def test_every_stage_runs_alone(finished, data, config, tmp_path):
    checkpoint = finished / "checkpoints" / "checkpoint_epoch_00002.pyth"
    words = overrides(data, tmp_path, **{
        "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": checkpoint, "TEST.ENABLE": False, "GRID.LATENCY_DEVICES": [],
    })  # fmt: skip
    run_net.main(["--cfg", str(config), *words])
    again, first = (QueryTable.load(path / "query_table.json") for path in (tmp_path, finished))
    for row in first.rows:
        twin = again.row(row.configuration)
        assert (twin.accuracy, twin.gflops, twin.parameters) == (row.accuracy, row.gflops, row.parameters)


def test_fine_tuning_starts_at_epoch_0(finished, data, config, tmp_path):
    checkpoint = finished / "checkpoints" / "checkpoint_epoch_00002.pyth"
    words = overrides(data, tmp_path, **{
        "TRAIN.CHECKPOINT_FILE_PATH": checkpoint, "TEST.ENABLE": False, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False,
        "TEST.CHECKPOINT_FILE_PATH": "nowhere.pyth",
    })  # fmt: skip
    run_net.main(["--cfg", str(config), *words])
    assert "TEST.CHECKPOINT_FILE_PATH is not read" in (tmp_path / "stdout.log").read_text()
    epochs = [entry["epoch"] for entry in read_json_stats(tmp_path / "stdout.log") if entry["_type"] == "train_epoch"]
    assert epochs == ["1/2", "2/2"]


@pytest.fixture(scope="module")
def static(data, config, tmp_path_factory):
    """What a run of a static network leaves, which is the independently trained baseline."""
    output = tmp_path_factory.mktemp("static")
    words = overrides(data, output, **{"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "TEST.NUM_SPATIAL_CROPS": 1})
    run_net.main(["--cfg", str(config), *words])
    return output


def test_a_static_network_has_a_table_of_its_one_configuration(static, finished):
    table = QueryTable.load(static / "query_table.json")
    (row,) = table.rows
    assert str(row.configuration) == "1-24-4" and table.devices and set(row.accuracy) == {"top1_acc", "top5_acc"}
    largest = QueryTable.load(finished / "query_table.json").row("1-24-4")
    assert (row.gflops, row.parameters) == (largest.gflops, largest.parameters)
    for name in ("query_table.csv", "predictions.csv", "accuracy_vs_gflops.png"):
        assert (static / name).is_file()


def test_a_static_network_is_loaded_selected_predicted_and_compared(static, finished, data, capsys):
    model = mutual3d.load(static / "adaptive.pyth")
    assert model.table == QueryTable.load(static / "query_table.json")
    assert str(model.set_budget(gflops=1).configuration) == "1-24-4" and model.predict(data / "0.mp4").top(1)
    for words in (["select", static / "adaptive.pyth", "--list"], ["predict", static / "adaptive.pyth", data / "0.mp4", "--gflops", 1]):
        assert not cli.main([str(word) for word in words])
        assert "1-24-4" in capsys.readouterr().out
    cli.main(["compare", f"ours={finished}/query_table.json", f"alone={static}/adaptive.pyth", "--output", str(static / "both")])
    assert "alone (val split, 1 view, crop 24, 12 videos)" in capsys.readouterr().out and (static / "both.png").is_file()


def test_the_page_of_a_static_network_has_its_row_its_test_and_no_choice(static):
    text = (static / "report.html").read_text()
    for words in ("One network, measured at one configuration", "Accuracy and cost", "Test, 2 views a video", "loss over epochs"):
        assert words in text
    assert "Every configuration" not in text and "mutual3d select" not in text


def test_a_static_network_that_is_only_tested_asks_for_no_validation_set(static, data, config, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    rows = [line.rsplit(" ", 1) for line in (data / "test.csv").read_text().splitlines()]
    (lists / "test.csv").write_text("".join(f"{data / name} {label}\n" for name, label in rows))
    changes = {"MUTUAL.ENABLE": False, "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": static / "adaptive.pyth", "TEST.NUM_SPATIAL_CROPS": 1}
    run_net.main(["--cfg", str(config), *overrides(lists, tmp_path / "out", **changes)])
    assert (tmp_path / "out" / "test_results.json").is_file() and not (tmp_path / "out" / "query_table.json").exists()


def test_a_run_without_a_grid_has_a_page_of_its_test(data, config, tmp_path):
    words = overrides(data, tmp_path, **{"MUTUAL.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "TEST.NUM_SPATIAL_CROPS": 1, "GRID.ENABLE": False})
    run_net.main(["--cfg", str(config), *words])
    text = (tmp_path / "report.html").read_text()
    for words in ("No query table of its configurations was measured", "Test, 2 views a video", "loss over epochs", "SOLVER:", "x3d: report"):
        assert words in text, words
    assert "Pareto front" not in text and "Every configuration" not in text and not (tmp_path / "query_table.json").exists()
    assert mutual3d.load(tmp_path / "adaptive.pyth").table is None
    tested = read_json(tmp_path / "test_results.json")
    assert tested["metric"] == "top1_acc" and tested["sample"] == "video"


def test_a_finished_run_has_its_page_csv_and_plots_written_again_without_the_videos(finished, static, capsys, monkeypatch):
    monkeypatch.setattr("mutual3d.pipeline.page.read_examples", lambda *arguments: pytest.fail("a video was read"))
    names = ("report.html", "query_table.csv", "accuracy_vs_gflops.png", "accuracy_vs_latency_ms.png")
    for output in (finished, static):
        before = [(output / name).read_bytes() for name in names]
        for name in names:
            (output / name).unlink()
        cli.main(["report", str(output)])
        assert [(output / name).read_bytes() for name in names] == before and str(output / "report.html") in capsys.readouterr().out
        assert b"data:image/jpeg" in before[0] and b"Test, " in before[0]


def test_a_test_of_another_network_is_not_shown(static, tmp_path):
    output = shutil.copytree(static, tmp_path / "copy")
    tested = read_json(output / "test_results.json")
    write_json(output / "test_results.json", {**tested, "network": "another"})
    cli.main(["report", str(output)])
    assert "Test, " not in (output / "report.html").read_text()
    (output / "test_results.json").write_text("{")
    cli.main(["report", str(output)])
    with pytest.raises(FileNotFoundError, match="give the OUTPUT_DIR of a run that has ended"):
        cli.main(["report", str(tmp_path / "nowhere")])


def test_a_run_that_only_tests_keeps_the_table_on_the_page_and_another_network_leaves_it_alone(finished, data, config, tmp_path):
    output = shutil.copytree(finished, tmp_path / "copy")
    words = overrides(data, output, **{"TRAIN.ENABLE": False, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.NUM_ENSEMBLE_VIEWS": 1})
    run_net.main(["--cfg", str(config), *words])
    text = (output / "report.html").read_text()
    assert "Every configuration" in text and "data:image/jpeg" in text and "Test, 3 views a video" in text
    run_net.main(["--cfg", str(config), *words, "TEST.CHECKPOINT_FILE_PATH", str(output / "checkpoints" / "checkpoint_epoch_00001.pyth")])
    assert (output / "report.html").read_text() == text


def test_a_missing_list_names_the_switch_of_its_stage(data, config, tmp_path):
    shutil.copytree(data, tmp_path / "set")
    for split, stage in (("test", "TEST"), ("val", "GRID")):
        (tmp_path / "set" / f"{split}.csv").unlink()
        words = overrides(tmp_path / "set", tmp_path / "out", **{"TRAIN.ENABLE": False, "TEST.ENABLE": split == "test"})
        with pytest.raises(FileNotFoundError, match=f"there is no video list .*{split}.csv.*; or leave this stage out: {stage}.ENABLE False"):
            run_net.main(["--cfg", str(config), *words])


def test_saved_scores_cover_every_video_once(finished, data, config, tmp_path):
    words = overrides(data, finished, **{
        "TRAIN.ENABLE": False, "GRID.ENABLE": False, "TEST.SAVE_RESULTS_PATH": "scores.pyth",
        "TEST.CONFIGURATIONS": "['0.5-16-2','1-24-4']",
    })  # fmt: skip
    run_net.main(["--cfg", str(config), *words])
    scores = load_tensors(finished / "scores.pyth")
    assert set(scores) == {"0.5-16-2", "1-24-4"}
    assert all(sorted(videos) == list(range(12)) for videos in scores.values())
    run_net.main(["--cfg", str(config), *overrides(data, finished, **{"TEST.ENABLE": False})])


def test_a_new_start_in_a_directory_with_checkpoints_is_refused(finished, data, config):
    with pytest.raises(ValueError, match="TRAIN.AUTO_RESUME is False and '.*epoch_00002.pyth' is there: choose another OUTPUT_DIR"):
        run_net.main(["--cfg", str(config), *overrides(data, finished, **{"TRAIN.AUTO_RESUME": False})])


def test_without_a_grid_the_network_is_saved_and_a_table_is_kept(finished, data, config, tmp_path):
    changes = {"GRID.ENABLE": False, "TEST.ENABLE": False}
    run_net.main(["--cfg", str(config), *overrides(data, finished, **changes)])
    assert mutual3d.load(finished / "adaptive.pyth").table is not None
    checkpoint = finished / "checkpoints" / "checkpoint_epoch_00002.pyth"
    changes |= {"TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": checkpoint}
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path, **changes)])
    model = mutual3d.load(tmp_path / "adaptive.pyth")
    assert model.table is None and model.activate("0.5-16-2").active == model.network.space.smallest


def test_a_table_that_cannot_be_used_is_measured_again(finished, data, config, tmp_path, caplog):
    (tmp_path / "query_table.json").write_text('{"version": 0}')
    changes = {"TRAIN.ENABLE": False, "TEST.ENABLE": False, "GRID.LATENCY_DEVICES": [],
               "TEST.CHECKPOINT_FILE_PATH": finished / "checkpoints" / "checkpoint_epoch_00002.pyth"}  # fmt: skip
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path, **changes)])
    assert "it is replaced" in (tmp_path / "stdout.log").read_text()
    assert QueryTable.load(tmp_path / "query_table.json").rows


def calls(monkeypatch, stage, name):
    """How often a stage calls a function."""
    seen, original = [], getattr(stage, name)
    monkeypatch.setattr(stage, name, lambda *args, **kwargs: seen.append(name) or original(*args, **kwargs))
    return seen


def test_outputs_that_a_killed_run_left_out_or_behind_are_made_from_the_table(finished, data, config, monkeypatch):
    shown = [finished / name for name in ("report.html", "query_table.csv", "accuracy_vs_gflops.png")]
    (finished / ".grid.rank0of1").write_text("left by a run that was killed after the table was written")
    half = finished / "checkpoints" / f".checkpoint_epoch_00009.pyth.{this_process().place}+{2**22 + 1}+1.abcd_123.tmp"
    half.write_text("a checkpoint that was being written")
    whole = shown[1].read_bytes()
    shown[0].unlink()
    shown[1].write_text("an earlier table's")
    os.truncate(shown[2], 1000)
    measured = calls(monkeypatch, grid, "_build_table")
    run_net.main(["--cfg", str(config), *overrides(data, finished, **{"TEST.ENABLE": False})])
    assert shown[1].read_bytes() == whole and "Best configuration for each budget" in shown[0].read_text()
    assert len(shown[2].read_bytes()) > 10_000 and not measured and not (finished / ".grid.rank0of1").exists()
    assert not half.exists() and "removed 1 files that killed runs left half written" in (finished / "stdout.log").read_text()


def test_a_second_run_in_the_directory_is_refused_before_it_writes_anything(finished, data, config):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with run_lock(finished), pytest.raises(DirectoryInUseError, match=f"is in use by process {os.getpid()} on .*choose another OUTPUT_DIR"):
        run_net.main(["--cfg", str(config), *overrides(data, finished)])
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def replace_by(value):
    return lambda path, content: save_tensors(path, value)


DAMAGED_STATISTICS = {
    "a flipped bit": lambda path, content: path.write_bytes(path.read_bytes()[:-3000] + b"x" + path.read_bytes()[-2999:]),
    "other bytes": lambda path, content: path.write_text("hello"),
    "a list": replace_by([1, 2]),
    "another version": replace_by({"version": 2}),
    "NaN": lambda path, content: save_tensors(path, {**content, "statistics": nan_statistics(content["statistics"])}),
    "wrong types": lambda path, content: save_tensors(path, {**content, "statistics": [1]}),
    "no norms": lambda path, content: save_tensors(path, {**content, "statistics": {"1-24-4": {"mean": {}, "variance": {}}}}),
}


def nan_statistics(statistics):
    return {c: {kind: {name: t * float("nan") for name, t in part.items()} for kind, part in s.items()} for c, s in statistics.items()}


@pytest.mark.parametrize("damage", DAMAGED_STATISTICS.values(), ids=DAMAGED_STATISTICS)
def test_damaged_statistics_are_said_and_not_used(finished, tmp_path, damage, caplog):
    content = load_tensors(finished / "statistics.pyth")
    path = tmp_path / "statistics.pyth"
    path.write_bytes((finished / "statistics.pyth").read_bytes())
    model = mutual3d.load(finished / "adaptive.pyth").network
    assert calibration._usable_statistics(path, model, content["fingerprint"]).keys() == model.statistics.keys()
    damage(path, content)
    assert calibration._usable_statistics(path, model, content["fingerprint"]) is None
    assert f"'{path}' cannot be used (" in caplog.text


def test_a_killed_multi_view_test_goes_on_and_a_damaged_one_starts_over(finished, data, config, tmp_path, monkeypatch):
    """Scores and results equal those of an uninterrupted test, to the bit."""
    changes = {"TRAIN.ENABLE": False, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.SAVE_RESULTS_PATH": "scores.pyth",
               "TEST.CHECKPOINT_FILE_PATH": finished / "checkpoints" / "checkpoint_epoch_00002.pyth", "PARTIAL_SAVE_SECONDS": 0}  # fmt: skip
    words = ["--cfg", str(config), *overrides(data, tmp_path, **changes)]
    run_net.main(words)
    expected = (tmp_path / "scores.pyth").read_bytes(), (tmp_path / "test_results.json").read_bytes()
    saves, save = [], PartialResult.save

    def dying(self, *arguments, **options):
        save(self, *arguments, **options)
        saves.append(self.path)
        if len(saves) == 2:
            raise KeyboardInterrupt

    for damage in (False, True):
        saves.clear()
        for name in ("scores.pyth", "test_results.json"):
            (tmp_path / name).unlink()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(PartialResult, "save", dying)
            run_net.main(words)
        if damage:
            os.truncate(saves[0], saves[0].stat().st_size - 1000)
        length = len((tmp_path / "stdout.log").read_text())
        run_net.main(words)
        assert ("going on from" in (tmp_path / "stdout.log").read_text()[length:]) is not damage
        assert expected == ((tmp_path / "scores.pyth").read_bytes(), (tmp_path / "test_results.json").read_bytes())
        assert not list(tmp_path.glob(".test*"))


def test_latency_is_measured_on_the_devices_that_are_there(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert list(map(str, grid._latency_devices(["cpu", "cuda", "cuda:0", "cuda:1"]))) == ["cpu", "cuda", "cuda:0"]
    assert "GRID.LATENCY_DEVICES names cuda:1 and there is none" in caplog.text


def test_killed_training_goes_on_and_ends_the_same_to_the_bit(finished, data, config, tmp_path):
    """SIGKILL some time after the first checkpoint of a longer run; the resumed one equals an uninterrupted one."""
    changes = {"SOLVER.MAX_EPOCH": 4, "GRID.ENABLE": False, "CALIBRATION.ENABLE": False, "TEST.ENABLE": False}
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path / "whole", **changes)])
    words = command(config, *overrides(data, tmp_path / "killed", **changes))
    # The same number of threads as here: sums in another order would round otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    checkpoints = tmp_path / "killed" / "checkpoints"
    while not (checkpoints / "checkpoint_epoch_00001.pyth").is_file() and killed.poll() is None:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (checkpoints / "checkpoint_epoch_00004.pyth").is_file(), "it ended before it was killed"
    run_net.main(["--cfg", str(config), *overrides(data, tmp_path / "killed", **changes)])
    whole, resumed = (load_tensors(tmp_path / run / "checkpoints" / "checkpoint_epoch_00004.pyth") for run in ("whole", "killed"))
    for part in ("model_state", "optimizer_state", "epoch"):
        assert same(whole[part], resumed[part]), part


def run_torchrun(config, data, output, nproc):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(nproc)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words + command(config, *overrides(data, output))[1:], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_train_calibrate_and_measure(data, config, tmp_path):
    run_torchrun(config, data, tmp_path, 2)
    table = QueryTable.load(tmp_path / "query_table.json")
    assert table.provenance["num_videos"] == 12
    assert mutual3d.load(tmp_path / "adaptive.pyth").set_budget(gflops=100).gflops > 0


def test_a_run_times_the_front_in_its_runtimes_and_adds_what_a_table_lacks(finished, data, config):
    path = finished / "query_table.json"
    table, kept = QueryTable.load(path), path.read_bytes()
    eager, plain = (next(key for key in table.devices if LatencyKey.parse(key).runtime == name) for name in ("eager", "torch"))
    assert all(LatencyKey.parse(key).is_here for key in table.devices) and len(table.devices) == 2
    assert len(table.measured("latency_ms", eager)) == len(table)
    assert {row.configuration for row in table.measured("latency_ms", plain)} == {row.configuration for row in table.pareto_front()}
    assert table.provenance["latency"][eager]["repeats"] == 1 and table.provenance["latency"][plain]["features"]
    # A table of another machine gets this one's columns; its accuracies stay.
    entries = table.to_dict()
    for row in entries["rows"]:
        row["latency_ms"] = {"cpu.elsewhere_1-torch-fp32-b1-t1": 1.0}
    QueryTable.from_dict(entries).save_json(path)
    log = (finished / "stdout.log").read_text()
    run_net.main(["--cfg", str(config), *overrides(data, finished, **{"TEST.ENABLE": False})])
    added, again = (finished / "stdout.log").read_text()[len(log) :], QueryTable.load(path)
    assert "the grid was measured before" in added and f"measuring the latency of {len(table)} configurations in eager" in added
    assert again.devices == sorted([eager, plain, "cpu.elsewhere_1-torch-fp32-b1-t1"])
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in table.rows]
    assert mutual3d.load(finished / "adaptive.pyth").table == again
    path.write_bytes(kept)


def test_runtimes_of_the_grid_are_those_that_are_there(caplog, monkeypatch, config):
    monkeypatch.setattr(RUNTIMES["openvino"], "packages", ("no_such_package",))
    with caplog.at_level("INFO", "mutual3d"):
        assert grid._runtimes_on(["torch", "openvino", "openvino_int8"], torch.zeros(1)) == ["torch"]
    assert "GRID.RUNTIMES names openvino, which is not installed: not measured: pip install" in caplog.text
    with pytest.raises(ValueError, match="GRID.RUNTIMES is 'openvno': .* did you mean 'openvino'"):
        load_config(config, ["GRID.RUNTIMES", "['openvno']"])
