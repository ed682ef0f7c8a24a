import pytest
import torch
import torch.nn as nn

from mutual3d.config import get_cfg
from mutual3d.models import build_model, create_model
from mutual3d.models.mobilenet import V1_LAYERS, HardSqueezeExcite, InvertedResidual, deepened

SPACE = {"width_range": [0.25, 1.0], "spatial_sizes": [128, 224], "temporal_sizes": [1]}
NAMES = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3"]


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    torch.manual_seed(0)
    return create_model(request.param, space=SPACE, num_classes=10)


def plain(name, width):
    with torch.device("meta"):
        return create_model(name, space=SPACE, num_classes=10).subnetwork(f"{width}-128")


def test_every_convolution_is_dense_or_depthwise_and_without_bias_but_for_squeeze_excite(network):
    convolutions = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    assert all(m.groups in (1, m.in_channels) for m in convolutions.values())
    assert {name for name, m in convolutions.items() if m.groups == 1 and m.kernel_size != (1, 1)} == {"features.0.0"}
    assert all((".fc" in name) == (m.bias is not None) for name, m in convolutions.items())


@pytest.mark.parametrize("width", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("name", NAMES[1:])
def test_the_classifier_reads_1280_features_at_every_width(name, width):
    assert plain(name, width).classifier[-1].in_features == 1280


@pytest.mark.parametrize("width, features", [(0.25, 256), (0.6, 616), (1.0, 1024)])
def test_features_of_v1_follow_the_width(width, features):
    assert plain("mobilenet_v1", width).classifier[-1].in_features == features


@pytest.mark.parametrize("width", [0.25, 0.6, 1.0])
def test_squeeze_excite_shrinks_with_its_block(width):
    blocks = [m for m in plain("mobilenet_v3", width).modules() if isinstance(m, HardSqueezeExcite)]
    assert len(blocks) == 8
    for block in blocks:
        inner, hidden = block.fc1.in_channels, block.fc1.out_channels
        assert block.fc2.in_channels == hidden and block.fc2.out_channels == inner
        assert hidden % 8 == 0 and 0.9 * inner / 4 <= hidden <= inner / 4 + 8


@pytest.mark.parametrize("name, shortcuts", [("mobilenet_v2", 10), ("mobilenet_v3", 10)])
@pytest.mark.parametrize("width", [0.25, 1.0])
def test_shortcuts_are_the_same_blocks_at_every_width(name, shortcuts, width):
    blocks = [m for m in plain(name, width).modules() if isinstance(m, InvertedResidual)]
    assert sum(block.has_shortcut for block in blocks) == shortcuts


def test_weights_are_initialised_as_published(network):
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.weight.numel() > 5000 and ".fc" not in name:
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert network.classifier[-1].weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("factor, counts", [(1.0, [1, 2, 2, 6, 2]), (1.4, [2, 3, 3, 9, 3]), (0.5, [1, 1, 1, 3, 1]), (1.1, [2, 3, 3, 7, 3])])
def test_a_depth_factor_rounds_layers_up_and_keeps_the_halvings(factor, counts):
    layers = deepened(V1_LAYERS, factor)
    assert [sum(outputs == wanted for outputs, _ in layers) for wanted in (64, 128, 256, 512, 1024)] == counts
    assert [outputs for outputs, stride in layers if stride == 2] == [128, 256, 512, 1024]
    assert deepened(V1_LAYERS, 1.0) == list(V1_LAYERS)


def test_a_depth_that_a_network_does_not_have_is_refused():
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.MODEL_NAME", "MobileNetV2", "MOBILENET.DEPTH_FACTOR", "1.4", "DATA.NUM_FRAMES", "1",
                         "TRAIN.DATASET", "cifar10", "TEST.DATASET", "cifar10"])  # fmt: skip
    with pytest.raises(ValueError, match="DEPTH_FACTOR is 1.4: MobileNetV1 alone may be deeper; MobileNetV2 has 1"):
        build_model(cfg)


@pytest.mark.parametrize("model_name", ["MobileNetV1", "MobileNetV2", "MobileNetV3", "ImageResNet"])
def test_a_config_says_whether_images_are_small(model_name):
    cfg = get_cfg()
    values = {"TRAIN.DATASET": "cifar10", "TEST.DATASET": "cifar10", "MODEL.MODEL_NAME": model_name, "MODEL.SMALL_IMAGES": True, "MODEL.DROPOUT_RATE": 0.125,
              "DATA.NUM_FRAMES": 1, "DATA.TRAIN_CROP_SIZE": 32, "DATA.TEST_CROP_SIZE": 32, "RESNET.WIDTH_PER_GROUP": 8}  # fmt: skip
    cfg.merge_from_list([word for pair in values.items() for word in pair])
    with torch.device("meta"):
        model = build_model(cfg)
    strides = [m.stride[0] for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert strides[0] == 1
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.125]
