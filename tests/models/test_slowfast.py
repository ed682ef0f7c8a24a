"""Slow and SlowFast: fusions at every width and size, pathways of a clip, PySlowFast's `RESNET.*` keys."""

import copy
from pathlib import Path

import pytest
import torch
from networks import NETWORKS, random_clip

from mutual3d.config import load_config
from mutual3d.models import build_model, create_model
from mutual3d.models.blocks import ResidualBlock
from mutual3d.sampling import Configuration, temporal_indices

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "Kinetics"
CASE = NETWORKS["slowfast_small"]
ALPHA = CASE.arguments["alpha"]
FUSIONS = ["s1_fuse", "s2_fuse", "s3_fuse", "s4_fuse"]
WIDTHS = [0.5, 0.7, 1.0]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def network():
    """In training mode, where every norm uses the batch's statistics and no configuration needs calibration."""
    return CASE.build().train().double()


def build(name, *overrides):
    with torch.device("meta"):
        return build_model(load_config(CONFIGS / f"{name}.yaml", overrides))


def record(network, names, clip, configuration):
    """{name: [slow, fast] that the child gives} when the network runs a clip at a configuration."""
    features = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: features.update({name: out}))
        for name in names
    ]
    network.activate(configuration)
    network(network.fit_clip(clip))
    for hook in hooks:
        hook.remove()
    return features


# ---- Adaptive fusion -------------------------------------------------------------------------------------------------


def fused_input(rule, width, seed=0):
    """(what arrives at `width`, the same at full width with the channels in the middle zero)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, rule.at(width), 4, 6, 6, generator=generator, dtype=torch.float64)
    first, tail = x.split([rule.adaptive.at(width), rule.tail], 1)
    middle = torch.zeros(2, rule.full - rule.at(width), 4, 6, 6, dtype=torch.float64)
    return x, torch.cat([first, middle, tail], 1)


def first_block_after(network, fusion):
    return network.get_submodule(f"s{int(fusion[1]) + 1}.pathway0_res0")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("layer", ["branch1", "branch2.a"])
def test_a_fused_convolution_is_the_full_one_with_the_middle_channels_zero(network, fusion, layer, width):
    convolution = first_block_after(network, fusion).get_submodule(layer)
    x, zeroed = fused_input(convolution.in_rule, width)
    expected = convolution(zeroed)
    network.activate(Configuration(width, 48, 8))
    active = convolution(x)
    assert active.shape[1] == convolution.out_rule.at(width)
    torch.testing.assert_close(active, expected[:, : active.shape[1]])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_fused_block_is_the_full_one_with_the_middle_channels_zero(network, fusion):
    block, width = first_block_after(network, fusion), 0.5
    x, zeroed = fused_input(block.branch1.in_rule, width)
    # What a narrow block has not must not reach the outputs of the full one either.
    full, inner = copy.deepcopy(block), block.branch2.b.in_rule.at(width)
    full.branch2.b.weight[:, inner:] = 0
    full.branch2.c.weight[:, inner:] = 0
    expected = full(zeroed)
    network.activate(Configuration(width, 48, 8))
    active = block(x)
    assert active.shape[1] < expected.shape[1]
    torch.testing.assert_close(active, expected[:, : active.shape[1]])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_head_reads_the_last_features_as_fast_at_every_width(network, width):
    head = network.eval().head
    rule = head.projection.in_rule
    x, zeroed = fused_input(rule, width)
    expected = head(list(zeroed.split([rule.adaptive.full, rule.tail], 1)))
    network.activate(Configuration(width, 48, 8))
    torch.testing.assert_close(head(list(x.split([rule.adaptive.at(width), rule.tail], 1))), expected)


def test_fused_convolutions_have_channels_of_the_adaptive_and_of_the_whole_pathway():
    model = build("SLOWFAST_4x16_R50")
    joined = [first_block_after(model, fusion).branch2.a.in_channels for fusion in FUSIONS]
    assert joined == [64 + 16, 256 + 64, 512 + 128, 1024 + 256]
    assert model.head.projection.in_features == 2048 + 256


@pytest.mark.parametrize("configuration", ["0.5-32-4", "1-48-8"])
def test_the_fast_input_counts(network, configuration):
    network.activate(configuration)
    slow, fast = network.fit_clip(random_clip(network, 48).double())
    assert (network([slow, fast]) - network([slow, torch.zeros_like(fast)])).abs().max() > 1e-3


def test_shrinking_the_slow_pathway_leaves_the_fast_features_bit_identical(network):
    clip = random_clip(network, 48).double()
    names = ["s1", "s2", "s3", "s4", "s5", *FUSIONS]
    expected = record(network, names, clip, network.space.largest)
    assert [expected[name][1].shape[2] for name in names] == [ALPHA * 8] * len(names)
    for configuration in network.space.grid(0.25):
        features = record(network, names, clip, configuration)
        for name in names:
            assert torch.equal(features[name][1], expected[name][1]), (configuration, name)
            assert features[name][0].shape[2] == configuration.temporal


@pytest.mark.parametrize("frames", [4, 5])
def test_fused_features_are_of_the_frames_that_the_slow_input_was_given(frames):
    network = CASE.build(temporal_sizes=[frames, 8]).train().double()
    clip = random_clip(network, 48).double()
    indices = temporal_indices(8, frames)
    whole, part = (record(network, FUSIONS, clip, Configuration(1.0, 48, t)) for t in (8, frames))
    whole_input, part_input = (network.activate(Configuration(1.0, 48, t)).fit_clip(clip)[0] for t in (8, frames))
    assert torch.equal(part_input, whole_input[:, :, indices])
    for name in FUSIONS:
        tail = network.get_submodule(name).out_channels
        assert torch.equal(part[name][0][:, -tail:], whole[name][0][:, -tail:].index_select(2, indices)), name


# ---- Pathways of a clip ----------------------------------------------------------------------------------------------


def test_slow_frames_of_32_are_pyslowfasts():
    model = build("MUTUAL_SLOWFAST_4x16_R50")
    assert model.clip_frames == 32
    clip = torch.arange(32.0).view(1, 1, 32, 1, 1).expand(1, 3, 32, 224, 224)
    slow, fast = model.fit_clip(clip)
    assert slow[0, 0, :, 0, 0].tolist() == [0, 10, 20, 31]
    assert torch.equal(fast, clip)


def test_a_smaller_configuration_leaves_the_fast_input_whole():
    model = build("MUTUAL_SLOWFAST_4x16_R50").activate("0.63-142-2")
    slow, fast = model.fit_clip(torch.empty(1, 3, 32, 224, 224, device="meta"))
    assert (slow.shape, fast.shape) == ((1, 3, 2, 142, 142), (1, 3, 32, 224, 224))


def test_frames_that_alpha_does_not_divide_are_refused(network):
    with pytest.raises(ValueError, match="30 frames does not divide by SLOWFAST.ALPHA 4"):
        network.fit_clip(torch.zeros(1, 3, 30, 48, 48))
    with pytest.raises(ValueError, match="DATA.NUM_FRAMES 30 does not divide by SLOWFAST.ALPHA 8"):
        build("SLOWFAST_4x16_R50", "DATA.NUM_FRAMES", 30)


def test_an_even_fusion_kernel_is_refused():
    with pytest.raises(ValueError, match="fusion kernel is 4 .SLOWFAST.FUSION_KERNEL_SZ.: it must be odd"):
        build("SLOWFAST_4x16_R50", "SLOWFAST.FUSION_KERNEL_SZ", 4)


# ---- PySlowFast's keys -----------------------------------------------------------------------------------------------


def temporal_kernels(stage, pathway=0):
    """Of the `a` convolutions of a stage's blocks."""
    blocks = [block for name, block in stage.named_children() if name.startswith(f"pathway{pathway}_")]
    return [block.branch2.a.kernel_size[0] for block in blocks]


def test_temporal_kernels_are_the_published_ones():
    model = build("SLOWFAST_4x16_R50")
    stages = [model.s2, model.s3, model.s4, model.s5]
    assert [temporal_kernels(stage) for stage in stages] == [[1] * 3, [1] * 4, [3] * 6, [3] * 3]
    assert [temporal_kernels(stage, 1) for stage in stages] == [[3] * 3, [3] * 4, [3] * 6, [3] * 3]
    assert [stem.conv.kernel_size[0] for stem in model.s1.children()] == [1, 5]


def test_blocks_past_num_block_temp_kernel_have_no_temporal_extent():
    model = build("SLOW_8x8_R50", "RESNET.DEPTH", 101, "RESNET.NUM_BLOCK_TEMP_KERNEL", [[3], [4], [6], [3]])
    assert temporal_kernels(model.s4) == [3] * 6 + [1] * 17
    assert temporal_kernels(model.s5) == [3] * 3
    assert [len(temporal_kernels(stage)) for stage in (model.s2, model.s3)] == [3, 4]


@pytest.mark.parametrize("size", [64, 142, 224])
def test_a_dilated_last_stage_keeps_the_feature_stride_of_16(size):
    model = build(
        "SLOW_8x8_R50", "RESNET.SPATIAL_STRIDES", [[1], [2], [2], [1]],
        "RESNET.SPATIAL_DILATIONS", [[1], [1], [1], [2]],
    )  # fmt: skip
    convolutions = [block.branch2.b for block in model.s5.modules() if isinstance(block, ResidualBlock)]
    assert [c.dilation for c in convolutions] == [(1, 2, 2)] * 3
    features = [torch.empty(1, 3, 8, size, size, device="meta")]
    for stage in (model.s1, model.s2, model.s3, model.s4, model.s5):
        features = stage(features)
    assert features[0].shape == (1, 2048, 8, -(-size // 16), -(-size // 16))


def test_an_unsupported_depth_lists_the_legal_ones():
    with pytest.raises(ValueError, match="RESNET.DEPTH is 18: choose among 50, 101"):
        build("SLOW_8x8_R50", "RESNET.DEPTH", 18)


@pytest.mark.parametrize(
    "key, value",
    [
        ("RESNET.SPATIAL_STRIDES", [[1], [2], [2]]),
        ("RESNET.SPATIAL_DILATIONS", [[1], [1], [1], [1, 2]]),
        ("RESNET.NUM_BLOCK_TEMP_KERNEL", [[3, 3, 3], [4], [6], [3]]),
    ],
)
def test_lists_that_are_not_one_value_a_stage_are_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} is .*(give four lists of one value|it must be a list of 4, each a list of 1 to 2)"):
        build("SLOW_8x8_R50", key, value)


def test_weights_are_initialised_as_published():
    torch.manual_seed(0)
    space = {"width_range": [1.0, 1.0], "spatial_sizes": [32], "temporal_sizes": [4]}
    model = create_model("slowfast", space=space, num_classes=50, width_per_group=32)
    last_norms = [block.branch2.c_bn for block in model.modules() if isinstance(block, ResidualBlock)]
    assert len(last_norms) == 32
    assert all((norm.weight == 0).all() for norm in last_norms)
    fusion = model.s4_fuse.conv_f2s
    assert fusion.weight.std().item() == pytest.approx((2 / (fusion.out_channels * 5)) ** 0.5, rel=0.05)
    assert model.head.projection.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(m.bias is not None for m in model.modules() if isinstance(m, torch.nn.Conv3d))
