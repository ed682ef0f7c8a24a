"""What a network may be asked for: types and limits of its arguments, and of what a file says that they are."""

import math
import time

import pytest
import torch
from networks import IMAGE_NETWORKS, NETWORKS
from tiny import NETWORK, SPACE, tiny_network

from mutual3d.models import create_model, load_network

BOMB = ()
for _ in range(60):
    BOMB = (BOMB, BOMB)


def arguments(**changes):
    return {**tiny_network().arguments, **changes}


@pytest.mark.parametrize("changes, words", [
    ({"depth_factor": 1e6}, "depth_factor is 1000000.0: give a number above 0 and at most 50"),
    ({"depth_factor": math.nan}, "depth_factor is nan: give a number above 0"),
    ({"depth_factor": "2"}, "depth_factor is '2': give a number above 0"),
    ({"num_classes": 10**10}, "num_classes is 10000000000: give a whole number from 1 to 1e"),
    ({"num_classes": 10**400}, "num_classes is 1000.*give a whole number from 1"),
    ({"num_classes": True}, "num_classes is True: give a whole number from 1"),
    ({"num_classes": 2.5}, "num_classes is 2.5: give a whole number from 1"),
    ({"dim_c5": -4}, "dim_c5 is -4: give a whole number from 1"),
    ({"width_factor": 0}, "width_factor is 0: give a number above 0"),
    ({"dropout_rate": -0.1}, "dropout_rate is -0.1: give a number from 0 to 1"),
    ({"fc_init_std": -1}, "fc_init_std is -1: give a number from 0"),
    ({"zero_init_final_bn": "yes"}, "zero_init_final_bn is 'yes': give True or False"),
    ({"strides": 2}, "strides is 2: give a list of at most 16 numbers"),
    ({"strides": [2, 2, 2, 10**9]}, "strides is .*each must be a whole number from 0 to 16, and 1000000000 is not"),
    ({"strides": [2, 2, 2]}, "RESNET.SPATIAL_STRIDES"),
    ({"detection": 7}, "detection is 7: give None, or a dict with resolution and aligned"),
    ({"detection": {"resolution": 10**9}}, "detection.resolution is 1000000000: give a whole number from 1 to 64"),
    ({"name": "x4d"}, "there is no network 'x4d': choose among c2d, i3d"),
    ({"name": BOMB}, "there is no network .*: choose among c2d, i3d"),
    ({"batchnorm": BOMB}, "MUTUAL.BATCHNORM is .*: choose among calibrated"),
    ({"own_statistics": BOMB}, "own_statistics is .*: choose among largest, private, all, none"),
    ({"colour": 3}, "the network 'x3d': got an unexpected keyword argument 'colour'; its arguments are space, num_classes"),
    ({"space": [1, 2]}, "space is .*: give a SearchSpace, or a dict of its fields width_range"),
    ({"space": {"width_range": [0.5, 1.0]}}, "space is .*: give a SearchSpace, or a dict of its fields width_range"),
    ({"space": {"width_range": "ab", "spatial_sizes": [16]}}, "space.width_range is 'ab': give a list"),
    ({"space": {"width_range": [0.5, math.inf], "spatial_sizes": [16]}}, "space.width_range is .*and inf is not"),
    ({"space": {"width_range": [0.5, 1.0], "spatial_sizes": ["a", 48]}}, "space.spatial_sizes is .*and 'a' is not"),
    ({"space": {"width_range": [0.5, 1.0], "spatial_sizes": [[32], 48]}}, r"space.spatial_sizes is .*and \[32\] is not"),
    ({"space": {"width_range": [0.5, 1.0], "spatial_sizes": list(range(1, 2000))}}, "space.spatial_sizes is .*at most 1024"),
    ({"space": {"width_range": [-1, 1.0], "spatial_sizes": [16]}}, "the width range"),
    ({"batchnorm": "private_size", "space": {"width_range": [1, 1.0], "spatial_sizes": list(range(1, 900))}},
     "899 sizes in space and time are to have norms of their own .*at most 256"),
])  # fmt: skip
def test_arguments_outside_their_limits_are_refused_at_once_with_the_legal_ones(changes, words):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=words):
        create_model(**arguments(**changes))
    with pytest.raises(ValueError, match=f"zoo.pyth': model_arguments describe no network: .*{words}"):
        load_network(arguments(**changes), {}, "zoo.pyth")
    assert time.perf_counter() - start < 2


def test_an_argument_that_is_needed_is_named():
    with pytest.raises(ValueError, match="missing a required argument: 'num_classes'"):
        create_model("x3d", space=SPACE, **NETWORK)
    with pytest.raises(ValueError, match="the network 'slow': got an unexpected keyword argument 'colour'; its arguments are space, num_classes, .*depth"):
        create_model("slow", space=SPACE, num_classes=2, colour=3)


@pytest.mark.parametrize("content, words", [
    ([1, 2], r"model_arguments is \[1, 2\]: it must be the dict of create_model's arguments"),
    (None, "model_arguments is None"),
    (BOMB, "model_arguments is "),
    ({}, "model_arguments lacks name and space"),
    ({"name": "x3d"}, "model_arguments lacks space"),
    ({1: 2}, "model_arguments is .*it must be the dict"),
])  # fmt: skip
def test_arguments_of_no_kind_name_the_file(content, words):
    with pytest.raises(ValueError, match=f"zoo.pyth': {words}"):
        load_network(content, tiny_network().state_dict(), "zoo.pyth")


def test_a_file_gives_the_network_that_it_was_made_of():
    for case in (NETWORKS["x3d_small"], NETWORKS["slowfast_small"], IMAGE_NETWORKS["mobilenet_v3_small"]):
        source = case.build()
        network = load_network(source.arguments, source.state_dict(), "zoo.pyth").eval()
        inputs = case.inputs(network.space.largest)
        with torch.no_grad():
            torch.testing.assert_close(network(inputs), source(inputs), rtol=1e-3, atol=1e-3)


def test_shapes_are_compared_before_the_network_is_built():
    """Memory is taken for what the file holds, not for what it claims: these weights would take 8 GB."""
    claims = arguments(num_classes=1_000_000, dim_c5=2048)
    with pytest.raises(ValueError, match="zoo.pyth' is a checkpoint of another network .*\n.*head"):
        load_network(claims, tiny_network().state_dict(), "zoo.pyth")
