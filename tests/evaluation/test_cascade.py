"""Cascades by recorded scores: what a threshold gives, and thresholds that are found."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from mutual3d.evaluation.cascade import CascadeScores, ClipConfidences, spread
from mutual3d.metrics.recording import ConfidenceRecord
from mutual3d.sampling import Configuration
from mutual3d.sampling.cascade import TEMPERATURES, Cascade, confidence, parse_any

CHEAP, MIDDLE, DEAR = Configuration(0.25, 24, 4), Configuration(0.5, 32, 8), Configuration(1.0, 48, 8)
COSTS = {CHEAP: 1.0, MIDDLE: 3.0, DEAR: 10.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made_up_scores(num_clips=400, num_classes=5):
    """Scores that are the better the dearer, and the surer the likelier right."""
    draw = generator()
    labels = torch.randint(num_classes, (num_clips,), generator=draw)
    target = torch.nn.functional.one_hot(labels, num_classes).float()
    hardness = torch.rand(num_clips, 1, generator=draw)
    scores = {}
    for configuration, strength in ((CHEAP, 2.0), (MIDDLE, 3.0), (DEAR, 5.0)):
        logits = strength * (1 - hardness) * target * 2 + torch.randn(num_clips, num_classes, generator=draw)
        scores[configuration] = logits.softmax(1)
    return scores, labels


@pytest.fixture(scope="module")
def measured():
    scores, labels = made_up_scores()
    return CascadeScores({c: ClipConfidences.of_scores(rows, labels) for c, rows in scores.items()}, COSTS)


# ---- The text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.25-24-4@0.83T1.7+1-48-8", "0.25-24-4@0.5+0.5-32-8@0.75T2.25+1-48-8", "0.5-64@0+1-128", "0.5-64@1e-05+1-128"])
def test_text_round_trip(text):
    assert str(Cascade.parse(text)) == text
    assert Cascade.parse(Cascade.parse(text)) == Cascade.parse(text)


def test_a_temperature_of_one_may_be_left_out():
    assert Cascade.parse("0.25-24-4@0.83+1.0-48-8") == Cascade.parse("0.25-24-4@0.83T1+1.0-48-8") == Cascade((CHEAP, DEAR), (0.83,), (1.0,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.25-24-4", "not a cascade: .*0.25-24-4@0.83"),
        ("0.25-24-4+1.0-48-8", "not a cascade"),
        ("0.25-24-4@high+1.0-48-8", "not a cascade"),
        ("0.25-24@0.5+1.0-48-8-3", "not a configuration"),
        ("0.25-24-4@1.5+1.0-48-8", "a probability is from 0 to 1"),
        ("0.25-24-4@0.5T0+1.0-48-8", "each must be from 0.05"),
        ("1.0-48-8@0.5+1.0-48-8", "two or more different"),
    ],
)
def test_what_is_no_cascade_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Cascade.parse(text)


# ---- Confidence ------------------------------------------------------------------------------------------------------


def test_confidence_is_the_softmax_of_the_divided_logits():
    logits = torch.randn(20, 6, generator=generator(), dtype=torch.float64)
    for temperature in (0.5, 1.0, 3.0):
        expected = (logits / temperature).softmax(1).amax(1)
        assert torch.allclose(confidence(logits.softmax(1), temperature), expected)


def test_the_temperature_of_logits_that_were_multiplied_is_the_factor():
    draw = generator(1)
    logits = 2 * torch.randn(20000, 4, generator=draw, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    for factor in (1.0, 2.0, 0.7):
        assert ClipConfidences.of_scores((factor * logits).softmax(1), labels).temperature == factor


def test_what_is_kept_while_measuring_gives_the_confidence_of_all_scores():
    scores, labels = made_up_scores()
    order = torch.randperm(400, generator=generator(2))
    for configuration, rows in scores.items():
        record, other = ConfidenceRecord(), ConfidenceRecord()
        for part, indices in ((record, order[:150]), (other, order[150:])):
            part.update(rows[indices], SimpleNamespace(indices=indices, labels=labels[indices]))
        record.merge(other)
        restored = ConfidenceRecord()
        restored.load_state(record.state())
        kept, expected = ClipConfidences.of_record(restored), ClipConfidences.of_scores(rows, labels)
        assert kept.temperature == expected.temperature != TEMPERATURES[0]
        assert torch.allclose(kept.confidences_N, expected.confidences_N, atol=1e-6, rtol=0)
        assert torch.equal(kept.is_right_N, expected.is_right_N)
    assert sum(column[0].numel() * column.element_size() for column in record.state().values()) == 56
    with pytest.raises(ValueError, match="columns of top predictions"):
        restored.load_state({name: column for name, column in record.state().items() if name != "log_sums"})


# ---- Results ---------------------------------------------------------------------------------------------------------


def test_thresholds_at_the_ends_are_the_single_networks(measured):
    always = measured.result(Cascade((CHEAP, DEAR), (0.0,), (1.0,)))
    never = measured.result(Cascade((CHEAP, DEAR), (1.0,), (1.0,)))
    for result, configuration, cost in ((always, CHEAP, 1.0), (never, DEAR, 11.0)):
        assert result.accuracy == pytest.approx(100 * measured.clips[configuration].is_right_N.double().mean())
        assert result.mean_cost == result.p99_cost == cost


def test_a_result_is_that_of_running_clip_by_clip(measured):
    cascade = Cascade((CHEAP, MIDDLE, DEAR), (0.8, 0.7), (measured.clips[CHEAP].temperature, measured.clips[MIDDLE].temperature))
    result = measured.result(cascade)
    right, costs, answered = 0, [], [0, 0, 0]
    for i in range(400):
        cost = 0.0
        for stage, configuration in enumerate(cascade.configurations):
            cost += COSTS[configuration]
            if stage == 2 or measured.clips[configuration].confidences_N[i] >= cascade.thresholds[stage]:
                break
        answered[stage] += 1
        right += bool(measured.clips[configuration].is_right_N[i])
        costs.append(cost)
    assert result.accuracy == pytest.approx(right / 4)
    assert result.mean_cost == pytest.approx(sum(costs) / 400)
    assert result.p99_cost == sorted(costs)[395]
    assert result.shares == tuple(count / 400 for count in answered)


def test_found_cascades_are_a_front_that_nothing_tried_beats(measured):
    front = measured.search()
    assert all(a.mean_cost < b.mean_cost and a.accuracy < b.accuracy for a, b in itertools.pairwise(front))
    best_static = measured.clips[DEAR].accuracy
    cheaper = [result for result in front if result.mean_cost < 0.7 * COSTS[DEAR]]
    assert cheaper[-1].accuracy > best_static - 1
    three = measured.search(num_stages=3)
    assert {len(result.cascade.configurations) for result in three} == {2, 3}
    assert all(max(r.accuracy for r in three if r.mean_cost <= each.mean_cost) >= each.accuracy for each in front)
    for result in three:
        assert measured.result(Cascade.parse(str(result.cascade))) == result
        assert all(result.accuracy > accuracy for cost, accuracy in measured.static_front() if cost <= result.mean_cost)


def test_the_threshold_of_a_share_sends_that_share_on(measured):
    for share in (0.0, 0.25, 0.5, 0.9):
        threshold = measured.threshold(CHEAP, share)
        assert float((measured.clips[CHEAP].confidences_N < threshold).double().mean()) == pytest.approx(share)


def test_scores_that_do_not_belong_together_are_refused(measured):
    few = ClipConfidences(torch.ones(3), torch.ones(3, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match="scores of the same clips are needed"):
        CascadeScores({**measured.clips, CHEAP: few}, COSTS)
    with pytest.raises(ValueError, match="no cost above 0 is known of 1-48-8"):
        CascadeScores(measured.clips, {CHEAP: 1.0, MIDDLE: 3.0})


def test_a_text_is_a_configuration_or_a_cascade():
    assert parse_any("0.25-24-4") == CHEAP and parse_any(CHEAP) is CHEAP
    assert parse_any("0.25-24-4@0.83+1.0-48-8") == Cascade((CHEAP, DEAR), (0.83,), (1.0,))


def test_a_few_are_spread_over_many():
    assert spread(range(4), 9) == [0, 1, 2, 3] and spread(range(100), 4) == [0, 33, 66, 99]
