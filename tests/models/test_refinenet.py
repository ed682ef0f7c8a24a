"""RefineNet: the published parameters and multiply-adds, torchvision's backbone, and maps of the sizes that RS-Net states."""

import functools
import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import fill_by_rule

from mutual3d.cost.flops import count_costs
from mutual3d.layers import FixedChannels
from mutual3d.models import create_model
from mutual3d.models.interop import read_checkpoint
from mutual3d.models.refinenet import ChainedResidualPooling, ResidualConvUnit
from mutual3d.sampling import prepare_clip
from mutual3d.tasks.segmentation import IGNORED
from mutual3d.training import Method, MutualStep

SIZES = [96, 224, 352]
SMALL = {"depth": 18, "width_per_group": 8, "refine_channels": 8}
SMALL_SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [32, 64], "temporal_sizes": [1]}


def build(sizes=SIZES, width_range=(1.0, 1.0), num_classes=40, **arguments):
    space = {"width_range": list(width_range), "spatial_sizes": sizes, "temporal_sizes": [1]}
    with torch.device("meta"):
        return create_model("refinenet", space=space, num_classes=num_classes, **arguments)


def small(**arguments):
    torch.manual_seed(0)
    return create_model("refinenet", space=SMALL_SPACE, num_classes=5, **SMALL, **arguments)


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_those_of_table_7():
    """RS-Net prints 118.31 million. Of one size's network it prints 118.20, which is one more set of norms than are trained."""
    norms = 105_344  # scale and shift of each channel of a ResNet-101's norms
    assert num_parameters(build()) == 118_096_232
    assert (num_parameters(build()) + norms) / 1e6 == pytest.approx(118.20, abs=0.005)
    assert num_parameters(build(batchnorm="private_size")) == 118_096_232 + 2 * norms
    assert num_parameters(build(batchnorm="private_size")) / 1e6 == pytest.approx(118.31, abs=0.005)


def test_multiply_adds_are_those_of_its_convolutions():
    """Each weight once for each place of its map: at 352 pixels maps of 88, 44, 22 and 11 pixels, whatever the bias and the poolings."""
    model = build(sizes=[352])
    cost = count_costs(model, [model.space.largest], 352)[model.space.largest]
    sides = {"conv1": 176, "layer1": 88, "layer2": 44, "layer3": 22, "layer4": 11, "head": 88}
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            name = name.removeprefix("backbone.body.")
            stage, *rest = name.split(".")
            if stage == "refine":
                side = 11 * 2 ** int(rest[1])
                side = side // 2 if "coarse" in rest else side
            else:
                # The first convolutions of a stage come before its stride.
                side = sides[stage] * (2 if name in ("layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1") else 1)
            total += module.weight.numel() * side**2
    assert cost.gflops == pytest.approx(total / 1e9, rel=1e-6)
    # Of sizes that divide by 32 the cost is the number of pixels: 263 GFLOPs at 512 x 512 become 124 at 352 x 352.
    assert total / 1e9 * (512 / 352) ** 2 == pytest.approx(263, rel=0.01)


@torch.no_grad()
def test_the_backbone_is_torchvisions_bit_for_bit():
    theirs = fill_by_rule(torchvision.models.resnet50(weights=None)).eval()
    model = create_model(
        "refinenet", space={**SMALL_SPACE, "width_range": [1.0, 1.0]}, num_classes=5, depth=50, refine_channels=8
    ).eval()
    state = model.state_dict()
    state.update({f"backbone.body.{key}": value for key, value in theirs.state_dict().items() if not key.startswith("fc.")})
    model.load_state_dict(state)
    images = torch.rand(1, 3, 64, 64)
    maps = model.backbone(images)
    x, expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images)))), []
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        x = stage(x)
        expected.append(x)
    assert all(torch.equal(own, there) for own, there in zip(maps.values(), expected, strict=True))


@torch.no_grad()
def test_maps_have_a_quarter_of_the_images_sides_and_in_training_the_largest_size():
    """352, 224 and 96 pixels give 88, 56 and 24; all are resized to the largest input where they are compared (RS-Net, B)."""
    model = build(num_classes=3, batchnorm="private_size", own_statistics="private", **SMALL)
    images = torch.empty(2, 3, 352, 352, device="meta")
    for training, sides in ((False, (24, 56, 88)), (True, (352, 352, 352))):
        model.train(training)
        for size, side in zip(SIZES, sides):
            assert model.activate(f"1-{size}")(model.fit_clip(images)).shape == (2, 3, side, side)
    # Whole photographs are no squares.
    assert model.eval()(model.fit_clip(torch.empty(1, 3, 352, 470, device="meta"))).shape == (1, 3, 88, 118)


@torch.no_grad()
def test_logits_in_training_are_the_map_resized():
    model = small(dropout_rate=0.0).train()
    images = model.fit_clip(torch.rand(2, 3, 64, 64), "1-32")
    resized = model.activate("1-32")(images)
    features = model.refine(model.backbone(images))
    expected = F.interpolate(model.head.projection(features), size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_parts_compute_what_the_paper_says():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 7)
    unit = ResidualConvUnit(FixedChannels(4))
    assert torch.allclose(unit(x), x + unit.conv2(unit.conv1(x.relu()).relu()))
    pooling = ChainedResidualPooling(FixedChannels(4))
    expected = last = x.relu()
    for convolution in pooling.convolutions:
        last = convolution(F.max_pool2d(F.pad(last, (2, 2, 2, 2), value=-torch.inf), 5, 1))
        expected = expected + last
    assert len(pooling.convolutions) == 4 and torch.allclose(pooling(x), expected, atol=1e-6)


@torch.no_grad()
def test_every_stage_reaches_the_map():
    """A change of any stage's features, and nothing else, changes the logits."""
    model = small().eval()
    fill_by_rule(model)
    maps = model.backbone(torch.rand(1, 3, 64, 64))
    before = model.head(model.refine(maps))
    assert list(maps) == ["0", "1", "2", "3"]
    for place in maps:
        changed = {name: x + 1 if name == place else x for name, x in maps.items()}
        assert not torch.allclose(model.head(model.refine(changed)), before)


@torch.no_grad()
@pytest.mark.parametrize("depth", [18, 50])
def test_signals_keep_their_size_in_networks_that_were_just_made(depth):
    torch.manual_seed(0)
    model = create_model(
        "refinenet", space=SMALL_SPACE, num_classes=5, depth=depth, width_per_group=16, refine_channels=32, dropout_rate=0.0
    ).train()
    logits = model(torch.randn(4, 3, 64, 64))
    assert 0.05 < logits.std() < 3


def test_torchvisions_weights_begin_the_backbone_of_every_size(tmp_path):
    torch.manual_seed(1)
    theirs = torchvision.models.resnet18(weights=None, num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    arguments = {"depth": 18, "refine_channels": 8, "num_classes": 5}
    for batchnorm in ("calibrated", "private_size"):
        model = create_model("refinenet", space={**SMALL_SPACE, "width_range": [1.0, 1.0]}, batchnorm=batchnorm, **arguments)
        state, report = read_checkpoint(model, tmp_path / "resnet18.pth")
        own = model.state_dict()
        assert set(report.skipped) == {"fc.weight", "fc.bias"} and not report.is_own
        assert set(report.missing) == {key for key in own if key.startswith(("refine.", "head."))}
        for key, value in state.items():
            if key in report.missing:
                assert torch.equal(value, own[key])
            else:
                assert torch.equal(value, theirs.state_dict()[re.sub(r"\.norms\.\d+|^backbone\.body\.", "", key)]), key


def test_weights_of_another_depth_are_refused(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match="resnet34.pth' is a checkpoint of another architecture"):
        read_checkpoint(small(), tmp_path / "resnet34.pth")


def test_a_mutual_step_of_maps_reaches_every_parameter():
    """Each size's own norms, the refinement that begins at zero, and the ensemble's scores."""
    torch.manual_seed(0)
    model = small(batchnorm="private_size", dropout_rate=0.0, own_statistics="private").train()
    fill_by_rule(model)
    images = torch.randint(0, 256, (2, 3, 1, 64, 64), dtype=torch.uint8)
    labels = torch.randint(0, 5, (2, 64, 64), dtype=torch.uint8)
    labels[:, :20] = IGNORED
    prepare = functools.partial(prepare_clip, device=torch.device("cpu"), mean=[0.5] * 3, std=[0.25] * 3)
    step = MutualStep(model, Method(("each_size",), "ensemble_distillation", "pixel_cross_entropy", largest=False), prepare=prepare, seed=0)
    result = step(images, labels, step=0)
    assert [c.spatial for c in result.configurations] == [64, 32] and len(result.losses) == 3 and all(loss > 0 for loss in result.losses)
    parameters = [*model.named_parameters(), *step.objective.named_parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for _, p in parameters)
