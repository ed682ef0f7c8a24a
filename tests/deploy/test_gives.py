"""A deployed network of another task: the model itself answers, and what asks for classes says so."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import yaml

from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.share import model_card
from mutual3d.layers import ScaledChannels, SlimmableConv2d
from mutual3d.models.images import AdaptiveImageNetwork
from mutual3d.sampling import Preprocessing, SearchSpace

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
    with pytest.raises(ValueError, match=f"{what} needs the scores of classes, and this model gives maps of pixels"):
        ask(model, str(tmp_path / "a.npy"))
