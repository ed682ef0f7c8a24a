import copy
import itertools

import pytest
import torch
from networks import NETWORKS
from tiny import SPACE, tiny_network

from mutual3d.cost import complexity
from mutual3d.cost.complexity import (
    LiveBytes,
    StageCost,
    count_activation_bytes,
    counted_step_cost,
    factor_step_cost,
    size_factors,
    split_cost,
)
from mutual3d.cost.flops import Cost, count_costs
from mutual3d.sampling import Configuration, SearchSpace

SMALL = [name for name in NETWORKS if name.endswith("_small")]
CROP = 48


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are so small that a second thread would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=SMALL)
def network(request):
    with torch.device("meta"):
        return NETWORKS[request.param].build()


@pytest.fixture(scope="module")
def slowfast():
    with torch.device("meta"):
        return NETWORKS["slowfast_small"].build()


def table_4_space():
    return SearchSpace([0.63, 1.0], [142, 178, 224], [3, 5, 8])


# ---- Stages ----------------------------------------------------------------------------------------------------------


def test_stages_sum_to_the_cost_of_the_configuration(network):
    for configuration in (network.space.smallest, network.space.largest):
        stages = split_cost(network, configuration, CROP)
        assert [stage.name for stage in stages] == [name for name, _ in network.named_children()]
        whole = count_costs(network, [configuration], CROP)[configuration].gflops
        assert sum(stage.gflops for stage in stages) == pytest.approx(whole, rel=1e-12)


def test_fusions_and_the_head_alone_belong_to_no_pathway(network):
    stages = split_cost(network, network.space.largest, CROP)
    joint = [stage.name for stage in stages if stage.joint]
    assert joint == [stage.name for stage in stages if stage.name == "head" or stage.name.endswith("_fuse")]


def test_the_fast_pathway_and_the_fusions_cost_the_same_in_every_configuration(slowfast):
    smallest, largest = (split_cost(slowfast, c, CROP) for c in (slowfast.space.smallest, slowfast.space.largest))
    for small, large in zip(smallest[:-1], largest[:-1], strict=True):
        assert small.pathways[1] == large.pathways[1]
        assert small.joint == large.joint
        assert small.pathways[0] < large.pathways[0] or large.name.endswith("_fuse")
        assert not large.name.endswith("_fuse") or not any(large.pathways)


def test_the_stem_costs_what_hand_counting_gives(slowfast):
    stem = split_cost(slowfast, slowfast.space.largest, CROP)[0]
    slow, fast = 16 * 3 * 1 * 7 * 7, 2 * 3 * 5 * 7 * 7
    assert stem == StageCost("s1", (slow * 8 * 24 * 24 / 1e9, fast * 32 * 24 * 24 / 1e9), 0.0)


# ---- A training step -------------------------------------------------------------------------------------------------


def test_a_counted_step_is_the_mean_over_all_draws():
    space = SearchSpace((0.5, 1.0), (16, 24), (4,))
    model, widths = tiny_network(space=space), [0.5 + 0.5 * (i + 0.5) / 3 for i in range(3)]
    draws = [Configuration(*values) for values in itertools.product(widths, space.spatial_sizes, space.temporal_sizes)]
    costs = count_costs(model, [*draws, space.smallest, space.largest], 24)
    expected = costs[space.largest].gflops + costs[space.smallest].gflops
    expected += sum(costs[draw].gflops for draw in draws) / len(draws)
    assert counted_step_cost(model, ["smallest", "random"], 24, width_samples=3) == pytest.approx(expected)
    assert counted_step_cost(model, [], 24) == costs[space.largest].gflops


def test_a_counted_step_counts_each_network_once_and_none_that_is_known(monkeypatch):
    model, counted = tiny_network(), []

    def count(counter, configurations):
        counted.extend(configurations)
        return {c: Cost(sum(model.signature(c.width)) * c.spatial * c.temporal, 0) for c in configurations}

    monkeypatch.setattr(complexity.CostCounter, "count", count)
    expected = counted_step_cost(model, ["smallest", "random"], 24)
    keys = [(model.signature(c.width), c.spatial, c.temporal) for c in counted]
    assert len(set(keys)) == len(keys) > 10
    known, counted[:] = count(None, counted), []
    assert counted_step_cost(model, ["smallest", "random"], 24, known=known) == expected
    assert not counted


def test_few_width_samples_are_enough():
    model = tiny_network(space=SearchSpace((0.5, 1.0), (24,), (4,)))
    few, many = (counted_step_cost(model, ["random"], 24, width_samples=samples) for samples in (10, 200))
    assert few == pytest.approx(many, rel=5e-3)


@pytest.mark.parametrize(
    "spatial, temporal, expected", [([0.63, 0.8, 1.0], [0.4, 0.63, 1.0], 74.8), (None, None, 74.4)]
)
def test_factors_give_the_papers_table_4(spatial, temporal, expected):
    space = table_4_space()
    factors = size_factors("spatial", space.spatial_sizes, spatial), size_factors("temporal", (3, 5, 8), temporal)
    step = factor_step_cost(space, ["smallest", "random"], [StageCost("all", (54.52,), 0.0)], *factors)
    assert step == pytest.approx(expected, rel=2e-3)


def test_factors_scale_the_slow_pathway_alone():
    space = table_4_space()
    factors = size_factors("spatial", space.spatial_sizes), size_factors("temporal", space.temporal_sizes)
    stages = [StageCost("s1", (3.0, 2.0), 0.0), StageCost("s1_fuse", (0.0, 0.0), 1.0)]
    step = factor_step_cost(space, ["smallest"], stages, *factors)
    assert step == pytest.approx(6 + 3 + 3 * 0.63**2 * (142 / 224) ** 2 * 3 / 8)


def test_factors_are_relative_to_the_greatest_width():
    space = SearchSpace([1.0, 2.0], [32], [4])
    factors = size_factors("spatial", space.spatial_sizes), size_factors("temporal", space.temporal_sizes)
    assert factor_step_cost(space, ["smallest_width"], [StageCost("all", (4.0,), 0.0)], *factors) == 4 + 1


@pytest.mark.parametrize("factors", [[0.5, 1.0], [0.5, 0.6, 0.9], [0.8, 0.5, 1.0], [0, 0.5, 1.0], [0.5, 0.6, 0.7, 1.0]])
def test_factors_that_make_no_sense_are_refused(factors):
    with pytest.raises(ValueError, match=r"the temporal factors are \[.*one for each of the sizes 3, 5, 8"):
        size_factors("temporal", (3, 5, 8), factors)


# ---- Memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_are_those_of_tensors_that_something_holds(device):
    weight, x = torch.ones(1000, device=device), torch.ones(1000, device=device)
    with LiveBytes([x], [weight]) as live:
        y = x * weight
        assert live.now == 8000
        del y
        assert (live.now, live.peak) == (4000, 8000)
        view = weight.view(10, 100)[3:]
        z = (x + 1).add_(2)
        assert live.now == 8000
        kept = z.view(1000, 1).expand(1000, 5)
        del z
        assert live.now == 8000
        del kept, view
    assert (live.now, live.peak) == (4000, 8000)


def saved_bytes(model, pathways):
    """What autograd keeps of a real forward pass, and the input, each storage once, parameters not."""
    network = model.subnetwork(model.space.largest).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in [*network.parameters(), *network.buffers()]}
    kept = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in pathways}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network(pathways)  # held, so that no storage is freed and its address used again
    assert result.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", SMALL)
def test_activations_are_a_little_more_than_what_autograd_keeps(name):
    model = NETWORKS[name].build()
    pathways = model.fit_clip(torch.randn(1, 3, model.clip_frames, CROP, CROP))
    kept = saved_bytes(model, pathways)
    counted = count_activation_bytes(model, model.space.largest, CROP)
    assert kept < counted < 1.3 * kept


def test_activations_grow_with_the_clip_and_the_width():
    model = tiny_network()
    at = {c: count_activation_bytes(model, Configuration(*c), 24) for c in [(0.5, 16, 2), (0.5, 24, 4), (1.0, 24, 4)]}
    assert at[0.5, 16, 2] < at[0.5, 24, 4] < at[1.0, 24, 4]
    assert count_activation_bytes(model, SPACE.largest, 96) > 10 * at[1.0, 24, 4]
    assert count_activation_bytes(model.double(), SPACE.largest, 24) == pytest.approx(2 * at[1.0, 24, 4], rel=0.01)


def test_counting_leaves_the_network_as_it_was():
    model = tiny_network().activate(SPACE.smallest)
    before = copy.deepcopy(model.state_dict())
    count_activation_bytes(model, SPACE.largest, 24)
    split_cost(model, SPACE.largest, 24)
    assert model.active == SPACE.smallest and model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
