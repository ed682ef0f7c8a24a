import os
import subprocess
import sys

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.layers import (
    FixedChannels,
    JoinedChannels,
    ScaledChannels,
    SlimmableConv2d,
    SlimmableConv3d,
    SlimmableLinear,
)

WIDTHS = (0.25, 0.63, 1.0)
PLAIN = {2: nn.Conv2d, 3: nn.Conv3d}
SLIMMABLE = {2: SlimmableConv2d, 3: SlimmableConv3d}
FUNCTION = {2: F.conv2d, 3: F.conv3d}
# (inputs, outputs, groups): dense, dense from fixed inputs, four channels a group, depthwise.
SHAPES = {
    "dense": (ScaledChannels(32), ScaledChannels(24), 1),
    "from_fixed": (FixedChannels(3), ScaledChannels(24), 1),
    "to_fixed": (ScaledChannels(32), FixedChannels(10), 1),
    "grouped": (ScaledChannels(32), ScaledChannels(32), 8),
    "depthwise": (ScaledChannels(32), ScaledChannels(32), 32),
}


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def dimensions(request):
    return request.param


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


@pytest.fixture(params=[True, False], ids=["bias", "no_bias"])
def bias(request):
    return request.param


def build(dimensions, shape, bias=True, layers=SLIMMABLE, **options):
    inputs, outputs, groups = shape
    if layers is PLAIN:
        inputs, outputs = inputs.full, outputs.full
    torch.manual_seed(0)
    return layers[dimensions](inputs, outputs, 3, stride=2, padding=1, groups=groups, bias=bias, **options)


def set_width(layer, width):
    vars(layer).update(layer.settings(width))


def make_input(channels, dimensions):
    return torch.randn(2, channels, *(5, 6, 7)[-dimensions:], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("width", WIDTHS)
def test_convolution_at_a_width_is_the_plain_one_with_sliced_weights(dimensions, shape, bias, width):
    layer, (inputs, outputs, groups) = build(dimensions, shape, bias), shape
    set_width(layer, width)
    x = make_input(inputs.at(width), dimensions)
    group_size = inputs.full // groups
    weight = layer.weight[: outputs.at(width), : inputs.at(width) if groups == 1 else group_size]
    expected = FUNCTION[dimensions](
        x, weight, layer.bias[: outputs.at(width)] if bias else None, 2, 1,
        groups=1 if groups == 1 else inputs.at(width) // group_size,
    )  # fmt: skip
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", WIDTHS)
def test_plain_convolution_equals_the_layer_at_that_width(dimensions, shape, bias, width):
    layer, x = build(dimensions, shape, bias), make_input(shape[0].at(width), dimensions)
    plain = layer.plain(width)
    set_width(layer, width)
    assert type(plain) is PLAIN[dimensions]
    assert plain.weight.data_ptr() != layer.weight.data_ptr()
    assert (plain.in_channels, plain.out_channels) == (shape[0].at(width), shape[1].at(width))
    torch.testing.assert_close(plain(x), layer(x), rtol=0, atol=1e-6)


def test_full_convolution_is_bit_identical_to_the_torch_layer(dimensions, shape, bias):
    layer, plain = build(dimensions, shape, bias), build(dimensions, shape, bias, PLAIN)
    assert isinstance(layer, PLAIN[dimensions])
    assert list(layer.state_dict()) == list(plain.state_dict())
    set_width(layer, 1.0)
    x = make_input(shape[0].full, dimensions)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = layer(ours), plain(theirs)
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
    for mine, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert torch.equal(mine.grad, other.grad)


def test_convolution_trains_its_active_channels_alone():
    layer = build(3, SHAPES["dense"])
    set_width(layer, 0.5)
    layer(make_input(16, 3)).sum().backward()
    used = torch.zeros_like(layer.weight)
    used[:16, :16] = 1
    assert torch.equal(layer.weight.grad != 0, used.bool())
    assert not layer.bias.grad[16:].any()


def joined_layer(kind):
    """A layer whose inputs are an adaptive pathway's 32 channels and 5 of another one."""
    torch.manual_seed(0)
    rule = JoinedChannels(ScaledChannels(32), 5)
    return SlimmableLinear(rule, 7) if kind == "linear" else SLIMMABLE[kind](rule, ScaledChannels(24), 1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", [2, 3, "linear"])
def test_a_layer_after_a_fusion_is_the_full_one_with_the_middle_channels_zero(kind, width):
    layer, channels = joined_layer(kind), ScaledChannels(32).at(width)
    x = torch.randn(2, channels + 5) if kind == "linear" else make_input(channels + 5, kind)
    zeros = torch.zeros(2, 32 - channels, *x.shape[2:])
    expected = layer(torch.cat([x[:, :channels], zeros, x[:, channels:]], 1))
    set_width(layer, width)
    output = layer(x)
    torch.testing.assert_close(output, expected[:, : output.shape[1]], rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.plain(width)(x), output, rtol=0, atol=1e-6)


def test_a_layer_after_a_fusion_trains_its_first_and_last_channels_alone():
    layer = joined_layer(3)
    set_width(layer, 0.5)
    layer(make_input(16 + 5, 3)).sum().backward()
    used = torch.zeros_like(layer.weight)
    used[:16, :16] = used[:16, -5:] = 1
    assert layer.out_rule.at(0.5) == 16
    assert torch.equal(layer.weight.grad != 0, used.bool())


def test_forward_changes_nothing():
    layer = build(3, SHAPES["dense"])
    set_width(layer, 0.5)
    before = dict(vars(layer))
    layer(make_input(16, 3))
    layer(make_input(32, 3))
    assert vars(layer) == before


def test_integer_channels_stay_at_every_width():
    layer = SlimmableConv2d(4, 6, 1)
    set_width(layer, 0.25)
    assert layer(torch.zeros(1, 4, 2, 2)).shape == (1, 6, 2, 2)


@pytest.mark.parametrize(
    "shape, channels, message",
    [
        ("dense", 40, "the input has 40 channels; this layer has 32"),
        ("grouped", 30, "30 channels do not divide into groups of 4"),
        ("grouped", 2, "2 channels do not divide into groups of 4"),
    ],
)
def test_convolution_refuses_channels_that_it_cannot_take(shape, channels, message):
    with pytest.raises(ValueError, match=message):
        build(3, SHAPES[shape])(make_input(channels, 3))


@pytest.mark.parametrize("width", WIDTHS)
def test_linear_at_a_width_is_the_plain_one_with_sliced_weights(bias, width):
    inputs, outputs = ScaledChannels(32), ScaledChannels(24)
    layer = SlimmableLinear(inputs, outputs, bias)
    set_width(layer, width)
    plain, x = layer.plain(width), torch.randn(3, inputs.at(width))
    expected = x @ layer.weight[: outputs.at(width), : inputs.at(width)].T
    expected = expected + layer.bias[: outputs.at(width)] if bias else expected
    assert type(plain) is nn.Linear
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(plain(x), expected, rtol=0, atol=1e-6)


def test_full_linear_is_bit_identical_to_the_torch_layer(bias):
    torch.manual_seed(0)
    layer = SlimmableLinear(ScaledChannels(12), 5, bias)
    torch.manual_seed(0)
    plain, x = nn.Linear(12, 5, bias), torch.randn(3, 12)
    assert isinstance(layer, nn.Linear)
    assert list(layer.state_dict()) == list(plain.state_dict())
    assert torch.equal(layer(x), plain(x))


def test_linear_refuses_more_features_than_it_has():
    with pytest.raises(ValueError, match="the input has 9 features; this layer has 8"):
        SlimmableLinear(8, 2)(torch.zeros(1, 9))


@pytest.mark.parametrize("kernel, frames", [(5, 2), (5, 4), (3, 2), (3, 4)])
def test_bfloat16_gradients_are_right_where_there_are_fewer_frames_than_taps(kernel, frames):
    torch.manual_seed(0)
    convolution = SlimmableConv3d(16, 16, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False)
    x, upstream = torch.randn(2, 16, frames, 6, 6), torch.randn(2, 16, frames, 6, 6)
    (exact,) = torch.autograd.grad(convolution(x), convolution.weight, upstream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolution(x)
    (half,) = torch.autograd.grad(y, convolution.weight, upstream.to(y.dtype))
    assert (half - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("groups, sides", [(216, 2), (216, 5), (1, 2)])
def test_bfloat16_gradients_are_right_of_depthwise_convolutions_and_of_fewer_pixels_than_taps(groups, sides):
    """Several times, in memory that others have used: what is wrong there is what nothing has written."""
    torch.manual_seed(0)
    channels = groups if groups > 1 else 16
    convolution = SlimmableConv3d(channels, channels, 3, stride=(1, 2, 2), padding=1, groups=groups, bias=False)
    for _ in range(20):
        x = torch.randn(2, channels, 4, sides, sides).contiguous(memory_format=torch.channels_last_3d)
        y = convolution(x)
        upstream = torch.randn_like(y)
        (exact,) = torch.autograd.grad(y, convolution.weight, upstream)
        used = [torch.full((size,), 1e36) for size in (1000, 10000, 100000)]
        del used
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = convolution(x)
        (half,) = torch.autograd.grad(y, convolution.weight, upstream.to(y.dtype))
        assert (half - exact).abs().max() < 0.03 * exact.abs().max()


STRIDED_POINTWISE = """
import torch
from mutual3d.layers import ScaledChannels, SlimmableConv2d

torch.manual_seed(0)
layer = SlimmableConv2d(ScaledChannels(32), 32, 1, stride=2, padding=PADDING, bias=False).to(memory_format=torch.channels_last)
layer.active_out_channels = 16
x = torch.randn(8, 8, 48, 56).to(memory_format=torch.channels_last).requires_grad_()
for _ in range(20):
    layer.weight.grad = x.grad = None
    output = layer(x)
    output.backward(torch.ones_like(output))
torch.testing.assert_close(layer.weight.grad[0, :8, 0, 0], x.detach()[:, :, ::2, ::2].sum((0, 2, 3)), rtol=1e-3, atol=1e-3)
assert x.grad[:, :, 1::2].abs().max() == 0 < x.grad[:, :, ::2, ::2].abs().max()
torch.testing.assert_close(output, torch.nn.functional.conv2d(x, layer.weight[:16, :8], stride=2))
"""


@pytest.mark.parametrize("padding", [0, "valid"])
def test_a_strided_pointwise_convolution_of_few_inputs_writes_only_its_own_memory(padding):
    """In a process of its own, which checks its memory: oneDNN's gradient ended it."""
    run = subprocess.run(
        [sys.executable, "-c", STRIDED_POINTWISE.replace("PADDING", repr(padding))], env={**os.environ, "MALLOC_PERTURB_": "17"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
