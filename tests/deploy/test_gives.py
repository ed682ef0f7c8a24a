"""A deployed network of another task: the model itself answers, and what asks for classes says so."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import yaml
from PIL import Image

import mutual3d
from mutual3d.cli import export, predict
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.share import model_card
from mutual3d.layers import ScaledChannels, SlimmableConv2d
from mutual3d.models import create_model
from mutual3d.models.images import AdaptiveImageNetwork
from mutual3d.sampling import Preprocessing, SearchSpace

INSTEAD = r"In Python the model itself gives them, mutual3d.load\(FILE\)\(images_B3HW, configuration=...\) of uint8 pixels; mutual3d run"
SPACE = SearchSpace((0.5, 1.0), (8, 16), (1,), divisor=4)


class MapNetwork(AdaptiveImageNetwork):
    gives = "maps of pixels"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    channels = ScaledChannels(8, 4)
    stages = {"conv": SlimmableConv2d(3, channels, 3, padding=1), "relu": nn.ReLU(), "out": SlimmableConv2d(channels, 3, 1)}
    cut = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=1, sampling_rate=1, target_fps=30, crop=16, activation="softmax")
    return AdaptiveModel(MapNetwork(stages, SPACE).eval(), preprocessing=cut)


def test_the_model_itself_takes_images_of_any_form(model):
    image = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    found = model(image, configuration="1-16-1")
    assert found.shape == (2, 3, 16, 24) and torch.allclose(found.sum(1), torch.ones(2, 16, 24), atol=1e-5)
    assert model(image, configuration="0.5-8-1").shape == (2, 3, 8, 12)
    assert model.run_in("auto").runtime is None


def test_its_card_promises_no_classes(model):
    """Neither to a reader, nor to the hub, which offers its models by their task."""
    card = model_card(model, "segments")
    assert "and gives maps of pixels." in card and "outputs = model(images_B3HW)  # maps of pixels" in card
    assert ".predict(" not in card and "pipeline_tag" not in yaml.safe_load(card.split("---\n")[1])
    named = AdaptiveModel(model.network, preprocessing=model.preprocessing, class_names=["sky", "road", "car"])
    assert "and gives maps of pixels, of 3 classes: sky, road, car." in model_card(named, "segments")


@pytest.mark.parametrize(
    "ask, what",
    [
        (lambda model, path: model.predict(path), "predicting files"),
        (lambda model, path: model.scan(path), "a scan"),
        (lambda model, path: model.stream(path), "a stream"),
        (lambda model, path: model.explain(np.zeros((16, 16, 3), np.uint8)), "an explanation"),
        (lambda model, path: model.embed(path), "embedding"),
        (lambda model, path: model.run_in("torch"), "the runtime torch"),
        (lambda model, path: model.activate("0.5-8-1@0.5T1+1-16-1"), "a cascade"),
    ],
)
def test_what_asks_for_classes_says_what_there_is(model, tmp_path, ask, what):
    np.save(tmp_path / "a.npy", np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=f"{what} needs the scores of classes, and this model gives maps of pixels. {INSTEAD}"):
        ask(model, str(tmp_path / "a.npy"))


# What each network of another task is built of, and what it gives.
OTHERS = {
    "refinenet": ("maps of classes", {"num_classes": 3, "depth": 18, "width_per_group": 8, "refine_channels": 8}),
    "mask_rcnn": ("objects", {"num_classes": 3, "depth": 18, "width_per_group": 8, "pyramid_channels": 16, "box_features": 32, "mask_channels": 8,
                              "anchor_sizes": [8, 16, 32, 64, 128]}),
    "wdsr": ("larger images", {"num_classes": 3, "num_features": 8, "num_blocks": 1}),
    "policy": ("actions", {"num_classes": 3, "in_channels": 3, "channels": [8], "kernel_sizes": [3], "strides": [1], "hidden_features": 16}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_commands_say_what_there_is_and_what_to_do_instead(name, tmp_path):
    gives, arguments = OTHERS[name]
    network = create_model(name, space={"width_range": [0.5, 1.0], "spatial_sizes": [32], "temporal_sizes": [1]}, **arguments).eval()
    cut = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=1, sampling_rate=1, target_fps=30, crop=32, activation="none")
    path, image = tmp_path / "adaptive.pyth", tmp_path / "a.png"
    AdaptiveModel(network, preprocessing=cut).save(path)
    Image.new("RGB", (32, 32)).save(image)
    asked = {"predicting files": lambda: predict.main([str(path), str(image)]), "exporting": lambda: export.main([str(path), "--config", "1-32-1"])}
    for what, ask in asked.items():
        with pytest.raises(ValueError, match=f"{what} needs the scores of classes, and this model gives {gives}. {INSTEAD}"):
            ask()
    assert sorted(tmp_path.iterdir()) == [image, path]
    # What the sentence says instead.
    assert len(mutual3d.load(path)(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), configuration="1-32-1")) == 2
