import pytest
import torch

from mutual3d.models import create_model
from mutual3d.models.resnet2d import ImageResidualBlock

SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [24, 32], "temporal_sizes": [1]}


def blocks_of(network):
    return [block for block in network.modules() if isinstance(block, ImageResidualBlock)]


def test_another_depth_is_refused_with_the_legal_ones():
    with pytest.raises(ValueError, match="RESNET.DEPTH is 20: choose among 18, 34, 50, 101"):
        create_model("resnet2d", space=SPACE, num_classes=2, depth=20)


@pytest.mark.parametrize("depth, inside", [(18, [16, 32, 64, 128]), (50, [16, 32, 64, 128])])
def test_the_inside_and_the_stem_follow_width_per_group(depth, inside):
    model = create_model("resnet2d", space=SPACE, num_classes=2, depth=depth, width_per_group=16)
    assert sorted({block.conv1.out_channels for block in blocks_of(model)}) == inside
    assert model.conv1.out_channels == 16
    assert (model.fc.in_features, model.fc.out_features) == (128 * (4 if depth == 50 else 1), 2)


@torch.no_grad()
@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_may_start_as_their_shortcuts(depth):
    model = create_model(
        "resnet2d", space=SPACE, num_classes=2, depth=depth, width_per_group=8, zero_init_final_bn=True
    ).eval()
    block = model.layer1[1]
    x = torch.rand(2, block.conv1.in_channels, 5, 5)
    assert torch.equal(block(x), x)
    assert (block.bn1.weight == 1).all()


def test_squeeze_excite_ends_the_branch_and_shrinks_with_it():
    model = create_model("resnet2d", space=SPACE, num_classes=2, depth=18, width_per_group=32, se_reduction=4)
    half = model.subnetwork("0.5-24")
    for network, share in ((model, 1), (half, 0.5)):
        blocks = blocks_of(network)
        assert [block.se.fc1.in_channels for block in blocks] == [int(share * n) for n in (32, 32, 64, 64, 128, 128, 256, 256)]
        assert [block.se.fc1.out_channels for block in blocks] == [max(8, int(share * n / 4)) for n in (32, 32, 64, 64, 128, 128, 256, 256)]
    block, x = blocks_of(model.eval())[1], torch.rand(2, 32, 5, 5)
    torch.nn.init.constant_(block.se.fc2.bias, -1e4)  # gates that let nothing through
    assert torch.equal(block(x), x)


def test_small_images_have_a_small_stem():
    model = create_model("resnet2d", space=SPACE, num_classes=2, depth=18, width_per_group=8, small_images=True)
    assert model.conv1.kernel_size == (3, 3)
    features = model.maxpool(model.relu(model.bn1(model.conv1(torch.rand(2, 3, 32, 32)))))
    assert features.shape == (2, 8, 32, 32)
