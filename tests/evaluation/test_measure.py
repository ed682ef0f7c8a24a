from typing import NamedTuple

from types import SimpleNamespace

import pytest
import torch
from tiny import SPACE, tiny_network

from mutual3d.data.loader import Batch
from mutual3d.evaluation import PartialResult, TopK, UnreadableVideosError, calibrate, measure, topk_correct
from mutual3d.evaluation.measure import score_batch
from mutual3d.sampling import fit_clip, normalize_clip

from test_calibration import MEAN, STD, FakeBatch, batches_from, prepare  # isort: skip


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
    (_, scores), *_ = score_batch(model, batch, [SPACE.largest], prepare, ensemble, clips_per_forward=5)
    by_view = torch.stack([
        model.activate(SPACE.largest)([prepare(views[:, v])]).softmax(1) for v in range(4)
    ])  # fmt: skip
    assert torch.allclose(scores, by_view.mean(0) if ensemble == "sum" else by_view.amax(0), atol=1e-6)


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
        measure(model, dying, SPACE.corners(), prepare=prepare, partial=partial())
    skipped = []
    resumed = measure(
        model, lambda skip: skipped.append(skip) or batches_from(skip), SPACE.corners(), prepare=prepare, partial=partial()
    )
    whole = measure(model, batches_from, SPACE.corners(), prepare=prepare)
    assert skipped == [3] and all(torch.equal(resumed[c].counts, whole[c].counts) for c in whole)
    measure(model, lambda skip: skipped.append(skip) or [], [SPACE.largest], prepare=prepare, partial=partial("other"))
    assert skipped[-1] == 0


def test_unreadable_videos_are_an_error_unless_tolerated(model):
    def with_bad(skip):
        batch = FakeBatch(0)
        batch.bad = [Bad("broken.mp4", "it is cut short")]
        return [batch]

    options = dict(prepare=prepare, num_videos=4)
    with pytest.raises(UnreadableVideosError, match="1 of 4 videos.*\n.*broken.mp4: it is cut short(.|\n)*MAX_UNREADABLE_TEST"):
        measure(model, with_bad, [SPACE.largest], **options)
    assert measure(model, with_bad, [SPACE.largest], max_unreadable=0.25, **options)[SPACE.largest].num_videos == 3


def test_topk():
    scores = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    top1, top2 = topk_correct(scores, torch.tensor([1, 2]), (1, 2))
    assert top1.tolist() == [True, False] and top2.tolist() == [True, True]
    metric = TopK()
    with pytest.raises(ValueError, match="no video"):
        metric.values()
    metric.update(scores, SimpleNamespace(labels=torch.tensor([1, 2])))
    assert metric.values() == {"top1_acc": 50.0, "top5_acc": 100.0}
