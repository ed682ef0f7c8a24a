"""Networks register themselves: what is known of them, whatever was imported first, and what may not be registered."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from networks import IMAGE_NETWORKS, MAP_NETWORKS
from networks import NETWORKS as VIDEO_CASES

from mutual3d.models import NETWORKS, create_model, register_network
from mutual3d.models.registry import find_network, network_words
from mutual3d.utils.memory_format import preferred_memory_format

NAMES = {
    "x3d": "clips", "slow": "clips", "c2d": "clips", "i3d": "clips", "slowfast": "pathways", "mobilenet_v1": "images",
    "mobilenet_v2": "images", "mobilenet_v3": "images", "resnet2d": "images", "wide_resnet": "images",
    "vgg16": "images", "mask_rcnn": "images", "wdsr": "images", "policy": "images", "refinenet": "images",
}  # fmt: skip


@pytest.fixture(autouse=True)
def registry():
    before = dict(NETWORKS)
    yield
    NETWORKS.clear()
    NETWORKS.update(before)


def test_every_network_says_what_it_takes():
    assert {name: facts.takes for name, facts in NETWORKS.items()} == NAMES
    # What gives something else than images' or places' classes is tested for itself (test_mask_rcnn.py, test_wdsr.py, test_policy.py).
    tested = (VIDEO_CASES | IMAGE_NETWORKS | MAP_NETWORKS).values()
    assert set(NAMES) - {"mask_rcnn", "wdsr", "policy"} == {case.arguments["name"] for case in tested}


DENSE_3D = {"slow", "c2d", "i3d", "slowfast"}


@pytest.mark.parametrize("case", (VIDEO_CASES | IMAGE_NETWORKS).values(), ids=VIDEO_CASES | IMAGE_NETWORKS)
def test_a_network_is_channels_last_on_a_gpu_where_all_its_3d_convolutions_are_dense(case):
    with torch.device("meta"):
        network = case.create()
    expected = torch.channels_last_3d if case.arguments["name"] in DENSE_3D else torch.contiguous_format
    for form in (network, network.subnetwork(network.space.smallest)):
        assert preferred_memory_format(form, torch.device("cuda", 0)) == expected
        assert preferred_memory_format(form, torch.device("cpu")) == torch.channels_last_3d
        assert preferred_memory_format(form, torch.device("mps")) == torch.contiguous_format


def test_all_are_there_whatever_is_imported_first():
    """One process: each time the package's modules are forgotten, and another one comes first."""
    code = """
import importlib, json, sys
found = []
for first in ("x3d", "resnet3d", "wide_resnet", "interop", "registry", "build"):
    for name in [name for name in sys.modules if name.startswith("mutual3d")]:
        del sys.modules[name]
    importlib.import_module("mutual3d.models." + first)
    found.append(sorted(sys.modules["mutual3d.models"].NETWORKS))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [sorted(NAMES)] * 6


@pytest.mark.parametrize(
    "word, architecture, name",
    [
        ("X3D", "x3d", "x3d"), ("X3D", "slowfast", "x3d"), ("ResNet", "slow", "slow"), ("ResNet", "i3d_nopool", "i3d"),
        ("PTVResNet", "c2d", "c2d"), ("ResNet_nopool", "c2d", "c2d"), ("PTVSlowFast", "slowfast", "slowfast"),
    ],
)  # fmt: skip
def test_a_word_and_an_architecture_name_one_network(word, architecture, name):
    assert find_network(word, architecture).name == name


@pytest.mark.parametrize(
    "word, architecture, message",
    [
        ("X3d", "x3d", "MODEL.MODEL_NAME is 'X3d': mutual3d has ImageResNet, .*did you mean 'X3D'"),
        ("ResNet", "i2d", "MODEL.ARCH is 'i2d': mutual3d's ResNet is c2d, c2d_nopool, i3d, i3d_nopool, slow$"),
        ("ResNet_nopool", "slow", "MODEL.ARCH is 'slow': mutual3d's ResNet_nopool is c2d"),
        ("SlowFast", "slow", "MODEL.ARCH is 'slow': mutual3d's SlowFast is slowfast$"),
    ],
)
def test_an_unknown_word_or_architecture_lists_the_legal_ones(word, architecture, message):
    with pytest.raises(ValueError, match=message):
        find_network(word, architecture)


def register(name="mine", **changes):
    facts = {"words": ("Mine",), "build": NETWORKS["x3d"].build, "classifier_name": "head.projection"}
    return register_network(name, **{**facts, **changes})(lambda cfg: {})


def test_a_strangers_network_is_one_of_them():
    register(words=("ResNet",), architectures=("mine",))
    assert find_network("ResNet", "mine").name == "mine" and network_words().count("ResNet") == 1
    space = {"width_range": [0.5, 1], "spatial_sizes": [32], "temporal_sizes": [4]}
    network = create_model("mine", space=space, num_classes=3, depth_factor=0.5, dim_c5=16)
    assert network.classifier_name == "head.projection" and network.arguments["name"] == "mine"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "x3d"}, r"the network 'x3d' \(Mine\) is there already, as 'x3d'"),
        ({"words": ("X3D",)}, r"the network 'mine' \(X3D\) is there already, as 'x3d'"),
        ({"words": ("ResNet",), "architectures": ("slow",)}, "is there already, as 'slow'"),
        ({"words": ("ResNet",), "architectures": ("mine",), "takes": "images"}, "of MODEL.MODEL_NAME ResNet take clips"),
        ({"takes": "sounds"}, "'mine' takes 'sounds': choose among clips, pathways, images"),
    ],
)
def test_what_is_taken_or_contradicts_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        register(**changes)
    assert set(NETWORKS) == set(NAMES)


def test_facts_that_a_network_does_not_keep_are_refused():
    space = {"width_range": [0.5, 1], "spatial_sizes": [32], "temporal_sizes": [4]}
    NETWORKS["mine"] = dataclasses.replace(NETWORKS["x3d"], name="mine", takes="pathways")
    with pytest.raises(ValueError, match="'mine' was registered as one that takes pathways, and takes clips"):
        create_model("mine", space=space, num_classes=3, depth_factor=0.5)
    NETWORKS["mine"] = dataclasses.replace(NETWORKS["x3d"], name="mine", gives="objects")
    with pytest.raises(ValueError, match="'mine' was registered as one that gives objects, and gives classes"):
        create_model("mine", space=space, num_classes=3, depth_factor=0.5)
    NETWORKS["mine"] = dataclasses.replace(NETWORKS["x3d"], name="mine", classifier_name="fc")
    with pytest.raises(ValueError, match="classifier_name is 'fc', and the network has no linear layer"):
        create_model("mine", space=space, num_classes=3, depth_factor=0.5)
