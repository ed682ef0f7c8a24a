"""Where a network looks: maps that add up to the logit, at the right place and second, from any thread."""

import csv
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import IMAGE_NETWORKS, NETWORKS, calibrate_at_random
from served import CASES, make_model, random_call
from tiny import SPACE, same, tiny_network
from videos import decode_all, moving_frames, write_video

from mutual3d.cli import explain as command
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy.explain import activation, stretch
from mutual3d.deploy.explain_files import heat_over
from mutual3d.deploy.used_frames import pathway_frames

ALL = {**NETWORKS, **IMAGE_NETWORKS}
# What lies between the pool and the classes is more than the classifier.
BY_GRADIENTS = {"x3d_small", "mobilenet_v3_small", "vgg16_small"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    # Something speaks for each class everywhere.
    network.head.projection.weight.data = torch.rand(2, 32)
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    return AdaptiveModel(network, preprocessing=preprocessing, class_names=["right", "down"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("explained")
    model.save(folder / "adaptive.pyth")
    write_video(folder / "clip.mp4", moving_frames(20))
    return folder


@pytest.mark.parametrize("name", [name for name in ALL if name != "x3d_m"])
def test_maps_are_what_each_place_adds_to_the_logit(name):
    """Where the head is linear; where it is not, gradients are those of the head, and give the same maps as the weights elsewhere."""
    network = ALL[name].build()
    space = calibrate_at_random(network, network.space.corners()).space
    for configuration in (space.smallest, space.largest):
        plain, inputs = network.extract(configuration), ALL[name].inputs(configuration)
        inputs = inputs[:1] if isinstance(inputs, torch.Tensor) else [each[:1] for each in inputs]
        found = activation(plain, inputs, index=3)
        assert torch.allclose(found.logits, network.at(configuration)(inputs)[0], atol=1e-4)
        assert len(found.maps) == (2 if "slowfast" in name else 1)
        if name in BY_GRADIENTS:
            assert found.method == "grad_cam" and all(each.abs().sum() > 0 for each in found.maps)
            continue
        assert found.method == "cam"
        bias = plain.get_submodule(plain.classifier_name).bias[3]
        assert float(sum(each.mean() for each in found.maps) + bias) == pytest.approx(float(found.logits[3]), rel=1e-5, abs=1e-4)
        unnamed = network.extract(configuration)
        unnamed.classifier_name = None
        by_gradients = activation(unnamed, inputs, index=3)
        assert by_gradients.method == "grad_cam"
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found.maps, by_gradients.maps))


def test_gradients_are_those_of_the_logit_with_regard_to_the_pooled_features():
    network = NETWORKS["x3d_small"].build()
    largest = network.space.largest
    plain = network.extract(largest)
    (clip,) = NETWORKS["x3d_small"].inputs(largest)
    found = activation(plain, [clip[:1]], index=2)
    features = {}
    plain.head.pool.register_forward_pre_hook(lambda _, given: features.update(x=given[0].detach()))
    plain([clip[:1]])
    pooled = features["x"].mean((2, 3, 4), keepdim=True).requires_grad_()
    logit = plain.head.projection(plain.head.relu(plain.head.lin_5(pooled)).flatten(1))[0, 2]
    (weights,) = torch.autograd.grad(logit, pooled)
    assert torch.allclose(found.maps[0], (weights[0] * features["x"][0]).sum(0), atol=1e-5)


@pytest.mark.parametrize("name", ["x3d_small", "slowfast_small"])
def test_what_changes_in_a_corner_of_a_frame_shows_there(name):
    """A patch at the top right of the last quarter: the map changes most at the top right and late."""
    network = NETWORKS[name].build()
    largest = network.space.largest
    shape = 1, 3, network.clip_frames, 48, 48
    blank = torch.zeros(shape)
    patched = blank.clone()
    patched[:, :, -shape[2] // 4 :, :16, 32:] = 3.0
    maps = [activation(network.extract(largest), network.fit_clip(clip, largest), index=0).maps for clip in (blank, patched)]
    frames = pathway_frames(network, largest)
    change = sum(
        stretch(after - before, np.array(own), shape[2], (48, 48)).abs() for before, after, own in zip(*maps, frames)
    )
    by_frame, by_row, by_column = change.sum((1, 2)), change.sum((0, 2)), change.sum((0, 1))
    assert by_frame.argmax() >= shape[2] // 2 and by_row[:24].sum() > by_row[24:].sum() and by_column[24:].sum() > by_column[:24].sum()


@pytest.mark.parametrize("name, stage", [("x3d_small", "s3"), ("slowfast_small", "s4"), ("resnet18_small", "layer2")])
def test_an_earlier_stage_is_weighed_place_by_place(name, stage):
    network = ALL[name].build()
    largest = network.space.largest
    inputs = ALL[name].inputs(largest)
    inputs = inputs[:1] if isinstance(inputs, torch.Tensor) else [each[:1] for each in inputs]
    found = activation(network.extract(largest), inputs, index=1, stage=stage)
    last = activation(network.extract(largest), inputs, index=1)
    assert found.method == "layer_cam" and torch.allclose(found.logits, last.logits, atol=1e-4)
    assert all(finer.shape[1] > coarse.shape[1] for finer, coarse in zip(found.maps, last.maps))
    # What flows back through the rest of the network, computed once more without hooks.
    stages = list(network.extract(largest).requires_grad_(False).named_children())
    x = inputs if isinstance(inputs, (torch.Tensor, list)) else list(inputs)
    for child, module in stages:
        x = module(x)
        if child == stage:
            x = x.detach().requires_grad_() if isinstance(x, torch.Tensor) else [each.detach().requires_grad_() for each in x]
            features = [x] if isinstance(x, torch.Tensor) else x
    gradients = torch.autograd.grad(x[0, 1], features)
    for gradient, feature, own in zip(gradients, features, found.maps):
        expected = (gradient.relu() * feature.detach()).sum(1)[0]
        assert torch.allclose(own, expected if expected.ndim == 3 else expected[None], atol=1e-5)
    for wrong, sentence in (("s9", "this network has "), ("head" if "head" in dict(stages) else "fc", "there is no stage")):
        with pytest.raises(ValueError, match=sentence):
            activation(network.extract(largest), inputs, stage=wrong)


def test_heat_lies_at_the_frames_that_were_seen_and_between_them_elsewhere():
    map_thw = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 3) ** 2
    stretched = stretch(map_thw, np.array([0, 10, 20, 31]), 32, (4, 6))
    assert stretched.shape == (32, 4, 6)
    assert stretched[[0, 10, 20, 31], 0, 0].tolist() == [0.0, 1.0, 4.0, 9.0]
    assert float(stretched[15, 2, 2]) == pytest.approx(2.5)
    # A network that joins two frames into one: each lies between the two.
    joined = stretch(torch.tensor([0.0, 1.0]).view(2, 1, 1), np.array([0, 1, 2, 3]), 4, (1, 1)).flatten()
    assert joined.tolist() == pytest.approx([0.0, 0.25, 0.75, 1.0])


def test_an_explanation_says_class_probability_method_frames_and_seconds(model, folder):
    model.activate("1-24-4")
    small, large = model.explain(folder / "clip.mp4", ["0.5-16-2", "1-24-4"])
    predicted = model.predict(folder / "clip.mp4", configuration="0.5-16-2")[0]
    assert (small.class_name, small.probability) == (predicted.top(1)[0][0], pytest.approx(predicted.top(1)[0][1], abs=1e-5))
    for each in (small, large):
        assert each.method == "grad_cam" and each.heat_THW.shape == (4, 24, 24) and each.curve_T.shape == (4,)
        assert each.heat_THW.min() >= 0 and float(each.heat_THW.max()) == pytest.approx(1) and float(each.curve_T.max()) == pytest.approx(1)
        assert each.seconds == pytest.approx([6 / 30 + place * 7 / 90 for place in range(4)], abs=0.05)
    assert (small.seen, large.seen) == ((0, 3), (0, 1, 2, 3)) and str(model.active) == "1-24-4"
    # Between two frames that were seen, the heat is between theirs.
    assert torch.allclose(small.heat_THW[1], small.heat_THW[0] * 2 / 3 + small.heat_THW[3] / 3, atol=1e-5)
    assert torch.equal(large.heat_at(large.seconds[2]), large.heat_THW[2])
    (other,) = model.explain(folder / "clip.mp4", class_name=1 - large.class_index)
    assert other.configuration == large.configuration and other.probability == pytest.approx(1 - large.probability, abs=1e-5)
    (named,) = model.explain(moving_frames(20), class_name=other.class_name)
    assert named.class_index == other.class_index and named.seconds[0] == pytest.approx(6 / 30, abs=0.05)


def test_eight_threads_explain_as_one_does_whatever_is_active(model):
    clips = [torch.randint(0, 256, (1, 3, 4, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    ends = [SPACE.smallest, SPACE.largest]

    def heat(clip):
        return {each.configuration: each.heat_THW for each in model.explain(clip, ends)}

    serial = [heat(clip) for clip in clips]
    with ThreadPoolExecutor(8) as pool:
        assert all(map(same, serial, pool.map(heat, clips)))
    # What was watched was watched in networks of their own.
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_deployed_model_explains_a_clip_or_says_why_not(name):
    model = make_model(name)
    clip = random_call(model, batch=1)[0]
    if name == "boxes":
        with pytest.raises(ValueError, match="classifies boxes, and pools inside each of them"):
            model.explain(clip)
        return
    for each in model.explain(clip, [model.network.space.smallest, model.network.space.largest]):
        assert each.heat_THW.shape[1:] == (48, 48) and each.probability == pytest.approx(
            float(model(clip, configuration=each.configuration)[0, each.class_index]), abs=1e-5
        )


def test_what_cannot_be_explained_is_refused_in_a_sentence(model, folder, tmp_path):
    clip = torch.zeros(1, 3, 4, 24, 24, dtype=torch.uint8)
    for configuration, sentence in [
        ("0.5-16-2@0.9+1-24-4", "is a cascade, which answers a clip by one of its configurations: explain these, 0.5-16-2, 1-24-4"),
        ("0.1-16-2", "outside the range"),
    ]:
        with pytest.raises(ValueError, match=sentence.replace("+", r"\+")):
            model.explain(clip, [configuration])
    for name, sentence in [("rigth", "did you mean 'right'"), (2, "gives classes 0 to 1"), ("-1", "there is no class '-1'. Give a name of the model's 2, or a number from 0")]:
        with pytest.raises(ValueError, match=sentence):
            model.explain(clip, class_name=name)
    (tmp_path / "broken.mp4").write_text("no video")
    with pytest.raises(ValueError, match="broken.mp4"):
        model.explain(tmp_path / "broken.mp4")
    with pytest.raises(ValueError, match="2 files or arrays: give one"):
        model.explain([folder / "clip.mp4", folder / "clip.mp4"])


def test_a_network_without_a_pool_of_its_own_is_refused():
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3, 4))

    plain = NETWORKS["slow_small"].build()
    plain = plain.extract(plain.space.largest)
    plain.head.pool = Mean()
    with pytest.raises(ValueError, match="averages its features in no layer of its own"):
        activation(plain, NETWORKS["slow_small"].inputs(NETWORKS["slow_small"].build().space.largest))


def test_heat_is_drawn_in_the_square_that_the_network_sees():
    frame = np.full((40, 60, 3), 100, np.uint8)
    heat = torch.zeros(4, 4)
    heat[0, 3] = 1.0
    drawn = heat_over(frame, heat).astype(int)
    assert (drawn[:, :10] == 40).all() and (drawn[:, 50:] == 40).all()  # left and right of the square
    assert (drawn[:10, 45:50] != 100).any() and (drawn[30:, 10:20] == 100).all()
    smaller = heat_over(frame, heat, share=0.5).astype(int)
    assert (smaller[:10] == 40).all() and (smaller[15, 25] == 100).all()


def test_the_command_writes_video_strip_and_curve(folder, tmp_path, capsys):
    words = [str(folder / "adaptive.pyth"), str(folder / "clip.mp4"), "--config", "0.5-16-2", "--config", "1-24-4"]
    command.main([*words, "--class", "down", "--output", str(tmp_path / "looks")])
    told = capsys.readouterr().out
    assert "0.5-16-2  down " in told and "(gradient-weighted class activation)" in told and f"written: {tmp_path / 'looks' / 'frames.png'}" in told
    frames = decode_all(tmp_path / "looks" / "overlay.mp4")
    # Every frame of the video between those of the clip, at 240 lines and a bar, twice beside each other.
    assert len(frames) == 8 and frames.shape[2] == 640 and frames.shape[1] > 240
    rows = list(csv.DictReader((tmp_path / "looks" / "curve.csv").open()))
    assert [row["is_seen"] for row in rows] == ["1", "0", "0", "1", "1", "1", "1", "1"] and {row["class"] for row in rows} == {"down"}
    assert max(float(row["activation"]) for row in rows[:4]) == 1 and rows[0]["method"] == "grad_cam"
    assert {path.name for path in (tmp_path / "looks").iterdir()} == {"overlay.mp4", "frames.png", "curve.png", "curve.csv"}
    command.main([*words[:2]])
    assert (folder / "explained" / "clip" / "frames.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        command.main([words[0], str(folder)])
    assert "which is a folder: name one video or image" in capsys.readouterr().err
