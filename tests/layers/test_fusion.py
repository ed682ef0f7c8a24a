import pytest
import torch
import torch.nn as nn

from mutual3d.layers import AdaptiveFusion
from mutual3d.sampling import shrink_clip, temporal_indices

ALPHA, FRAMES, SIDE = 4, 6, 9


def build(kernel_size=5, fast_channels=3, ratio=2):
    torch.manual_seed(0)
    return AdaptiveFusion(fast_channels, ratio=ratio, kernel_size=kernel_size, alpha=ALPHA, shrink=shrink_clip).eval()


def pathways(frames=FRAMES, side=SIDE, fast_channels=3):
    generator = torch.Generator().manual_seed(1)
    slow = torch.randn(2, 4, frames, side, side, generator=generator)
    return [slow, torch.randn(2, fast_channels, ALPHA * FRAMES, SIDE, SIDE, generator=generator)]


def lateral(fusion, fast):
    """The features of the Fast pathway before they meet the Slow one's size."""
    convolution = fusion.conv_f2s
    return fusion.bn(nn.functional.conv3d(fast, convolution.weight, None, (ALPHA, 1, 1), (2, 0, 0))).relu()


@pytest.mark.parametrize("frames, side", [(6, 9), (6, 5), (3, 9), (1, 4), (5, 8), (6, 11)])
def test_the_result_has_the_sizes_of_the_slow_tensor(frames, side):
    slow, fast = pathways(frames, side)
    fused, whole = build()([slow, fast])
    assert fused.shape == (2, 4 + 6, frames, side, side)
    assert torch.equal(fused[:, :4], slow)
    assert whole is fast


def test_at_full_size_it_is_the_time_strided_convolution():
    fusion, (slow, fast) = build(), pathways()
    assert torch.equal(fusion([slow, fast])[0][:, 4:], lateral(fusion, fast))


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_fewer_frames_are_those_of_the_slow_input(frames):
    fusion, (slow, fast) = build(), pathways(frames)
    expected = lateral(fusion, fast)[:, :, temporal_indices(FRAMES, frames)]
    assert torch.equal(fusion([slow, fast])[0][:, 4:], expected)


def test_a_smaller_slow_tensor_gets_the_features_resized_as_clips_are():
    fusion, (slow, fast) = build(), pathways(side=5)
    assert torch.equal(fusion([slow, fast])[0][:, 4:], shrink_clip(lateral(fusion, fast), 5))


@pytest.mark.parametrize("kernel_size, reached", [(1, []), (3, [2]), (7, [2, 3])])
def test_an_impulse_reaches_the_slow_frames_around_it(kernel_size, reached):
    fusion = build(kernel_size, fast_channels=1, ratio=1)
    nn.init.ones_(fusion.conv_f2s.weight)
    fast = torch.zeros(1, 1, ALPHA * FRAMES, SIDE, SIDE)
    fast[:, :, 2 * ALPHA + 1] = 1
    fused, _ = fusion([torch.zeros(1, 4, FRAMES, SIDE, SIDE), fast])
    assert (fused[0, 4, :, 0, 0] > 0).nonzero().flatten().tolist() == reached


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_an_even_kernel_is_refused(kernel_size):
    with pytest.raises(ValueError, match=f"the fusion kernel is {kernel_size} .*SLOWFAST.FUSION_KERNEL_SZ.*odd"):
        build(kernel_size)


def test_gradients_reach_the_fast_pathway_through_a_shrunk_fusion():
    slow, fast = pathways(3, 5)
    fused, _ = build()([slow, fast.requires_grad_()])
    fused[:, 4:].sum().backward()
    reached = fast.grad.abs().amax((0, 1, 3, 4)) > 0
    # Windows of 5 frames around every fourth one that the Slow input was given: 0, 2 and 5 of its 6.
    expected = {frame for chosen in (0, 2, 5) for frame in range(4 * chosen - 2, 4 * chosen + 3)} & set(range(24))
    assert set(reached.nonzero().flatten().tolist()) == expected
