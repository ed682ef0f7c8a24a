"""1x1x1 convolutions of a few samples on one thread keep the layout that the layers behind them are fast in."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.layers import SlimmableConv3d, pointwise

CHANNELS_LAST = torch.channels_last_3d


def clips(samples, channels=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, channels, 2, 5, 4, generator=generator).contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("samples", [1, 10, 16])
def test_output_and_gradients_are_the_convolutions_in_channels_last(one_thread, samples, bias):
    layer = SlimmableConv3d(6, 8, 1, bias=bias).to(memory_format=CHANNELS_LAST)
    plain = nn.Conv3d(6, 8, 1, bias=bias)
    plain.load_state_dict(layer.state_dict())
    x, other = clips(samples).requires_grad_(), clips(samples).requires_grad_()
    seen, wanted = layer(x), plain(other)
    assert seen.is_contiguous(memory_format=CHANNELS_LAST)
    given = clips(samples, 8, seed=1)
    seen.backward(given)
    wanted.backward(given)
    torch.testing.assert_close(seen, wanted)
    torch.testing.assert_close(x.grad, other.grad)
    for own, theirs in zip(layer.parameters(), plain.parameters()):
        torch.testing.assert_close(own.grad, theirs.grad)


def test_pytorch_gives_the_layout_up_there_and_the_product_is_for_nothing_else(one_thread):
    x, weight = clips(4).requires_grad_(), torch.randn(8, 6, 1, 1, 1)
    assert not F.conv3d(x, weight).is_contiguous(memory_format=CHANNELS_LAST), "PyTorch keeps the layout now: this file is not needed any more"
    assert pointwise.is_faster(x, weight, 1)
    assert not pointwise.is_faster(clips(16), weight, 1) and not pointwise.is_faster(x.contiguous(), weight, 1)
    assert not pointwise.is_faster(x, torch.randn(6, 1, 1, 1, 1), 6) and not pointwise.is_faster(x, torch.randn(8, 6, 3, 1, 1), 1)
    assert not pointwise.is_faster(x.double(), weight.double(), 1)
    with torch.no_grad():
        assert not pointwise.is_faster(x, weight, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not pointwise.is_faster(x, weight, 1)
    torch.set_num_threads(2)
    assert not pointwise.is_faster(x, weight, 1)


def test_strides_and_padding_are_the_convolutions(one_thread):
    x = clips(4)
    for options in ({"stride": (1, 2, 2)}, {"padding": (0, 1, 1)}):
        layer = SlimmableConv3d(6, 8, 1, **options)
        assert layer(x).shape == F.conv3d(x, layer.weight, layer.bias, **options).shape


@pytest.mark.parametrize("stride", [1, (2, 1, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_depthwise_kernels_in_time_keep_the_layout_too(one_thread, stride, bias):
    layer = SlimmableConv3d(6, 6, (3, 1, 1), stride=stride, padding=(1, 0, 0), groups=6, bias=bias).to(memory_format=CHANNELS_LAST)
    x, other = clips(10).requires_grad_(), clips(10).requires_grad_()
    seen, wanted = layer(x), F.conv3d(other, layer.weight, layer.bias, stride, (1, 0, 0), 1, 6)
    assert seen.is_contiguous(memory_format=CHANNELS_LAST)
    torch.testing.assert_close(seen, wanted)
    given = torch.ones_like(seen)
    seen.backward(given)
    wanted.backward(given)
    torch.testing.assert_close(x.grad, other.grad)
