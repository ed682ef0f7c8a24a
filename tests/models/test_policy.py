"""The policy of US-Net's experiment: what it costs at each width, and what its sub-networks are made of."""

import pytest
import torch

from mutual3d.cost.flops import count_costs
from mutual3d.models import create_model
from mutual3d.sampling import SearchSpace

ACTIONS = 4


def policy(sizes=(84,), **arguments):
    torch.manual_seed(0)
    space = SearchSpace((0.25, 1.0), sizes, (1,), 8)
    return create_model("policy", space=space, num_classes=ACTIONS, **arguments)


@pytest.fixture(scope="module")
def network():
    return policy()


def by_hand(first, second, third, hidden, in_channels=4):
    """Multiply-adds of who acts, and parameters of actor and critic, of 84 x 84 pixels: maps of 20 x 20, 9 x 9 and 7 x 7."""
    layers = [
        (20 * 20, in_channels * 8 * 8, first), (9 * 9, first * 4 * 4, second), (7 * 7, second * 3 * 3, third),
        (1, third * 7 * 7, hidden), (1, hidden, ACTIONS),
    ]  # fmt: skip
    cost = sum(places * inputs * outputs for places, inputs, outputs in layers)
    return cost, sum((inputs + 1) * outputs for _, inputs, outputs in layers) + hidden + 1


def test_widths_cost_what_their_channels_say(network):
    expected = {
        "1-84": by_hand(32, 64, 32, 512), "0.75-84": by_hand(24, 48, 24, 384), "0.5-84": by_hand(16, 32, 16, 256),
        "0.25-84": by_hand(8, 16, 8, 128),
    }  # fmt: skip
    assert expected["1-84"][0] == 7_639_040
    counted = count_costs(network, [network.space.check(text) for text in expected], 84)
    assert {str(c): (round(cost.gflops * 1e9), cost.parameters) for c, cost in counted.items()} == expected


def test_a_sub_network_has_the_first_channels_and_the_first_features(network):
    plain = network.extract("0.5-84").state_dict()
    whole = network.state_dict()
    assert plain["fc.weight"].shape == (256, 16 * 49)
    for name, tensor in plain.items():
        assert torch.equal(tensor, whole[name][tuple(slice(size) for size in tensor.shape)]), name
    channels = torch.arange(32).view(1, 32, 1, 1).expand(1, 32, 7, 7)
    # What the linear layer reads at half the width are the places of the first half of the channels.
    assert torch.equal(network.flatten(channels)[:, : 16 * 49].unique(), torch.arange(16))


@pytest.mark.parametrize("configuration", ["0.25-84", "0.6-84", "1-84"])
def test_acting_takes_the_logits_alone_and_learning_the_value_too(network, configuration):
    observations = torch.rand(3, 4, 84, 84, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        acting = network.eval().activate(configuration)(observations)
        learning = network.train()(observations)
        apart = network.extract(configuration)(observations)
    network.eval()
    assert acting.shape == (3, ACTIONS) and learning.shape == (3, ACTIONS + 1)
    assert torch.equal(acting, learning[:, :-1])
    torch.testing.assert_close(acting, apart)


def test_it_says_what_it_is(network):
    assert network.gives == "actions" and network.in_channels == 4 and not network.has_norms
    assert network.can_evaluate("0.3-84")


def test_its_first_policy_tries_all_actions_alike(network):
    observations = torch.rand(8, 4, 84, 84, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for configuration in ("0.25-84", "1-84"):
            probabilities = network.eval().activate(configuration)(observations).softmax(1)
            assert (probabilities - 1 / ACTIONS).abs().max() < 0.02


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(sizes=(42, 84)), "MUTUAL.SPATIAL_SIZES is .42, 84.: the linear layer"),
        (dict(strides=(4, 2)), "POLICY.CHANNELS is .32, 64, 32., KERNEL_SIZES .8, 4, 3. and STRIDES .4, 2.: give as many"),
        (dict(sizes=(10,)), "convolution 2 of the policy has a kernel of 4 and a stride of 2, and 1 pixels come in"),
        (dict(strides=(4, 0, 1)), "a stride of 0"),
        (dict(in_channels=0), "in_channels is 0"),
    ],
)
def test_what_makes_no_policy_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        policy(**arguments)
