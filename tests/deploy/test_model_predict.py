"""`model.predict`: files, folders, patterns, arrays, windows, and what cannot be read."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from networks import calibrate_at_random
from tiny import SPACE, tiny_network
from videos import moving_frames, write_late_video, write_video

import mutual3d
from mutual3d.cli import predict
from mutual3d.data.video.decode import open_video
from mutual3d.deploy import AdaptiveModel, Decoding, Preprocessing, predict_video
from mutual3d.deploy.timeline import join_windows


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    return AdaptiveModel(network, preprocessing=preprocessing, class_names=["right", "down"]).activate("1.0-24-4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, count in (("a.mp4", 20), ("b.mkv", 40), ("inner/c.mp4", 9)):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, moving_frames(count))
    (folder / "broken.mp4").write_text("no video")
    return folder


def names_of(predictions):
    return [prediction.path.rsplit("/", 1)[-1] for prediction in predictions]


def test_a_folder_a_list_and_a_pattern_give_each_videos_own_scores(model, folder):
    found = model.predict(folder, batch=2)
    assert names_of(found) == ["a.mp4", "b.mkv", "c.mp4"] and [bad.path for bad in found.bad] == [str(folder / "broken.mp4")]
    for prediction in found:
        assert torch.allclose(prediction.scores, predict_video(model, prediction.path).scores, atol=1e-5)
        assert prediction.seconds and not len(prediction.clips.clips_VCTHW)
    assert names_of(model.predict([folder / "b.mkv", str(folder / "a.mp4")])) == ["b.mkv", "a.mp4"]
    assert names_of(model.predict(f"{folder}/**/*.mp4").bad) == ["broken.mp4"]
    assert names_of(model.predict(f"{folder}/**/*.mp4")) == ["a.mp4", "c.mp4"]
    with pytest.raises(FileNotFoundError, match=r"nothing matches '.*\*.avi'"):
        model.predict(f"{folder}/*.avi")


def test_one_file_is_asked_at_once(model, folder):
    top = model.predict(folder / "a.mp4", views=3).top(5)
    assert {name for name, _ in top} == {"right", "down"} and sum(value for _, value in top) == pytest.approx(1)
    with pytest.raises(ValueError, match="broken.mp4"):
        model.predict(folder / "broken.mp4").top(5)
    with pytest.raises(ValueError, match="there are 3 predictions"):
        model.predict(folder).top(5)


def test_a_stream_gives_each_as_it_comes(model, folder):
    stream = model.predict(folder, stream=True, batch=1)
    assert names_of([next(stream)]) == ["a.mp4"] and stream.bad == []
    assert names_of(stream) == ["b.mkv", "c.mp4"] and len(stream.bad) == 1


@pytest.mark.parametrize("batch", [1, 32])
def test_windows_cover_a_video_on_the_readers_clock(model, tmp_path, batch):
    path = write_late_video(tmp_path / "late.mp4")  # its picture begins after its sound
    with open_video(path) as reader:
        begin, end = reader.time_of(0), reader.duration
    found = model.predict(path, window="500ms", batch=batch)
    assert found[0].start == begin > 0 and found[-1].end == end
    assert all(left.end == pytest.approx(right.start) for left, right in zip(found, found[1:]))
    for prediction in found:
        ((first, last),) = prediction.seconds
        middle = (prediction.start + prediction.end) / 2
        assert (first + last) / 2 == pytest.approx(middle, abs=0.1) or prediction.end == end
    whole = model.predict(path, window=100)
    assert len(whole) == 1 and torch.allclose(whole[0].scores, predict_video(model, path).scores, atol=0.05)
    assert len(model.predict(path, window="1s", step=0.5)) == len(found)


def test_arrays_are_frames_or_clips(model, folder):
    with open_video(folder / "a.mp4") as reader:
        frames = reader.read(range(reader.num_frames))
    expected = model.predict(folder / "a.mp4")[0].scores
    for source in (frames, torch.from_numpy(frames), [frames]):
        assert torch.allclose(model.predict(source)[0].scores, expected, atol=0.02)
    clips = torch.randint(0, 256, (3, 3, 4, 24, 24), dtype=torch.uint8)
    assert torch.allclose(torch.stack([each.scores for each in model.predict(clips, batch=2)]), model(clips), atol=1e-5)
    normalised = (clips.float() / 255 - 0.45) / 0.225
    for source in (normalised.half(), normalised.numpy()):
        assert torch.allclose(model.predict(source)[2].scores, model(clips)[2], atol=0.01)
    for wrong, message in ((clips.long(), "of type int64: give uint8 pixels"), (frames.astype(np.int64), "int64: give uint8")):
        with pytest.raises(ValueError, match=message):
            model.predict(wrong)
    with pytest.raises(TypeError, match="the source is a int"):
        model.predict(7)


@pytest.mark.parametrize("words", [{"window": "2 parsecs"}, {"window": 0}, {"window": True}, {"step": 1}, {"batch": 0}, {"views": 1.5}])
def test_settings_that_cannot_be_are_refused(model, folder, words):
    with pytest.raises(ValueError, match=next(iter(words))):
        model.predict(folder, **words)


def test_a_call_may_name_its_configuration(model, folder):
    named = model.predict(folder / "a.mp4", configuration="0.5-16-2")[0].scores
    assert not torch.equal(named, model.predict(folder / "a.mp4")[0].scores) and str(model.active) == "1-24-4"


def test_the_command_says_the_same_and_writes_it(model, folder, tmp_path, capsys):
    model.save(tmp_path / "adaptive.pyth")
    expected = model.predict(folder, window="300ms")
    words = [str(tmp_path / "adaptive.pyth"), str(folder), "--window", "300ms"]
    assert predict.main([*words, "--output", str(tmp_path / "found.csv")]) == 1
    told = capsys.readouterr().out
    assert told.count("0.00 to 0.30 s: ") == 3 and "written: " in told
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert len(rows) == 2 * len(expected) + 1 and rows[-1]["path"].endswith("broken.mp4") and rows[-1]["error"]
    best = [(row["path"], float(row["start"]), row["class"]) for row in rows if row["rank"] == "1"]
    assert best == [(each.path, each.start, each.top(1)[0][0]) for each in expected]
    assert predict.main([words[0], "--views", "2", str(folder / "a.mp4"), "--output", str(tmp_path / "found.json")]) == 0
    content = json.loads((tmp_path / "found.json").read_text())
    assert len(content["predictions"][0]["looked_at"]) == 2 and content["bad"] == []
    with pytest.raises(ValueError, match="needs a name that ends in .csv or .json"):
        predict.main([words[0], str(folder / "a.mp4"), "--output", str(tmp_path / "found.mp4")])


def test_what_is_printed_of_an_object_is_short(model, folder):
    assert repr(model) == "AdaptiveModel(x3d, 0.5-16-2 to 1-24-4, at 1-24-4, 2 classes, no table)"
    predictions = model.predict(folder / "a.mp4", window=1.0)
    assert "a.mp4, 0.00 to 0.67 s: " in repr(predictions[0]) and len(repr(predictions)) < 400


def test_the_package_shows_its_public_names():
    for name in mutual3d.__all__:
        assert getattr(mutual3d, name).__doc__ and name in dir(mutual3d)
    assert {"x3d_m", "slow_8x8_r50"} <= set(mutual3d.list_models())


def test_a_timeline_of_several_labels_has_segments_of_each(model, folder):
    """As `scan` and streams have them, without being told."""
    several = AdaptiveModel(model.network, preprocessing=dataclasses.replace(model.preprocessing, activation="sigmoid"), class_names=model.class_names)
    found = several.predict(folder, window="300ms", decoding=Decoding(progress=False))
    timeline = found.timeline(0.0)
    assert all({segment.label for segment in segments} == {*model.class_names} for segments in timeline.values()) and timeline
    assert timeline == found.timeline(0.0, several=True) != found.timeline(0.0, several=False)


def test_windows_become_a_timeline_of_each_video(model, folder, tmp_path, capsys):
    """From Python, and printed by the command; a video that cannot be read has none."""
    found = model.predict(folder, window="300ms", step=0.1)
    timeline = found.timeline(0.0)
    assert list(timeline) == list(dict.fromkeys(each.path for each in found)) and len(timeline) == 3
    for path, segments in timeline.items():
        windows = [each for each in found if each.path == path]
        assert segments[0].start == windows[0].start and segments[-1].end == windows[-1].end
        assert segments == join_windows(windows, 0.0)
    model.save(tmp_path / "adaptive.pyth")
    words = [str(tmp_path / "adaptive.pyth"), str(folder), "--window", "300ms", "--events", "--threshold", "0"]
    assert predict.main(words) == 1
    told = capsys.readouterr().out
    whole = model.predict(folder, window="300ms").timeline(0.0)
    assert told.count(" s: ") == sum(map(len, whole.values())) and "cannot be read" in told
    assert predict.main([*words, "--background", "right", "down"]) == 1 and capsys.readouterr().out.count("no event") == 3
    with pytest.raises(SystemExit):
        predict.main([*words[:2], "--events"])
    assert "--events are joined windows" in capsys.readouterr().err
