"""torchvision's own weights load under their own names and give torchvision's own outputs."""

import pytest
import torch
import torchvision
from networks import fill_by_rule

from mutual3d.models import create_model
from mutual3d.utils.checkpoint import load_weights, read_weights

SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [48, 64], "temporal_sizes": [1]}
# (name, arguments, the same network of torchvision).
NETWORKS = {
    "mobilenet_v2": ("mobilenet_v2", {}, torchvision.models.mobilenet_v2),
    "mobilenet_v3": ("mobilenet_v3", {}, torchvision.models.mobilenet_v3_large),
    "resnet18": ("resnet2d", {"depth": 18}, torchvision.models.resnet18),
    "resnet34": ("resnet2d", {"depth": 34}, torchvision.models.resnet34),
    "resnet50": ("resnet2d", {"depth": 50}, torchvision.models.resnet50),
    "resnet101": ("resnet2d", {"depth": 101}, torchvision.models.resnet101),
    "vgg16": ("vgg16", {}, torchvision.models.vgg16_bn),
}


@torch.no_grad()
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "resnet18", "resnet50"])
def test_torchvisions_weights_give_its_outputs(name, tmp_path):
    own_name, arguments, theirs = NETWORKS[name]
    theirs = fill_by_rule(theirs(weights=None, num_classes=10)).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    model = create_model(own_name, space=SPACE, num_classes=10, **arguments).eval()
    load_weights(model, read_weights(tmp_path / "theirs.pth"), "theirs.pth")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = theirs(images)
    # Relative to the logits' own size: nothing keeps these weights' outputs near 1.
    torch.testing.assert_close(model(images) / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_vgg_16_is_torchvisions_to_the_bit():
    with torch.device("meta"):
        theirs, model = torchvision.models.vgg16_bn(num_classes=10), create_model("vgg16", space=SPACE, num_classes=10)
    theirs.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in theirs.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.02 if tensor.ndim > 1 else torch.ones_like(tensor))
    model.load_state_dict(theirs.state_dict(), assign=True)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    expected = theirs(images)
    assert expected.isfinite().all() and expected.std() > 0
    assert torch.equal(model.eval()(images), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_entries_are_torchvisions_in_name_shape_and_order(name):
    own_name, arguments, theirs = NETWORKS[name]
    with torch.device("meta"):
        expected = theirs(weights=None).state_dict()
        own = create_model(own_name, space=SPACE, num_classes=1000, **arguments).state_dict()
    assert [(key, tensor.shape) for key, tensor in own.items()] == [(key, t.shape) for key, t in expected.items()]


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3"])
def test_narrow_networks_are_torchvisions_of_that_width(name, width):
    """Up to v3's 1280 features, which torchvision scales and which stay here."""
    with torch.device("meta"):
        model = create_model(name, space={**SPACE, "width_range": [0.25, 1.0]}, num_classes=1000)
        expected = NETWORKS[name][2](weights=None, width_mult=width)
        own = model.subnetwork(f"{width}-48")
    assert [p.shape for p in own.features.parameters()] == [p.shape for p in expected.features.parameters()]
    assert own.classifier[-1].in_features == 1280


@pytest.mark.parametrize("name", ["mobilenet_v3", "resnet50"])
def test_norms_are_torchvisions(name):
    own_name, arguments, theirs = NETWORKS[name]
    with torch.device("meta"):
        networks = create_model(own_name, space=SPACE, num_classes=10, **arguments), theirs(weights=None)
    settings = [
        [(m.eps, m.momentum) for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)] for network in networks
    ]
    assert settings[0] == settings[1]
