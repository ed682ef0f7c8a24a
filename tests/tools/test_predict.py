"""Where the network runs: the command line's --device."""

import pytest
import torch
from networks import calibrate_at_random
from tiny import SPACE, load_tool, tiny_network
from videos import moving_frames, write_video

from mutual3d.deploy import AdaptiveModel, Preprocessing

predict = load_tool("predict")


@pytest.fixture
def words(tmp_path):
    """The command's words for a tiny model and a video."""
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    AdaptiveModel(network, preprocessing=preprocessing, class_names=["right", "down"]).save(tmp_path / "adaptive.pyth")
    video = write_video(tmp_path / "clip.mp4", moving_frames(20))
    return ["--model", str(tmp_path / "adaptive.pyth"), "--video", str(video), "--config", "0.5-16-2"]


def probabilities(text):
    return {line.split()[-1]: float(line.split()[0]) for line in text.splitlines() if " %  " in line}


def test_the_cpu_is_the_default(words, capsys):
    predict.main(words)
    expected = probabilities(capsys.readouterr().out)
    predict.main([*words, "--device", "cpu"])
    assert probabilities(capsys.readouterr().out) == expected and set(expected) == {"right", "down"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_cpus_probabilities(words, capsys):
    predict.main(words)
    expected = probabilities(capsys.readouterr().out)
    predict.main([*words, "--device", "cuda"])
    assert probabilities(capsys.readouterr().out) == pytest.approx(expected, abs=0.1)


def test_a_gpu_that_is_not_there_is_named_before_anything_is_read(words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device is cuda, and torch sees no GPU here: leave --device out"):
        predict.main(["--model", "nowhere.pyth", *words[2:], "--device", "cuda"])


@pytest.mark.parametrize("option, value", [("--device", "tpu"), ("--top", "0")])
def test_an_option_that_cannot_be_is_refused(words, capsys, option, value):
    with pytest.raises(SystemExit):
        predict.main([*words, option, value])
    assert option in capsys.readouterr().err
