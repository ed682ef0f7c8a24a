"""The axes of cost: their words, how one is registered, and numbers that are those of the functions behind them."""

import pytest
import torch
from batches import MEAN, STD
from networks import NETWORKS
from tiny import SPACE, tiny_network

from mutual3d.cost.axes import COSTS, CostAxis, CostConditions, CostWords, measure_costs, register_cost
from mutual3d.cost.flops import count_costs, count_parameters
from mutual3d.cost.latency_key import LatencyKey

CPU = torch.device("cpu")
CONDITIONS = CostConditions(24, CPU, MEAN, STD, repeats=1)


@pytest.fixture
def registry(monkeypatch):
    before = dict(COSTS)
    yield COSTS
    COSTS.clear()
    COSTS.update(before)


def words(**changes):
    return CostWords(**{"name": "memory_mb", "title": "memory", "unit": "MB", **changes})


def test_gflops_and_parameters_are_those_that_counting_gives():
    model = tiny_network()
    costs, found = count_costs(model, SPACE.corners(), 24), measure_costs(("gflops", "parameters"), model, SPACE.corners(), CONDITIONS)
    assert found["gflops"] == {"": {c: cost.gflops for c, cost in costs.items()}}
    assert found["parameters"] == {"": {c: cost.parameters for c, cost in costs.items()}}


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_do_not_change_the_parameters(name):
    with torch.device("meta"):
        model = NETWORKS[name].build()
    corners = model.space.corners()
    counted = {c: sum(p.numel() for p in model.subnetwork(c).parameters()) for c in corners}
    assert count_parameters(model, corners) == counted


def test_what_depends_on_the_device_is_measured_on_each_and_left_out_without_any(registry):
    asked = []

    def measure(model, configurations, conditions):
        asked.append(conditions.device)
        return dict.fromkeys(configurations, 2.5)

    register_cost(CostAxis(name="energy_mj", title="energy", unit="mJ", by_device=True, measure=measure))
    (values,) = measure_costs(["energy_mj"], None, [SPACE.largest], CONDITIONS, [CPU])["energy_mj"].items()
    assert values[0] == str(LatencyKey.here(CPU)) and values[1] == {SPACE.largest: 2.5} and asked == [CPU]
    assert measure_costs(["energy_mj"], None, [SPACE.largest], CONDITIONS) == {}
    with pytest.raises(ValueError, match="the cost 'energy_mj' is there already"):
        register_cost(COSTS["energy_mj"])


def test_words_serve_column_option_plot_and_sentence():
    memory = words(per="per clip", by_device=True)
    assert memory.option == "--memory-mb" and memory.heading("cpu") == "MB cpu"
    assert memory.label("cpu") == "memory on cpu (MB per clip)" and memory.amount("3", "cpu") == "3 MB on cpu"
    assert CostWords(**memory.to_dict()) == memory
    assert [COSTS[name].label() for name in ("gflops", "parameters")] == ["1e9 multiply-adds (GFLOPs per view)", "parameters"]


@pytest.mark.parametrize("changes", [{"name": "device"}, {"name": "Memory"}, {"name": "a-b"}, {"name": "for"}, {"unit": 3}, {"is_whole": 1}])
def test_words_that_no_call_could_use_are_refused(changes):
    with pytest.raises(ValueError, match="cost"):
        words(**changes)
