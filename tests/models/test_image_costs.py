"""Parameters and multiply-adds of image networks are the published ones."""

import pytest
import torch
import torchvision

from mutual3d.cost.complexity import counted_step_cost, factor_step_cost, size_factors, split_cost
from mutual3d.cost.flops import count_cost, count_costs
from mutual3d.models import create_model
from mutual3d.sampling import Configuration, SearchSpace

SIZES = [128, 160, 192, 224]
SUBNETS = ["smallest_width", "random", "random"]
# MFLOPs of MobileNet v1, rounded down, from the authors of the paper.
MOBILENET_V1 = {
    "1-224": 568, "0.95-224": 517, "0.9-224": 466, "1-192": 418, "0.95-192": 380, "0.9-192": 342, "0.85-192": 309,
    "0.8-192": 269, "0.75-192": 239, "0.85-160": 215, "0.8-160": 187, "0.75-160": 166, "0.7-160": 146, "0.65-160": 127,
    "0.6-160": 111, "0.5-160": 76, "0.45-160": 63, "0.35-160": 41, "0.25-192": 30, "0.25-160": 21, "0.25-128": 13,
}  # fmt: skip

# (network, arguments, least width, MFLOPs of the smallest and the largest configuration): paper, 6.1.
RANGES = [
    ("mobilenet_v1", {}, 0.25, 13, 569),
    ("mobilenet_v2", {}, 0.7, 57, 300),
    ("resnet2d", {"depth": 50}, 0.7, 660, 4100),
]
# (network, arguments, millions of parameters, {size: MFLOPs}): RS-Net, Table 2, whose millions are of 2^20, and Table 4.
RS_NET = [
    ("resnet2d", {"depth": 18}, 11.15, {224: 1820, 192: 1340, 160: 931, 128: 596, 96: 335}),
    ("resnet2d", {"depth": 50}, 24.37, {224: 4140, 192: 3040, 160: 2110, 128: 1350, 96: 760}),
    ("mobilenet_v2", {}, 3.34, {224: 301, 192: 221, 160: 154, 128: 99, 96: 56}),
]


def build(name, width_range=(0.25, 1.0), sizes=SIZES, num_classes=1000, **arguments):
    with torch.device("meta"):
        return create_model(name, space=SearchSpace(width_range, sizes), num_classes=num_classes, **arguments)


@pytest.fixture(scope="module")
def mobilenet_v1():
    return build("mobilenet_v1")


def megaflops(model, configurations, crop=224):
    return {c: 1000 * cost.gflops for c, cost in count_costs(model, configurations, crop).items()}


def test_mobilenet_v1_costs_what_its_table_says(mobilenet_v1):
    counted = megaflops(mobilenet_v1, [Configuration.parse(text) for text in MOBILENET_V1])
    assert {str(c): int(value) for c, value in counted.items()} == MOBILENET_V1


@pytest.mark.parametrize("name, arguments, least, smallest, largest", RANGES)
def test_ranges_are_the_papers(name, arguments, least, smallest, largest):
    model = build(name, (least, 1.0), **arguments)
    counted = megaflops(model, [model.space.smallest, model.space.largest])
    assert list(counted.values()) == pytest.approx([smallest, largest], rel=0.01, abs=1)


@pytest.mark.parametrize("name, arguments, parameters, published", RS_NET)
def test_sizes_cost_what_rs_net_prints(name, arguments, parameters, published):
    model = build(name, (1.0, 1.0), list(published), **arguments)
    assert sum(p.numel() for p in model.parameters()) / 2**20 == pytest.approx(parameters, abs=0.005)
    # ResNet-50 is printed at 1.2 % above the multiply-adds of its convolutions and its linear.
    counted = {c.spatial: value for c, value in megaflops(model, model.space.grid(1.0)).items()}
    assert counted == pytest.approx(published, rel=0.013)


def test_mobilenet_v1_doubled_costs_what_table_5_says():
    model = build("mobilenet_v1", (1.0, 2.0), [224, 256, 288, 320])
    chosen = Configuration(1.6, 288)
    counted = megaflops(model, [model.space.smallest, model.space.largest, chosen], crop=320)
    assert list(counted.values()) == pytest.approx([570, 4500, 2300], rel=0.025)


def test_vgg_16_costs_15_5_billion_multiply_adds_as_torchvisions_does():
    model, image = build("vgg16"), torch.empty(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        expected = count_cost(torchvision.models.vgg16_bn(), image)
    counted = count_costs(model, [model.space.largest, Configuration(0.5, 224)], 224)
    assert counted[model.space.largest] == expected
    assert expected.gflops == pytest.approx(15.5, abs=0.03) and expected.parameters == 138_365_992
    # A quarter of the products, but for the first convolution, whose inputs stay.
    assert counted[Configuration(0.5, 224)].gflops == pytest.approx(expected.gflops / 4, rel=0.02)


def test_the_best_scaling_of_mobilenet_v1_costs_what_table_5_says():
    """Depth 1.4, width 1.2, resolution 1.3: 2.3 GFLOPs (EfficientNet, Table 3); 288 is MutualNet's 1.3 times 224."""
    model = build("mobilenet_v1", (1.2, 1.2), [288], depth_factor=1.4)
    counted = megaflops(model, [model.space.largest], crop=288)
    assert list(counted.values()) == pytest.approx([2300], rel=0.03)
    # 13 separable layers become 20: 2, 3, 3, 9 and 3 of the five numbers of channels.
    assert [sum(block[1][0].out_rule.base == outputs for block in model.features[1:]) for outputs in (64, 128, 256, 512, 1024)] == [2, 3, 3, 9, 3]


def test_se_resnet_50_has_the_published_parameters():
    """2.53 M beside ResNet-50's 25.56 M, for under 1 % of its multiply-adds (Hu et al., CVPR 2018, Section 4)."""
    plain, squeezed = (build("resnet2d", (1.0, 1.0), [224], depth=50, se_reduction=reduction) for reduction in (0, 16))
    costs = [count_costs(model, [model.space.largest], 224)[model.space.largest] for model in (plain, squeezed)]
    assert [cost.parameters for cost in costs] == [25_557_032, 28_088_024]
    assert 0 < costs[1].gflops - costs[0].gflops < 0.01 * costs[0].gflops


def test_wide_resnet_has_the_published_parameters():
    model = build("wide_resnet", (0.9, 1.0), [20, 24, 28, 32], num_classes=10)
    cost = count_costs(model, [model.space.largest], 32)[model.space.largest]
    assert cost.parameters == 36_479_194
    assert cost.gflops == pytest.approx(5.24, rel=1e-3)


def test_step_cost_of_table_3(mobilenet_v1):
    """The paper's estimate, where a configuration costs w^2 s^2 of the largest (Eq. 2)."""
    space = mobilenet_v1.space
    stages = split_cost(mobilenet_v1, space.largest, 224)
    factors = size_factors("spatial", space.spatial_sizes), size_factors("temporal", space.temporal_sizes)
    assert 1000 * factor_step_cost(space, SUBNETS, stages, *factors) == pytest.approx(910, rel=0.005)


def test_a_counted_step_costs_more_than_its_estimate(mobilenet_v1):
    """Depthwise convolutions and the classifier shrink with the width, not with its square."""
    assert 1000 * counted_step_cost(mobilenet_v1, SUBNETS, 224, width_samples=4) == pytest.approx(926, rel=0.004)
