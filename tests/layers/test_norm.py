import copy
import itertools
import pickle

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.layers import BNStatistics, ScaledChannels, SlimmableBatchNorm2d, SlimmableBatchNorm3d, batch_over, slimmable_norms

CHANNELS = ScaledChannels(24)
WIDTH, ACTIVE = 0.63, 16
CASES = {
    "2d": (SlimmableBatchNorm2d, nn.BatchNorm2d, (4, 5)),
    "3d": (SlimmableBatchNorm3d, nn.BatchNorm3d, (3, 4, 5)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def randomize(norm):
    generator = torch.Generator().manual_seed(0)
    for key, tensor in norm.state_dict().items():
        if tensor.ndim:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm


@pytest.fixture
def norm(case):
    return randomize(case[0](CHANNELS))


@pytest.fixture
def x(case):
    return torch.randn(2, ACTIVE, *case[2], generator=torch.Generator().manual_seed(1)) * 3 + 1


@pytest.fixture
def full_x(case):
    return torch.randn(2, 24, *case[2], generator=torch.Generator().manual_seed(2)) * 3 + 1


def activate(norm, is_full, statistics=None):
    vars(norm).update(norm.settings(is_full, statistics))


def buffers(norm):
    return copy.deepcopy(dict(norm.named_buffers()))


def assert_same(before, after, expected=True):
    assert all(torch.equal(before[name], after[name]) for name in before) == expected


def affine(norm):
    return norm.weight[:ACTIVE], norm.bias[:ACTIVE]


def test_training_normalises_a_subnetwork_by_its_batch(norm, x):
    activate(norm, is_full=False)
    before = buffers(norm)
    expected = F.batch_norm(x, None, None, *affine(norm), training=True, eps=norm.eps)
    torch.testing.assert_close(norm(x), expected)
    assert_same(before, buffers(norm))


def test_training_ignores_calibrated_statistics(norm, x):
    activate(norm, is_full=False)
    expected = norm(x)
    activate(norm, is_full=False, statistics=(torch.zeros(ACTIVE), torch.ones(ACTIVE)))
    assert torch.equal(norm(x), expected)


def test_full_network_is_the_torch_norm_and_updates_its_statistics(case, norm, full_x):
    plain = case[1](24)
    plain.load_state_dict(norm.state_dict())
    assert isinstance(norm, case[1])
    activate(norm, is_full=True)
    before = buffers(norm)
    assert torch.equal(norm(full_x), plain(full_x))
    assert_same(before, buffers(norm), expected=False)
    assert_same(buffers(norm), buffers(plain))
    assert torch.equal(norm.eval()(full_x), plain.eval()(full_x))


def test_full_width_at_a_smaller_size_leaves_the_running_statistics(norm, full_x):
    activate(norm, is_full=False)
    before = buffers(norm)
    norm(full_x)
    assert_same(before, buffers(norm))


def test_evaluation_refuses_without_statistics(norm, x):
    activate(norm, is_full=False)
    with pytest.raises(RuntimeError, match="not calibrated for 16 of its 24 channels"):
        norm.eval()(x)


@pytest.mark.parametrize("is_full", [True, False])
def test_evaluation_uses_the_statistics_given(norm, full_x, is_full):
    statistics = torch.randn(24), torch.rand(24) + 0.5
    activate(norm, is_full, statistics)
    before = buffers(norm)
    expected = F.batch_norm(full_x, *statistics, norm.weight, norm.bias, training=False, eps=norm.eps)
    torch.testing.assert_close(norm.eval()(full_x), expected)
    assert_same(before, buffers(norm))


def test_gradients_reach_the_active_channels_alone(norm, x):
    activate(norm, is_full=False)
    norm(x).square().sum().backward()
    assert (norm.weight.grad[:ACTIVE] != 0).all()
    assert not norm.weight.grad[ACTIVE:].any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_observer_is_told_the_exact_moments_and_nothing_else_happens(norm, x, training, dtype):
    norm, x, seen = norm.train(training).to(dtype), x.to(dtype), []
    activate(norm, is_full=False)
    before = buffers(norm)
    norm.observer = lambda *moments: seen.append(moments)
    y = norm(x)
    ((count, mean, variance),) = seen
    values = x.double().transpose(0, 1).flatten(1)
    assert count == values.shape[1]
    torch.testing.assert_close(mean.double(), values.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance.double(), values.var(1, correction=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(y, F.batch_norm(x, None, None, *affine(norm), training=True, eps=norm.eps))
    assert_same(before, buffers(norm))


def test_observing_the_full_network_leaves_its_running_statistics(norm, full_x):
    activate(norm, is_full=True)
    norm.observer = lambda *moments: None
    before = buffers(norm)
    norm(full_x)
    assert_same(before, buffers(norm))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_norm_has_the_first_channels(case, norm, dtype):
    plain, state = norm.to(dtype).plain(WIDTH), norm.state_dict()
    assert type(plain) is case[1]
    assert (plain.eps, plain.momentum) == (norm.eps, norm.momentum)
    for key, value in plain.state_dict().items():
        assert value.dtype == state[key].dtype
        assert torch.equal(value, state[key][:ACTIVE] if value.ndim else state[key])
        assert value.data_ptr() != state[key].data_ptr()


@pytest.mark.parametrize("clips", [6, 7])
@pytest.mark.parametrize("is_full", [True, False])
def test_parts_of_a_batch_are_normalised_by_their_own_statistics(case, norm, is_full, clips):
    channels = 24 if is_full else ACTIVE
    x = torch.randn(clips, channels, *case[2], generator=torch.Generator().manual_seed(3)) * 3 + 1
    activate(norm, is_full)
    before = buffers(norm)
    batch_over(norm, num_parts=3)
    y = norm(x)
    # One norm of torch's for each part, with a momentum at which its running statistics are the part's own.
    parts = [case[1](channels, momentum=1.0, eps=norm.eps) for _ in range(3)]
    for i, part in enumerate(parts):
        part.weight.data, part.bias.data = norm.weight.data[:channels], norm.bias.data[:channels]
        torch.testing.assert_close(y[i::3], part(x[i::3]))
    if not is_full:
        return assert_same(before, buffers(norm))
    for part, what in itertools.product(parts, ("running_mean", "running_var")):
        # Their own are known with momentum 1; with the norm's they lie a tenth of the way from what it had before.
        getattr(part, what).copy_(torch.lerp(before[what], getattr(part, what), norm.momentum))
    assert_has_joined(norm, parts)
    assert buffers(norm)["num_batches_tracked"] == before["num_batches_tracked"] + 1


def assert_has_joined(norm, parts):
    """The norm's running statistics are those of its parts: mean of the means; mean of the variances, and variance between the means."""
    means, variances = (torch.stack([getattr(part, f"running_{what}") for part in parts]) for what in ("mean", "var"))
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, variances.mean(0) + means.var(0, correction=0))


def test_each_part_has_a_running_average_until_training_is_switched_on_again(case, norm):
    generator = torch.Generator().manual_seed(5)
    batch_over(norm, num_parts=3)
    activate(norm, is_full=True)
    parts = [case[1](24, eps=norm.eps) for _ in range(3)]
    for epoch in range(2):
        norm.train()
        for part in parts:
            part.running_mean.copy_(norm.running_mean), part.running_var.copy_(norm.running_var)
        for _ in range(4):
            # A mean that the batches of one part have in common stays between the parts; one that changes averages out.
            x = torch.randn(6, 24, *case[2], generator=generator) + torch.tensor([0.0, 2, 4] * 2).view(6, 1, *[1] * len(case[2]))
            norm(x)
            for i, part in enumerate(parts):
                part(x[i::3])
        assert_has_joined(norm, parts)
        norm.eval()
    # A batch of which one clip alone could be read is that of the first part.
    norm.train()
    before = buffers(norm)
    norm(x[:1])
    only = case[1](24, momentum=1.0)
    only(x[:1])
    torch.testing.assert_close(norm.running_mean, torch.lerp(before["running_mean"], only.running_mean, norm.momentum / 3))


def test_parts_are_a_matter_of_training_alone(case, norm, full_x):
    seen, expected = {}, {}
    for told, parts in ((expected, 1), (seen, 2)):
        batch_over(norm, num_parts=parts)
        activate(norm, is_full=True)
        told["running"] = norm.eval()(full_x)
        activate(norm, is_full=True, statistics=(torch.zeros(24), torch.ones(24)))
        told["calibrated"] = norm(full_x)
        norm.observer = lambda *moments, told=told: told.update(zip(("count", "mean", "variance"), moments))
        told["observed"] = norm.train()(full_x)
        norm.observer = None
    for name, value in expected.items():
        torch.testing.assert_close(seen[name], value, rtol=0, atol=0)
    assert norm.state_dict().keys() == case[1](24).state_dict().keys()
    x = full_x[..., :2, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(norm.double(), x, nondet_tol=1e-12)


def test_a_copy_of_a_norm_has_no_processes_beside_it(norm):
    batch_over(norm, group=object())
    assert norm.group is not None
    assert copy.deepcopy(norm).group is None and pickle.loads(pickle.dumps(norm)).group is None


def test_statistics_round_trip_and_map():
    statistics = BNStatistics({"a": torch.ones(2)}, {"a": torch.zeros(2)})
    assert BNStatistics.from_dict(statistics.to_dict()) == statistics
    doubled = statistics.map(lambda tensor: tensor.double() + 1)
    assert doubled.mean["a"].tolist() == [2, 2]
    assert doubled.variance["a"].dtype == torch.float64
    assert statistics.mean["a"].tolist() == [1, 1]


def test_norms_are_found_by_name_in_order():
    network = nn.Sequential(SlimmableBatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3), SlimmableBatchNorm3d(4)))
    assert list(slimmable_norms(network)) == ["0", "1.1"]
