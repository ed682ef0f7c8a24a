import copy

import pytest
import torch
import torch.nn as nn

from mutual3d.utils.checkpoint import load_weights, read_weights
from mutual3d.utils.files import save_tensors

NO_WEIGHTS = [{}, [1], torch.zeros(2), {"epoch": 3}, {"model_state": None}, {"model_state": [1]}]


class Network(nn.Module):
    classifier_name = "head.projection"

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


# ---- names that a wrapper changed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_prefixes_of_wrappers_are_left_out_and_that_is_said(prefix, caplog):
    source, model = Network(), Network()
    load_weights(model, {prefix + key: value for key, value in source.state_dict().items()}, "zoo.pyth")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())
    assert f"'zoo.pyth': the prefix '{prefix}', a wrapper's, is left out of 9 names" in caplog.text


def test_a_real_wrapper_writes_such_names(caplog):
    source, model = Network(), Network()
    load_weights(model, nn.DataParallel(source).state_dict(), "zoo.pyth")
    assert torch.equal(model.norm.weight, source.norm.weight) and "of 9 names" in caplog.text


def test_a_network_whose_own_names_begin_so_keeps_them(caplog):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = Network()

    source, model = Wrapped(), Wrapped()
    load_weights(model, source.state_dict(), "zoo.pyth")
    assert torch.equal(model.module.body[0].weight, source.module.body[0].weight) and not caplog.text


def test_weights_under_both_names_are_refused():
    state = Network().state_dict()
    message = load_error(Network(), {**state, "module.norm.bias": state["norm.bias"]})
    assert "'zoo.pyth' holds the same weights twice" in message and "twice: norm.bias" in message


def test_entries_that_the_file_does_not_have_are_not_counted_as_fitting():
    message = load_error(Network(), {f"encoder.{key}": value for key, value in Network().state_dict().items()})
    assert "(0 of 8 entries fit)" in message


# ---- numbers that cannot be weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key, value, word", [
    ("body.0.weight", float("nan"), "not finite"),
    ("head.projection.bias", float("inf"), "not finite"),
    ("norm.running_var", -1.0, "negative"),
])  # fmt: skip
def test_weights_that_cannot_be_right_are_named_and_nothing_is_loaded(key, value, word):
    state = Network().state_dict()
    state[key].flatten()[1] = value
    message = load_error(Network(), state)
    assert "'zoo.pyth' holds weights that cannot be right (1 of 9 entries)" in message
    assert f"damaged: {key} ({word})" in message and "take an older checkpoint" in message


@pytest.mark.parametrize("value", [3, "text", None, [1.0], torch.zeros(6, dtype=torch.complex64), torch.zeros(6).to_sparse()])
def test_entries_that_are_no_weights_are_named(value):
    message = load_error(Network(), {**Network().state_dict(), "norm.bias": value})
    assert "'zoo.pyth' holds entries that are no weights" in message and "norm.bias" in message


def test_a_classifier_of_any_name_is_reset_where_the_network_says_it_and_refused_where_it_does_not():
    class Named(nn.Module):
        classifier_name = "top"

        def __init__(self, classes):
            super().__init__()
            self.body, self.top = nn.Linear(6, 6), nn.Linear(6, classes)

    class Nameless(Named):
        classifier_name = None

    assert "was made for 9 classes and this network has 4" in load_error(Named(4), Named(9).state_dict())
    model, source = Named(4), Named(9)
    load_weights(model, source.state_dict(), "zoo.pyth", reset_head=True)
    assert torch.equal(model.body.weight, source.body.weight) and len(model.top.weight) == 4
    with pytest.raises(ValueError, match="zoo.pyth.*Nameless does not say which layer.*classifier_name"):
        load_weights(Nameless(4), source.state_dict(), "zoo.pyth", reset_head=True)
