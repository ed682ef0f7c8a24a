import copy

import pytest
import torch
import torch.nn as nn
from networks import IMAGE_NETWORKS, NETWORKS, calibrate_at_random, random_clip, random_statistics

from mutual3d.layers import SlimmableLayer, slimmable_norms
from mutual3d.models import create_model
from mutual3d.models.adaptive import NotCalibratedError
from mutual3d.sampling import Configuration
from mutual3d.utils.files import load_tensors, save_tensors

CASES = NETWORKS | IMAGE_NETWORKS
SMALL = NETWORKS["x3d_small"]
OUTSIDE = ["0.4-48-8", "1.1-48-8", "1-40-8", "1-48-6"]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=[name for name in CASES if name.endswith("_small")])
def small_case(request):
    return CASES[request.param]


@pytest.fixture(autouse=True)
def small_tensors_in_evaluation():
    """No gradients unless asked for; one thread, since with tensors so small a second would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def states_equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def run(network, case, configuration, **options):
    return network.activate(configuration)(case.inputs(configuration, **options))


def active_part(layer, parameter, shape):
    """The first channels of a parameter; after a fusion the first and the last inputs."""
    tail = getattr(getattr(layer, "in_rule", None), "tail", 0) if parameter.ndim > 1 else 0
    part = parameter[tuple(slice(size) for size in shape)]
    return torch.cat([part[:, : shape[1] - tail], parameter[: shape[0], -tail:]], 1) if tail else part


# ---- activate and extract --------------------------------------------------------------------------------------------


def test_activate_equals_extract_at_the_corners(case):
    model = case.build().double()
    corners = model.space.corners()
    calibrate_at_random(model, corners)
    outputs = []
    for c in corners:
        inputs = case.inputs(c, torch.float64)
        logits = model.activate(c)(inputs)
        torch.testing.assert_close(model.extract(c)(inputs), logits, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.extract(c, fold_bn=True)(inputs), logits, rtol=1e-9, atol=1e-9)
        outputs.append(logits)
    # Were the outputs of two configurations equal, the comparison above could not tell them apart.
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(outputs) for b in outputs[:i])


def test_extracted_network_has_ordinary_layers_alone(case):
    model = case.build()
    smallest = model.space.smallest
    calibrate_at_random(model, [smallest])
    plain, folded = model.extract(smallest), model.extract(smallest, fold_bn=True)
    for network in (plain, folded):
        assert not network.training
        assert not slimmable_norms(network)
        assert not any(isinstance(module, SlimmableLayer) for module in network.modules())
        leaves = [module for module in network.modules() if not list(module.children())]
        assert all(type(leaf).__module__.startswith("torch.nn") for leaf in leaves)
    norms = [name for name, m in folded.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {name.rpartition(".")[2] for name in norms} == case.unfolded


def test_extracted_parameters_are_the_first_channels_in_memory_of_their_own(case):
    model = case.build()
    smallest = model.space.smallest
    before = copy.deepcopy(model.state_dict())
    full, plain = dict(model.named_parameters()), dict(model.subnetwork(smallest).named_parameters())
    assert list(plain) == list(full)
    for key, parameter in plain.items():
        layer = model.get_submodule(key.rpartition(".")[0])
        assert torch.equal(parameter, active_part(layer, full[key], parameter.shape))
        parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_extracting_leaves_the_network_as_it_was():
    model = SMALL.build()
    calibrate_at_random(model, model.space.corners())
    model.activate("0.5-32-8")
    before, inputs = copy.deepcopy(model), SMALL.inputs(model.active)
    expected = model(inputs)
    model.extract("1-48-4", fold_bn=True)
    assert states_equal(model, before)
    assert model.active == Configuration(0.5, 32, 8)
    assert torch.equal(model(inputs), expected)


def test_full_width_is_the_plain_backbone_bit_for_bit(case):
    model = case.build()
    largest = model.space.largest
    static = case.build([1.0, 1.0], [48], [8])
    inputs = case.inputs(largest)
    assert states_equal(model, static)
    logits = model(inputs)
    assert logits.isfinite().all()
    for backbone in (static, model.subnetwork(largest), model.extract(largest)):
        assert torch.equal(backbone(inputs), logits)


def test_full_width_trains_as_the_plain_backbone_bit_for_bit(small_case):
    model, gradients, outputs = small_case.build().train(), [], []
    inputs = small_case.inputs(model.space.largest)
    networks = [model, model.subnetwork(model.space.largest)]
    for network in networks:
        torch.manual_seed(0)
        with torch.enable_grad():
            outputs.append(network(inputs))
            gradients.append(torch.autograd.grad(outputs[-1].square().sum(), list(network.parameters())))
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert states_equal(*networks)


def test_every_size_and_frame_count_runs(small_case):
    model = small_case.build(spatial_sizes=[17, 31, 32, 45], temporal_sizes=[1, 3, 5])
    configurations = model.space.grid(0.5)
    calibrate_at_random(model, configurations)
    assert len(configurations) == 8 * len(model.space.temporal_sizes)
    for configuration, inputs in model.fit_clips(random_clip(model, 45), configurations):
        adaptive = inputs[0] if small_case.has_frames else inputs.unsqueeze(2)
        assert adaptive.shape[2:] == (configuration.temporal, configuration.spatial, configuration.spatial)
        assert model.activate(configuration)(inputs).shape == (2, 7)


def test_a_larger_view_runs_at_the_same_configuration(case):
    model = case.build()
    pathways = model.fit_clip(random_clip(model, 55))
    assert all(pathway.shape[-1] == 55 for pathway in pathways)
    assert model(pathways).shape == (2, case.arguments["num_classes"])


# ---- batch norm statistics -------------------------------------------------------------------------------------------


def test_a_configuration_that_was_never_calibrated_refuses_to_evaluate():
    model = SMALL.build()
    smallest = model.space.smallest
    with pytest.raises(NotCalibratedError) as error:
        run(model, SMALL, smallest)
    assert "0.5-32-4" in str(error.value)
    assert "python tools/run_net.py --cfg CONFIG.yaml TRAIN.ENABLE False" in str(error.value)
    with pytest.raises(NotCalibratedError, match="0.5-32-4"):
        model.extract(smallest)


def test_training_needs_no_calibration_and_the_full_network_alone_updates_statistics(small_case):
    model = small_case.build().train()
    before = copy.deepcopy(dict(model.named_buffers()))
    for configuration in model.space.corners()[:-1]:
        assert run(model, small_case, configuration).isfinite().all()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    run(model, small_case, model.space.largest)
    assert not any(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_the_largest_configuration_evaluates_without_calibration_and_prefers_it():
    model = SMALL.build()
    largest = model.space.largest
    uncalibrated = run(model, SMALL, largest)
    calibrate_at_random(model, [largest])
    calibrated = run(model, SMALL, largest)
    assert not torch.allclose(uncalibrated, calibrated)
    torch.testing.assert_close(model.extract(largest)(SMALL.inputs(largest)), calibrated)


def test_statistics_count_at_once_and_others_stay():
    model = SMALL.build()
    model.activate(model.space.smallest)
    calibrate_at_random(model, [model.space.smallest])
    expected = model(SMALL.inputs(model.active))
    calibrate_at_random(model, model.space.corners()[1:])
    assert set(model.statistics) == set(model.space.corners())
    assert torch.equal(run(model, SMALL, model.space.smallest), expected)


def test_statistics_outside_the_space_are_refused():
    model = SMALL.build()
    statistics = random_statistics(model, model.space.smallest)
    with pytest.raises(ValueError, match="the size 40 is not one of 32, 48"):
        model.set_statistics({Configuration(0.5, 40, 4): statistics})


def test_statistics_of_a_width_with_the_same_signature_serve():
    model = SMALL.build()
    first, same, other = 0.7, 0.69, 0.9
    assert model.signature(first) == model.signature(same) != model.signature(other)
    calibrate_at_random(model, [Configuration(first, 32, 4)])
    expected = run(model, SMALL, Configuration(first, 32, 4))
    assert torch.equal(run(model, SMALL, Configuration(same, 32, 4)), expected)
    torch.testing.assert_close(model.extract(f"{same}-32-4")(SMALL.inputs(Configuration(same, 32, 4))), expected)
    for refused in (Configuration(other, 32, 4), Configuration(same, 48, 4), Configuration(same, 32, 8)):
        with pytest.raises(NotCalibratedError):
            run(model, SMALL, refused)


def test_a_copy_has_statistics_of_its_own():
    model = SMALL.build()
    smallest = model.space.smallest
    calibrate_at_random(model, [smallest])
    expected = run(model, SMALL, smallest)
    twin = copy.deepcopy(model)
    assert twin.active == smallest
    assert torch.equal(twin(SMALL.inputs(smallest)), expected)
    twin.set_statistics({smallest: random_statistics(twin, Configuration(0.5, 32, 8))})
    for parameter in twin.parameters():
        parameter.zero_()
    assert not torch.equal(run(twin, SMALL, smallest), expected)
    assert torch.equal(run(model, SMALL, smallest), expected)


def test_activating_a_copy_leaves_the_original():
    model = SMALL.build()
    smallest, largest = model.space.smallest, model.space.largest
    calibrate_at_random(model, [smallest, largest])
    expected = {c: run(model, SMALL, c) for c in (largest, smallest)}
    twin = copy.deepcopy(model)
    assert torch.equal(run(twin, SMALL, largest), expected[largest])
    assert torch.equal(model(SMALL.inputs(smallest)), expected[smallest])


def test_statistics_follow_the_parameters_to_another_dtype():
    model = SMALL.build()
    smallest = model.space.smallest
    calibrate_at_random(model, [smallest])
    expected = run(model, SMALL, smallest)
    model.to(torch.float64)
    assert model.statistics[smallest].mean["head.conv_5_bn"].dtype == torch.float64
    logits = model(SMALL.inputs(smallest, torch.float64))
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), expected, rtol=1e-3, atol=1e-4)


def test_statistics_are_given_the_dtype_of_the_parameters():
    model = SMALL.build().double()
    calibrate_at_random(model, [model.space.smallest])
    assert run(model, SMALL, model.space.smallest, dtype=torch.float64).dtype == torch.float64


# ---- the space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", OUTSIDE)
def test_configurations_outside_the_space_are_refused(text):
    model = SMALL.build()
    model.activate("0.5-32-4")
    for method in (model.activate, model.extract, model.subnetwork):
        with pytest.raises(ValueError, match=text):
            method(text)
    assert model.active == model.space.smallest


def test_activating_sets_what_runs():
    model = SMALL.build()
    assert model.active == model.space.largest
    assert model.activate("0.5-32-4") is model
    assert model.active == Configuration(0.5, 32, 4)


def test_signatures_tell_networks_apart():
    model = SMALL.build()
    widths = [0.5 + i / 1000 for i in range(501)]
    signatures = [model.signature(width) for width in widths]
    assert signatures == sorted(signatures)
    shapes = {}
    for width, signature in zip(widths[::50], signatures[::50]):
        counted = [tuple(p.shape) for p in model.subnetwork(Configuration(width, 32, 4)).parameters()]
        assert shapes.setdefault(signature, counted) == counted
    assert len({str(counted) for counted in shapes.values()}) == len(shapes) > 3


# ---- building --------------------------------------------------------------------------------------------------------


def test_a_network_is_built_again_from_its_arguments(case, tmp_path):
    model = case.build()
    save_tensors(tmp_path / "network.pyth", {"arguments": model.arguments, "state": model.state_dict()})
    content = load_tensors(tmp_path / "network.pyth")
    twin = create_model(**content["arguments"]).eval()
    twin.load_state_dict(content["state"])
    inputs = case.inputs(model.space.largest)
    assert twin.space == model.space
    assert torch.equal(twin(inputs), model(inputs))


def test_a_static_network_has_one_configuration():
    model = SMALL.build([1.0, 1.0], [48], [8])
    assert run(model, SMALL, model.space.largest).shape == (2, 7)
    with pytest.raises(ValueError, match="outside the range"):
        model.activate("0.9-48-8")


@pytest.mark.parametrize("width_range", [[0.25, 1.5], [0.5, 0.75]])
def test_the_greatest_width_need_not_be_1(width_range):
    model = SMALL.build(width_range)
    greatest = model.space.largest
    assert greatest.width == width_range[1]
    calibrate_at_random(model, model.space.corners())
    assert all(run(model, SMALL, c).isfinite().all() for c in model.space.corners())
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (model, model.subnetwork(greatest))]
    assert shapes[0] == shapes[1]
