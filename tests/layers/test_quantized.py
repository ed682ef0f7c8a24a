"""Quantised convolutions: what they compute, when their bases follow the weights, slices, copies and stored bits."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from mutual3d.layers import ScaledChannels, SlimmableConv2d, SlimmableConv3d, quantize_convolution, stored_bits
from mutual3d.layers.quantizer import nearest_level, qem_step, sorted_levels

INPUTS, OUTPUTS = ScaledChannels(16), ScaledChannels(24)
SIZES = {SlimmableConv2d: (5, 6), SlimmableConv3d: (3, 5, 6)}


@pytest.fixture(params=SIZES)
def kind(request):
    return request.param


def make(kind, weight_bits=2, activation_bits=32, depthwise=False):
    torch.manual_seed(0)
    inputs, outputs = (OUTPUTS, OUTPUTS) if depthwise else (INPUTS, OUTPUTS)
    layer = kind(inputs, outputs, 3, padding=1, groups=24 if depthwise else 1, bias=False)
    return layer, quantize_convolution(layer, weight_bits=weight_bits, activation_bits=activation_bits, sizes=2)


def clip(kind, channels):
    return torch.randn(2, channels, *SIZES[kind], generator=torch.Generator().manual_seed(1))


def plain_convolution(kind, x, weight, groups=1):
    convolve = F.conv2d if kind is SlimmableConv2d else F.conv3d
    return convolve(x, weight, padding=1, groups=groups)


@pytest.mark.parametrize("depthwise", [False, True])
def test_it_convolves_with_weights_of_four_levels_in_each_output_channel(kind, depthwise):
    layer, quantized = make(kind, depthwise=depthwise)
    assert quantized.weight is layer.weight and quantized.basis.shape == (24, 2)
    weight = nearest_level(layer.weight.detach(), sorted_levels(quantized.basis)[0])
    assert all(len(channel.unique()) <= 4 for channel in weight) and len(weight.unique()) > 24
    x = clip(kind, layer.in_channels)
    with torch.no_grad():
        expected = plain_convolution(kind, x, weight, layer.groups)
        torch.testing.assert_close(quantized.eval()(x), expected)
        assert not torch.allclose(layer(x), expected, atol=1e-2)


def test_a_width_has_the_first_channels_of_the_whole_quantised_weight(kind):
    _, quantized = make(kind)
    whole = quantized.eval().whole_weight().detach()
    quantized.__dict__.update(quantized.settings(0.5))
    x = clip(kind, 8)
    for has_gradient in (False, True):
        with torch.set_grad_enabled(has_gradient):
            torch.testing.assert_close(quantized(x), plain_convolution(kind, x, whole[:16, :8]))
    plain = quantized.plain(0.5)
    assert torch.equal(plain.weight, whole[:16, :8]) and plain.weight_bits == 2
    torch.testing.assert_close(plain.eval()(x), quantized(x))


def test_the_gradient_is_that_of_the_weights_as_if_they_were_not_quantised(kind):
    _, quantized = make(kind)
    quantized.__dict__.update(quantized.settings(0.5))
    weight = quantized.eval().whole_weight().detach()[:16, :8].clone().requires_grad_()
    x = clip(kind, 8)
    plain_convolution(kind, x, weight).square().sum().backward()
    quantized(x).square().sum().backward()
    torch.testing.assert_close(quantized.weight.grad[:16, :8], weight.grad, rtol=1e-4, atol=1e-4)
    assert not quantized.weight.grad[16:].any() and not quantized.weight.grad[:, 8:].any()


def test_bases_follow_the_weights_once_after_each_step_of_the_optimizer(kind):
    _, quantized = make(kind)
    quantized.train()
    optimizer, x = torch.optim.SGD(quantized.parameters(), lr=0.1), clip(kind, 16)
    for _ in range(3):
        before = quantized.basis.clone()
        expected = torch.lerp(before, qem_step(quantized.weight.detach(), before), 0.1)
        for width in (1.0, 0.5, 1.0):  # configurations of one step
            quantized.__dict__.update(quantized.settings(width))
            quantized(x[:, : INPUTS.at(width)]).square().mean().backward()
            assert torch.equal(quantized.basis, expected)
        optimizer.step()
    with torch.no_grad():
        quantized(x)
    quantized.eval()(x)
    assert torch.equal(quantized.basis, expected)


def test_a_kept_weight_is_made_anew_when_weights_or_bases_change(kind):
    _, quantized = make(kind)
    quantized.eval()
    for width in (1.0, 0.5):
        quantized.__dict__.update(quantized.settings(width))
        x = clip(kind, INPUTS.at(width))
        with torch.no_grad():
            first = quantized(x)
            assert torch.equal(quantized(x), first)
            quantized.weight.mul_(-1)
            torch.testing.assert_close(quantized(x), -first)
            quantized.basis.mul_(3)
            second = quantized(x)
            assert not torch.allclose(second, -first, atol=1e-2)
            quantized.load_state_dict({**quantized.state_dict(), "weight": torch.zeros_like(quantized.weight)})
            assert not torch.allclose(quantized(x), second, atol=1e-2)
            quantized.weight.normal_()
            quantized.basis.copy_(torch.rand(24, 2))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_weights_bases_and_quantisers_of_its_own(kind, copied):
    _, quantized = make(kind, activation_bits=2)
    x = clip(kind, 16)
    with torch.no_grad():
        expected = quantized.eval()(x)
        twin = copied(quantized)
        assert torch.equal(twin(x), expected)
        twin.weight.zero_()
        twin.inputs.sizes[0].basis.zero_()
        assert torch.equal(quantized(x), expected) and not torch.equal(twin(x), expected)


def test_whole_weights_have_no_basis_and_whole_inputs_no_quantiser(kind):
    layer, quantized = make(kind, weight_bits=32, activation_bits=2)
    assert quantized.basis is None and set(quantized.state_dict()) == {"weight", *(
        f"inputs.sizes.{i}.{name}" for i in (0, 1) for name in ("basis", "negative_share")
    )}  # fmt: skip
    x = clip(kind, 16)
    with torch.no_grad():
        torch.testing.assert_close(quantized.eval()(x), layer(quantized.inputs(x)))
    assert set(make(kind)[1].state_dict()) == {"weight", "basis"}


def test_stored_bits_are_those_of_weights_bases_and_whatever_is_whole(kind):
    layer, quantized = make(kind)
    weights = layer.weight.numel()
    assert stored_bits(torch.nn.Sequential(layer)) == 32 * weights
    norm = torch.nn.BatchNorm1d(24)
    assert stored_bits(torch.nn.Sequential(quantized, norm)) == 2 * weights + 24 * 2 * 32 + 32 * 48
    assert stored_bits(quantized.plain(0.5)) == 2 * quantized.plain(0.5).weight.numel() + 16 * 2 * 32
