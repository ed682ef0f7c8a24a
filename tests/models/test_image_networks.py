"""What image networks have in common."""

import functools

import pytest
import torch
from networks import IMAGE_NETWORKS, MAP_NETWORKS, fill_by_rule

from mutual3d.models import create_model
from mutual3d.models.images import gentle_strides
from mutual3d.sampling import Configuration, prepare_clip
from mutual3d.training import Method, MutualStep

SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [24, 32], "temporal_sizes": [1]}


CASES = IMAGE_NETWORKS | MAP_NETWORKS


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def images(size, batch=2):
    return torch.randn((batch, 3, size, size), generator=torch.Generator().manual_seed(3))


def test_clips_of_frames_are_refused():
    with pytest.raises(ValueError, match=r"temporal sizes are \[4, 8\]: set MUTUAL.TEMPORAL_SIZES to \[1\]"):
        create_model("mobilenet_v1", space={**SPACE, "temporal_sizes": [4, 8]}, num_classes=2)


def test_images_and_clips_of_one_frame_fit_alike():
    model = IMAGE_NETWORKS["mobilenet_v1_small"].build()
    configurations = [Configuration(0.5, 32, 1), Configuration(1.0, 48, 1)]
    full = images(48)
    assert torch.equal(model.fit_clip(full), full)
    fitted = dict(model.fit_clips(full, configurations))
    for configuration, from_clips in model.fit_clips(full.unsqueeze(2), configurations):
        assert from_clips.shape == (2, 3, configuration.spatial, configuration.spatial)
        assert torch.equal(from_clips, fitted[configuration])


def test_images_stay_channels_last():
    model = IMAGE_NETWORKS["mobilenet_v1_small"].build()
    clips = images(48).unsqueeze(2).contiguous(memory_format=torch.channels_last_3d)
    for _, fitted in model.fit_clips(clips, model.space.corners()):
        assert fitted.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_every_group_of_layers_may_have_a_width_of_its_own(case):
    model = case.build().double().train()
    generator = torch.Generator().manual_seed(0)
    widths = tuple(torch.empty(model.space.width_groups).uniform_(0.5, 1.0, generator=generator).tolist())
    configuration = Configuration(widths, 48, 1)
    inputs = images(48).double()
    outputs = []
    for network in (model.activate(configuration), model.subnetwork(configuration)):
        torch.manual_seed(0)
        outputs.append(network(inputs))
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    counts = model.signature(widths)
    assert len(counts) == len(widths) > 3
    assert all(model.signature(0.5)[i] <= count <= model.signature(1.0)[i] for i, count in enumerate(counts))


@torch.no_grad()
@pytest.mark.parametrize("batchnorm, text", [("private_width", "0.5-48"), ("private_size", "1-32")])
def test_norms_may_be_private(case, batchnorm, text):
    space = {"width_range": [0.5, 1.0], "spatial_sizes": [32, 48], "temporal_sizes": [1], "listed_widths": [0.5, 1.0]}
    model = fill_by_rule(create_model(**case.arguments, space=space, batchnorm=batchnorm, own_statistics="private")).double().eval()
    inputs = case.inputs(Configuration.parse(text), torch.float64)
    logits = model.activate(text)(inputs)
    assert not torch.allclose(logits, model.activate(model.space.largest)(inputs))
    for fold_bn in (False, True):
        torch.testing.assert_close(model.extract(text, fold_bn=fold_bn)(inputs), logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_a_mutual_step_reaches_every_parameter(name):
    torch.manual_seed(0)
    model = create_model(**IMAGE_NETWORKS[name].arguments, space=SPACE).train()
    images = torch.randint(0, 256, (4, 3, 1, 32, 32), dtype=torch.uint8)
    prepare = functools.partial(prepare_clip, device=torch.device("cpu"), mean=[0.5], std=[0.25])
    step = MutualStep(model, Method(("smallest_width", "random"), "inplace_distillation"), prepare=prepare, seed=0)
    result = step(images, torch.tensor([0, 1, 2, 3]), step=0)
    assert [c.temporal for c in result.configurations] == [1, 1, 1] and result.logits.shape == (4, 7)
    assert all(loss > 0 for loss in result.losses)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_widths_may_be_above_1(case):
    with torch.device("meta"):
        model = case.build(width_range=[1.0, 2.0])
        plain = case.build(width_range=[1.0, 1.0])
    shapes = [[p.shape for p in network.parameters()] for network in (model.subnetwork("1-48"), plain)]
    assert shapes[0] == shapes[1]
    assert all(2 * least == most for least, most in zip(model.signature(1.0), model.signature(2.0)))


@pytest.mark.parametrize(
    "strides, expected", [([2, 1, 2, 2, 1, 2], [1, 1, 1, 2, 1, 2]), ([2, 2], [1, 1]), ([1, 2], [1, 1]), ([1], [1])]
)
def test_small_images_lose_the_first_two_halvings(strides, expected):
    assert gentle_strides(strides, small_images=True) == expected
    assert gentle_strides(strides, small_images=False) == strides


@torch.no_grad()
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "resnet2d"])
@pytest.mark.parametrize("small_images, side", [(True, 4), (False, 1)])
def test_features_of_a_small_image_keep_a_size(name, small_images, side):
    with torch.device("meta"):
        network = create_model(name, space=SPACE, num_classes=2, small_images=small_images).eval()
    sides = []
    pool = network.get_submodule("pool" if name.startswith("mobile") else "avgpool")
    pool.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[2:]))
    assert network(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 2)
    assert sides == [(side, side)]
