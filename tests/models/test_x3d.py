import pytest
import torch
import torch.nn as nn

from mutual3d.layers import SqueezeExcite
from mutual3d.models import create_model
from mutual3d.models.blocks import ResidualBlock

SPACE = {"width_range": [0.63, 1.0], "spatial_sizes": [142, 224], "temporal_sizes": [6, 16]}


@pytest.fixture(scope="module")
def x3d_m():
    torch.manual_seed(0)
    return create_model("x3d", space=SPACE, num_classes=400)


def residual_blocks(stage):
    return [block for block in stage.modules() if isinstance(block, ResidualBlock)]


def test_stages_have_the_published_depths_and_channels(x3d_m):
    stages = [residual_blocks(stage) for stage in (x3d_m.s2, x3d_m.s3, x3d_m.s4, x3d_m.s5)]
    assert [len(blocks) for blocks in stages] == [3, 5, 11, 7]
    assert [blocks[-1].branch2.c.out_channels for blocks in stages] == [24, 48, 96, 192]
    assert [blocks[-1].branch2.b.out_channels for blocks in stages] == [54, 108, 216, 432]
    assert [tuple(blocks[0].branch2.b.stride) for blocks in stages] == [(1, 2, 2)] * 4


def test_squeeze_excite_stands_in_every_second_block(x3d_m):
    for stage, hidden in zip((x3d_m.s2, x3d_m.s3, x3d_m.s4, x3d_m.s5), (8, 8, 16, 32)):
        blocks = residual_blocks(stage)
        squeezes = [[m.fc1.out_channels for m in block.modules() if isinstance(m, SqueezeExcite)] for block in blocks]
        assert squeezes == [[hidden] if i % 2 == 0 else [] for i in range(len(blocks))]


@pytest.mark.parametrize("width", [0.63, 0.8, 1.0])
def test_the_classifier_reads_2048_features_at_every_width(x3d_m, width):
    head = x3d_m.subnetwork(f"{width}-224-16").head
    assert (head.lin_5.out_channels, head.projection.in_features, head.projection.out_features) == (2048, 2048, 400)
    assert head.lin_5.in_channels == head.conv_5.out_channels


def test_x3d_m_has_16_signatures(x3d_m):
    assert len({x3d_m.signature(0.63 + 0.37 * i / 2000) for i in range(2001)}) == 16


def test_weights_are_initialised_as_published(x3d_m):
    for name, module in x3d_m.named_modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        elif isinstance(module, nn.BatchNorm3d):
            assert (module.weight == (0.0 if name.endswith("c_bn") else 1.0)).all(), name
            assert (module.bias == 0).all()
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    assert x3d_m.head.projection.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_residual_branches_may_start_at_one():
    model = create_model("x3d", space=SPACE, num_classes=2, depth_factor=1.0, zero_init_final_bn=False)
    assert all((m.weight == 1).all() for m in model.modules() if isinstance(m, nn.BatchNorm3d))


def test_convolutions_have_no_bias_but_for_squeeze_excite(x3d_m):
    with_bias = [name for name, m in x3d_m.named_modules() if isinstance(m, nn.Conv3d) and m.bias is not None]
    assert with_bias
    assert all(".se.fc" in name for name in with_bias)
