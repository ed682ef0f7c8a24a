"""Networks of quantised convolutions: any network, at every configuration, extracted, saved, and counted."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from batches import MEAN, STD
from networks import IMAGE_NETWORKS, NETWORKS, calibrate_at_random

from mutual3d.cost.axes import CostConditions, measure_costs
from mutual3d.layers import FixedChannels, PixelChannels, PrivateQuantizers, SlimmableConv2d, SlimmableConv3d, slimmable_norms
from mutual3d.layers.quantized import QuantizedConvolution
from mutual3d.models.create import load_network
from mutual3d.models.images import AdaptiveImageNetwork, conv2d
from mutual3d.sampling import Configuration, SearchSpace
from mutual3d.training.averaging import WeightAverage
from mutual3d.training.optimizer import parameter_groups

# C2D and I3D are built of Slow's parts, MobileNet v1 of v2's.
LEFT_OUT = ("c2d_small", "i3d_small", "mobilenet_v1_small")
CASES = {name: case for name, case in (NETWORKS | IMAGE_NETWORKS).items() if name.endswith("_small") and name not in LEFT_OUT}
FULL = dict(weight_bits=2, activation_bits=2)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=["x3d_small", "resnet18_small"])
def one_of_each(request):
    """A network of clips, with depthwise convolutions and squeeze-excite, and one of images."""
    return CASES[request.param]


def build(case, steps=1, width_range=(0.5, 1.0), **arguments):
    """A network after a few passes of training at every corner, in evaluation, in float64."""
    torch.manual_seed(0)
    with torch.no_grad():
        model = case.create(list(width_range), [32, 48], [4, 8], **{**FULL, **arguments}).double().train()
    for norm in slimmable_norms(model).values():
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    for c in model.space.corners():
        for _ in range(steps):
            model.activate(c)(case.inputs(c, torch.float64))
    return calibrate_at_random(model.eval(), model.space.corners())


def quantized(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantizedConvolution)}


def states_equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def test_activate_equals_extract_and_a_call_that_names_its_configuration(case):
    assert_all_ways_are_the_same(build(case), case)


@pytest.mark.parametrize("bits", [{"activation_bits": 32}, {"weight_bits": 32}], ids=["W2A32", "W32A2"])
def test_so_it_is_where_only_weights_or_only_activations_are_quantised(one_of_each, bits):
    assert_all_ways_are_the_same(build(one_of_each, **bits), one_of_each)


def assert_all_ways_are_the_same(model, case):
    """Float64: in float32 a sum in another order may lie beyond a threshold, and take another level."""
    outputs = []
    with torch.no_grad():
        for c in model.space.corners():
            inputs = case.inputs(c, torch.float64)
            logits = model.activate(c)(inputs)
            for network in (model.extract(c), model.extract(c, fold_bn=True)):
                torch.testing.assert_close(network(inputs), logits, rtol=1e-9, atol=1e-9)
            assert torch.equal(model(inputs, configuration=c), logits)
            outputs.append(logits)
    assert not any(torch.allclose(outputs[0], other, atol=1e-6) for other in outputs[1:])


def test_all_convolutions_are_quantised_but_those_of_pixels_and_of_gates(case):
    model = build(case, steps=0)
    whole = {
        name for name, layer in model.named_modules()
        if isinstance(layer, (SlimmableConv2d, SlimmableConv3d)) and not isinstance(layer, QuantizedConvolution)
    }  # fmt: skip
    assert whole and all(model.get_submodule(name).in_channels == 3 or name.endswith((".fc1", ".fc2")) for name in whole)
    assert model.classifier_name not in quantized(model) and len(quantized(model)) > len(whole) / 2
    plain = model.extract(model.space.smallest)
    assert quantized(plain).keys() == quantized(model).keys()
    for layer in quantized(plain).values():
        assert all(len(channel.unique()) <= 4 for channel in layer.weight)


def test_a_layer_with_as_many_inputs_as_pixels_have_is_quantised_and_that_of_pixels_is_not():
    """What reads pixels says so: its number of inputs says nothing."""
    inner = FixedChannels(3)
    stages = {"stem": conv2d(PixelChannels(4), inner, 3), "inner": conv2d(inner, FixedChannels(5), 3)}
    network = AdaptiveImageNetwork(stages, SearchSpace((1.0, 1.0), (8,), (1,)))
    network.quantize(2, 2)
    assert list(quantized(network)) == ["inner"]


def test_a_file_builds_the_same_network_again(one_of_each):
    model = build(one_of_each).float()
    twin = load_network(model.arguments, model.state_dict(), "a file")
    assert twin.arguments == model.arguments and {**FULL}.items() <= model.arguments.items()
    assert states_equal(model, twin)
    twin.set_statistics(model.statistics)
    c = model.space.smallest
    with torch.no_grad():
        inputs = one_of_each.inputs(c)
        assert torch.equal(twin.eval().activate(c)(inputs), model.place(torch.device("cpu")).activate(c)(inputs))


def test_a_network_that_is_not_quantised_says_nothing_of_it(one_of_each):
    whole = one_of_each.create([0.5, 1.0], [32, 48], [4, 8])
    same = one_of_each.create([0.5, 1.0], [32, 48], [4, 8], weight_bits=32, activation_bits=32)
    assert whole.arguments == same.arguments and not {*FULL} & whole.arguments.keys()
    assert list(whole.state_dict()) == list(same.state_dict()) and not quantized(same)


def test_training_at_a_size_moves_its_own_quantisers_alone(one_of_each):
    model = build(one_of_each, batchnorm="private_size", own_statistics="private", width_range=[1.0, 1.0]).train()
    c = model.space.smallest
    index = model._size_index(model.space.check(c))
    before = {key: value.clone() for key, value in model.state_dict().items() if ".inputs." in key}
    model.activate(c)(one_of_each.inputs(c, torch.float64))
    moved = {key for key, value in before.items() if not torch.equal(value, model.state_dict()[key])}
    assert moved and all(f".inputs.sizes.{index}." in key for key in moved)
    own = {key.rpartition(".inputs")[0] for key in moved}
    assert own == {name for name, layer in quantized(model).items() if isinstance(layer.inputs, PrivateQuantizers)}


def test_norms_that_every_size_shares_leave_its_quantisers_private(one_of_each):
    model = build(one_of_each)
    c = model.space.largest
    sizes = [model._size_index(model.space.check(corner)) for corner in model.space.corners()]
    layer = next(iter(quantized(model).values()))
    assert sorted({*sizes}) == [*range(len(layer.inputs.sizes))] and model._size_index(c) == 0
    for corner in model.space.corners():
        model.activate(corner)
        assert layer.inputs.active_part == model._size_index(corner)


def test_gradients_and_groups_are_those_of_the_weights_alone(one_of_each):
    model, whole = build(one_of_each).train(), one_of_each.create([0.5, 1.0], [32, 48], [4, 8])
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in whole.named_parameters()}
    counts = [{g["name"]: len(g["params"]) for g in parameter_groups(m, weight_decay=1e-4)} for m in (model, whole)]
    assert counts[0] == counts[1]
    c = model.space.largest
    model.activate(c)(one_of_each.inputs(c, torch.float64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(layer.weight.grad.any() for layer in quantized(model).values())


SMALL = CASES["resnet18_small"]


def test_a_step_of_calibration_leaves_every_basis_as_it_is():
    model = build(SMALL).train()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for norm in slimmable_norms(model).values():
            norm.observer = lambda count, mean, variance: None
        model.activate("0.5-32")(SMALL.inputs(Configuration(0.5, 32), torch.float64))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_threads_that_name_their_configuration_are_served_alike():
    model = build(SMALL)
    corners = model.space.corners()
    inputs = {c: SMALL.inputs(c, torch.float64) for c in corners}
    with torch.no_grad():
        expected = {c: model.activate(c)(inputs[c]) for c in corners}

    def call(c):
        with torch.no_grad():
            return torch.equal(model(inputs[c], configuration=c), expected[c])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, corners * 8))


def test_a_size_between_two_has_quantisers_between_theirs():
    model = SMALL.create([1.0, 1.0], [32, 48], [1], batchnorm="private_size", own_statistics="private", **FULL)
    parts = [part for part in model.modules() if isinstance(part, PrivateQuantizers)]
    for part in parts:
        large, small = part.sizes
        large.basis.copy_(torch.tensor([0.2, 0.4]))
        small.basis.copy_(torch.tensor([1.0, 2.0]))
    model.add_size(36)
    assert model.activate("1-36").active.spatial == 36
    for part in parts:
        assert part.active_part == 2 and len(part.sizes) == 3
        torch.testing.assert_close(part.sizes[2].basis, torch.tensor([0.8, 1.6]))
    twin = load_network(model.arguments, model.state_dict(), "a file")
    images = torch.randn(2, 3, 36, 36)
    with torch.no_grad():
        assert torch.equal(twin.eval().activate("1-36")(images), model.place(torch.device("cpu")).eval()(images))


def test_averages_of_weights_have_averages_of_bases():
    model = build(SMALL).train()
    average, c = WeightAverage(model, decay=0.5), model.space.largest
    optimizer, bases = torch.optim.SGD(model.parameters(), lr=1e-3), []
    for _ in range(3):
        model.activate(c)(SMALL.inputs(c, torch.float64)).square().mean().backward()
        optimizer.step()
        average.update()
        bases.append(model.layer1[0].conv1.basis.clone())
    expected = bases[0]
    for n, basis in enumerate(bases[1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * basis
    torch.testing.assert_close(average.weights()["layer1.0.conv1.basis"], expected)


@pytest.mark.parametrize("bits, share", [({}, 1.0), ({"weight_bits": 2}, 0.25), (FULL, 0.25), ({"weight_bits": 4}, 0.3)])
def test_the_axis_of_size_counts_quantised_weights_by_their_bits(bits, share):
    with torch.device("meta"):
        model = CASES["resnet50_small"].create([0.5, 1.0], [32, 48], [1], **bits)
    conditions = CostConditions(48, torch.device("cpu"), MEAN, STD, repeats=1)
    corners = model.space.corners()
    costs = measure_costs(["weights_mb", "parameters"], model, corners, conditions)
    sizes, parameters = costs["weights_mb"][""], costs["parameters"][""]
    if not bits:
        assert all(sizes[c] == pytest.approx(4e-6 * parameters[c]) for c in corners)
    assert all(1 / 32 < sizes[c] / (4e-6 * parameters[c]) <= share for c in corners)
    assert len({sizes[c] for c in corners}) == 2, "sizes in pixels and frames do not change it"


@pytest.mark.parametrize("bits", [{"weight_bits": 1}, {"activation_bits": 8}, {"weight_bits": 2.0}, {"activation_bits": "2"}])
def test_other_bits_are_refused_with_the_key_and_the_legal_ones(bits):
    (key,) = bits
    with pytest.raises(ValueError, match=f"MODEL.QUANTIZE.{key.upper()} is .*: numbers are quantised to 2, 3, 4 bits; 32"):
        SMALL.create([0.5, 1.0], [32, 48], [1], **bits)
