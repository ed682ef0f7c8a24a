import pytest
import torch
import torch.nn.functional as F
from networks import IMAGE_NETWORKS

from mutual3d.models import create_model
from mutual3d.models.wide_resnet import PreactivationBlock

SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [24, 32], "temporal_sizes": [1]}


def norm_relu(state, name, x):
    values = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *values))


def reference(state, images, blocks):
    """The network written out: pre-activation blocks; a projection takes what the first convolution takes."""
    x = F.conv2d(images, state["conv1.weight"], padding=1)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", stride if block == 0 else 1
            inputs = norm_relu(state, f"{name}.bn1", x)
            y = F.conv2d(inputs, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(norm_relu(state, f"{name}.bn2", y), state[f"{name}.conv2.weight"], padding=1)
            projection = state.get(f"{name}.shortcut.weight")
            x = y + (x if projection is None else F.conv2d(inputs, projection, stride=stride))
    return F.linear(norm_relu(state, "bn", x).mean((2, 3)), state["fc.weight"], state["fc.bias"])


@torch.no_grad()
def test_the_network_is_its_definition_written_out():
    case = IMAGE_NETWORKS["wide_resnet_small"]
    model = case.build(depth=16).double()
    inputs = case.inputs(model.space.largest, torch.float64)
    torch.testing.assert_close(model(inputs), reference(model.state_dict(), inputs, blocks=2), rtol=1e-9, atol=1e-9)


def test_dropout_is_inside_every_block():
    model = create_model("wide_resnet", space=SPACE, num_classes=2, depth=16, widen_factor=1, dropout_rate=0.3)
    blocks = [block for block in model.modules() if isinstance(block, PreactivationBlock)]
    assert [block.dropout.p for block in blocks] == [0.3] * 6
    # As wide as the stem: the first block needs no projection.
    assert [block.shortcut is None for block in blocks] == [True, True, False, True, False, True]


@pytest.mark.parametrize("depth", [4, 12, 27])
def test_depths_that_do_not_divide_are_refused(depth):
    with pytest.raises(ValueError, match=f"WIDERESNET.DEPTH is {depth}: it must be 4 more than a multiple of 6"):
        create_model("wide_resnet", space=SPACE, num_classes=2, depth=depth)
