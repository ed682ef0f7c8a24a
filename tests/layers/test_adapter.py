"""Adapters: x + a depthwise 1x1x1 filter of x, of the channels that run."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mutual3d.cost.flops import count_cost
from mutual3d.layers import Adapter, AdaptsInput, FixedChannels, JoinedChannels, PrivateAdapters, ScaledChannels

CHANNELS = {"scaled": ScaledChannels(32), "after_a_fusion": JoinedChannels(ScaledChannels(32), 5), "fixed": FixedChannels(6)}
WIDTHS = (0.25, 0.63, 1.0)


@pytest.fixture(params=CHANNELS)
def channels(request):
    return CHANNELS[request.param]


def trained(channels, dtype=torch.float64):
    torch.manual_seed(0)
    adapter = Adapter(channels).to(dtype)
    torch.nn.init.normal_(adapter.weight, std=0.5)
    return adapter


def clip(channels, width, dtype=torch.float64):
    return torch.randn(2, channels.at(width), 3, 4, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("width", WIDTHS)
def test_it_adds_the_filter_of_the_channels_that_run(channels, width):
    adapter, x = trained(channels), clip(channels, width)
    vars(adapter).update(adapter.settings(width))
    own = adapter.weight[: channels.at(width)]
    if isinstance(channels, JoinedChannels):
        own = torch.cat([adapter.weight[: channels.adaptive.at(width)], adapter.weight[-channels.tail :]])
    expected = x + F.conv3d(x, own, groups=len(own))
    for output in (adapter(x), adapter.eval()(x), adapter.plain(width)(x), copy.deepcopy(adapter)(x)):
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        before = adapter(x)
        adapter.weight.mul_(2)
        assert not torch.allclose(adapter(x), before), "a kept slice follows the weight"


def test_its_gradients_are_those_of_the_definition(channels):
    adapter, x = trained(channels), clip(channels, 0.25)[:1, :, :1, :2, :2].requires_grad_()
    vars(adapter).update(adapter.settings(0.25))
    assert torch.autograd.gradcheck(lambda x, weight: torch.func.functional_call(adapter, {"weight": weight}, (x,)), (x, adapter.weight))


def test_with_a_filter_of_zeros_x_stays_what_it_is_to_the_bit_and_a_new_one_is_near(channels):
    x = clip(channels, 1.0, torch.float32)
    adapter = Adapter(channels)
    assert 0 < (adapter(x) - x).abs().max() < 0.1 * x.abs().max()
    torch.nn.init.zeros_(adapter.weight)
    assert torch.equal(adapter(x), x) and torch.equal(adapter.plain(1.0)(x), x)


def test_it_costs_what_a_depthwise_convolution_does():
    plain = Adapter(ScaledChannels(32)).plain(0.5).to("meta")
    cost = count_cost(plain, torch.empty(1, 16, 3, 4, 5, device="meta"))
    assert cost.parameters == 16 and cost.gflops == pytest.approx(16 * 3 * 4 * 5 / 1e9)


def test_features_of_few_bits_keep_their_type_and_the_filter_its_precision():
    adapter = Adapter(8)
    torch.nn.init.constant_(adapter.weight, 2.0**-9)
    x = torch.full((1, 8, 1, 1, 1), 129.0).bfloat16()
    # 1 + 2^-9 is 1 in bfloat16; 129 times it is 129.25, and 129 again.
    assert adapter(x).dtype == torch.bfloat16 and torch.equal(adapter(x), x)
    torch.nn.init.constant_(adapter.weight, 3 * 2.0**-9)
    assert torch.equal(adapter(x), torch.full_like(x, 130.0))


def test_of_several_the_active_one_runs_and_learns():
    torch.manual_seed(0)
    adapters, x = PrivateAdapters(ScaledChannels(8), 3), torch.randn(1, 8, 2, 3, 3)
    vars(adapters).update(adapters.settings(1))
    assert torch.equal(adapters(x), adapters.filters[1](x))
    adapters(x).sum().backward()
    assert [part.weight.grad is not None for part in adapters.filters] == [False, True, False]


def test_a_block_has_none_until_it_is_given_some():
    block, x = AdaptsInput(ScaledChannels(8)), torch.randn(1, 8, 2, 3, 3)
    assert block.adapted(x) is x and not block.state_dict()
    block.add_adapters(2)
    assert list(block.state_dict()) == ["adapter.filters.0.weight", "adapter.filters.1.weight"] and not torch.equal(block.adapted(x), x)
