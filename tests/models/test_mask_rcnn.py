"""Mask R-CNN: torchvision's at width 1, slimmable in its backbone, started from a classifier."""

import pytest
import torch
import torchvision
from networks import calibrate_at_random
from torchvision.models.detection.roi_heads import paste_masks_in_image

from mutual3d.cost.complexity import count_activation_bytes, split_cost
from mutual3d.cost.flops import count_cost, count_costs
from mutual3d.layers import make_divisible
from mutual3d.models import create_model
from mutual3d.models.interop import load_checkpoint, read_checkpoint
from mutual3d.models.mask_rcnn import BACKBONES
from mutual3d.models.objects import fitted, mirrored
from mutual3d.sampling import Configuration
from mutual3d.utils.files import save_tensors
from mutual3d.utils.targets import Targets

SPACE = {"width_range": [0.25, 1.0], "spatial_sizes": [48, 96], "temporal_sizes": [1]}
SMALL = {"pyramid_channels": 16, "box_features": 32, "mask_channels": 8, "anchor_sizes": [8, 16, 32, 64, 128]}
NUM_CLASSES = 3


def build(backbone="resnet", **arguments):
    return create_model("mask_rcnn", space=SPACE, num_classes=NUM_CLASSES, backbone=backbone, **arguments)


def small(backbone="resnet", **arguments):
    narrow = {"resnet": {"depth": 18, "width_per_group": 16}, "vgg16": {"width_per_group": 16}}.get(backbone, {})
    return build(backbone, **SMALL, **narrow, **arguments)


@pytest.fixture(scope="module")
def pair():
    """(a network here, torchvision's), with the same random weights."""
    torch.manual_seed(0)
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1, min_size=96, max_size=128, image_mean=[0.0] * 3, image_std=[1.0] * 3,
        _skip_resize=True,
    )
    model = build()
    model.load_state_dict({own: theirs.state_dict()[name] for own, name in zip(model.state_dict(), map(theirs_name, model.state_dict()))})
    return model, theirs


def theirs_name(own):
    return own.removeprefix("heads.")


def images(batch=2, height=96, width=128):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_entries_are_torchvisions_in_name_shape_and_order():
    with torch.device("meta"):
        theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
        own = create_model("mask_rcnn", space=SPACE, num_classes=90).state_dict()
    assert [(theirs_name(key), tensor.shape) for key, tensor in own.items()] == [(key, tensor.shape) for key, tensor in theirs.items()]


@torch.no_grad()
def test_at_width_1_it_finds_what_torchvisions_finds(pair):
    model, theirs = (network.eval() for network in pair)
    # 100 rows are no multiple of the stride.
    for height, width in ((96, 128), (96, 100)):
        found, expected = model(images(height=height, width=width)), theirs(list(images(height=height, width=width)))
        assert len(found) == 2 and all(len(each["boxes"]) > 3 for each in expected)
        for own, other in zip(found, expected):
            boxes = own["boxes"] * torch.tensor([width, height, width, height])
            torch.testing.assert_close(boxes, other["boxes"], rtol=1e-5, atol=1e-4)
            assert torch.equal(own["labels"] + 1, other["labels"])
            torch.testing.assert_close(own["scores"], other["scores"], rtol=1e-5, atol=1e-6)
            pasted = paste_masks_in_image(own["masks"], other["boxes"], (height, width))
            torch.testing.assert_close(pasted, other["masks"], rtol=1e-4, atol=1e-5)
            assert 0 <= own["boxes"].min() and own["boxes"].max() <= 1


def objects(height=96, width=128, count=3):
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([width / 2, height / 2])
    boxes = torch.cat([corners, corners + torch.tensor([width / 4, height / 3])], 1)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist()):
        mask[y1:y2, x1:x2] = 1
    return {"boxes": boxes, "labels": torch.arange(count) % NUM_CLASSES, "masks": masks}


def test_its_losses_are_torchvisions(pair):
    model, theirs = (network.train() for network in pair)
    own = objects()
    torch.manual_seed(3)
    losses = model(images(), labels=Targets([own, own]))
    torch.manual_seed(3)
    target = {**own, "labels": own["labels"] + 1}
    expected = theirs(list(images()), [target, target])
    assert losses.keys() == expected.keys() and len(losses) == 5
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_image_in_a_larger_batch_is_learned_from_as_far_as_it_reaches():
    """Proposals end where the image does, and boxes are where they are in it, at every size of the batch."""
    labels = Targets([{**each, "canvas": torch.tensor([96, 128])} for each in (objects(96, 128), objects(64, 80, 2))])
    for height, width in ((96, 128), (48, 64)):
        large, other = fitted(labels.samples, height, width)
        assert large["masks"].shape == (3, height, width) and other["masks"].shape == (2, height * 64 // 96, width * 80 // 128)
        for each, full in ((large, objects(96, 128)), (other, objects(64, 80, 2))):
            torch.testing.assert_close(each["boxes"], full["boxes"] * (height / 96))
            # What a mask covers shrinks with the area.
            covered = each["masks"].float().sum((1, 2)), full["masks"].float().sum((1, 2))
            torch.testing.assert_close(covered[0], covered[1] * (height / 96) ** 2, rtol=0.02, atol=1)
    torch.manual_seed(0)
    model = small().train()
    seen = []
    model.heads.roi_heads.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[1], inputs[2])))
    losses = model(images(), labels=labels)
    (proposals, sizes), = seen
    assert sizes == [(96, 128), (64, 80)] and all(loss.isfinite() for loss in losses.values())
    assert proposals[1][:, 2].max() <= 80 and proposals[1][:, 3].max() <= 64 < proposals[0][:, 3].max()


def test_images_without_objects_are_learned_from():
    losses = small().train()(images(), labels=Targets([objects(count=0), objects(count=1)]))
    assert all(loss.isfinite() for loss in losses.values())


def test_a_mirrored_image_has_its_objects_on_the_other_side():
    own = objects()
    other = mirrored(own)
    assert torch.equal(other["masks"], own["masks"].flip(2))
    torch.testing.assert_close(other["boxes"][:, [0, 2]], 128 - own["boxes"][:, [2, 0]])
    torch.testing.assert_close(mirrored(other)["boxes"], own["boxes"])


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_activating_is_extracting_at_the_corners(backbone):
    torch.manual_seed(0)
    model = calibrate_at_random(small(backbone).eval(), [Configuration(0.25, 48), Configuration(1.0, 96)])
    for configuration in model.statistics:
        fitted = model.activate(configuration).fit_clip(images())
        assert fitted.shape == (2, 3, configuration.spatial, configuration.spatial * 128 // 96)
        found = model(fitted)
        assert [len(each["boxes"]) for each in found] == [len(each["boxes"]) for each in model.at(configuration)(fitted)]
        for fold_bn in (False, True):
            for own, other in zip(found, model.extract(configuration, fold_bn=fold_bn)(fitted)):
                assert len(own["scores"]) == len(other["scores"]) > 0
                torch.testing.assert_close(own["scores"], other["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_laterals_read_the_first_channels_and_levels_keep_theirs(backbone):
    with torch.device("meta"):
        model = build(backbone)
    full, half = (model.subnetwork(Configuration(width, 96)) for width in (1.0, 0.5))
    for network, factor in ((full, 1), (half, 2)):
        features = network.backbone.body(torch.empty(1, 3, 96, 128, device="meta"))
        assert [tuple(each.shape[2:]) for each in features.values()] == [(24, 32), (12, 16), (6, 8), (3, 4)]
        laterals = [block[0].in_channels for block in network.backbone.fpn.inner_blocks]
        assert laterals == [each.shape[1] for each in features.values()]
        # MobileNet v2's last features do not depend on the width.
        scaled = [block[0].in_channels for block in full.backbone.fpn.inner_blocks][: 3 if backbone == "mobilenet_v2" else 4]
        assert laterals[: len(scaled)] == [make_divisible(count / factor) for count in scaled]
        levels = network.backbone(torch.empty(1, 3, 96, 128, device="meta")).features
        assert [each.shape[1] for each in levels.values()] == [256] * 5
    assert [p.shape for p in half.heads.parameters()] == [p.shape for p in full.heads.parameters()]


def test_calibration_needs_no_labels():
    model = small().train()
    seen = []
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.observer = lambda *moments: seen.append(moments)
    assert model(images()) == {}
    assert len(seen) == sum(isinstance(norm, torch.nn.BatchNorm2d) for norm in model.modules())


def test_costs_are_torchvisions_with_as_many_boxes_as_there_may_be():
    with torch.device("meta"):
        model = create_model("mask_rcnn", space={**SPACE, "spatial_sizes": [256, 480]}, num_classes=90)
        theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        image = torch.empty(1, 3, 480, 480)
        levels = list(theirs.backbone(image).values())
        backbone = count_cost(theirs.backbone, image).gflops
        parts = [
            count_cost(theirs.rpn.head, levels), count_cost(theirs.roi_heads.box_head, torch.empty(1000, 256, 7, 7)),
            count_cost(theirs.roi_heads.box_predictor, torch.empty(1000, 1024)),
            count_cost(theirs.roi_heads.mask_head, torch.empty(100, 256, 14, 14)),
            count_cost(theirs.roi_heads.mask_predictor, torch.empty(100, 256, 14, 14)),
        ]  # fmt: skip
    by_stage = {stage.name: stage.gflops for stage in split_cost(model, model.space.largest, 480)}
    assert by_stage["backbone"] == pytest.approx(backbone, rel=1e-9)
    assert by_stage["heads"] == pytest.approx(sum(part.gflops for part in parts), rel=1e-9)
    counted = count_costs(model, [model.space.smallest, model.space.largest], 480)
    assert counted[model.space.largest].gflops == pytest.approx(sum(by_stage.values()), rel=1e-9)
    smallest = {stage.name: stage.gflops for stage in split_cost(model, model.space.smallest, 480)}
    assert counted[model.space.smallest].gflops == pytest.approx(sum(smallest.values()), rel=1e-9)
    assert count_activation_bytes(model, model.space.largest, 96) > 3 * 4 * 96 * 96
    # What looks at boxes costs the same at every configuration; all that is done with whole images shrinks.
    assert smallest["backbone"] < by_stage["backbone"] / 8
    assert by_stage["heads"] - smallest["heads"] == pytest.approx(parts[0].gflops * (1 - (256 / 480) ** 2), rel=0.01)


@pytest.mark.parametrize(
    "backbone, classifier",
    [
        ("resnet", {"name": "resnet2d", "depth": 18, "width_per_group": 16}), ("mobilenet_v1", {"name": "mobilenet_v1"}),
        ("mobilenet_v2", {"name": "mobilenet_v2"}), ("vgg16", {"name": "vgg16", "width_per_group": 16, "dim_fc": 32}),
    ],
)  # fmt: skip
def test_it_starts_from_a_classifiers_checkpoint(backbone, classifier, tmp_path, caplog):
    torch.manual_seed(1)
    trained = create_model(**classifier, space=SPACE, num_classes=5)
    save_tensors(tmp_path / "classifier.pyth", {"model_state": trained.state_dict(), "model_arguments": trained.arguments})
    model = small(backbone)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state, report = read_checkpoint(model, tmp_path / "classifier.pyth")
    with caplog.at_level("INFO", "mutual3d"):
        load_checkpoint(model, tmp_path / "classifier.pyth")
    own = {key.removeprefix("backbone.body."): tensor for key, tensor in model.state_dict().items() if key.startswith("backbone.body.")}
    assert all(torch.equal(tensor, trained.state_dict()[key]) for key, tensor in own.items())
    rest = [key for key in before if not key.startswith("backbone.body.")]
    assert all(torch.equal(before[key], model.state_dict()[key]) for key in rest) and set(report.missing) == set(rest)
    assert set(report.skipped) == {key for key in trained.state_dict() if key.startswith(("fc.", "classifier."))}
    assert f"{len(own)} entries are used" in caplog.text and "skipped" in caplog.text and "missing (as backbone.fpn" in caplog.text


def test_another_networks_checkpoint_is_refused(tmp_path):
    other = create_model("resnet2d", space=SPACE, num_classes=5, depth=18, width_per_group=8)
    save_tensors(tmp_path / "other.pyth", {"model_state": other.state_dict()})
    with pytest.raises(ValueError, match=r"other.pyth' is a checkpoint of another architecture or format.*\n.*of another shape"):
        load_checkpoint(small(), tmp_path / "other.pyth")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"backbone": "vit"}, "MODEL.ARCH is 'vit': mutual3d's MaskRCNN is built on resnet, mobilenet_v1, mobilenet_v2, vgg16"),
        ({"anchor_sizes": [8, 16]}, r"MASK_RCNN.ANCHOR_SIZES is \[8, 16\]: give 5 sizes in pixels"),
        ({"pyramid_channels": 0}, "pyramid_channels is 0: give a whole number from 1"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
