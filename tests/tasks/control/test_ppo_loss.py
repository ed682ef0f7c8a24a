"""The clipped surrogate, value and entropy against their definitions, sample by sample; gradients against those worked out by hand."""

import math

import pytest
import torch

from mutual3d.tasks.control.objective import COLUMNS, ENTROPY_WEIGHT, VALUE_WEIGHT, label_loss, split_outputs, teacher_loss
from mutual3d.training.objectives import LOSS_FUNCTIONS, LossFunction, total_loss

ACTIONS, CLIP = 3, 0.2


def experience(count=64, seed=0):
    """Outputs, and labels whose ratios lie inside, above and below the range that pays, with advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(count, ACTIONS + 1, generator=generator)
    actions = torch.randint(ACTIONS, (count,), generator=generator)
    logs = outputs[:, :-1].log_softmax(1).gather(1, actions[:, None])[:, 0]
    before = logs - 0.5 * torch.randn(count, generator=generator)
    advantages, outcomes = torch.randn(2, count, generator=generator)
    columns = dict(action=actions.float(), log_probability=before, advantage=advantages, outcome=outcomes, clip_range=torch.full((count,), CLIP))
    return outputs, torch.stack([columns[name] for name in COLUMNS], 1)


def one_by_one(outputs, labels):
    policy = value = entropy = 0.0
    for (*logits, estimate), (action, before, advantage, outcome, clip) in zip(outputs.double().tolist(), labels.double().tolist()):
        total = sum(math.exp(logit) for logit in logits)
        probabilities = [math.exp(logit) / total for logit in logits]
        ratio = probabilities[int(action)] / math.exp(before)
        policy -= min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
        value += (estimate - outcome) ** 2
        entropy -= sum(p * math.log(p) for p in probabilities)
    return {
        "policy_loss": policy / len(labels), "value_loss": VALUE_WEIGHT * value / len(labels),
        "entropy_loss": -ENTROPY_WEIGHT * entropy / len(labels),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_each_part_is_the_mean_of_what_defines_it(seed):
    outputs, labels = experience(seed=seed)
    found = {name: float(loss) for name, loss in label_loss(outputs, labels).items()}
    assert found == pytest.approx(one_by_one(outputs, labels), rel=1e-4, abs=1e-6)


def test_the_gradient_is_the_policy_gradient_where_it_pays_and_nothing_beyond():
    outputs, labels = experience()
    outputs.requires_grad_(True)
    losses = label_loss(outputs, labels)
    losses["policy_loss"].backward(retain_graph=True)
    action, before, advantage, *_ = labels.unbind(1)
    probabilities = outputs.detach()[:, :-1].softmax(1)
    chosen = torch.nn.functional.one_hot(action.long(), ACTIONS).float()
    ratio = (probabilities * chosen).sum(1) / before.exp()
    beyond = ((advantage > 0) & (ratio > 1 + CLIP)) | ((advantage < 0) & (ratio < 1 - CLIP))
    assert beyond.any() and (~beyond & ((ratio > 1 + CLIP) | (ratio < 1 - CLIP))).any()
    expected = -(advantage * ratio * ~beyond)[:, None] * (chosen - probabilities) / len(labels)
    torch.testing.assert_close(outputs.grad[:, :-1], expected, rtol=1e-4, atol=1e-7)
    assert not outputs.grad[:, -1].any()

    outputs.grad = None
    losses["value_loss"].backward(retain_graph=True)
    torch.testing.assert_close(outputs.grad[:, -1], 2 * VALUE_WEIGHT * (outputs.detach()[:, -1] - labels[:, 3]) / len(labels))
    assert not outputs.grad[:, :-1].any()

    outputs.grad = None
    losses["entropy_loss"].backward()
    entropy = -(probabilities * probabilities.log()).sum(1, keepdim=True)
    expected = ENTROPY_WEIGHT * probabilities * (probabilities.log() + entropy) / len(labels)
    torch.testing.assert_close(outputs.grad[:, :-1], expected, rtol=1e-4, atol=1e-8)


def test_the_policy_that_played_has_the_plain_policy_gradient():
    """Where nothing has been learned since, no ratio is clipped and the surrogate is minus the mean advantage."""
    outputs, labels = experience()
    labels[:, 1] = outputs[:, :-1].log_softmax(1).gather(1, labels[:, :1].long())[:, 0]
    assert float(label_loss(outputs, labels)["policy_loss"]) == pytest.approx(-float(labels[:, 2].mean()), abs=1e-6)


def test_a_sub_network_that_distils_learns_actions_and_values_of_the_largest():
    outputs, labels = experience()
    teacher, _ = experience(seed=1)
    teacher.requires_grad_(True)
    found = teacher_loss(outputs.requires_grad_(True), teacher, labels)
    p, q = (each.detach()[:, :-1].softmax(1) for each in (teacher, outputs))
    told = {name: float(loss.detach()) for name, loss in found.items()}
    squares = (outputs - teacher).detach()[:, -1].square()
    assert told == pytest.approx({"policy_loss": float((p * (p / q).log()).sum(1).mean()), "value_loss": float(squares.mean())}, rel=1e-4)
    total_loss(found).backward()
    assert teacher.grad is None and outputs.grad.abs().sum() > 0
    assert float(total_loss(teacher_loss(teacher, teacher, labels)).detach()) == pytest.approx(0, abs=1e-6)


def test_what_is_no_experience_and_no_policy_is_refused():
    outputs, labels = experience()
    with pytest.raises(ValueError, match="rows of action, log_probability, advantage, outcome, clip_range"):
        label_loss(outputs, labels[:, 0].long())
    with pytest.raises(ValueError, match="a policy gives B, A"):
        split_outputs(outputs[:, :1])
    assert LOSS_FUNCTIONS["ppo"] == LossFunction(label_loss, teacher_loss)
