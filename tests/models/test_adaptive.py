import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.nn as nn
from networks import IMAGE_NETWORKS, MAP_NETWORKS, NETWORKS, calibrate_at_random, fill_by_rule, random_clip, random_statistics

from mutual3d.layers import (
    NormPairs,
    ScaledChannels,
    SlimmableBatchNorm3d,
    SlimmableConv3d,
    SlimmableLayer,
    SlimmableLinear,
    slimmable_norms,
)
from mutual3d.models import AdaptiveNetwork, create_model
from mutual3d.models.adaptive import NotCalibratedError, OtherThreadError
from mutual3d.sampling import Configuration, SearchSpace
from mutual3d.utils.checkpoint import load_weights
from mutual3d.utils.files import load_tensors, save_tensors

CASES = NETWORKS | IMAGE_NETWORKS | MAP_NETWORKS
SMALL = NETWORKS["x3d_small"]
OUTSIDE = ["0.4-48-8", "1.1-48-8", "1-40-8", "1-48-6"]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=[name for name in CASES if name.endswith("_small")])
def small_case(request):
    return CASES[request.param]


@pytest.fixture(autouse=True)
def no_gradients():
    """No gradients unless asked for."""
    with torch.no_grad():
        yield


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
        # Of maps, which have sizes of their own, the mean.
        outputs.append(logits.flatten(2).mean(2) if logits.ndim > 2 else logits)
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
        assert model.activate(configuration)(inputs).shape[:2] == (2, 7)


def test_a_larger_view_runs_at_the_same_configuration(case):
    model = case.build()
    pathways = model.fit_clip(random_clip(model, 55))
    assert all(pathway.shape[-1] == 55 for pathway in pathways)
    assert model(pathways).shape[:2] == (2, case.arguments["num_classes"])


# ---- batch norm statistics -------------------------------------------------------------------------------------------


def test_a_configuration_that_was_never_calibrated_refuses_to_evaluate():
    model = SMALL.build()
    smallest = model.space.smallest
    with pytest.raises(NotCalibratedError) as error:
        run(model, SMALL, smallest)
    assert "0.5-32-4" in str(error.value)
    assert "mutual3d run --cfg CONFIG.yaml TRAIN.ENABLE False" in str(error.value)
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


# ---- folding: what is declared, and nothing else ----------------------------------------------------------------------


class StrangersPreactivation(NormPairs):
    """x + conv2(relu(bn2(conv1(relu(bn1(x)))))), registered in an order that says nothing of the order of running."""

    def __init__(self, channels):
        super().__init__()
        for i in (1, 2):
            self.add_module(f"conv{i}", SlimmableConv3d(channels, channels, 3, padding=1, bias=False))
            self.add_module(f"bn{i}", SlimmableBatchNorm3d(channels))

    def forward(self, pathways):
        (x,) = pathways
        y = self.conv1(torch.relu(self.bn1(x)))
        return [x + self.conv2(torch.relu(self.bn2(y)))]


class StrangersStem(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = SlimmableConv3d(3, channels, 3, padding=1)

    def forward(self, pathways):
        return [self.conv(pathways[0])]


class StrangersHead(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.top = SlimmableLinear(channels, classes)

    def forward(self, pathways):
        return self.top(pathways[0].mean((2, 3, 4)))


def strangers_network(classes=5, **options):
    channels = ScaledChannels(16)
    stages = {"stem": StrangersStem(channels), "block": StrangersPreactivation(channels)}
    space = SearchSpace((0.5, 1.0), (16, 24), (2, 4))
    model = AdaptiveNetwork({**stages, "end": StrangersHead(channels, classes)}, space, **options)
    return calibrate_at_random(fill_by_rule(model).double().eval(), space.corners())


@pytest.mark.parametrize("pairs, left", [((), {"bn1", "bn2"}), ((("conv1", "bn2"),), {"bn1"})])
def test_a_strangers_preactivation_block_folds_as_it_declares_and_computes_the_same(monkeypatch, pairs, left):
    monkeypatch.setattr(StrangersPreactivation, "norm_pairs", pairs)
    model, clip = strangers_network(), torch.randn(2, 3, 4, 24, 24).double()
    for c in model.space.corners():
        folded = model.extract(c, fold_bn=True)
        inputs = model.activate(c).fit_clip(clip)
        torch.testing.assert_close(folded(inputs), model(inputs), rtol=1e-9, atol=1e-9)
        assert {n for n, m in folded.block.named_children() if isinstance(m, nn.BatchNorm3d)} == left


@pytest.mark.parametrize("pair, words", [
    (("bn1", "bn2"), "'bn1' is no convolution"), (("conv1", "conv2"), "'conv2' is no batch norm"),
    (("conv3", "bn1"), "'conv3' is no convolution"),
])  # fmt: skip
def test_a_pair_that_is_none_names_the_block(monkeypatch, pair, words):
    monkeypatch.setattr(StrangersPreactivation, "norm_pairs", (pair,))
    with pytest.raises(ValueError, match=f"StrangersPreactivation declares the pair.*{words}.*norm_pairs"):
        strangers_network().extract("1-24-4", fold_bn=True)


def test_a_network_says_its_classifier_and_a_name_of_nothing_is_refused(case):
    model = case.build()
    classifier = model.get_submodule(model.classifier_name)
    assert len(classifier.weight) == case.arguments["num_classes"]
    assert model.subnetwork(model.space.largest).classifier_name == model.classifier_name
    with pytest.raises(ValueError, match="classifier_name is 'fc', and the network has no linear layer"):
        strangers_network(classifier_name="fc")


def test_a_strangers_classifier_starts_anew_where_it_is_named():
    source, model = strangers_network(classes=9), strangers_network(classes=5, classifier_name="end.top")
    own = model.end.top.weight.clone()
    load_weights(model, source.state_dict(), "zoo.pyth", reset_head=True)
    assert torch.equal(model.end.top.weight, own)
    with pytest.raises(ValueError, match="AdaptiveNetwork does not say which layer"):
        load_weights(strangers_network(), source.state_dict(), "zoo.pyth", reset_head=True)


# ---- what goes in -----------------------------------------------------------------------------------------------------


def test_a_network_of_one_pathway_takes_the_clip_itself(case):
    model = case.build()
    largest = model.space.largest
    inputs, plain = case.inputs(largest), model.extract(largest)
    if case.arguments["name"] == "slowfast":
        with pytest.raises(ValueError, match="was given a tensor.*list of pathways, which network.fit_clip"):
            plain(inputs[0])
    elif case.has_frames:
        assert torch.equal(plain(inputs[0]), plain(inputs)) and torch.equal(model(inputs[0]), model(inputs))
    for wrong in (inputs[0][0].numpy(), inputs[0][0] if case.has_frames else [inputs], None):
        for network in (model, plain):
            with pytest.raises(ValueError, match="the network was given .*: give "):
                network(wrong)


# ---- calls that name their configuration ------------------------------------------------------------------------------


def test_a_call_that_names_its_configuration_is_activate_and_a_call_bit_for_bit(case):
    model = case.build()
    corners = model.space.corners()
    calibrate_at_random(model, corners)
    expected = {c: run(model, case, c) for c in corners}
    active = model.active
    model.train()
    for c in corners:
        inputs = case.inputs(c)
        for output in (model(inputs, configuration=c), model(inputs, configuration=str(c)), model.at(c)(inputs)):
            assert torch.equal(output, expected[c])
    assert model.active == active and model.training


def test_a_view_has_the_networks_own_weights_and_follows_them():
    model = SMALL.build()
    c = model.space.smallest
    calibrate_at_random(model, [c, model.space.largest])
    view, inputs = model.at(c), SMALL.inputs(c)
    own = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in view.parameters()} == {p.data_ptr() for p in model._twin(c).parameters()} == own

    def follows():
        return torch.equal(view(inputs), model.activate(c)(inputs))

    before = view(inputs)
    model.load_state_dict({k: v + 0.01 if v.is_floating_point() else v for k, v in model.state_dict().items()})
    assert follows() and not torch.equal(view(inputs), before)
    model.load_state_dict({k: v.clone() for k, v in SMALL.build().state_dict().items()}, assign=True)
    assert follows() and torch.equal(view(inputs), before)
    model.set_statistics({c: random_statistics(model, Configuration(0.5, 32, 8))})
    assert follows() and not torch.equal(view(inputs), before)
    model.place(torch.device("cpu"))
    assert follows()
    inputs = SMALL.inputs(c, torch.float64)
    view.to(torch.float64)
    assert follows() and view(inputs).dtype == torch.float64 and model.head.projection.weight.dtype == torch.float64


def test_views_evaluate_and_keep_gradients_for_whoever_wants_them():
    model = SMALL.build()
    calibrate_at_random(model, [model.space.smallest])
    view = model.at("0.5-32-4").train()
    assert not view.training and not model.training
    with torch.enable_grad():
        view(SMALL.inputs(view.configuration)).sum().backward()
    assert model.head.projection.weight.grad is not None
    with pytest.raises(NotCalibratedError, match="0.5-48-4 was never calibrated"):
        model.at("0.5-48-4")(SMALL.inputs(Configuration(0.5, 48, 4)))
    for text in OUTSIDE:
        with pytest.raises(ValueError, match=text):
            model.at(text)


@pytest.mark.parametrize("batchnorm", ["calibrated", "private_size"])
def test_eight_threads_of_mixed_configurations_give_what_one_gives(batchnorm):
    model = SMALL.build(batchnorm=batchnorm)
    corners = model.space.corners()
    calibrate_at_random(model, corners)
    jobs = [(c, SMALL.inputs(c)) for c in corners] * 12
    expected = [model.activate(c)(inputs) for c, inputs in jobs]

    def call(job):
        c, inputs = job
        with torch.no_grad():
            return model(inputs, configuration=c) if id(inputs) % 3 else model.at(str(c))(inputs)

    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(call, jobs))
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def in_thread(function):
    """What `function` returns in another thread; raises what it raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_activate_belongs_to_the_thread_that_activates_first():
    model = SMALL.build()
    model.activate("0.5-32-4")
    with pytest.raises(OtherThreadError, match=r"configuration=.*model.at\(.*any number of threads.*release"):
        in_thread(lambda: model.activate("1-48-8"))
    assert model.active == Configuration(0.5, 32, 4)
    model.release()
    assert in_thread(lambda: model.activate("1-48-8").active) == model.space.largest
    # Its thread has ended, and the next one takes over.
    assert model.activate("0.5-32-4").active == model.space.smallest


def test_a_network_that_nobody_activated_goes_to_another_thread_as_a_whole():
    model = SMALL.build()
    calibrate_at_random(model, [model.space.smallest])
    assert in_thread(lambda: model.activate("0.5-32-4").active) == model.space.smallest
    model.activate("1-48-8")
    twin = copy.deepcopy(model)
    assert in_thread(lambda: twin.activate("0.5-32-4").active) == model.space.smallest


@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_a_network_pickles(case, dumps):
    model = case.build()
    smallest = model.space.smallest
    calibrate_at_random(model, [smallest])
    expected = run(model, case, smallest)
    model(case.inputs(smallest), configuration=smallest)
    twin, view = pickle.loads(dumps((model, model.at(smallest))))
    assert torch.equal(twin(case.inputs(smallest)), expected) and view.model is twin
    assert torch.equal(view(case.inputs(smallest)), expected) and set(twin.statistics) == {smallest}


def test_what_is_kept_for_calls_is_bounded(monkeypatch):
    monkeypatch.setattr("mutual3d.models.adaptive.network._KEPT_TWINS", 3)
    monkeypatch.setattr("mutual3d.models.adaptive.network._KEPT_PLANS", 5)
    model = SMALL.build()
    calibrate_at_random(model, [Configuration(0.5, 32, 4)])
    for i in range(20):
        width = 0.5 + i / 1e4
        model(SMALL.inputs(Configuration(width, 32, 4)), configuration=f"{width}-32-4")
        model.activate(f"{width}-32-4")
    assert len(model._twins) <= 3 and len(model._plans) <= 5


def test_text_is_looked_up_and_not_read_again(monkeypatch):
    model = SMALL.build()
    calibrate_at_random(model, [model.space.smallest])
    model.activate("0.5-32-4")
    monkeypatch.setattr(Configuration, "parse", None)
    assert model.activate("0.5-32-4").active == model.space.smallest


# ---- statistics that cannot be right ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change, words", [
    (lambda m, v: m.pop("head.conv_5_bn"), "mean: norm 'head.conv_5_bn' is missing"),
    (lambda m, v: v.update(stranger=torch.ones(3)), "variance: there is no norm 'stranger'"),
    (lambda m, v: m.update({"head.conv_5_bn": torch.ones(3)}), r"mean: norm 'head.conv_5_bn' has the shape \(3,\), not \("),
    (lambda m, v: m["s1.pathway0_stem.bn"].fill_(float("nan")), "mean: norm 's1.pathway0_stem.bn' has values that are not finite"),
    (lambda m, v: v["s1.pathway0_stem.bn"].fill_(-1), "variance: norm 's1.pathway0_stem.bn' .* not finite and 0 or more"),
])  # fmt: skip
def test_statistics_that_cannot_be_right_name_configuration_and_norm(change, words):
    model = SMALL.build()
    smallest = model.space.smallest
    statistics = random_statistics(model, smallest)
    change(statistics.mean, statistics.variance)
    with pytest.raises(ValueError, match=f"statistics of configuration 0.5-32-4, {words}.*calibrate again"):
        model.set_statistics({smallest: statistics})
    assert not model.statistics
