"""`model.embed`: features of every configuration in one space, which the whole classifier reads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import calibrate_at_random
from served import CASES, make_model, random_call
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

from mutual3d.deploy import AdaptiveModel, Preprocessing


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    return AdaptiveModel(network, preprocessing=preprocessing, class_names=["right", "down"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_video(folder / f"{number}.mp4", moving_frames(12, seed=number))
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_the_whole_classifier_gives_the_logits_of_each_configuration(name):
    """Also where a configuration computes fewer features: 0 at the others' places is what the classifier reads."""
    model = make_model(name)
    clip = random_call(model)[0]
    if name == "boxes":
        with pytest.raises(ValueError, match="classifies boxes"):
            model.embed(clip)
        return
    classifier = model.network.get_submodule(model.network.classifier_name)
    for configuration in (model.network.space.smallest, model.network.space.largest):
        found = model.embed(clip, configuration)
        logits = found.features_NF @ classifier.weight.T + classifier.bias
        assert torch.allclose(logits.softmax(1), model(clip, configuration=configuration), atol=1e-5)
        assert found.features_NF.shape == (2, classifier.in_features) and len(found) == 2
        is_whole = model.network.has_fixed_features or configuration == model.network.space.largest
        assert (found.num_active == classifier.in_features) == is_whole
        assert not is_whole or found.features_NF.abs().sum() > 0


def test_files_are_found_again_across_configurations(model, folder):
    index = model.embed(folder, "1-24-4", batch=2)
    assert [name.rpartition("/")[2] for name in index.names] == ["0.mp4", "1.mp4", "2.mp4"] and len(index.bad) == 1
    again = model.embed(folder / "1.mp4", "1-24-4")
    ((name, similarity), *_) = again.nearest(index, 2)[0]
    assert name.endswith("1.mp4") and similarity == pytest.approx(1, abs=1e-5) and again.cosine(index).shape == (1, 3)
    small = model.embed(folder, "0.5-16-2")
    assert small.features_NF.shape == index.features_NF.shape and not torch.allclose(small.features_NF, index.features_NF)
    assert torch.allclose(model.activate("0.5-16-2").embed(folder).features_NF, small.features_NF)
    nothing = model.embed(folder / "broken.mp4", "1-24-4")
    assert len(nothing) == 0 and len(nothing.bad) == 1
    with pytest.raises(ValueError, match="is a cascade"):
        model.embed(folder, "0.5-16-2@0.9+1-24-4")


def test_threads_embed_as_one_does(model):
    clip = random_call(model, width=24)[0][..., :24, :24]
    expected = {c: model.embed(clip, c).features_NF for c in SPACE.corners()}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda c: (c, model.embed(clip, c).features_NF), SPACE.corners() * 2))
    assert all(torch.equal(features, expected[c]) for c, features in found)


def test_pixels_and_what_is_normalised_already_stay_apart(model):
    """In one list, for features and for predictions alike."""
    clips = [random_call(model, batch=1, seed=number)[0][0, :, :, :24, :24] for number in range(3)]
    clips[1] = (clips[1] / 255 - 0.45) / 0.225
    together, alone = model.embed(clips), [model.embed(clip) for clip in clips]
    assert torch.allclose(together.features_NF, torch.cat([each.features_NF for each in alone]), atol=1e-5)
    predictions = model.predict(clips)
    assert torch.allclose(torch.stack([each.scores for each in predictions]), torch.stack([model.predict(clip)[0].scores for clip in clips]), atol=1e-5)
