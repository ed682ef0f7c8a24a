"""The residual of feature aggregation, against sums that are written out."""

import pytest
import torch
from batches import FakeBatch, prepare
from networks import IMAGE_NETWORKS, NETWORKS
from tiny import SPACE, tiny_network

from mutual3d.evaluation.aggregation import aggregation_residuals
from mutual3d.layers import ScaledChannels, SlimmableConv3d, SlimmableLinear
from mutual3d.models import AdaptiveNetwork

WIDTHS = [0.5, 0.75, 1.0]


class Head(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.conv = SlimmableConv3d(3, inputs, 1)
        self.projection = SlimmableLinear(inputs, 2)

    def forward(self, pathways):
        (x,) = pathways
        return self.projection(self.conv(x).mean((2, 3, 4)))


def test_a_sum_that_is_written_out_has_the_same_residual():
    torch.manual_seed(0)
    head = Head(ScaledChannels(16, 4))
    network = AdaptiveNetwork({"head": head}, SPACE)
    clip = torch.randn(2, 3, 4, 24, 24)
    (found,) = aggregation_residuals(network, [clip], WIDTHS)
    assert (found.layer, found.counts, found.shares) == ("head.projection", (8, 12, 16), (0.5, 0.75, 1.0))
    features = head.conv(clip).mean((2, 3, 4))
    terms = (features[:, None] * head.projection.weight).detach()
    missing = [terms[..., k:].sum(-1).abs() for k in (8, 12, 16)]
    expected = [float(each.mean() / terms.sum(-1).abs().mean()) for each in missing]
    assert found.residuals == pytest.approx(expected, abs=1e-5) and found.residuals[-1] == pytest.approx(0, abs=1e-6)
    assert found.bounded == tuple(float((b <= a).float().mean()) for a, b in zip(missing, missing[1:]))


def test_equal_terms_are_missing_by_their_share_and_the_bound_holds():
    head = Head(ScaledChannels(16, 4))
    for layer, weight in ((head.conv, 1.0), (head.projection, 0.25)):
        torch.nn.init.constant_(layer.weight, weight)
        torch.nn.init.constant_(layer.bias, 3.0)
    (found,) = aggregation_residuals(AdaptiveNetwork({"head": head}, SPACE), [torch.rand(2, 3, 4, 24, 24)], WIDTHS)
    assert found.residuals == pytest.approx([0.5, 0.25, 0.0], abs=1e-6) and found.bounded == (1.0, 1.0)


@pytest.mark.parametrize("name", ["x3d_small", "slowfast_small", "mobilenet_v2_small", "wide_resnet_small"])
def test_every_network_has_them_and_is_left_as_it_was(name):
    case = (NETWORKS | IMAGE_NETWORKS)[name]
    network = case.build().train()
    network.activate(network.space.smallest)
    inputs = case.inputs(network.space.largest)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = aggregation_residuals(network, inputs, WIDTHS)
    assert len(found) > 3 and len({each.layer for each in found}) == len(found)
    for each in found:
        assert list(each.counts) == sorted(set(each.counts)) and len(each.counts) == len(each.residuals) == len(each.bounded) + 1
        assert each.residuals[-1] == pytest.approx(0, abs=1e-5) and each.residuals[0] > 0.01
        assert all(0 <= share <= 1 for share in each.bounded)
    assert network.training and network.active == network.space.smallest
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_widths_outside_the_space_are_refused():
    clip = prepare(FakeBatch(0).clips_BVCTHW.flatten(0, 1))
    for widths in ([], [0.4, 1.0]):
        with pytest.raises(ValueError, match=r"give at least one, each in the range \[0.5, 1\]"):
            aggregation_residuals(tiny_network(), [clip], widths)
