"""A model that runs a cascade: equal to running its stages by hand, promises kept, in PyTorch and in a runtime."""

import logging

import pytest
import torch
from networks import NETWORKS, Case, calibrate_at_random
from videos import moving_frames, write_video

from mutual3d.cli import predict, select
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.sampling import Cascade
from mutual3d.sampling.cascade import confidence
from mutual3d.table.cascade_row import CascadeFacts
from mutual3d.table.query_table import QueryTable, Row

CROP = 48
PROVENANCE = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": CROP}


def make_model(case=NETWORKS["x3d_small"], activation="softmax"):
    network = case.build()
    small, large = network.space.smallest, network.space.largest
    calibrate_at_random(network, [small, large])
    preprocessing = Preprocessing(
        (0.4, 0.45, 0.5), (0.2, 0.225, 0.25), network.clip_frames, sampling_rate=2, target_fps=30, crop=CROP, activation=activation
    )
    rows = [Row(small, (8,), 1.0, 100, {"top1_acc": 50.0}), Row(large, (16,), 10.0, 400, {"top1_acc": 70.0})]
    found = [CascadeFacts(Cascade((small, large), (0.5,), (1.6,)), {"top1_acc": 68.0}, (0.6, 0.4))]
    return AdaptiveModel(network, preprocessing=preprocessing, table=QueryTable(rows, PROVENANCE, found))


def clips(model, count=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, model.network.clip_frames, CROP, CROP), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module", params=[None, "torch", "openvino"])
def model(request):
    return make_model().run_in(request.param)


def halving(model, clip):
    """A cascade whose threshold sends half of these clips on, and what its two configurations say."""
    small, large = (model(clip, configuration=c) for c in (model.network.space.smallest, model.network.space.largest))
    values = confidence(small, 1.6).sort().values
    threshold = float(values[len(clip) // 2 - 1 : len(clip) // 2 + 1].mean())
    return Cascade((model.network.space.smallest, model.network.space.largest), (threshold,), (1.6,)), small, large


def test_scores_are_those_of_running_the_stages_by_hand(model):
    clip = clips(model)
    cascade, small, large = halving(model, clip)
    goes_on = confidence(small, 1.6) < cascade.thresholds[0]
    expected = torch.where(goes_on[:, None], large, small)
    assert goes_on.sum() == 6 and not torch.allclose(small, large, atol=1e-3)
    for scores in (model(clip, configuration=cascade), model.at(str(cascade))(clip), model.activate(str(cascade))(clip), model(clip.numpy())):
        assert torch.allclose(scores, expected, atol=1e-5)
    assert model.cascade == cascade and model.stages == cascade.configurations and str(cascade) in repr(model)
    assert model.spending.counts == [24, 12] and model.spending.spent == pytest.approx(6.0) and model.spending.promised is None
    model.activate(cascade.configurations[0])
    assert model.cascade is model.spending is None and model.stages == (cascade.configurations[0],)
    assert torch.allclose(model(clip), small, atol=1e-5)


def test_a_promised_mean_is_kept_exactly_and_told(model, caplog):
    clip = clips(model, 20)
    row = model.set_budget(mean_gflops=4.0)
    assert row.configuration == model.network.space.smallest and model.cascade is None
    with caplog.at_level(logging.INFO):
        row = model.set_budget(mean_gflops=6.0)
        assert row == model.table.cascades[0] and model.cascade == row.configuration
        scores = model(clip)
    assert model.spending.counts == [20, 10] and model.spending.spent == model.spending.promised == 6.0
    small, large = (model(clip, configuration=c) for c in row.configuration.configurations)
    expected = small.clone()
    sent = confidence(small, 1.6).argsort()[:10]
    expected[sent] = large[sent]
    assert torch.allclose(scores, expected, atol=1e-5)
    with caplog.at_level(logging.INFO):
        model.predict(clip, batch=7)
    assert "promised a mean of 6 GFLOPs, spent 6 GFLOPs a clip over 40 clips (50.0 % at" in caplog.text
    # One at a time, the threshold decides while the promise lasts.
    for one in clip.split(1):
        model(one)
        assert model.spending.spent <= 6.0


def test_a_budget_on_every_clip_is_a_single_configuration_or_bounds_the_worst_case(model):
    assert model.set_budget(gflops=50.0).configuration == model.network.space.largest and model.cascade is None
    assert model.set_budget(mean_gflops=6.0, gflops=10.5).configuration == model.network.space.smallest
    assert model.set_budget(mean_gflops=6.0, gflops=11.0) == model.table.cascades[0]


def test_the_most_accurate_row_promises_what_it_was_measured_at():
    model = make_model()
    table = model.table
    model.table = QueryTable(table.rows, PROVENANCE, [CascadeFacts(table.cascades[0].configuration, {"top1_acc": 71.0}, (0.6, 0.4))])
    model.set_budget(mean_gflops=100.0)
    assert model.spending.promised == pytest.approx(5.0)


@pytest.mark.parametrize("kind", ["labels", "boxes"])
def test_a_model_of_several_labels_or_boxes_refuses(kind):
    boxes = Case({**NETWORKS["slow_small"].arguments, "detection": {"resolution": 3}})
    model = make_model(boxes, "sigmoid") if kind == "boxes" else make_model(activation="sigmoid")
    text, active = str(model.table.cascades[0].configuration), model.active
    clip = [clips(model, 1), torch.zeros(0, 5)] if kind == "boxes" else [clips(model, 1)]
    for call in (lambda: model.activate(text), lambda: model.set_budget(mean_gflops=6.0), lambda: model(*clip, configuration=text), lambda: model.at(text)):
        with pytest.raises(ValueError, match=f"this model gives .*{kind}.*: activate a single configuration, such as 1-"):
            call()
    assert model.active == active and model.cascade is None


def test_a_bundle_keeps_its_cascades(tmp_path):
    model = make_model()
    model.save(tmp_path / "adaptive.pyth")
    assert AdaptiveModel.load(tmp_path / "adaptive.pyth").table == model.table
    with pytest.raises(ValueError, match="outside the range"):
        model.activate("0.01-32-4@0.5+1-48-8")


# ---- The commands ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    make_model().save(folder / "adaptive.pyth")
    for name in "abcd":
        write_video(folder / f"{name}.mp4", moving_frames(12))
    return str(folder / "adaptive.pyth"), [str(folder / f"{name}.mp4") for name in "abcd"]


def test_a_budget_on_the_mean_is_kept_over_many_files_and_told(files, capsys):
    model, videos = files
    assert predict.main([model, *videos, "--mean-gflops", "6", "--batch", "4"]) == 0
    out = capsys.readouterr().out
    assert "a.mp4: cascade 0.5-" in out and "promised a mean of 6 GFLOPs" in out
    assert "cascade: promised a mean of 6 GFLOPs, spent 6 GFLOPs a clip over 4 clips (50.0 % at 1-" in out


def test_of_a_file_every_frame_that_a_stage_sees_is_read(files):
    model = AdaptiveModel.load(files[0])
    small, large = model.network.space.smallest, model.network.space.largest
    for threshold, last in ((0.0, small), (1.0, large)):
        expected = model.predict(files[1][0], configuration=last)[0].scores
        cascade = Cascade((small, large), (threshold,), (1.0,))
        assert torch.equal(model.predict(files[1][0], configuration=str(cascade))[0].scores, expected)
        model.activate(cascade)
        assert torch.equal(model.predict(files[1][0])[0].scores, expected)


def test_a_cascade_is_a_configuration_as_select_prints_it(files, capsys):
    model, videos = files
    assert select.main([model, "--mean-gflops", "6"]) == 0
    text = capsys.readouterr().out.split(": ")[0]
    assert predict.main([model, videos[0], "--config", text]) == 0
    out = capsys.readouterr().out
    assert f"a.mp4: cascade {text}, nothing promised" in out and "a clip over 1 clips" in out


def test_a_single_configuration_is_told_as_ever(files, capsys):
    model, videos = files
    assert predict.main([model, videos[0], "--mean-gflops", "2"]) == 0
    assert "a.mp4: configuration 0.5-" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        predict.parse([model, videos[0], "--mean-gflops", "2", "--config", "1-48-8"])
    assert "not both" in capsys.readouterr().err
