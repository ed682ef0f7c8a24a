"""Networks whose layers may have widths of their own: those of a stage at equal widths, and what was measured at others."""

import copy

import pytest
import torch
from networks import IMAGE_NETWORKS, NETWORKS, calibrate_at_random
from torch.utils.flop_counter import FlopCounterMode

from mutual3d.cost.flops import count_costs
from mutual3d.layers import BNStatistics, OwnChannels, SlimmableLayer, slimmable_norms
from mutual3d.models import create_model
from mutual3d.models.build import model_arguments
from mutual3d.models.create import load_network
from mutual3d.pipeline import load_config
from mutual3d.sampling import Configuration

CASES = {name: case for name, case in (NETWORKS | IMAGE_NETWORKS).items() if name.endswith("_small")}
# Groups of networks, by stage and by layer, where they were counted by hand: residual streams, and what no sum ties.
GROUPS = {
    "x3d_small": (4, 17), "slow_small": (4, 37), "c2d_small": (4, 37), "i3d_small": (4, 37), "slowfast_small": (4, 37),
    "mobilenet_v1_small": (14, 14), "mobilenet_v2_small": (8, 24), "resnet18_small": (4, 12), "se_resnet18_small": (4, 12),
    "resnet50_small": (4, 37), "wide_resnet_small": (4, 7), "vgg16_small": (15, 15),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def space_of(case, by):
    frames = [4, 8] if case.has_frames else [1]
    return {"width_range": [0.5, 1.0], "spatial_sizes": [32, 48], "temporal_sizes": frames, "widths_by": by}


def networks(case):
    """The network by stage and by layer, of the same seed."""
    made = []
    for by in ("stage", "layer"):
        torch.manual_seed(0)
        made.append(create_model(**case.arguments, space=space_of(case, by)).eval())
    return made


def random_widths(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.empty(network.space.width_groups).uniform_(0.5, 1.0, generator=generator).tolist())


def test_at_one_width_for_all_the_two_are_equal_to_the_bit(case):
    stage, layer = networks(case)
    assert list(stage.state_dict()) == list(layer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(stage.state_dict().values(), layer.state_dict().values()))
    for configuration in stage.space.corners():
        inputs = case.inputs(configuration)
        alike = Configuration((configuration.width,) * layer.space.width_groups, configuration.spatial, configuration.temporal)
        calibrate_at_random(stage, [configuration])
        layer.set_statistics({alike: stage.statistics[configuration]})
        expected = stage.activate(configuration)(inputs)
        assert torch.equal(layer.activate(alike)(inputs), expected)
        # One signature: statistics of the one are those of the other.
        assert torch.equal(layer.activate(configuration)(inputs), expected)
        assert layer.signature(configuration.width) == layer.signature(alike.width)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_that_no_sum_ties_has_a_width(name):
    stage, layer = networks(CASES[name])
    assert layer.space.width_groups >= stage.space.width_groups
    by_stage, by_layer = GROUPS.get(name, (None, None))
    assert by_stage in (None, stage.space.width_groups) and by_layer in (None, layer.space.width_groups)
    # Each narrows layers of its own, and no other ones.
    full = layer.signature(1.0)
    for group in range(layer.space.width_groups):
        widths = tuple(0.5 if group == i else 1.0 for i in range(layer.space.width_groups))
        assert [i for i, (a, b) in enumerate(zip(layer.signature(widths), full)) if a != b] == [group]


def test_activate_equals_extract_at_random_widths(case):
    network = networks(case)[1].double()
    sizes = network.space.largest.spatial, network.space.largest.temporal
    chosen = [Configuration(random_widths(network, seed), *sizes) for seed in range(2)]
    calibrate_by_width(network, chosen)
    for configuration in chosen:
        inputs = case.inputs(configuration, torch.float64)
        logits = network.activate(configuration)(inputs)
        assert torch.equal(network(inputs, configuration=str_and_back(configuration)), logits)
        for fold_bn in (False, True):
            torch.testing.assert_close(network.extract(configuration, fold_bn=fold_bn)(inputs), logits, rtol=1e-9, atol=1e-9)


def str_and_back(configuration):
    """The same; widths of a test have more digits than a text keeps."""
    assert len(Configuration.parse(str(configuration)).widths) == len(configuration.widths)
    return configuration


def calibrate_by_width(network, configurations):
    """Statistics that no two configurations share."""
    for seed, configuration in enumerate(configurations):
        generator = torch.Generator().manual_seed(seed)
        widths = network._layer_widths(configuration.width)
        counts = {name: norm.rule.at(widths) for name, norm in slimmable_norms(network).items()}
        mean, variance = ({n: torch.rand(c, generator=generator) * 0.5 + least for n, c in counts.items()} for least in (-0.2, 0.7))
        network.set_statistics({configuration: BNStatistics(mean, variance)})


def test_the_arithmetic_of_random_widths_is_what_hooks_count(case):
    """Of each layer the channels that its tensors have, while the network runs; torch's counter counts the plain network."""
    network = networks(case)[1]
    configuration = Configuration(random_widths(network), *(48, 8) if case.has_frames else (48, 1))
    calibrate_by_width(network, [configuration])
    counted = []

    def count(layer, inputs, outputs):
        inside = layer.weight[0].numel() if getattr(layer, "groups", 1) > 1 else inputs[0].shape[1] * layer.weight[0, 0].numel()
        counted.append(outputs[:1].numel() * (inside if layer.weight.ndim > 2 else inputs[0].shape[-1]))

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, SlimmableLayer)]
    inputs = case.inputs(configuration)
    network.activate(configuration)(inputs)
    for hook in hooks:
        hook.remove()
    cost = count_costs(network, [configuration], crop=48)[configuration]
    assert cost.gflops == pytest.approx(sum(counted) / 1e9, rel=1e-12)
    plain = network.extract(configuration)
    assert cost.parameters == sum(p.numel() for p in plain.parameters())
    with FlopCounterMode(display=False) as counter:
        plain(inputs)
    assert counter.get_total_flops() / 2e9 / 2 == pytest.approx(cost.gflops, rel=1e-12)  # two clips, two FLOPs a multiply-add


def test_files_of_networks_by_stage_stay_as_they_were_and_those_by_layer_come_back(case):
    stage, layer = networks(case)
    assert "widths_by" not in stage.arguments["space"] and layer.arguments["space"]["widths_by"] == "layer"
    again = load_network(layer.arguments, layer.state_dict(), "file.pyth")
    assert again.space == layer.space
    widths = random_widths(layer)
    assert again.signature(widths) == layer.signature(widths)
    assert copy.deepcopy(layer).signature(widths) == layer.signature(widths)
    # The weights of the one are those of the other.
    assert load_network(stage.arguments, layer.state_dict(), "file.pyth").space == stage.space


def test_groups_are_named_by_the_layers_that_compute_them():
    layer = networks(CASES["slow_small"])[1]
    names = layer.width_group_names
    assert len(names) == len(set(names)) == layer.space.width_groups
    assert {"s1.pathway0_stem.conv", "s2.pathway0_res0.branch1", "s2.pathway0_res0.branch2.a", "s5.pathway0_res2.branch2.b"} <= set(names)
    for name, root in zip(names, layer._roots):
        assert layer.get_submodule(name).out_rule.root is root or layer.get_submodule(name).out_rule.root == root
        assert isinstance(root, OwnChannels) == ("branch2.a" in name or "branch2.b" in name or "stem" in name)


def test_the_word_of_a_config_reaches_the_network():
    words = ["MUTUAL.WIDTHS_BY", "layer", "MUTUAL.SUBNETS", "['smallest','random_widths']"]
    assert model_arguments(load_config("Demo/MUTUAL_X3D", words))["space"]["widths_by"] == "layer"
    assert "widths_by" not in model_arguments(load_config("Demo/MUTUAL_X3D"))["space"]
    with pytest.raises(ValueError, match="MUTUAL.WIDTHS_BY is 'block'.*'stage' or 'layer'"):
        load_config("Demo/MUTUAL_X3D", ["MUTUAL.WIDTHS_BY", "block"])
    with pytest.raises(ValueError, match="widths_by is 'block': choose among stage, layer"):
        create_model("x3d", num_classes=2, space={**space_of(CASES["x3d_small"], "layer"), "widths_by": "block"})


# ---- Averages over the inputs ------------------------------------------------------------------------------------------


def test_layers_that_average_keep_the_scale_of_their_outputs(case):
    torch.manual_seed(0)
    network = create_model(**case.arguments, space=space_of(case, "stage"), average_inputs=True)
    plain = create_model(**case.arguments, space=space_of(case, "stage")).eval()
    plain.load_state_dict(network.state_dict())
    assert network.arguments["average_inputs"] is True and "average_inputs" not in plain.arguments
    largest, smallest = network.space.largest, network.space.smallest
    inputs = case.inputs(largest)
    assert torch.equal(network.eval().activate(largest)(inputs), plain(inputs))
    for layer in (module for module in network.modules() if isinstance(module, SlimmableLayer)):
        few, outputs = layer.in_rule.at(0.5), layer.out_rule.full
        weight, bias, *_ = layer.slice(few, outputs)
        own, own_bias, *_ = plain.get_submodule(next(n for n, m in network.named_modules() if m is layer)).slice(few, outputs)
        is_depthwise = getattr(layer, "groups", 1) > 1
        scale = 1.0 if is_depthwise else layer.in_rule.full / few
        torch.testing.assert_close(weight, own * scale)
        assert bias is None and own_bias is None or torch.equal(bias, own_bias)
    network.double()
    calibrate_at_random(network, [smallest])
    calibrate_at_random(plain.double(), [smallest])
    inputs = case.inputs(smallest, torch.float64)
    logits = network.activate(smallest)(inputs)
    torch.testing.assert_close(network.extract(smallest)(inputs), logits, rtol=1e-9, atol=1e-9)
    again = load_network(network.arguments, network.state_dict(), "file.pyth").double().eval()
    again.set_statistics(network.statistics)
    torch.testing.assert_close(again.activate(smallest)(inputs), logits, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(plain.activate(smallest)(inputs), logits)


def test_whether_layers_average_is_a_key_of_a_config():
    assert model_arguments(load_config("Demo/MUTUAL_X3D", ["MUTUAL.AVERAGE_INPUTS", "True"]))["average_inputs"] is True
    assert "average_inputs" not in model_arguments(load_config("Demo/MUTUAL_X3D"))
    with pytest.raises(ValueError, match="average_inputs is 'yes': give True or False"):
        create_model("x3d", num_classes=2, space=space_of(CASES["x3d_small"], "stage"), average_inputs="yes")


@pytest.mark.parametrize(
    "arguments, size, channels, groups, full",
    [
        (dict(name="wdsr", num_features=16, num_blocks=3), 16, 3, (1, 4), [16, 64, 64, 64]),
        (dict(name="policy", num_classes=5, channels=[8, 16, 8], hidden_features=32), 40, 4, (3, 4), [8, 16, 8, 32]),
    ],
)
def test_networks_without_norms_have_their_layers_apart(arguments, size, channels, groups, full):
    made = []
    for by in ("stage", "layer"):
        torch.manual_seed(0)
        space = {"width_range": [0.5, 1.0], "spatial_sizes": [size], "temporal_sizes": [1], "divisor": 2, "widths_by": by}
        made.append(create_model(**arguments, space=space).double().eval())
    stage, layer = made
    assert (stage.space.width_groups, layer.space.width_groups) == groups
    images = torch.rand(1, channels, size, size, dtype=torch.float64)
    assert torch.equal(layer.activate(Configuration((0.5,) * 4, size))(images), stage.activate(f"0.5-{size}")(images))
    configuration = Configuration((1.0, 0.5, 1.0, 0.75), size)
    outputs = layer.activate(configuration)(images)
    torch.testing.assert_close(layer.extract(configuration)(images), outputs, rtol=1e-9, atol=1e-9)
    assert [layer.get_submodule(name).out_rule.full for name in layer.width_group_names] == full


def test_maps_of_classes_have_the_insides_of_their_units_apart():
    made = []
    for by in ("stage", "layer"):
        torch.manual_seed(0)
        space = {"width_range": [0.5, 1.0], "spatial_sizes": [64], "temporal_sizes": [1], "widths_by": by}
        made.append(create_model("refinenet", num_classes=3, space=space, depth=18, width_per_group=16, refine_channels=16).double().eval())
    stage, layer = made
    # The ResNet's four stages with eight insides, and two kinds of refinement with five units in each of four.
    assert (stage.space.width_groups, layer.space.width_groups) == (6, 6 + 8 + 20)
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    alike = Configuration((0.5,) * layer.space.width_groups, 64)
    calibrate_by_width(stage, [Configuration(0.5, 64)])
    layer.set_statistics({alike: stage.statistics[Configuration(0.5, 64)]})
    assert torch.equal(layer.activate(alike)(images), stage.activate("0.5-64")(images))
    chosen = Configuration(random_widths(layer), 64)
    calibrate_by_width(layer, [chosen])
    maps = layer.activate(chosen)(images)
    torch.testing.assert_close(layer.extract(chosen, fold_bn=True)(images), maps, rtol=1e-9, atol=1e-9)
