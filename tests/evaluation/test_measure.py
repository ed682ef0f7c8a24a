from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from batches import MEAN, STD, FakeBatch, batches_from, prepare
from tiny import SPACE, tiny_network

from mutual3d.data.loader import Batch
from mutual3d.evaluation import PartialResult, UnreadableVideos, UnreadableVideosError, calibrate, measure
from mutual3d.evaluation.measure import score_batch
from mutual3d.evaluation.video_pass import Scoring, VideoPass
from mutual3d.metrics.average_precision import MeanAveragePrecision
from mutual3d.metrics.metrics import NotFiniteError, TopK, topk_correct
from mutual3d.metrics.recording import RecordingMetric
from mutual3d.sampling import fit_clip, normalize_clip
from mutual3d.utils.files import save_tensors


class Bad(NamedTuple):
    path: str
    cause: str


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = tiny_network().eval()
    calibrate(model, batches_from, SPACE.corners(), prepare=prepare)
    return model


def test_accuracy_is_what_single_forwards_give(model):
    metrics = measure(model, batches_from, SPACE.corners(), prepare=prepare)
    for configuration in SPACE.corners():
        network, hits = model.extract(configuration), 0
        for batch in batches_from(0):
            clip = fit_clip(normalize_clip(batch.clips_BVCTHW[:, 0], MEAN, STD), configuration, SPACE)
            hits += int((network([clip]).argmax(1) == batch.labels).sum())
        assert metrics[configuration].values()["top1_acc"] == pytest.approx(100 * hits / 11)
        assert metrics[configuration].num_videos == 11


@pytest.mark.parametrize("ensemble", ["sum", "max"])
def test_views_are_joined(model, ensemble):
    views = torch.cat([FakeBatch(s).clips_BVCTHW for s in range(4)], dim=1)
    batch = Batch(views, None, None, [])
    (_, scores), *_ = score_batch(model, batch, [SPACE.largest], prepare, Scoring(ensemble=ensemble, clips_per_forward=5))
    by_view = torch.stack([
        model.activate(SPACE.largest)([prepare(views[:, v])]).softmax(1) for v in range(4)
    ])  # fmt: skip
    assert torch.allclose(scores, by_view.mean(0) if ensemble == "sum" else by_view.amax(0), atol=1e-6)


def test_what_goes_on_by_what_the_network_gives_is_handed_it_at_each_configuration(model):
    """It may ask as often as it likes; what it says of the batch is what the metric takes."""
    asked = {}

    def play(batch, network):
        first = network(batch.clips_BVCTHW[:, 0])
        asked[model.active] = first
        # What is asked about second depends on what came of the first.
        return network(batch.clips_BVCTHW[:, 0].flip(-1)) if int(first[0].argmax()) else first

    metrics = measure(model, batches_from, SPACE.corners(), prepare=prepare, play=play)
    for configuration in SPACE.corners():
        model.activate(configuration)
        hits = 0
        for batch in batches_from(0):
            ((_, scores),) = score_batch(model, batch, [configuration], prepare)
            if int(scores[0].argmax()):
                ((_, scores),) = score_batch(model, _flipped(batch), [configuration], prepare)
            hits += int((scores.argmax(1) == batch.labels).sum())
        assert metrics[configuration].values()["top1_acc"] == pytest.approx(100 * hits / 11)
    assert set(asked) == set(SPACE.corners()) and all(torch.allclose(scores.sum(1), torch.ones(len(scores))) for scores in asked.values())


def _flipped(batch):
    return SimpleNamespace(clips_BVCTHW=batch.clips_BVCTHW.flip(-1), labels=batch.labels, boxes=None)


def test_views_cut_larger_than_in_training_shrink_in_proportion(model):
    clips = torch.randint(0, 256, (1, 1, 3, 4, 30, 30), dtype=torch.uint8)
    seen = []
    handle = model.s1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].shape[2:]))
    list(score_batch(model, Batch(clips, None, None, []), SPACE.corners(), prepare))
    handle.remove()
    assert sorted(set(map(tuple, seen))) == [(2, 20, 20), (2, 30, 30), (4, 20, 20), (4, 30, 30)]


def test_a_killed_measurement_goes_on_and_ends_the_same(model, tmp_path):
    def dying(skip):
        yield from batches_from(skip)[:3]
        raise KeyboardInterrupt

    partial = lambda mark="same": PartialResult(tmp_path / "part", mark, interval=0)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        measure(model, dying, SPACE.corners(), prepare=prepare, videos=VideoPass(partial=partial()))
    skipped = []
    resumed = measure(
        model, lambda skip: skipped.append(skip) or batches_from(skip), SPACE.corners(), prepare=prepare, videos=VideoPass(partial=partial())
    )
    whole = measure(model, batches_from, SPACE.corners(), prepare=prepare)
    assert skipped == [3] and all(torch.equal(resumed[c].sums, whole[c].sums) for c in whole)
    measure(model, lambda skip: skipped.append(skip) or [], [SPACE.largest], prepare=prepare, videos=VideoPass(partial=partial("other")))
    assert skipped[-1] == 0


def test_unreadable_videos_are_an_error_unless_tolerated(model):
    def with_bad(skip):
        batch = FakeBatch(0)
        batch.bad = [Bad("broken.mp4", "it is cut short")]
        return [batch]

    options = dict(prepare=prepare)
    with pytest.raises(UnreadableVideosError, match="1 of 4 videos.*\n.*broken.mp4: it is cut short(.|\n)*MAX_UNREADABLE_TEST"):
        measure(model, with_bad, [SPACE.largest], videos=VideoPass(num_videos=4), **options)
    tolerant = VideoPass(num_videos=4, max_unreadable=0.25)
    assert measure(model, with_bad, [SPACE.largest], videos=tolerant, **options)[SPACE.largest].num_videos == 3


def test_topk():
    scores = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    top1, top2 = topk_correct(scores, torch.tensor([1, 2]), (1, 2))
    assert top1.tolist() == [True, False] and top2.tolist() == [True, True]
    metric = TopK()
    with pytest.raises(ValueError, match="no video"):
        metric.values()
    metric.update(scores, SimpleNamespace(labels=torch.tensor([1, 2])))
    assert metric.values() == {"top1_acc": 50.0, "top5_acc": 100.0}


class NanNetwork(torch.nn.Module):
    """A network whose scores at one configuration are not finite."""

    def __init__(self, model, wrong, value):
        super().__init__()
        self.model, self.wrong, self.value = model, wrong, value
        self.active = model.active

    def fit_clips(self, clips, configurations):
        return self.model.fit_clips(clips, configurations)

    def activate(self, configuration):
        self.active = configuration
        self.model.activate(configuration)
        return self

    def forward(self, pathways, boxes=None):
        logits = self.model(pathways, boxes).clone()
        logits[0] = self.value if self.active == self.wrong else logits[0]
        return logits


@pytest.mark.parametrize("metric", [TopK, MeanAveragePrecision, lambda: RecordingMetric(TopK())])
def test_scores_that_are_not_finite_are_refused_with_their_configuration(model, metric):
    def labelled(skip):
        batch = FakeBatch(0)
        if metric is MeanAveragePrecision:
            batch.labels = torch.eye(2)[batch.labels]
        return [batch]

    broken = NanNetwork(model, SPACE.smallest, float("nan"))
    with pytest.raises(NotFiniteError, match=f"configuration {SPACE.smallest}: the scores of 1 of 3 rows are NaN"):
        measure(broken, labelled, [SPACE.largest, SPACE.smallest], prepare=prepare, metric=metric)
    assert measure(broken, labelled, [SPACE.largest], prepare=prepare, metric=metric)[SPACE.largest].num_videos == 3


def test_infinite_scores_are_refused_too():
    with pytest.raises(NotFiniteError, match="the scores of 1 of 2 rows are infinite"):
        TopK().update(torch.tensor([[1.0, float("inf")], [0.0, 1.0]]), SimpleNamespace(labels=torch.tensor([0, 1])))


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.1, 1.5, 50])
def test_a_share_that_is_none_is_refused_rather_than_tolerating_everything(share):
    with pytest.raises(ValueError, match="MAX_UNREADABLE_TEST is .*: the share of videos .* is a number from 0 to 1"):
        UnreadableVideos(share, 10)


COUNTS = torch.tensor([3, 1, 2])
WRONG = {
    "text": "hello", "a tensor": torch.zeros(3), "nothing": None, "a list": [1], "an empty dict": {}, "another version": {"version": 2, "fingerprint": "same"},
    "no state": {"fingerprint": "same", "done": 1}, "a state of nothing": {"fingerprint": "same", "done": 1, "state": None},
    "a negative count": {"fingerprint": "same", "done": -1, "state": {"bad": {}, "metrics": {}}},
    "a count that is text": {"fingerprint": "same", "done": "1", "state": {"bad": {}, "metrics": {}}},
    "too many batches": {"fingerprint": "same", "done": 9, "state": {"bad": {}, "metrics": {str(c): COUNTS for c in SPACE.corners()}}},
    "a missing configuration": {"fingerprint": "same", "done": 1, "state": {"bad": {}, "metrics": {"1-24-4": COUNTS}}},
    "counts that cannot be": {"fingerprint": "same", "done": 1, "state": {"bad": {}, "metrics": {str(c): COUNTS.flip(0) for c in SPACE.corners()}}},
    "counts of another type": {"fingerprint": "same", "done": 1, "state": {"bad": {}, "metrics": {str(c): COUNTS.float() for c in SPACE.corners()}}},
    "bad videos as a list": {"fingerprint": "same", "done": 1, "state": {"bad": [3], "metrics": {str(c): COUNTS for c in SPACE.corners()}}},
}  # fmt: skip


@pytest.mark.parametrize("content", [*WRONG.values(), b"", b"hello", bytes(500)], ids=[*WRONG, "empty", "other bytes", "zeros"])
def test_a_partial_result_that_cannot_be_used_is_said_and_started_over(model, tmp_path, caplog, content):
    path = tmp_path / "part.rank0of1"
    path.write_bytes(content) if isinstance(content, bytes) else save_tensors(path, content)
    skipped, partial = [], PartialResult(tmp_path / "part", "same", interval=0)
    batches = lambda skip: skipped.append(skip) or batches_from(skip)  # noqa: E731
    metrics = measure(model, batches, SPACE.corners(), prepare=prepare, videos=VideoPass(num_batches=4, partial=partial))
    assert skipped == [0] and metrics[SPACE.largest].num_videos == 11
    assert f"'{path}' cannot be used (" in caplog.text and "): starting over" in caplog.text
    assert caplog.text.count(str(path)) == 1


def test_a_partial_result_is_removed_for_any_number_of_processes(tmp_path):
    for name in ("part.rank0of1", "part.rank3of4", "part.txt"):
        (tmp_path / name).touch()
    PartialResult(tmp_path / "part").remove()
    assert [path.name for path in tmp_path.iterdir()] == ["part.txt"]


def test_recorded_scores_are_those_of_every_video_also_after_a_kill(model, tmp_path):
    def dying(skip):
        yield from numbered(skip)[:2]
        raise KeyboardInterrupt

    def numbered(skip):
        batches = batches_from(0)
        for number, batch in enumerate(batches):
            batch.indices = torch.arange(len(batch.labels)) + 10 * number
        return batches[skip:]

    options = dict(prepare=prepare, metric=lambda: RecordingMetric(TopK()))
    partial = lambda: PartialResult(tmp_path / "part", "same", interval=0)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        measure(model, dying, SPACE.corners(), videos=VideoPass(partial=partial()), **options)
    resumed, whole = (measure(model, numbered, SPACE.corners(), videos=VideoPass(partial=p), **options) for p in (partial(), None))
    for c in SPACE.corners():
        one, other = resumed[c].record.by_video(), whole[c].record.by_video()
        assert sorted(one) == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31] and one.keys() == other.keys()
        assert all(torch.equal(one[video], other[video]) for video in one)
        assert resumed[c].values() == whole[c].values() == measure(model, numbered, [c], prepare=prepare)[c].values()


def test_recorded_scores_of_boxes_are_grouped_by_their_keyframe():
    record = RecordingMetric(TopK()).record
    boxes = torch.tensor([[1.0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [1, 0, 0, 1, 1]])
    scores = torch.tensor([[0.1], [0.2], [0.3]])
    record.update(scores, SimpleNamespace(indices=torch.tensor([7, 4]), boxes=boxes))
    found = record.by_video(has_boxes=True)
    assert found.keys() == {4, 7} and found[7].tolist() == scores[1:2].tolist() and found[4].tolist() == scores[[0, 2]].tolist()
