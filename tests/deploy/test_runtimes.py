"""Every runtime gives PyTorch's scores, compiles once, and refuses what it cannot do; another one is a class."""

import copy
import functools
import json
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import calibrate_at_random
from served import CASES, FRAME, make_model, random_call

import mutual3d
from mutual3d.deploy.compiled import CompilationError, RuntimeMismatchError
from mutual3d.deploy.runtimes import RUNTIMES, CompiledNetwork, Runtime, TensorSpec, find_runtime, register_runtime
from mutual3d.models.adaptive import NotCalibratedError
from mutual3d.sampling import normalize_clip


@pytest.mark.parametrize("name", CASES)
def test_every_runtime_gives_pytorchs_scores_at_the_corners(name, share_programs, tmp_path):
    """From uint8 clips, at any batch; and eight threads at mixed configurations give what one gives."""
    model, width = make_model(name), FRAME.get(name, (0, 48))[1]
    corners = [model.network.space.smallest, model.network.space.largest]
    calls = [(random_call(model, batch, width, seed=batch), configuration) for configuration in corners for batch in (1, 3)]
    expected = [model(*call, configuration=configuration) for call, configuration in calls]
    for runtime in ("torch", "onnxruntime", "openvino"):
        model.run_in(runtime, cache=tmp_path)
        found = [model(*call, configuration=str(configuration)) for call, configuration in calls]
        for scores, own in zip(found, expected):
            assert scores.shape == own.shape and (scores - own).abs().max() < 1e-5, runtime
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(model, *call, configuration=configuration) for call, configuration in calls * 2]
            assert all(torch.allclose(future.result(), scores, atol=1e-6) for future, scores in zip(futures, found * 2))
        assert model.runtime == runtime and f"in {runtime}" in repr(model)
    if name == "boxes":
        assert model(calls[0][0][0], calls[0][0][1][:0]).shape == (0, 7)


def test_normalised_floats_are_a_call_like_others():
    model = make_model("x3d")
    (clip,) = random_call(model)
    normalised = normalize_clip(clip, model.preprocessing.mean, model.preprocessing.std)
    expected = model(normalised)
    assert torch.allclose(model.run_in("torch")(normalised), expected, atol=1e-6)
    assert torch.allclose(model(clip), expected, atol=1e-6)


# ---- A runtime that is not this project's -------------------------------------------------------------------------------


class Counting(Runtime):
    """Runs the extracted module as it is; remembers what it compiled, and can be told to be wrong."""

    name, title = "counting", "Counting"
    compiled, scale, gate = [], 1.0, None

    def compile(self, network):
        if self.gate is not None:
            self.gate.wait(5)
        self.compiled.append(json.loads(network.metadata["configuration"]))
        module, scale = network.module, self.scale

        def run(inputs):
            with torch.no_grad():
                return module(*inputs) * scale

        example = run(list(network.examples.values()))
        return CompiledNetwork(network.inputs, TensorSpec(network.output, torch.float32, (None, *example.shape[1:])), run)


@pytest.fixture
def counting():
    register_runtime(Counting)
    Counting.compiled, Counting.scale, Counting.gate = [], 1.0, None
    yield Counting
    del RUNTIMES["counting"]


@functools.cache
def saved_model(directory):
    model = make_model("x3d")
    model.save(directory / "adaptive.pyth")
    return directory / "adaptive.pyth"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("model"))


def test_a_runtime_of_ones_own_is_a_class_that_is_registered(path, counting):
    plain, model = mutual3d.load(path), mutual3d.load(path, runtime="counting")
    (clip,) = random_call(model)
    smallest, largest = (str(c) for c in (model.network.space.smallest, model.network.space.largest))
    for _ in range(2):
        assert torch.allclose(model(clip), plain(clip), atol=1e-6)
        assert torch.allclose(model.at(smallest)(clip), plain(clip, configuration=smallest), atol=1e-6)
        assert torch.equal(model.activate(smallest)(clip), model(clip, configuration=smallest))
        model.activate(largest)
    assert counting.compiled == [largest, smallest]
    with pytest.raises(NotCalibratedError, match="0.75-32-4 was never calibrated"):
        model(clip, configuration="0.75-32-4")
    with pytest.raises(ValueError, match="size 40 is not one of 32, 48"):
        model(clip, configuration="0.5-40-4")


def test_threads_that_want_one_configuration_compile_it_once(path, counting):
    model = mutual3d.load(path, runtime="counting")
    calls = [(random_call(model, seed=i)[0], str(c)) for i in range(4) for c in (model.network.space.smallest, model.network.space.largest)]
    expected = [mutual3d.load(path)(clip, configuration=c) for clip, c in calls]
    counting.gate = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(model, clip, configuration=c) for clip, c in calls]
        counting.gate.set()
        assert all(torch.allclose(future.result(), scores, atol=1e-6) for future, scores in zip(found, expected))
    assert sorted(counting.compiled) == ["0.5-32-4", "1-48-8"]


def test_changed_weights_are_compiled_anew(path, counting):
    model = mutual3d.load(path, runtime="counting")
    (clip,) = random_call(model)
    before = model(clip)
    state = {key: value.clone() for key, value in model.network.state_dict().items()}
    state["head.projection.weight"].neg_()
    model.network.load_state_dict(state)
    assert not torch.allclose(model(clip), before, atol=1e-3)
    calibrate_at_random(model.network, [model.network.space.largest])
    assert torch.allclose(model(clip), model.run_in(None)(clip), atol=1e-6)
    assert len(counting.compiled) == 3


def test_a_copy_and_a_pickle_run_in_the_same_runtime(path, counting):
    model = mutual3d.load(path, runtime="counting")
    (clip,) = random_call(model)
    expected = model(clip)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.runtime == "counting" and torch.allclose(twin(clip), expected, atol=1e-6)
    assert len(counting.compiled) == 3


def test_scores_that_are_not_pytorchs_are_refused_with_both_and_the_difference(path, counting):
    """Once: what failed is not compiled again by the next call."""
    model = mutual3d.load(path, runtime="counting")
    counting.scale = 1.5
    words = r"1-48-8 in the runtime counting \(torch .*\) is not the network that PyTorch runs: .* by up to 0.\d+ in probability"
    for _ in range(3):
        with pytest.raises(RuntimeMismatchError, match=words):
            model(*random_call(model))
    assert counting.compiled == ["1-48-8"]
    counting.scale = float("nan")
    with pytest.raises(RuntimeMismatchError, match="differ from PyTorch's by up to nan"):
        model(*random_call(model), configuration="0.5-32-4")
    counting.scale = "no number"
    for _ in range(2):
        with pytest.raises(CompilationError, match="1-48-8 in the runtime counting .* cannot be compiled: .*another runtime, or none"):
            model.run_in("counting")(*random_call(model))


# ---- What is refused ---------------------------------------------------------------------------------------------------


def test_words_that_are_no_runtime_and_packages_that_are_not_there(path, monkeypatch):
    with pytest.raises(ValueError, match="runtime is 'openvina': mutual3d has .*, onnxruntime, openvino, .*torch, .*; did you mean 'openvino'"):
        mutual3d.load(path, runtime="openvina")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ImportError, match=r"runtime openvino_int8 needs the package 'nncf'.*pip install -e \.\[int8\]"):
        mutual3d.load(path, runtime="openvino_int8")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not RUNTIMES["openvino"].is_installed and RUNTIMES["torch"].is_installed
    with pytest.raises(ImportError, match=r"runtime openvino needs the package 'openvino'.*pip install -e \.\[export\]"):
        mutual3d.load(path, runtime="openvino")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ImportError, match="torch_compile needs a C\\+\\+ compiler, and there is none of .*apt install g\\+\\+"):
        mutual3d.load(path, runtime="torch_compile")
    if not torch.cuda.is_available():
        with pytest.raises(ImportError, match="runtime cuda needs a GPU, and torch sees none here"):
            mutual3d.load(path, runtime="cuda")


def test_a_runtime_that_cannot_be_registered_says_why():
    with pytest.raises(ValueError, match="there is a runtime 'torch' already: TorchRuntime"):
        register_runtime(type("Other", (Counting,), {"name": "torch"}))
    with pytest.raises(ValueError, match="Other has the name 'a-b': give letters, digits and underscores"):
        register_runtime(type("Other", (Counting,), {"name": "a-b"}))
    with pytest.raises(ValueError, match="Other cannot compile: give it `compile`, or `suffixes`, `save` and `load`"):
        register_runtime(type("Other", (Runtime,), {"name": "other"}))


def test_a_runtimes_version_names_all_that_decides_its_networks():
    assert find_runtime("torch").version().startswith(f"torch {torch.__version__.split('+')[0]}")
    assert [part.split()[0] for part in RUNTIMES["openvino"].version().split(", ")] == ["onnx", "onnxscript", "openvino", "torch"]
