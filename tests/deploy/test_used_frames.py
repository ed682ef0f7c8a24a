"""A video is decoded at the frames that the configuration sees alone, and the scores stay what they were, bit for bit."""

import functools

import pytest
import torch
from batches import MEAN, STD, batches_from, prepare
from networks import NETWORKS
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

from mutual3d.data.video.decode import open_video
from mutual3d.deploy import AdaptiveModel, Preprocessing, predict, predict_video, used_frames
from mutual3d.deploy.predict import read_clips
from mutual3d.deploy.used_frames import fill_in
from mutual3d.evaluation import calibrate
from mutual3d.sampling import temporal_indices

PREPROCESSING = Preprocessing(mean=MEAN, std=STD, num_frames=4, sampling_rate=2, target_fps=30, crop=24)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = tiny_network()
    calibrate(network, batches_from, SPACE.corners(), prepare=prepare)
    return AdaptiveModel(network, preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_frames(40))


@pytest.fixture
def decoded(monkeypatch):
    """The indices that readers in this process were asked for, one list a call."""
    asked = []

    def open_and_watch(path, backend="pyav"):
        reader = open_video(path, backend)
        frames = reader.frames

        def watched(indices):
            asked.append(sorted(set(indices)))
            return frames(asked[-1])

        reader.frames = watched
        return reader

    monkeypatch.setattr(predict, "open_video", open_and_watch)
    return asked


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_used_is_what_fit_clip_shows_the_network(name):
    """A change of any frame that is not used changes no input; a change of one that is used does."""
    network = NETWORKS[name].build()
    space, frames = network.space, network.clip_frames
    for configuration in (space.smallest, space.largest):
        used = used_frames.used_frames(network, configuration)
        side = space.spatial_sizes[-1]
        clip = torch.rand(1, 3, frames, side, side)
        before = network.fit_clip(clip, configuration)
        for position in range(frames):
            other = clip.clone()
            other[:, :, position] += 1
            after = network.fit_clip(other, configuration)
            pairs = [(before, after)] if isinstance(before, torch.Tensor) else zip(before, after)
            same = all(torch.equal(a, b) for a, b in pairs)
            assert same == (position not in used), (configuration, position)


def test_frames_are_filled_in_by_the_used_one_before():
    assert fill_in([10, 12, 14, 16], [0, 3]) == [10, 10, 10, 16] and fill_in([10, 12, 14, 16], [1, 2]) == [12, 12, 14, 14]
    assert fill_in([1, 2, 3], None) == [1, 2, 3]


def test_fewer_frames_are_decoded_and_the_scores_are_the_same(model, video, decoded):
    smallest, largest = SPACE.smallest, SPACE.largest
    for configuration, count in ((smallest, len(temporal_indices(4, smallest.temporal))), (largest, 4)):
        prediction = predict_video(model.activate(configuration), video)
        assert len(decoded[-1]) == count
        whole = read_clips(video, PREPROCESSING)
        assert len(decoded[-1]) == 4 and prediction.clips.seconds == whole.seconds
        assert torch.equal(prediction.scores, model(whole.clips_VCTHW, configuration=configuration).mean(0))


def test_many_files_windows_and_arrays_are_read_so_too(model, video):
    calls = {"file": {}, "windows": {"window": 0.5}, "views": {"views": 2}}
    array = moving_frames(12)
    for configuration in (SPACE.smallest, SPACE.largest):
        run = functools.partial(model.predict, configuration=configuration, batch=1)
        found = {name: run(video, **options) for name, options in calls.items()} | {"array": run(array)}
        every = list(range(4))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(predict, "used_frames", lambda network, configuration: every)
            expected = {name: run(video, **options) for name, options in calls.items()} | {"array": run(array)}
        for name, predictions in expected.items():
            assert len(predictions) == len(found[name]) >= 1
            assert all(torch.equal(a.scores, b.scores) and a.seconds == b.seconds for a, b in zip(predictions, found[name])), name


def test_a_stream_of_predictions_runs_where_it_began(model, video):
    """Its frames were read for that configuration, while another may have become the active one."""
    model.activate(SPACE.smallest)
    stream = model.predict([video] * 3, stream=True, batch=1)
    first = next(stream)
    model.activate(SPACE.largest)
    assert all(torch.equal(first.scores, other.scores) for other in stream)
