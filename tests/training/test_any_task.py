"""The step, measuring and calibration by what other tasks bring: outputs and labels of any shape, losses by name, networks without norms."""

import functools

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.evaluation import Scoring, calibrate, measure
from mutual3d.layers import ScaledChannels, SlimmableBatchNorm2d, SlimmableConv2d
from mutual3d.metrics.metrics import Metric, MetricFacts
from mutual3d.models.heads import LossHead
from mutual3d.models.images import AdaptiveImageNetwork
from mutual3d.sampling import SearchSpace, prepare_clip
from mutual3d.training import Method, MutualStep
from mutual3d.training.objectives import LOSS_FUNCTIONS, LossFunction, total_loss
from mutual3d.utils.targets import Targets

SPACE = SearchSpace((0.5, 1.0), (8, 16), (1,), divisor=4)
PREPARE = functools.partial(prepare_clip, device=torch.device("cpu"), mean=(0.45,) * 3, std=(0.225,) * 3)
IGNORED = 255


class Upsampled(nn.Module):
    """A map at the full size, whatever size was seen."""

    def forward(self, x):
        return F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False)


class CountHead(nn.Module, LossHead):
    """Says how many objects an image has."""

    def __init__(self, channels):
        super().__init__()
        self.conv = SlimmableConv2d(channels, 1, 1)
        self.asked = []

    def forward(self, x, labels=None):
        counts = self.conv(x).mean((1, 2, 3))
        if not self.training:
            return [{"count": count} for count in counts]
        self.asked.append(labels)
        if labels is None:
            return None
        wanted = torch.tensor([len(each["boxes"]) for each in labels.samples], dtype=counts.dtype)
        return {"loss_count": (counts - wanted).abs().mean(), "loss_size": counts.square().mean()}


def image_network(head, norm=True):
    torch.manual_seed(0)
    channels = ScaledChannels(8, 4)
    stages = {"conv": SlimmableConv2d(3, channels, 3, padding=1)}
    if norm:
        stages["bn"] = SlimmableBatchNorm2d(channels)
    return AdaptiveImageNetwork({**stages, "relu": nn.ReLU(), **head(channels)}, SPACE)


def map_head(channels):
    return {"conv_out": SlimmableConv2d(channels, 3, 1), "up": Upsampled()}


def pixel_loss(outputs, labels):
    return {"loss_pixels": F.cross_entropy(outputs, labels, ignore_index=IGNORED)}


def pixel_distillation(outputs, teacher_outputs, labels):
    each = F.kl_div(outputs.log_softmax(1), teacher_outputs.log_softmax(1), log_target=True, reduction="none").sum(1)
    return each[labels != IGNORED].mean()


@pytest.fixture(autouse=True)
def loss_functions(monkeypatch):
    monkeypatch.setitem(LOSS_FUNCTIONS, "pixels_of_test", LossFunction(pixel_loss, pixel_distillation))
    monkeypatch.setitem(LOSS_FUNCTIONS, "own_of_test", LossFunction(lambda losses, labels: losses, lambda losses, teacher, labels: losses))


def clips(count=4):
    return torch.randint(0, 256, (count, 3, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def maps(count=4):
    labels = torch.randint(0, 3, (count, 16, 16), generator=torch.Generator().manual_seed(2))
    labels[:, :2] = IGNORED
    return labels


def make_step(model, objective, loss_function, **options):
    largest = {"largest": False, "subnets": ("each_size",)} if objective.startswith("ensemble") else {"subnets": ("smallest", "random")}
    return MutualStep(model, Method(objective=objective, loss_function=loss_function, **largest), prepare=PREPARE, seed=1, **options)


@pytest.mark.parametrize("objective", ["inplace_distillation", "labels", "ensemble_distillation"])
def test_maps_are_learned_by_every_objective_without_the_ignored_pixels(objective):
    model = image_network(map_head).train()
    result = make_step(model, objective, "pixels_of_test")(clips(), maps(), step=0)
    assert result.logits is None and all(loss > 0 for loss in result.losses[:1])
    found = [p.grad.clone() for p in model.parameters()]
    other = maps()
    images = clips()
    with torch.no_grad():
        logits = model.activate(SPACE.largest)(model.fit_clip(PREPARE(images)))
    assert logits.shape == (4, 3, 16, 16)
    model.zero_grad()
    other[:, :2] = IGNORED
    make_step(model, objective, "pixels_of_test")(images, other, step=0)
    assert all(torch.equal(a, p.grad) for a, p in zip(found, model.parameters()))
    model.zero_grad()
    other[:, :2] = 0
    make_step(model, objective, "pixels_of_test")(images, other, step=0)
    assert not all(torch.equal(a, p.grad) for a, p in zip(found, model.parameters()))


def test_named_losses_are_summed_and_told_one_by_one():
    model = image_network(map_head).train()
    result = make_step(model, "inplace_distillation", "pixels_of_test")(clips(), maps(), step=0, wishes=lambda: (True, False))
    assert result.loss_parts == {"loss_pixels": pytest.approx(result.losses[0])}
    assert len(result.losses) == 3 and result.wishes == [True, False]
    with pytest.raises(ValueError, match="gave no loss"):
        total_loss({})


def objects(count=4):
    return Targets([{"boxes": torch.zeros(i, 4)} for i in range(count)])


@pytest.mark.parametrize("parts", [1, 2])
def test_a_network_that_computes_its_own_losses_is_given_the_labels(parts):
    """And the mean of the parts of a step is that of its whole."""
    model = image_network(lambda channels: {"head": CountHead(channels)}, norm=False).train()
    result = make_step(model, "labels", "own_of_test", accumulation_steps=parts)(clips(), objects(), step=0)
    assert set(result.loss_parts) == {"loss_count", "loss_size"} and result.logits is None
    assert sum(result.loss_parts.values()) == pytest.approx(result.losses[0])
    assert [len(labels) for labels in model.head.asked] == [4 // parts] * 3 * parts
    if parts == 2:
        whole = image_network(lambda channels: {"head": CountHead(channels)}, norm=False).train()
        other = make_step(whole, "labels", "own_of_test")(clips(), objects(), step=0)
        assert result.losses == pytest.approx(other.losses, rel=1e-5)
        assert result.loss_parts["loss_size"] == pytest.approx(other.loss_parts["loss_size"], rel=1e-5)


class Batch:
    boxes, bad = None, []

    def __init__(self, images, labels):
        self.clips_BVCTHW, self.labels, self.indices = images[:, None], labels, torch.arange(len(images))


class Collected(Metric):
    facts = MetricFacts({"error": "mean error", "count": "images"}, "maps", unit="px", higher_is_better=False)

    def __init__(self):
        self.scores = []

    def update(self, scores, batch):
        assert len(scores) == len(batch.labels)
        self.scores += list(scores)

    def merge(self, other):
        self.scores += other.scores

    def values(self):
        return {"error": 0.0, "count": float(len(self.scores))}

    @property
    def num_videos(self):
        return len(self.scores)

    def state(self):
        return self.scores

    def load_state(self, state):
        self.scores = state


def test_a_network_without_norms_has_nothing_to_calibrate_and_runs_everywhere():
    model = image_network(map_head, norm=False).eval()

    def no_clips(skip):
        raise AssertionError("no clip is to be read")

    calibrate(model, no_clips, [SPACE.smallest], prepare=PREPARE)
    assert not model.statistics and not model.has_norms
    images = PREPARE(clips())
    for configuration in (SPACE.smallest, SPACE.largest):
        expected = model.activate(configuration)(model.fit_clip(images))
        assert torch.equal(model(model.fit_clip(images), configuration=configuration), expected)
        assert torch.allclose(model.extract(configuration)(model.fit_clip(images)), expected, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_scores_of_any_shape_are_measured(activation):
    model = image_network(map_head, norm=False).eval()
    batches = [Batch(clips(), maps())]
    found = measure(
        model, lambda skip: batches[skip:], [SPACE.smallest, SPACE.largest], prepare=PREPARE, metric=Collected,
        scoring=Scoring(activation, clips_per_forward=3),
    )  # fmt: skip
    outputs = model.activate(SPACE.largest)(model.fit_clip(PREPARE(clips())))
    expected = outputs.softmax(1) if activation == "softmax" else outputs
    assert torch.allclose(torch.stack(found[SPACE.largest].scores), expected, atol=1e-6)
    assert found[SPACE.smallest].values() == {"error": 0.0, "count": 4.0}


def test_what_is_no_tensor_is_measured_one_entry_for_each_image():
    model = image_network(lambda channels: {"head": CountHead(channels)}, norm=False).eval()
    batches = [Batch(clips(), objects())]
    found = measure(model, lambda skip: batches[skip:], [SPACE.largest], prepare=PREPARE, metric=Collected, scoring=Scoring(clips_per_forward=3))
    assert [sorted(each) for each in found[SPACE.largest].scores] == [["count"]] * 4
    twice = [Batch(clips(), objects())]
    twice[0].clips_BVCTHW = clips()[:, None].repeat(1, 2, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="over 2 views"):
        measure(model, lambda skip: twice[skip:], [SPACE.largest], prepare=PREPARE, metric=Collected)


def test_calibration_gives_such_a_network_no_labels():
    model = image_network(lambda channels: {"head": CountHead(channels)}).train()
    calibrate(model, lambda skip: [Batch(clips(), objects())][skip:], [SPACE.smallest, SPACE.largest], prepare=PREPARE)
    assert model.head.asked == [None, None] and set(model.statistics) == {SPACE.smallest, SPACE.largest}
