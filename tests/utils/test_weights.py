import copy

import pytest
import torch
import torch.nn as nn

from mutual3d.utils.checkpoint import load_weights, read_weights
from mutual3d.utils.files import save_tensors


NO_WEIGHTS = [{}, [1], torch.zeros(2), {"epoch": 3}, {"model_state": None}, {"model_state": [1]}]


class Network(nn.Module):
    def __init__(self, num_classes=4, features=6, depth=1):
        super().__init__()
        self.body = nn.Sequential(*[nn.Linear(features, features) for _ in range(depth)])
        self.norm = nn.BatchNorm1d(features)
        self.head = nn.Module()
        self.head.projection = nn.Linear(features, num_classes)


def load_error(model, state):
    """The message of a load that must fail; the network must be as before."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError) as error:
        load_weights(model, state, "zoo.pyth")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    return str(error.value)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "model_state": state, "cfg": "x"}])
def test_weights_come_bare_or_in_a_checkpoint(tmp_path, wrap):
    source, model = Network(), Network()
    save_tensors(tmp_path / "zoo.pyth", wrap(source.state_dict()))
    load_weights(model, read_weights(tmp_path / "zoo.pyth"), "zoo.pyth")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())


@pytest.mark.parametrize("content", NO_WEIGHTS)
def test_a_file_without_weights_is_named(tmp_path, content):
    save_tensors(tmp_path / "zoo.pyth", content)
    with pytest.raises(ValueError, match="zoo.pyth' holds no weights: expected a checkpoint with 'model_state'"):
        read_weights(tmp_path / "zoo.pyth")


def test_another_number_of_classes_says_both():
    message = load_error(Network(4), Network(9).state_dict())
    assert message.startswith("'zoo.pyth' was made for 9 classes and this network has 4: set MODEL.NUM_CLASSES to match")
    assert "TRAIN.CHECKPOINT_RESET_HEAD True" in message


@pytest.mark.parametrize("classes", [4, 9])
def test_a_reset_keeps_the_network_s_own_classifier_whatever_the_file_has(classes, caplog):
    model, source = Network(4), Network(classes)
    own = model.head.projection.weight.clone()
    load_weights(model, source.state_dict(), "zoo.pyth", reset_head=True)
    assert torch.equal(model.head.projection.weight, own)
    assert torch.equal(model.body[0].weight, source.body[0].weight)
    assert "not taken from 'zoo.pyth': head.projection.weight, head.projection.bias start anew" in caplog.text


def test_another_network_says_what_differs():
    message = load_error(Network(), Network(depth=2, features=8).state_dict())
    assert "'zoo.pyth' is a checkpoint of another network (2 of 9 entries fit)" in message
    assert "unknown to this network: body.1.weight, body.1.bias" in message
    assert "of another shape: body.0.weight (8, 8), not (6, 6)" in message
    assert ", and 3 more" in message
    assert "MODEL.MODEL_NAME" in message


def test_missing_entries_are_listed():
    state = Network().state_dict()
    del state["norm.running_mean"]
    message = load_error(Network(), state)
    assert "(8 of 9 entries fit)" in message
    assert "missing in the file: norm.running_mean" in message
    assert "unknown" not in message and "shape" not in message
