"""torch.compile, CUDA graphs, OpenVINO in its own precision and int8: on a network of one convolution."""

import json
import os
import subprocess
import sys
import types

import pytest
import torch
import torch.nn as nn
from served import make_model, random_call
from tiny import ROOT

from mutual3d.deploy.compiled import CompilationError
from mutual3d.deploy.runtimes import RUNTIMES, ExtractedNetwork
from mutual3d.deploy.runtimes.openvino import core


class OneConvolution(nn.Module):
    """clip uint8 B, 3, T, S, S -> scores B, 5."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3, stride=2)

    def forward(self, clip):
        return self.conv(clip.to(self.conv.weight.dtype) / 255).mean((2, 3, 4)).softmax(1)


def network(device="cpu", **more):
    torch.manual_seed(0)
    clip = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)
    return ExtractedNetwork(OneConvolution().eval().to(device), {"clip": clip.to(device)}, **more)


def check(runtime, device="cpu", tolerance=None):
    made = network(device)
    reference = network(device).module
    compiled = RUNTIMES[runtime].compile(made)
    assert compiled.inputs == made.inputs
    for batch in (2, 1, 3, 1):
        clip = torch.randint(0, 256, (batch, 3, 4, 16, 16), dtype=torch.uint8)
        with torch.no_grad():
            expected = reference(clip.to(device)).cpu()
        found = compiled(clip)
        assert found.shape == (batch, 5)
        assert (found.cpu() - expected).abs().max() < (tolerance or RUNTIMES[runtime].tolerance)
    return compiled


def test_torch_compile(monkeypatch):
    """Without the C++ compiler, whose minute is PyTorch's affair."""
    monkeypatch.setattr(type(RUNTIMES["torch_compile"]), "backend", "eager")
    monkeypatch.setattr("mutual3d.deploy.runtimes.torch_compile.find_compiler", lambda: "c++")
    assert not RUNTIMES["torch_compile"].is_automatic
    check("torch_compile", tolerance=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_graphs():
    compiled = check("cuda", "cuda", tolerance=1e-3)  # convolutions in TF32
    first, second = (torch.full((1, 3, 4, 16, 16), value, dtype=torch.uint8) for value in (10, 200))
    kept = compiled(first)
    before = kept.clone()
    compiled(second)
    assert torch.equal(kept, before), "what was returned is the caller's own"


INTERRUPTED = """
import signal
from test_other_runtimes import RUNTIMES, network
networks = [RUNTIMES["openvino"].compile(network()) for _ in range(2)]
while networks:
    del networks[0]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_survived_after_networks_of_openvino_are_gone():
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "deploy"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_openvino_in_its_own_precision():
    runtime = RUNTIMES["openvino_default"]
    assert runtime.precision == "default" and not runtime.is_automatic and not runtime.format
    check("openvino_default")


@pytest.fixture
def nncf(monkeypatch):
    """What stands in for NNCF: it quantises nothing, and says what it was given."""
    given = {}

    def quantize(model, dataset, subset_size):
        given.update(samples=dataset, subset_size=subset_size)
        return model

    monkeypatch.setitem(sys.modules, "nncf", types.SimpleNamespace(quantize=quantize, Dataset=list))
    return given


def test_int8_is_compiled_by_clips_of_the_users(nncf, tmp_path):
    runtime, clips = RUNTIMES["openvino_int8"], torch.randint(0, 256, (3, 3, 4, 16, 16), dtype=torch.uint8)
    given = network(clips=(clips[:2], clips[2:]), metadata={"classes": json.dumps(["a"])})
    runtime.save(given, tmp_path / "net.xml")
    assert nncf["subset_size"] == 3 and [[x.shape for x in sample] for sample in nncf["samples"]] == [[(1, 3, 4, 16, 16)]] * 3
    assert all((sample[0] == clip.numpy()).all() for sample, clip in zip(nncf["samples"], clips))
    expected = network().module(clips)
    assert (runtime.load(tmp_path / "net.xml")(clips) - expected).abs().max() < 0.01
    info = core(sys.modules["openvino"]).read_model(tmp_path / "net.xml").get_rt_info()["mutual3d"]
    assert json.loads(info["classes"].astype(str)) == ["a"]
    with pytest.raises(ValueError, match="runtime openvino_int8 chooses its ranges by clips, and there are none"):
        runtime.save(network(), tmp_path / "net.xml")


def test_a_model_in_int8_needs_clips_that_are_its_own(nncf, monkeypatch):
    model = make_model("x3d")
    with pytest.raises(ValueError, match=r"give some of the videos .*model.run_in\('openvino_int8', clips="):
        model.run_in("openvino_int8")
    with pytest.raises(ValueError, match="the clip is .*: give B, 3, 8, 48, 48"):
        model.run_in("openvino_int8", clips=[torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)])
    given = []

    def save(runtime, network, path):
        given.extend(network.clips)
        raise RuntimeError("no further")

    monkeypatch.setattr(type(RUNTIMES["openvino_int8"]), "save", save)
    (clip,) = random_call(model)
    with pytest.raises(CompilationError, match="0.5-32-4 in the runtime openvino_int8 .* no further"):
        model.run_in("openvino_int8", clips=[clip.numpy()])(clip, configuration="0.5-32-4")
    assert len(given) == 1 and torch.equal(given[0], clip)
