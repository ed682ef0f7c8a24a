import pytest
import torch
import torch.nn.functional as F

from mutual3d.layers import ExpandedChannels, ScaledChannels, SqueezedChannels, SqueezeExcite

INNER = ExpandedChannels(ScaledChannels(96), 2.25)
HIDDEN = SqueezedChannels(INNER, 1 / 16)
SIZES = {2: (4, 5), 3: (3, 4, 5)}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("width", [0.5, 0.63, 1.0])
def test_block_equals_two_linears_on_the_mean(dimensions, width):
    block, channels, hidden = SqueezeExcite(INNER, HIDDEN, dimensions), INNER.at(width), HIDDEN.at(width)
    for layer in (block.fc1, block.fc2):
        vars(layer).update(layer.settings(width))
    x = torch.randn(2, channels, *SIZES[dimensions])
    gate = F.linear(x.flatten(2).mean(2), block.fc1.weight.flatten(1)[:hidden, :channels], block.fc1.bias[:hidden])
    gate = F.linear(gate.relu(), block.fc2.weight.flatten(1)[:channels, :hidden], block.fc2.bias[:channels]).sigmoid()
    torch.testing.assert_close(block(x), x * gate.view(2, channels, *[1] * dimensions))


def test_gradient_of_a_narrow_block_stays_in_its_hidden_channels():
    block = SqueezeExcite(INNER, HIDDEN)
    for layer in (block.fc1, block.fc2):
        vars(layer).update(layer.settings(0.5))
    block(torch.randn(2, INNER.at(0.5), 2, 3, 3)).sum().backward()
    assert HIDDEN.at(0.5) < HIDDEN.full
    assert not block.fc1.weight.grad[HIDDEN.at(0.5) :].any()
    assert not block.fc2.weight.grad[:, HIDDEN.at(0.5) :].any()
