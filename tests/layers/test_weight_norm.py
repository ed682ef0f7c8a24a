"""Weight normalisation of the channels that run."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.layers import FixedChannels, JoinedChannels, ScaledChannels, SlimmableConv2d, SlimmableWeightNormConv2d

WIDTHS = (0.25, 0.63, 1.0)
# (inputs, outputs, groups).
SHAPES = {
    "dense": (ScaledChannels(32), ScaledChannels(24), 1),
    "from_fixed": (FixedChannels(3), ScaledChannels(24), 1),
    "to_fixed": (ScaledChannels(32), FixedChannels(10), 1),
    "after_a_fusion": (JoinedChannels(ScaledChannels(32), 5), ScaledChannels(24), 1),
    "grouped": (ScaledChannels(32), ScaledChannels(32), 8),
}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def build(shape, kind=SlimmableWeightNormConv2d, trained=True):
    """A layer in float64; trained: with gains that are not the lengths of its directions."""
    inputs, outputs, groups = shape
    torch.manual_seed(0)
    layer = kind(inputs, outputs, 3, padding=1, groups=groups).double()
    if trained:
        with torch.no_grad():
            layer.gain.copy_(torch.rand(layer.gain.shape) + 0.5)
            layer.weight.mul_(torch.rand(len(layer.weight), 1, 1, 1) + 0.5)
    return layer


def set_width(layer, width):
    vars(layer).update(layer.settings(width))
    return layer


def make_input(shape, width):
    return torch.randn(2, shape[0].at(width), 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_definition(layer, shape, width):
    """The weight gain * v / |v| of each output, the norm of what runs alone, number by number."""
    inputs, outputs, groups = shape
    count = inputs.at(width)
    if isinstance(inputs, JoinedChannels):
        used = [*range(count - inputs.tail), *range(inputs.full - inputs.tail, inputs.full)]
    else:
        used = range(count if groups == 1 else inputs.full // groups)
    weight = torch.zeros(outputs.at(width), len(used), 3, 3, dtype=torch.float64)
    for o in range(len(weight)):
        direction = layer.weight[o, list(used)]
        length = sum(value**2 for value in direction.flatten().tolist()) ** 0.5
        weight[o] = layer.gain[o] * direction / length
    return weight


@pytest.mark.parametrize("width", WIDTHS)
def test_the_weight_is_the_gain_times_the_direction_of_what_runs(shape, width):
    layer, x = set_width(build(shape), width), make_input(shape, width)
    weight, groups = by_definition(layer, shape, width), shape[2]
    groups = 1 if groups == 1 else shape[0].at(width) * groups // shape[0].full
    expected = F.conv2d(x, weight, layer.bias[: len(weight)], padding=1, groups=groups)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_at_full_width_it_is_torchs_weight_norm_and_narrower_it_is_not_a_slice_of_that():
    shape = SHAPES["dense"]
    layer = build(shape)
    plain = nn.Conv2d(32, 24, 3, padding=1).double()
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        plain.bias.copy_(layer.bias)
    normed = nn.utils.parametrizations.weight_norm(plain)
    normed.parametrizations.weight.original0.data.copy_(layer.gain.view(-1, 1, 1, 1))
    torch.testing.assert_close(layer(make_input(shape, 1.0)), normed(make_input(shape, 1.0)), rtol=0, atol=1e-12)
    narrow, x = set_width(layer, 0.25), make_input(shape, 0.25)
    sliced = F.conv2d(x, normed.weight[:8, :8], normed.bias[:8], padding=1)
    # A quarter of the inputs has about half of the length.
    assert narrow(x).std() > 1.5 * sliced.std()


def test_an_untrained_layer_is_the_convolution_that_it_would_be_without(shape):
    layer, plain = build(shape, trained=False), build(shape, SlimmableConv2d, trained=False)
    assert torch.equal(layer.weight, plain.weight)
    # Gains are made in float32.
    torch.testing.assert_close(layer(make_input(shape, 1.0)), plain(make_input(shape, 1.0)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_plain_layer_is_an_ordinary_convolution_with_the_same_outputs(shape, width):
    layer, x = set_width(build(shape), width), make_input(shape, width)
    plain = layer.plain(width)
    assert type(plain) is nn.Conv2d and set(plain.state_dict()) == {"weight", "bias"}
    assert plain.weight.is_leaf and plain.weight.requires_grad
    torch.testing.assert_close(plain(x), layer(x), rtol=0, atol=1e-12)


def test_gradients_are_those_of_finite_differences_at_a_narrow_width():
    layer = set_width(build((ScaledChannels(8, 4), ScaledChannels(8, 4), 1)), 0.5)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    names, parameters = zip(*layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    given = [value.detach().clone().requires_grad_() for value in (x, *parameters)]
    assert sorted(names) == ["bias", "gain", "weight"] and torch.autograd.gradcheck(run, given)


def test_it_trains_its_active_channels_alone_and_lengths_of_directions_get_no_gradient():
    layer = set_width(build(SHAPES["dense"]), 0.5)
    layer(make_input(SHAPES["dense"], 0.5)).square().sum().backward()
    used = torch.zeros_like(layer.weight)
    used[:16, :16] = 1
    assert torch.equal(layer.weight.grad != 0, used.bool())
    assert layer.gain.grad[:16].all() and not layer.gain.grad[16:].any()
    along = (layer.weight.grad * layer.weight).sum((1, 2, 3))
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["gain", "weight"])
def test_a_kept_weight_is_left_when_a_parameter_changes(width, name):
    layer, x = set_width(build(SHAPES["dense"]).eval(), width), make_input(SHAPES["dense"], width)
    before = layer(x)
    kept = layer._kept
    assert torch.equal(layer(x), before) and layer._kept is kept
    getattr(layer, name)[0].mul_(-2)
    after = layer(x)
    assert not torch.equal(after[:, 0], before[:, 0]) and torch.equal(after[:, 1:], before[:, 1:])
    assert torch.equal(copy.deepcopy(layer)(x), after)


def test_a_direction_without_length_gives_the_bias_and_finite_gradients():
    layer = build(SHAPES["dense"])
    with torch.no_grad():
        layer.weight[0] = 0
    output = layer(make_input(SHAPES["dense"], 1.0))
    assert torch.equal(output[:, 0], layer.bias[0].expand_as(output[:, 0]))
    output.sum().backward()
    assert layer.weight.grad.isfinite().all() and layer.gain.grad.isfinite().all()


def test_the_weight_keeps_its_memory_format():
    layer = build(SHAPES["dense"]).to(memory_format=torch.channels_last)
    weight, _, _ = layer.slice(32, 24)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_more_inputs_than_there_are_are_refused():
    with pytest.raises(ValueError, match="the input has 33 channels; this layer has 32"):
        build(SHAPES["dense"])(torch.zeros(1, 33, 3, 3, dtype=torch.float64))
