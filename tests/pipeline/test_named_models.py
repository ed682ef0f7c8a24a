"""Networks and configs by name: what create_model, list_models and get_cfg give, take and refuse."""

import pickle

import pytest
import torch
import torchvision
from networks import fill_by_rule

import mutual3d
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.models.interop import export_state
from mutual3d.pipeline import named_models
from mutual3d.utils.files import save_tensors

# The smallest networks of each name, with the arguments that make them small.
SMALL = {
    "x3d_tiny": "MODEL: {MODEL_NAME: X3D, NUM_CLASSES: 5}\nX3D: {WIDTH_FACTOR: 1.0, DEPTH_FACTOR: 0.5, DIM_C5: 16}\n",
    "slow_tiny": "MODEL: {MODEL_NAME: ResNet, ARCH: slow, NUM_CLASSES: 5}\nRESNET: {WIDTH_PER_GROUP: 8}\n",
}
SIZES = "DATA: {NUM_FRAMES: 4, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}\n"
CLASSIFIER = ["head.projection.weight", "head.projection.bias"]


@pytest.fixture
def names(tmp_path, monkeypatch):
    """Small networks beside the ones that come with mutual3d."""
    published = named_models._configs()
    for name, text in SMALL.items():
        (tmp_path / f"{name}.yaml").write_text(text + SIZES)
    small = {name: str(tmp_path / f"{name}.yaml") for name in SMALL}
    monkeypatch.setattr(named_models, "_configs", lambda: {**published, **small})
    return small


def test_every_listed_name_is_a_network():
    names = mutual3d.list_models()
    assert names == sorted(names) and {"x3d_xs", "slow_8x8_r50", "slowfast_4x16_r50", "mobilenet_v2", "resnet50"} <= set(names)
    with torch.device("meta"):
        for name in names:
            network = mutual3d.create_model(name, num_classes=7)
            classifier = network.get_submodule(network.classifier_name)
            assert len(classifier.weight) == 7 and network.training


def test_a_config_by_name_is_the_defaults_and_its_settings():
    assert mutual3d.get_cfg("Kinetics/MUTUAL_X3D_M").MODEL.MODEL_NAME == "X3D"
    assert mutual3d.get_cfg().MODEL.NUM_CLASSES == 400
    with pytest.raises(FileNotFoundError, match="Kinetics/MUTUAL_X3D_M"):
        mutual3d.get_cfg("Kinetics/MUTUAL_X3D_MM")


@pytest.mark.parametrize("number", [-3, 0, 2.5, "ten", True, 10**9])
def test_a_number_of_classes_that_is_none_is_refused_in_a_sentence(number):
    with pytest.raises(ValueError, match="the network 'x3d_xs': num_classes is .*: give a whole number from 1 to"):
        mutual3d.create_model("x3d_xs", num_classes=number)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'x3d_m'"):
        mutual3d.create_model("x3d_mm")


def write(path, network, form):
    state, _ = export_state(network.state_dict(), form, network.arguments["name"])
    if form == "caffe2":
        path.write_bytes(pickle.dumps({"blobs": {key: tensor.numpy() for key, tensor in state.items()}}, 2))
    else:
        save_tensors(path, {"model_state": state})
    return path


def check_taken(network, source, but=()):
    own = network.state_dict()
    # PyTorchVideo's X3D has no norm in some shortcuts: what it computes is folded into its neighbours.
    source = {key: value for key, value in source.items() if ".branch1" not in key and not key.endswith("c_bn.bias")}
    assert all(torch.equal(own[key], value) == (key not in but) for key, value in source.items())


@pytest.mark.parametrize("form", ["pyslowfast", "caffe2", "pytorchvideo"])
@pytest.mark.parametrize("name", SMALL)
def test_files_of_other_projects_are_recognised(names, tmp_path, caplog, name, form):
    network = fill_by_rule(mutual3d.create_model(name))
    path = write(tmp_path / "zoo.file", network, form)
    check_taken(mutual3d.create_model(name, weights=path), network.state_dict())
    assert not [message for message in caplog.messages if "classifier" in message]
    smaller = mutual3d.create_model(name, weights=path, num_classes=3)
    check_taken(smaller, {k: v for k, v in network.state_dict().items() if k not in CLASSIFIER})
    assert len(smaller.head.projection.bias) == 3
    told = "zoo.file' was made for 5 classes and this network has 3: its classifier is left new"
    assert any(told in message for message in caplog.messages)
    with pytest.raises(ValueError, match="zoo.file' was made for 5 classes and this network has 4"):
        with_four = named_models.get_cfg(names[name])
        with_four.MODEL.NUM_CLASSES = 4
        named_models.load_checkpoint(named_models.build_model(with_four), path)
    other = write(tmp_path / "other.file", mutual3d.create_model(name, num_classes=4), form)
    # Whoever calls from Python has no config: the sentence names the argument.
    with pytest.raises(ValueError, match="other.file' was made for 4 classes and this network has 5: give num_classes=4 to") as error:
        mutual3d.create_model(name, weights=other)
    assert "MODEL." not in str(error.value) and "--" not in str(error.value)
    check_taken(mutual3d.create_model(name, weights=path, num_classes=5, reset_head=True), network.state_dict(), but=CLASSIFIER)


def test_a_bundle_and_an_image_network_are_recognised(names, tmp_path):
    network = fill_by_rule(mutual3d.create_model("x3d_tiny"))
    cut = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=32)
    AdaptiveModel(network, preprocessing=cut, class_names=list("abcde")).save(tmp_path / "adaptive.pyth")
    check_taken(mutual3d.create_model("x3d_tiny", weights=tmp_path / "adaptive.pyth"), network.state_dict())
    mobile = torchvision.models.mobilenet_v2(weights=None, num_classes=4)
    torch.save(mobile.state_dict(), tmp_path / "mobile.pth")
    taken = mutual3d.create_model("mobilenet_v2", weights=tmp_path / "mobile.pth", num_classes=2)
    theirs = {key: value for key, value in mobile.state_dict().items() if not key.startswith("classifier.1.")}
    check_taken(taken, theirs)


def test_torchvisions_resnet_becomes_slow(tmp_path):
    imagenet = torchvision.models.resnet50(weights=None)
    torch.save(imagenet.state_dict(), tmp_path / "resnet50.pth")
    slow = mutual3d.create_model("slow_8x8_r50", weights=tmp_path / "resnet50.pth")
    assert torch.equal(slow.state_dict()["s1.pathway0_stem.bn.weight"], imagenet.bn1.weight)
    kernels = slow.state_dict()["s5.pathway0_res2.branch2.a.weight"]
    assert torch.equal(kernels[:, :, 1], imagenet.layer4[2].conv1.weight / 3)
