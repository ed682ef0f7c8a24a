"""The front as files that share their weights: PyTorch's scores in each, little beside the weights, and a program that holds a deadline."""

import contextlib
import io
import json
import re
import runpy
import sys
from unittest import mock

import av
import numpy as np
import pytest
import torch
from networks import calibrate_at_random
from served import make_model, random_call
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

from mutual3d.cli import export as command
from mutual3d.deploy import AdaptiveModel, Preprocessing, predict_video
from mutual3d.deploy.front import export_front
from mutual3d.deploy.predict import read_clips
from mutual3d.table.query_table import QueryTable, Row

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")


def make_front(name):
    model = make_model(name)
    space = model.network.space
    calibrate_at_random(model.network, space.corners())
    return model, [space.smallest, space.largest]


@pytest.mark.parametrize("name", ["slowfast", "images"])
def test_every_file_gives_pytorchs_scores_and_no_weight_is_stored_twice(name, tmp_path):
    model, configurations = make_front(name)
    exported = export_front(model, tmp_path, configurations, progress=False)
    clip = random_call(model, seed=5)[0]
    for configuration in configurations:
        session = onnxruntime.InferenceSession(str(tmp_path / f"{configuration}.onnx"))
        (scores,) = session.run(None, {"clip": clip.numpy()})
        assert np.abs(scores - model(clip, configuration=configuration).numpy()).max() < 1e-4
    whole = sum(4 * parameter.numel() for parameter in model.network.parameters())
    norms = sum(8 * statistics.numel() for statistics in model.network.statistics[configurations[1]].mean.values())
    # Small constants stay in the graphs; each has its own norms and its resize.
    assert 0.98 * whole <= exported.weight_bytes < whole + 3 * norms + 30_000
    assert sum((tmp_path / f"{each}.onnx").stat().st_size for each in configurations) < 600_000
    assert exported.num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_boxes_are_exported_one_by_one(tmp_path):
    with pytest.raises(ValueError, match="export one configuration, --config"):
        export_front(make_model("boxes"), tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    rows = [
        Row("0.5-16-2", (8,), 0.5, 100, {"top1_acc": 50.0}, {"cpu": 10.0}),
        Row("1.0-24-4", (8,), 1.0, 200, {"top1_acc": 60.0}, {"cpu": 30.0}),
    ]
    table = QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24})
    torch.manual_seed(0)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    AdaptiveModel(network, preprocessing=preprocessing, table=table, class_names=["right", "down"]).save(folder / "adaptive.pyth")
    write_video(folder / "clip.mp4", moving_frames(40))
    with contextlib.redirect_stdout(io.StringIO()) as told:
        command.main([str(folder / "adaptive.pyth"), "--front", "--output", str(folder / "front")])
    assert "2 configurations, 0.5-16-2 to 1-24-4" in told.getvalue() and "hold_deadline.py VIDEO MILLISECONDS" in told.getvalue()
    return folder


def test_an_earlier_front_goes_whole(folder, tmp_path):
    model = AdaptiveModel.load(folder / "adaptive.pyth")
    for row in ({"file": "0.5-16-4.onnx"}, {"file": "../0.5-16-4.onnx"}):
        for name in ("0.5-16-4.onnx", "mine.onnx"):
            (tmp_path / name).touch()
        (tmp_path / "front.json").write_text(json.dumps({"front": [row]}))
        export_front(model, tmp_path, ["0.5-16-2"], progress=False)
        kept = {"0.5-16-4.onnx"} if row["file"].startswith("..") else set()
        assert {path.name for path in tmp_path.glob("*.onnx")} == {"0.5-16-2.onnx", "mine.onnx", *kept}


@pytest.mark.parametrize("configuration", ["0.5-16-2", "1-24-4"])
def test_openvino_opens_the_files_too(folder, configuration):
    openvino = pytest.importorskip("openvino")
    model = AdaptiveModel.load(folder / "adaptive.pyth")
    clip = random_call(model, width=24)[0][..., :24, :24].contiguous()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(str(folder / "front" / f"{configuration}.onnx"), "CPU", options)
    assert np.abs(network([clip.numpy()])[0] - model(clip, configuration=configuration).numpy()).max() < 1e-4


def run_program(folder, *words):
    """The names of the program that was written, when it has run with nothing of this project to be imported."""
    program = folder / "front" / "hold_deadline.py"
    with mock.patch.dict(sys.modules, {"mutual3d": None}), mock.patch.object(sys, "argv", [str(program), *map(str, words)]):
        return runpy.run_path(str(program), run_name="__main__")


def test_the_program_holds_a_deadline_without_this_project(folder, capsys):
    program = (folder / "front" / "hold_deadline.py").read_text()
    assert len(program.splitlines()) <= 50 and "mutual3d" not in program
    facts = json.loads((folder / "front" / "front.json").read_text())
    assert [row["configuration"] for row in facts["front"]] == ["0.5-16-2", "1-24-4"] and facts["front"][1]["merit"] == 60.0
    # Where no network is in time the fastest one runs, which on a busy machine may be either of so small ones.
    for milliseconds, configuration in ((1e6, "1-24-4"), (1e-6, "(0.5-16-2|1-24-4)")):
        run_program(folder, folder / "clip.mp4", milliseconds)
        *answers, last = capsys.readouterr().out.splitlines()
        assert answers and all(re.fullmatch(rf"[\d.]+ s  {configuration}  [\d.]+ ms  (right|down) \d+ %", line) for line in answers), answers
        assert last == f"{len(answers) if milliseconds > 1 else 0} of {len(answers)} answers within {milliseconds:g} ms"


def test_the_program_answers_a_video_whose_frames_have_no_times(folder, capsys, tmp_path):
    """A bare H.264 stream: its frames follow each other at its own rate."""
    write_video(tmp_path / "bare.h264", moving_frames(40))
    with av.open(str(tmp_path / "bare.h264")) as video:
        assert next(video.decode(video=0)).time is None
    run_program(folder, tmp_path / "bare.h264", 1e6)
    *answers, last = capsys.readouterr().out.splitlines()
    seconds = [float(line.split()[0]) for line in answers]
    assert len(seconds) > 3 and seconds[-1] > 0.5 and last.startswith(f"{len(answers)} of {len(answers)} answers")


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_the_program_shows_the_network_what_predict_does(folder, capsys, tmp_path, rotation):
    """On a video that does not change, every window is the clip of `predict`; upright, where a phone was held otherwise."""
    model = AdaptiveModel.load(folder / "adaptive.pyth")
    write_video(tmp_path / "still.mp4", np.repeat(moving_frames(1, 40, 72), 40, 0), rotation=rotation)
    model.activate("1-24-4")
    name, probability = predict_video(model, tmp_path / "still.mp4").top(1)[0]
    found = run_program(folder, tmp_path / "still.mp4", 1e6)
    *answers, _ = capsys.readouterr().out.splitlines()
    clip = read_clips(tmp_path / "still.mp4", model.preprocessing).clips_VCTHW.numpy()
    assert found["clip"].shape == clip.shape and np.abs(found["clip"].astype(int) - clip).max() <= 8
    found = re.search(r"(\w+) (\d+) %$", answers[-1])
    assert found[1] == name and abs(int(found[2]) - 100 * probability) < 3


def test_options_that_mean_nothing_for_a_front_are_refused(folder, capsys):
    for words in (["--config", "1-24-4"], ["--gflops", "1"], ["--int8"], ["--format", "openvino"]):
        with pytest.raises(SystemExit):
            command.main([str(folder / "adaptive.pyth"), "--front", *words])
        assert "--front writes all of the front as ONNX files: leave " in capsys.readouterr().err
