"""WDSR: its architecture, its cost, and what a network without norms is to the rest."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

from mutual3d.cost.flops import count_costs
from mutual3d.layers import SlimmableLayer, slimmable_norms
from mutual3d.models import create_model, load_network
from mutual3d.sampling import Configuration

SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [12], "divisor": 1}
SMALL = {"num_features": 8, "num_blocks": 2, "expansion": 3}


def build(space=SPACE, **arguments):
    """A network in float64 whose gains and biases are not those that it begins with."""
    torch.manual_seed(0)
    network = create_model("wdsr", space=space, **{**SMALL, **arguments}).double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("weight"):
                parameter.add_(0.2 * torch.randn(parameter.shape, dtype=parameter.dtype))
    return network


def images(height=12, width=12):
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_definition(plain, x, num_blocks, scale, mean, std):
    """WDSR-A as published, of the weights of a network without slimmable layers."""
    state = plain.state_dict()

    def conv(name, x, size):
        return F.conv2d(x, state[f"upscaling.{name}.weight"], state[f"upscaling.{name}.bias"], padding=size // 2)

    y = conv("head", x, 3)
    for i in range(num_blocks):
        y = y + conv(f"body.{i}.conv2", F.relu(conv(f"body.{i}.conv1", y, 3)), 3)
    y = conv("tail", y, 3) + conv("skip", x, 5)
    batch, _, height, width = y.shape
    # Channel c * scale^2 + i * scale + j is row i and column j of colour c.
    y = y.view(batch, 3, scale, scale, height, width).permute(0, 1, 4, 2, 5, 3).reshape(batch, 3, height * scale, width * scale)
    return y * torch.tensor(std, dtype=y.dtype).view(3, 1, 1) + torch.tensor(mean, dtype=y.dtype).view(3, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("text", ["0.5-12", "0.7-12", "1-12"])
def test_it_is_the_published_network_and_the_one_that_is_taken_out(text, scale):
    mean, std = [0.4, 0.5, 0.6], [0.5, 0.25, 1.0]
    network = build(scale=scale, mean=mean, std=std)
    for x in (images(), images(7, 10)):
        given = network.activate(text)(x)
        assert given.shape == (2, 3, scale * x.shape[2], scale * x.shape[3])
        plain = network.extract(text)
        torch.testing.assert_close(plain(x), given, rtol=0, atol=1e-12)
        torch.testing.assert_close(network.extract(text, fold_bn=True)(x), given, rtol=0, atol=1e-12)
        torch.testing.assert_close(network.at(text)(x), given, rtol=0, atol=1e-12)
        torch.testing.assert_close(by_definition(plain, x, 2, scale, mean, std), given, rtol=0, atol=1e-6)
        assert not any(isinstance(part, SlimmableLayer) for part in plain.modules())
        assert {type(part) for part in plain.modules() if isinstance(part, nn.Conv2d)} == {nn.Conv2d}


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_may_begin_as_bicubic_interpolation_at_every_width(scale):
    mean, std = [0.4, 0.5, 0.6], [0.5, 0.25, 1.0]
    network = create_model("wdsr", space=SPACE, **SMALL, scale=scale, bicubic_start=True, mean=mean, std=std).eval()
    # Dark and pale colours that nothing cuts off.
    pixels = torch.randint(80, 176, (1, 3, 14, 17), generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).to(torch.uint8).numpy())
    expected = np.asarray(picture.resize((17 * scale, 14 * scale), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(float)
    # Pillow, which rounds to 8 bits after each direction, leaves out at the border what is outside.
    inside = (slice(None), slice(3 * scale, -3 * scale), slice(3 * scale, -3 * scale))
    for text in ("0.5-12", "1-12"):
        found = 255 * network.activate(text)((pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[0]
        assert np.abs(found.numpy()[inside] - expected[inside]).max() <= 1.5
    with torch.device("meta"):
        assert create_model("wdsr", space=SPACE, bicubic_start=True).upscaling.tail.gain.is_meta


def test_a_bicubic_start_is_left_by_training():
    network = create_model("wdsr", space=SPACE, **SMALL, bicubic_start=True).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (network.activate("1-12")(images().float()) - 1).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0] and all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_widths_are_filters():
    network = create_model("wdsr", space={**SPACE, "spatial_sizes": [48]})
    counts = [network.signature(width) for width in network.space.widths(1 / 64)]
    assert counts == [(count,) for count in range(32, 65)]


@pytest.mark.parametrize("width, filters, gflops, parameters", [(1.0, 64, 5.457798, 2_371_484), (0.75, 48, 3.074651, 1_336_476), (0.5, 32, 1.370981, 596_380)])
def test_costs_of_us_nets_widths_at_48_pixels(width, filters, gflops, parameters):
    """Multiply-adds by hand, a pixel: 27 n + 8 * 72 n^2 + 108 n + 900; at half the width a network of half the filters."""
    network = create_model("wdsr", space={**SPACE, "spatial_sizes": [48]})
    configuration = Configuration(width, 48)
    cost = count_costs(network, [configuration], 48)[configuration]
    assert cost.gflops == pytest.approx(48**2 * (135 * filters + 8 * 72 * filters**2 + 900) / 1e9, rel=1e-9)
    assert cost == (pytest.approx(gflops, abs=1e-6), parameters)
    alone = create_model("wdsr", space={"width_range": [1.0, 1.0], "spatial_sizes": [48]}, num_features=filters)
    assert count_costs(alone, [alone.space.largest], 48)[alone.space.largest] == cost


@torch.no_grad()
def test_every_configuration_runs_without_calibration():
    network = build()
    assert not slimmable_norms(network)
    for width in (0.5, 0.61, 1.0):
        configuration = Configuration(width, 12)
        assert network.can_evaluate(configuration)
        assert network(images(), configuration=configuration).isfinite().all()


@torch.no_grad()
def test_a_file_gives_the_same_network():
    network = build(mean=[0.1, 0.2, 0.3])
    loaded = load_network(network.arguments, network.float().state_dict(), "a file").eval()
    for text in ("0.5-12", "1-12"):
        # In the memory format that is fastest, which adds in another order.
        x = images().float()
        torch.testing.assert_close(loaded.activate(text)(x), network.activate(text)(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 10}, "MODEL.NUM_CLASSES is 10: WDSR gives images of 3 channels, set it to 3"),
        ({"mean": [0.5]}, r"DATA.MEAN is \[0.5\]"),
        ({"scale": 0}, "scale is 0: give a whole number from 1 to 16"),
        ({"num_blocks": 10**6}, "num_blocks is 1000000"),
        ({"space": {**SPACE, "spatial_sizes": [8, 12]}}, r"MUTUAL.SPATIAL_SIZES is \[8, 12\]: a smaller image in is a smaller image out"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("wdsr", **{"space": SPACE, **SMALL, **arguments})
