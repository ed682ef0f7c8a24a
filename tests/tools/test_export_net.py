import pytest
import torch
from networks import calibrate_at_random
from tiny import SPACE, tiny_network

from mutual3d.cli import export as tool
from mutual3d.deploy import AdaptiveModel, Preprocessing


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    path = tmp_path_factory.mktemp("model") / "adaptive.pyth"
    AdaptiveModel(network, preprocessing=preprocessing, class_names=["right", "down"]).save(path)
    return path


@pytest.mark.parametrize(
    "form, runtime, output, files",
    [
        ("onnx", "onnxruntime", None, ["0.5-16-2.onnx"]),
        ("openvino", "openvino", "new/net.xml", ["new/net.xml", "new/net.bin"]),
    ],
)
def test_a_configuration_is_written_and_reported(path, form, runtime, output, files, capsys):
    """Beside the model, or where --output says."""
    for package in ("onnxscript", runtime):
        pytest.importorskip(package)
    where = ["--output", str(path.parent / output)] if output else []
    tool.main(["--model", str(path), "--config", "0.50-16-2", "--format", form, "--repeats", "1", *where])
    out = capsys.readouterr().out
    files = [path.parent / file for file in files]
    assert all(file.stat().st_size > 1000 for file in files)
    assert f"configuration 0.5-16-2: {' and '.join(map(str, files))}, 0." in out
    assert "takes clip 1 x 3 x 4 x 24 x 24 (clips: uint8 pixels), and any batch; gives probabilities" in out
    assert "they differ from PyTorch's by up to " in out and "PyTorch " in out
    example = files[0].with_name(f"{files[0].stem}_example.py")
    assert example.is_file() and f"without this project: python {example} VIDEO" in out
    assert f" ms (one clip, {torch.get_num_threads()} CPU threads)" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--config", "1-20-4"], "size 20 is not one of 16, 24"),
        (["--config", "fast"], "write width-pixels-frames"),
        (["--config", "0.75-16-2"], "0.75-16-2 was never calibrated"),
        (["--config", "1-24-4", "--output", "net.pt"], "net.pt' is to hold the format onnx"),
    ],
)
def test_mistakes_are_explained(path, words, message):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    with pytest.raises((ValueError, RuntimeError), match=message):
        tool.main(["--model", str(path), *words])


def test_an_unknown_format_lists_the_legal_ones(path, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--model", str(path), "--config", "1-24-4", "--format", "tf"])
    error = capsys.readouterr().err
    assert "onnx" in error and "openvino" in error
