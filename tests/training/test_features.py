"""MUTUAL.FEATURE_LOSS: features before the classifier agree with the largest configuration's; off, nothing changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from networks import IMAGE_NETWORKS, NETWORKS
from test_step import MEAN, STD, batch, gradients, make_step, network
from tiny import SPACE, tiny_network

from mutual3d.pipeline import load_config
from mutual3d.sampling import fit_clip, normalize_clip
from mutual3d.training import Method
from mutual3d.training.features import FeatureAgreement, feature_loss


def test_the_loss_is_one_minus_the_cosine_and_teaches_the_student_alone():
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True), torch.tensor([[3.0, 0.0], [3.0, 0.0]], requires_grad=True)
    loss = feature_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.5) and teacher.grad is None and student.grad.abs().sum() > 0


def test_gradients_are_those_of_both_losses():
    model, (clips, labels) = network(), batch()
    result = make_step(model, feature_loss=0.7)(clips, labels, step=3)
    together = gradients(model)
    model.zero_grad()
    clip, seen = normalize_clip(clips, MEAN, STD), []
    model.head.dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    total, teacher = 0, None
    for configuration in result.configurations:
        logits = model.activate(configuration)([fit_clip(clip, configuration, SPACE)])
        if teacher is None:
            total, teacher = F.cross_entropy(logits, labels), logits.detach()
        else:
            total = total + F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean")
            total = total + 0.7 * (1 - F.cosine_similarity(seen[-1], seen[0].detach())).mean()
    total.backward()
    assert total.item() == pytest.approx(sum(result.losses), rel=1e-5)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, together[name], atol=1e-6), name


def test_features_come_to_agree_and_nothing_stays_at_the_layers():
    model, (clips, labels) = tiny_network().train(), batch()
    step = make_step(model, feature_loss=5.0, subnets=["smallest"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    last = []
    for number in range(12):
        optimizer.zero_grad()
        step(clips, labels, step=0)
        optimizer.step()
        with torch.no_grad(), step.features.watching():
            model.activate(SPACE.largest)(model.fit_clip(normalize_clip(clips, MEAN, STD)))
            step.features.loss(is_first=True)
            model.activate(SPACE.smallest)(model.fit_clip(normalize_clip(clips, MEAN, STD)))
            last.append(float(step.features.loss(is_first=False)))
    assert last[-1] < 0.7 * last[0]
    assert not any(module._forward_pre_hooks for module in model.modules())
    copy.deepcopy(model)


def test_what_has_no_first_configuration_or_no_fixed_features_is_refused():
    for words, sentence in [
        ({"objective": "ensemble_distillation", "subnets": ("each_size",), "largest": False}, "runs all networks at once"),
        ({"objective": "labels", "subnets": ("random", "random"), "largest": False}, "no configuration contains the others"),
    ]:
        with pytest.raises(ValueError, match=f"MUTUAL.FEATURE_LOSS is 0.1, and .*{sentence}"):
            Method(**words, feature_loss=0.1).make_objective(2)
    fixed = {name for name, case in {**NETWORKS, **IMAGE_NETWORKS}.items() if case.create().has_fixed_features}
    assert fixed == {"x3d_small", "x3d_m", "mobilenet_v2_small", "mobilenet_v3_small"}
    with pytest.raises(ValueError, match="reads fewer features at smaller widths: set it 0, or take a network that keeps them"):
        FeatureAgreement(NETWORKS["slow_small"].build(), 0.1)


def test_a_config_says_so_and_is_refused_where_it_means_nothing():
    assert load_config("Demo/MUTUAL_X3D", ["MUTUAL.FEATURE_LOSS", "0.5"]).MUTUAL.FEATURE_LOSS == 0.5
    with pytest.raises(ValueError, match="MUTUAL.FEATURE_LOSS is 0.5, and MUTUAL.OBJECTIVE ensemble_distillation runs all"):
        load_config("Kinetics/RS_X3D_M", ["MUTUAL.FEATURE_LOSS", "0.5"])
