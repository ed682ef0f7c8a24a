import torch
from batches import MEAN, STD, batches_from, prepare
from tiny import SPACE, tiny_network

from mutual3d.cost.axes import CostConditions, measure_costs
from mutual3d.cost.flops import count_cost, count_costs
from mutual3d.cost.latency import measure_latency
from mutual3d.data.loader import Batch
from mutual3d.evaluation import calibrate, grid_configurations
from mutual3d.evaluation.grid import build_table
from mutual3d.metrics.metrics import TopK


def test_the_grid_has_each_network_once_and_both_ends():
    model = tiny_network()
    configurations = grid_configurations(SPACE, 0.05, model.signature)
    signatures = [(model.signature(c.width), c.spatial, c.temporal) for c in configurations]
    assert len(set(signatures)) == len(signatures)
    assert {SPACE.smallest, SPACE.largest} <= set(configurations)
    every = {(model.signature(c.width), c.spatial, c.temporal) for c in SPACE.grid(0.05)}
    assert set(signatures) == every


def test_costs_are_those_of_hand_counting():
    layer = torch.nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1), groups=2, device="meta")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = layer, torch.nn.Linear(6, 5, device="meta")

        def forward(self, inputs):
            return self.linear(self.conv(inputs[0]).mean((2, 3, 4)))

    cost = count_cost(Net(), [torch.empty(1, 4, 2, 8, 8, device="meta")])
    assert cost.gflops * 1e9 == 6 * (4 / 2) * 9 * 2 * 8 * 8 + 6 * 5
    assert cost.parameters == 6 * 2 * 9 + 6 + 6 * 5 + 5


def test_costs_grow_with_every_dimension():
    model = tiny_network()
    costs = count_costs(model, SPACE.corners(), crop=24)
    for c in SPACE.corners():
        for d in SPACE.corners():
            if c != d and c.width <= d.width and c.spatial <= d.spatial and c.temporal <= d.temporal:
                assert costs[c].gflops < costs[d].gflops
    assert costs[SPACE.largest].parameters == sum(p.numel() for p in model.parameters())


def test_latency_is_the_median_of_turns():
    calls = []
    runs = {key: lambda key=key: lambda: calls.append(key) for key in "ab"}
    latency = measure_latency(runs, torch.device("cpu"), repeats=3, warmup=1)
    assert calls == list("abababab") and set(latency) == {"a", "b"} and min(latency.values()) >= 0


def test_a_row_measured_again_gives_its_own_numbers():
    torch.manual_seed(0)
    model = tiny_network().eval()
    calibrate(model, batches_from, SPACE.corners(), prepare=prepare)
    metrics = {c: TopK() for c in SPACE.corners()}
    for metric in metrics.values():
        metric.update(torch.eye(2), Batch(None, torch.tensor([0, 1]), None, []))
    cpu = torch.device("cpu")
    costs = measure_costs(("gflops", "parameters", "latency_ms"), model, SPACE.corners(), CostConditions(24, cpu, MEAN, STD, 1), [cpu])
    provenance = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24}
    table = build_table(model, metrics, costs, provenance)
    for row in table.rows:
        assert row.gflops == count_costs(model, [row.configuration], 24)[row.configuration].gflops
        assert row.signature == model.signature(row.configuration.width)
        assert row.accuracy["top1_acc"] == 100.0 and set(row.latency_ms) == set(costs["latency_ms"])
    assert model.active == SPACE.largest
