"""What is exported runs outside PyTorch, gives PyTorch's scores, and says what is needed to use it."""

import dataclasses
import functools
import json
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from served import CLASSES, CROP, FRAME, MEAN, STD, make_model, random_call
from tiny import ROOT
from videos import write_video

from mutual3d.deploy import Decoding, export
from mutual3d.deploy.export import ExportMismatchError, export_network
from mutual3d.deploy.runtimes import Runtime, onnx_program
from mutual3d.deploy.runtimes.onnxruntime import OnnxRuntime
from mutual3d.deploy.runtimes.openvino import core
from mutual3d.models.adaptive import NotCalibratedError
from mutual3d.sampling import shrink_clip

pytestmark = pytest.mark.usefixtures("share_programs")
model = functools.cache(make_model)
QUIET = Decoding(progress=False)


@functools.cache
def exported(name, form, directory):
    """(path, Export) of a model's smallest configuration; made once."""
    packages = ["onnxscript", "onnxruntime"] if form == "onnx" else ["onnxscript", "openvino"]
    for package in packages:
        pytest.importorskip(package)
    path = directory / f"{name}{export.formats()[form].suffixes[0]}"
    smallest = model(name).network.space.smallest
    return path, export_network(model(name), smallest, path, form, frame=FRAME.get(name), repeats=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


def run_file(path, inputs):
    """Scores of a file in its own runtime, given inputs by position."""
    arrays = [tensor.contiguous().numpy() for tensor in inputs]
    if path.suffix == ".onnx":
        session = sys.modules["onnxruntime"].InferenceSession(path)
        return session.run(["scores"], {node.name: array for node, array in zip(session.get_inputs(), arrays)})[0]
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return core(sys.modules["openvino"]).compile_model(path, "CPU", exact)(arrays)["scores"]


FILES = [*((name, "onnx") for name in ("x3d", "slowfast", "images", "boxes")), ("slowfast", "openvino"), ("boxes", "openvino")]


@pytest.mark.parametrize("name, form", FILES)
def test_a_file_takes_the_uint8_clip_and_gives_pytorchs_scores_at_any_batch(name, form, directory):
    path, _ = exported(name, form, directory)
    for batch in (1, 2, 5):
        inputs = random_call(model(name), batch, FRAME.get(name, (CROP, CROP))[1])
        expected = model(name)(*inputs, configuration="0.5-32-4" if name != "images" else "0.5-32")
        scores = torch.from_numpy(run_file(path, inputs))
        assert scores.shape == expected.shape == (3 if name == "boxes" else batch, len(CLASSES))
        assert (scores - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "name, inputs",
    [
        ("x3d", {"clip": (1, 3, 8, 48, 48)}),
        ("slowfast", {"clip": (1, 3, 32, 48, 48)}),
        ("images", {"clip": (1, 3, 48, 48)}),
        ("boxes", {"clip": (1, 3, 8, 48, 64), "boxes": (1, 5)}),
    ],
)
def test_inputs_have_names_and_the_full_size(name, inputs, directory):
    path, result = exported(name, "onnx", directory)
    assert result.inputs == inputs and result.files == (path,) and result.num_bytes == path.stat().st_size
    assert 0 <= result.difference < 1e-5
    assert set(result.latency_ms) == {"PyTorch", "ONNX Runtime"} and min(result.latency_ms.values()) > 0
    nodes = sys.modules["onnxruntime"].InferenceSession(path).get_inputs()
    assert [node.name for node in nodes] == list(inputs) and nodes[0].type == "tensor(uint8)"
    assert [tuple(node.shape[1:]) for node in nodes] == [shape[1:] for shape in inputs.values()]
    assert all(isinstance(node.shape[0], str) for node in nodes), "the batch is a number"


# Runs a program in a process in which neither this project nor PyTorch can be imported.
RUN = """
import runpy, sys
sys.modules["mutual3d"] = sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name, form", [("x3d", "onnx"), ("slowfast", "openvino"), ("images", "onnx"), ("boxes", "onnx")])
def test_the_program_beside_a_file_runs_it_without_this_project(name, form, directory, tmp_path):
    path, result = exported(name, form, directory)
    assert result.example == path.with_name(f"{name}_example.py") and len(result.example.read_text().splitlines()) < 26
    pixels = np.random.default_rng(0).integers(0, 256, (70, 7, 10, 3)).repeat(12, 1).repeat(12, 2).astype(np.uint8)
    write_video(tmp_path / "clip.mp4", np.linspace(0.5, 1, 70)[:, None, None, None] * pixels)
    command = [sys.executable, "-c", RUN, str(result.example), str(tmp_path / "clip.mp4")]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    found = {line.partition(" % ")[2]: float(line.partition(" % ")[0]) / 100 for line in told.stdout.splitlines()}
    assert len(found) == 5 and set(found) <= set(CLASSES)
    if name == "boxes":
        return
    expected = dict(model(name).predict(tmp_path / "clip.mp4", configuration=model(name).network.space.smallest, decoding=QUIET)[0].top(5))
    assert found == pytest.approx({key: expected.get(key, 0) for key in found}, abs=0.02)


def check_metadata(entries):
    assert entries["configuration"] == "0.5-32-4"
    assert (entries["mean"], entries["std"]) == ([*MEAN], [*STD])
    assert (entries["frame"], entries["crop"], entries["num_frames"], entries["sampling_rate"]) == ([CROP, CROP], CROP, 32, 2)
    assert entries["takes"].startswith("uint8 B, 3, 32, 48, 48: short side resized to 48") and entries["gives"].endswith("softmax")
    assert entries["chooses"].startswith("32 frames evenly from the first to the last of a clip of 32 x 2 frames at 30 a second")
    assert entries["classes"] == CLASSES and entries["activation"] == "softmax"


def test_a_files_metadata_says_how_to_use_it(directory):
    path, _ = exported("slowfast", "onnx", directory)
    session = sys.modules["onnxruntime"].InferenceSession(path)
    check_metadata({key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()})
    path, result = exported("slowfast", "openvino", directory)
    info = core(sys.modules["openvino"]).read_model(path).get_rt_info()["mutual3d"]
    check_metadata({key: json.loads(text.astype(str)) for key, text in info.items()})
    assert result.files == (path, path.with_suffix(".bin"))


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_file_holds_no_paths_of_the_machine_that_made_it(form, directory):
    content = exported("slowfast", form, directory)[0].read_bytes()
    assert str(ROOT).encode() not in content and b"forward" not in content and tempfile.gettempdir().encode() not in content


def test_exporting_leaves_the_model_as_it_is(monkeypatch):
    network = model("slowfast").network.activate("1-48-8")
    shrink = network.s1_fuse.shrink
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    monkeypatch.setattr(Runtime, "require", lambda runtime: None)
    monkeypatch.setattr(OnnxRuntime, "save", lambda runtime, network, path: pytest.fail("traced", pytrace=False))
    with pytest.raises(pytest.fail.Exception, match="traced"):
        export_network(model("slowfast"), "0.5-32-4", "net.onnx")
    assert str(network.active) == "1-48-8" and network.s1_fuse.shrink is shrink
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("size, temporal", [((7, 9), 3), ((12, 20), 3), ((7, 20), 8), ((12, 20), 8)])
def test_shrinking_by_matrices_is_shrinking(size, temporal):
    features = torch.randn(2, 5, 8, 12, 20)
    shrink = onnx_program.FixedShrink()
    for _ in range(2):
        assert torch.allclose(shrink(features, size, temporal), shrink_clip(features, size, temporal), atol=1e-6)


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "configuration, path, form, error, message",
    [
        ("0.5-32-4", "net.onnx", "tf", ValueError, "no export format 'tf': choose among onnx, openvino, openvino_int8"),
        ("0.5-32-4", "net.xml", "onnx", ValueError, "net.xml' is to hold the format onnx: .* end in .onnx"),
        ("0.5-32-4", "net.onnx", "openvino", ValueError, "net.onnx' is to hold the format openvino: .* end in .xml"),
        ("0.5-40-4", "net.onnx", "onnx", ValueError, "0.5-40-4: the size 40 is not one of 32, 48"),
        ("0.2-32-4", "net.onnx", "onnx", ValueError, r"width 0.2 is outside the range \[0.5, 1\]"),
        ("0.75-32-4", "net.onnx", "onnx", NotCalibratedError, "0.75-32-4 was never calibrated.*mutual3d run"),
    ],
)
def test_what_cannot_be_exported_says_why(configuration, path, form, error, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Runtime, "require", lambda runtime: None)
    with pytest.raises(error, match=message):
        export_network(model("x3d"), configuration, tmp_path / path, form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, frame, message",
    [("boxes", (40, 64), "frame is 40 x 64, and this model's short side must be 48"), ("x3d", (48, 64), "always 48 x 48")],
)
def test_a_frame_that_the_model_does_not_take(name, frame, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Runtime, "require", lambda runtime: None)
    with pytest.raises(ValueError, match=message):
        export_network(model(name), "0.5-32-4", tmp_path / "net.onnx", frame=frame)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"needs the package 'onnx'.*pip install -e \.\[export\]"):
        export_network(model("x3d"), "0.5-32-4", tmp_path / "net.onnx")


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    """Nor does it replace one that was right."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    (tmp_path / "net.onnx").write_text("earlier")
    load = OnnxRuntime.load

    def load_another(runtime, path):
        compiled = load(runtime, path)
        return dataclasses.replace(compiled, run=lambda inputs: compiled(*inputs) * 1.01)

    monkeypatch.setattr(OnnxRuntime, "load", load_another)
    with pytest.raises(ExportMismatchError, match="scores differ by up to .*nothing was written"):
        export_network(model("x3d"), "0.5-32-4", tmp_path / "net.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "earlier"


def test_scores_that_are_not_numbers_do_not_pass(monkeypatch):
    expected = torch.ones(2, 3)
    with pytest.raises(ExportMismatchError):
        export.compare(expected, lambda clip: expected * float("nan"), {"clip": expected}, 1e-4)


def test_two_files_never_belong_to_different_exports(tmp_path):
    """The one that is opened is gone before the weights change, and comes back after them."""
    for suffix in (".xml", ".bin"):
        (tmp_path / f"net{suffix}").write_text("earlier")
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "net.bin").write_text("new")
    with pytest.raises(FileNotFoundError):
        export.publish(tmp_path / "draft" / "net.xml", tmp_path / "net.xml", (".xml", ".bin"))
    assert (tmp_path / "net.bin").read_text() == "new" and not (tmp_path / "net.xml").exists()
