"""Heads that classify boxes: where they look, at every size, width and precision; the backbones under them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, Case, calibrate_at_random
from torchvision.ops import roi_align

from mutual3d.config import load_config
from mutual3d.cost.flops import count_costs
from mutual3d.models import build_model, create_model
from mutual3d.models.blocks import ResidualBlock
from mutual3d.models.heads import BoxPool, ResNetHead, X3DHead
from mutual3d.sampling import Configuration, shrink_clip

ROOT = Path(__file__).resolve().parents[2]
GOLDEN_FILES = ROOT / "tests/data/golden"
SIZES = (142, 178, 224)
DETECTION = {"resolution": 7, "aligned": True}
BOXES = torch.tensor([[0, 0.3, 0.2, 0.6, 0.7], [1, 0.25, 0.4, 0.75, 0.6], [0, 0.5, 0.5, 0.8, 0.9]])
NAMES = ("x3d_small", "slow_small", "slowfast_small")
AVA = (
    "TRAIN.DATASET", "ava", "TEST.DATASET", "ava", "DETECTION.ENABLE", True, "MODEL.NUM_CLASSES", 80,
    "MODEL.LOSS_FUNC", "bce_logit", "MODEL.HEAD_ACT", "sigmoid",
    "RESNET.SPATIAL_STRIDES", [[1], [2], [2], [1]], "RESNET.SPATIAL_DILATIONS", [[1], [1], [1], [2]],
)  # fmt: skip
CHARADES = (
    "TRAIN.DATASET", "charades", "TEST.DATASET", "charades", "DATA.MULTI_LABEL", True, "MODEL.NUM_CLASSES", 157,
    "MODEL.LOSS_FUNC", "bce_logit", "MODEL.HEAD_ACT", "sigmoid",
)  # fmt: skip


def build(name, *overrides):
    with torch.device("meta"):
        return build_model(load_config(ROOT / "configs" / name, overrides))


def detection_case(name):
    return Case({**NETWORKS[name].arguments, "detection": DETECTION})


# ---- Where a box looks -----------------------------------------------------------------------------------------------


def ramps(height, width, frames=3):
    """B 2, C 4: each cell's centre x, 1 - x, y and 1 - y, negated in the second clip; frames differ around that mean."""
    x = ((torch.arange(width) + 0.5) / width).expand(height, width)
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    places = torch.stack([x, 1 - x, y, 1 - y])[:, None] + torch.linspace(-1, 1, frames)[:, None, None]
    return torch.stack([places, -places])


def highest_on_ramps(box, sign, resolution):
    """What the ramps are at the middle of the grid's last cell: half a cell inside the box's sides."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) / (2 * resolution), (y2 - y1) / (2 * resolution)
    if sign < 0:
        return [-(x1 + dx), -(1 - x2 + dx), -(y1 + dy), -(1 - y2 + dy)]
    return [x2 - dx, 1 - (x1 + dx), y2 - dy, 1 - (y1 + dy)]


@pytest.mark.parametrize("resolution", [1, 7])
@pytest.mark.parametrize("height, width", [(-(-size // 16), -(-size // 16)) for size in SIZES] + [(9, 16), (20, 7)])
def test_a_box_is_the_same_place_at_every_size(height, width, resolution):
    pooled = BoxPool(resolution)(ramps(height, width), BOXES).flatten(1)
    expected = [highest_on_ramps(box[1:].tolist(), 1 if box[0] == 0 else -1, resolution) for box in BOXES]
    torch.testing.assert_close(pooled, torch.tensor(expected), atol=1e-5, rtol=0)


def test_it_is_pooling_in_pixels_where_the_stride_divides():
    x = torch.randn(2, 5, 4, 14, 12, generator=torch.Generator().manual_seed(0))
    pixels = BOXES * torch.tensor([1, 12 * 16, 14 * 16, 12 * 16, 14 * 16])
    grids = roi_align(x.mean(2), pixels, 7, spatial_scale=1 / 16, aligned=True)
    torch.testing.assert_close(BoxPool()(x, BOXES).flatten(1), F.max_pool2d(grids, 7).flatten(1))


def test_the_older_rule_looks_half_a_pixel_further_on():
    """DETECTION.ALIGNED False, in features of 12 x 14 cells, against torchvision's and against the newer rule."""
    x = torch.randn(2, 5, 4, 12, 14, generator=torch.Generator().manual_seed(0))
    cells = BOXES * torch.tensor([1, 14, 12, 14, 12])
    for aligned in (True, False):
        grids = roi_align(x.mean(2), cells, 7, spatial_scale=1.0, sampling_ratio=-1, aligned=aligned)
        torch.testing.assert_close(BoxPool(7, aligned)(x, BOXES).flatten(1), grids.flatten(2).amax(2))
    shifted = BOXES + torch.tensor([0, 0.5 / 14, 0.5 / 12, 0.5 / 14, 0.5 / 12])
    torch.testing.assert_close(BoxPool(7, False)(x, BOXES), BoxPool(7, True)(x, shifted))
    assert (BoxPool(7, False)(x, BOXES) - BoxPool(7, True)(x, BOXES)).abs().max() > 0.1
    for aligned in (True, False):
        assert build("AVA/SLOW_8x8_R50.yaml", "DETECTION.ALIGNED", str(aligned)).head.pool.align.aligned == aligned


@pytest.mark.parametrize("size", SIZES)
def test_a_person_in_a_shrunk_clip_is_found_in_her_box_alone(size):
    clip = torch.zeros(1, 1, 4, 224, 224)
    clip[..., 40:90, 130:190] = 1
    person, others = [0, 130 / 224, 40 / 224, 190 / 224, 90 / 224], [[0, 0.1, 0.1, 0.4, 0.5], [0, 0.5, 0.6, 0.9, 0.9]]
    features = F.avg_pool3d(shrink_clip(clip, size), (1, 16, 16), ceil_mode=True)
    pooled = BoxPool()(features, torch.tensor([person, *others])).flatten()
    assert pooled[0] > 0.9
    assert (pooled[1:] < 0.05).all()


def test_boxes_come_in_any_order_and_number():
    x = torch.randn(2, 5, 4, 9, 9)
    pool, order = BoxPool(), [2, 0, 1, 0]
    assert torch.equal(pool(x, BOXES[order]), pool(x, BOXES)[order])
    assert pool(x, BOXES[:0]).shape == (0, 5, 1, 1, 1)
    assert ResNetHead(5, 3, 0.5, DETECTION)([x], BOXES[:0]).shape == (0, 3)
    assert X3DHead(5, 6, 7, 3, 0.5, DETECTION).eval()([x], BOXES[:0]).shape == (0, 3)


# ---- Widths and sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.5, 0.7, 1.0])
def test_after_a_fusion_a_narrow_head_is_the_full_one_with_the_middle_channels_zero(width):
    network = detection_case("slowfast_small").build().double()
    head, rule = network.head, network.head.projection.in_rule
    generator = torch.Generator().manual_seed(0)
    slow = torch.randn(2, rule.adaptive.at(width), 4, 6, 6, generator=generator, dtype=torch.float64)
    fast = torch.randn(2, rule.tail, 16, 9, 9, generator=generator, dtype=torch.float64)
    zeros = torch.zeros(2, rule.adaptive.full - slow.shape[1], 4, 6, 6, dtype=torch.float64)
    expected = head([torch.cat([slow, zeros], 1), fast], BOXES)
    network.activate(Configuration(width, 48, 8))
    torch.testing.assert_close(head([slow, fast], BOXES), expected)
    assert expected.shape == (3, 7)


@pytest.mark.parametrize("name", NAMES)
def test_activate_equals_extract_equals_folded(name):
    case = detection_case(name)
    model = case.build().double()
    ends, seen = [model.space.smallest, model.space.largest], []
    calibrate_at_random(model, ends)
    with torch.no_grad():
        for configuration in ends:
            pathways = case.inputs(configuration, dtype=torch.float64)
            seen.append(model.activate(configuration)(pathways, BOXES))
            for fold_bn in (False, True):
                torch.testing.assert_close(model.extract(configuration, fold_bn)(pathways, BOXES), seen[-1])
    assert seen[0].shape == (3, 7) and (seen[0] - seen[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_box_network_has_the_weights_of_the_clip_network(name):
    state = NETWORKS[name].build().state_dict()
    own = detection_case(name).build().state_dict()
    assert list(own) == list(state)
    assert all(own[key].shape == value.shape for key, value in state.items())


def test_a_box_network_without_boxes_is_an_error():
    case = detection_case("slow_small")
    with pytest.raises(TypeError, match="boxes"):
        case.build()(case.inputs(Configuration(1.0, 48, 8)))


# ---- Precision -------------------------------------------------------------------------------------------------------


def autocast_head(head, channels, dtype):
    """(logits of boxes in features of `dtype` under autocast, gradient of the features)."""
    x = torch.randn(2, channels, 4, 9, 9, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        logits = head([x], BOXES)
    logits.float().square().sum().backward()
    return logits, x.grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["slow", "x3d"])
def test_mixed_precision(kind, dtype):
    torch.manual_seed(0)
    head = ResNetHead(16, 5, 0.0, DETECTION) if kind == "slow" else X3DHead(16, 12, 24, 5, 0.0, DETECTION)
    logits, gradient = autocast_head(head.eval(), 16, dtype)
    x = torch.randn(2, 16, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits.float(), head([x], BOXES), atol=0.02, rtol=0.05)
    assert logits.dtype == dtype and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_places_stay_exact_in_half_precision():
    """Only the features are rounded: in bf16 the side at 0.9 would lie at 0.898, and this steep ramp tells."""
    x, box = (100 * ((torch.arange(64) + 0.5) / 64 - 0.9)).expand(1, 1, 2, 64, 64), torch.tensor([[0, 0.2, 0.2, 0.9, 0.9]])
    torch.testing.assert_close(BoxPool()(x.bfloat16(), box).float(), BoxPool()(x, box), atol=0.05, rtol=0)


# ---- PySlowFast's names and published sizes --------------------------------------------------------------------------

SLOW = "Kinetics/SLOW_8x8_R50.yaml"
PUBLISHED = {
    "AVA": (AVA, 31_798_416, "keys_SLOW_8x8_R50_AVA.txt"),
    "Charades": (CHARADES, 31_956_189, "keys_SLOW_8x8_R50_CHARADES.txt"),
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_parameters_are_the_published_ones(task):
    overrides, parameters, _ = PUBLISHED[task]
    assert sum(p.numel() for p in build(SLOW, *overrides).parameters()) == parameters


@pytest.mark.parametrize("task", PUBLISHED)
def test_keys_shapes_and_kinds_are_pyslowfasts(task):
    overrides, _, file = PUBLISHED[task]
    model = build(SLOW, *overrides)
    parameters = dict(model.named_parameters())
    ours = [(k, str(tuple(v.shape)), "param" if k in parameters else "buffer") for k, v in model.state_dict().items()]
    lines = (GOLDEN_FILES / file).read_text().splitlines()
    assert sorted(ours) == sorted(tuple(line.split("\t")) for line in lines if not line.startswith("#"))


def test_a_box_network_costs_what_is_published():
    model = build(SLOW, *AVA)
    cost = count_costs(model, [model.space.largest], 224)[model.space.largest]
    assert cost.gflops == pytest.approx(63.6, rel=1e-3)


# ---- From a config, and X3D's last stage -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Kinetics/SLOW_8x8_R50.yaml", "Kinetics/SLOWFAST_4x16_R50.yaml", "Kinetics/X3D_M.yaml"])
def test_a_config_says_what_is_classified(name):
    clips, boxes = build(name), build(name, *AVA, "DETECTION.ROI_XFORM_RESOLUTION", 5)
    assert not clips.takes_boxes and clips.arguments["detection"] is None
    assert boxes.takes_boxes and boxes.arguments["detection"] == {"resolution": 5, "aligned": True}
    with torch.device("meta"):
        assert create_model(**boxes.arguments).head.pool.align.output_size == 5


def last_convolutions(model):
    return [block.branch2.b for block in model.s5.modules() if isinstance(block, ResidualBlock)]


@pytest.mark.parametrize("size", [142, 224])
def test_x3d_keeps_the_feature_stride_of_16_for_boxes(size):
    model = build("Kinetics/X3D_M.yaml", *AVA)
    features = [torch.empty(1, 3, 4, size, size, device="meta")]
    for stage in (model.s1, model.s2, model.s3, model.s4, model.s5):
        features = stage(features)
    assert features[0].shape == (1, 192, 4, -(-size // 16), -(-size // 16))
    assert [c.dilation for c in last_convolutions(model)] == [(1, 2, 2)] * 7


def test_x3d_has_its_own_strides_by_default():
    model = build("Kinetics/X3D_M.yaml")
    assert model.arguments["strides"] == [2, 2, 2, 2]
    assert [c.stride for c in last_convolutions(model)] == [(1, 2, 2)] + [(1, 1, 1)] * 6


@pytest.mark.parametrize("name", ["slow", "slowfast", "x3d"])
@pytest.mark.parametrize("key, values", [("strides", (1, 2, 0, 2)), ("dilations", (1, 1, 1, 0)), ("strides", (1, 2, 2))])
def test_strides_and_dilations_below_one_are_refused(name, key, values):
    space = {"width_range": [1.0, 1.0], "spatial_sizes": [32], "temporal_sizes": [4]}
    with pytest.raises(ValueError, match=f"RESNET.SPATIAL_{key.upper()} are .*give four numbers, 1 or more"):
        create_model(name, space=space, num_classes=2, **{key: values})


def test_a_fast_pathway_without_channels_is_refused():
    with pytest.raises(ValueError, match="SLOWFAST.BETA_INV is 8: .* at most RESNET.WIDTH_PER_GROUP .4."):
        build("Kinetics/SLOWFAST_4x16_R50.yaml", "RESNET.WIDTH_PER_GROUP", 4)


def test_a_grid_of_no_cells_is_refused():
    with pytest.raises(ValueError, match="DETECTION.ROI_XFORM_RESOLUTION is 0"):
        build(SLOW, *AVA, "DETECTION.ROI_XFORM_RESOLUTION", 0)
