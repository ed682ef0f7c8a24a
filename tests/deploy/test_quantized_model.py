"""A deployed model of quantised weights and activations: served at every corner, exported, and compared as far as rounding allows."""

import pytest
import torch
from networks import IMAGE_NETWORKS, calibrate_at_random
from served import CLASSES, CROP, MEAN, STD, random_call

import mutual3d
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy.extraction import allowed_difference
from mutual3d.deploy.runtimes import RUNTIMES

CASE = IMAGE_NETWORKS["resnet18_small"]


@pytest.fixture(scope="module", params=["W2A32", "W2A2"])
def model(request):
    torch.manual_seed(0)
    bits = {"weight_bits": 2, "activation_bits": 32 if request.param == "W2A32" else 2}
    network = CASE.create(**bits).train()
    for c in network.space.corners():
        network.activate(c)(CASE.inputs(c))
    calibrate_at_random(network.eval(), network.space.corners())
    preprocessing = Preprocessing(MEAN, STD, network.clip_frames, sampling_rate=2, target_fps=30, crop=CROP)
    return AdaptiveModel(network, preprocessing=preprocessing, class_names=CLASSES)


def test_a_bundle_holds_the_quantised_network(model, tmp_path):
    model.save(tmp_path / "adaptive.pyth")
    twin = mutual3d.load(tmp_path / "adaptive.pyth", runtime=None)
    assert twin.network.arguments["weight_bits"] == 2
    for c in model.network.space.corners():
        assert torch.equal(twin(*random_call(twin), configuration=c), model(*random_call(model), configuration=c))


def test_runtimes_may_differ_by_levels_only_where_activations_have_levels(model):
    expected = 0.2 if "activation_bits" in model.network.arguments else 1e-4
    assert allowed_difference(RUNTIMES["onnxruntime"], model.network) == expected
    assert allowed_difference(RUNTIMES["openvino_int8"], model.network) == 0.2


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_runtimes_give_its_scores(model, runtime, tmp_path):
    configuration, calls = model.network.space.smallest, random_call(model, batch=8)
    expected = model.run_in(None)(*calls, configuration=configuration)
    scores = model.run_in(runtime, cache=tmp_path)(*calls, configuration=configuration)
    model.run_in(None)
    differences = (scores - expected).abs().amax(1)
    if model.network.quantizes_activations:
        # A value of some image may lie at a threshold; most images have none.
        assert differences.median() < 1e-4 and differences.max() < 0.2
    else:
        assert differences.max() < 1e-5
