import functools

import pytest
import torch
import torch.nn.functional as F
from tiny import SPACE, overrides, tiny_network

from mutual3d.layers import slimmable_norms
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.sampling import fit_clip, normalize_clip, prepare_clip
from mutual3d.training import Method, MutualStep, NonFiniteLossError
from mutual3d.training.build import build_step
from mutual3d.training.step import split_step

MEAN, STD = (0.45,) * 3, (0.225,) * 3


def batch(num_clips=4):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (num_clips, 3, 4, 24, 24), dtype=torch.uint8, generator=generator)
    return clips, torch.arange(num_clips) % 2


def make_step(model, **options):
    options = {"subnets": ["smallest", "random"], "objective": "inplace_distillation", **options}
    words = {name: options.pop(name) for name in ("subnets", "objective", "loss_function", "largest", "feature_loss", "stored") if name in options}
    prepare = functools.partial(prepare_clip, device=torch.device("cpu"), mean=MEAN, std=STD)
    return MutualStep(model, Method(**words), prepare=prepare, seed=1, **options)


def network():
    """A network without dropout, so that a step can be computed twice."""
    torch.manual_seed(0)
    model = tiny_network().train()
    model.head.dropout.p = 0.0
    return model


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_the_total_gradient_is_the_sum_of_the_parts():
    """Paper, Eq. 5 and 7: one loss for each configuration, added up."""
    model, (clips, labels) = network(), batch()
    result = make_step(model)(clips, labels, step=3)
    together = gradients(model)
    model.zero_grad()
    clip = normalize_clip(clips, MEAN, STD)
    total, teacher = 0, None
    for configuration in result.configurations:
        model.activate(configuration)
        logits = model([fit_clip(clip, configuration, SPACE)])
        if teacher is None:
            total, teacher = F.cross_entropy(logits, labels), logits.detach()
        else:
            total = total + F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    total.backward()
    assert total.item() == pytest.approx(sum(result.losses), rel=1e-5)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, together[name], atol=1e-6), name


def test_the_largest_configuration_runs_first_and_the_rules_choose_the_others():
    step = make_step(network())
    first, second, third = step.configurations(0)
    assert (first, second) == (SPACE.largest, SPACE.smallest)
    assert SPACE.check(third) == third
    assert step.configurations(0) == step.configurations(0) != step.configurations(1)


def test_a_static_network_trains_the_largest_alone():
    result = make_step(network(), subnets=[])(*batch(), step=0)
    assert result.configurations == [SPACE.largest] and len(result.losses) == 1


@pytest.mark.parametrize("objective, count", [("labels", 1), ("ensemble_distillation", 1), ("labels", 2)])
def test_each_size_may_have_a_crop_of_its_own(objective, count):
    """RS-Net's Table 6: with the same crop for all it is the step that all others are."""
    clips, labels = batch()
    words = dict(subnets=["each_size"], largest=False, objective=objective)
    whole, own, others = network(), network(), network()
    if count > 1:
        for model in (whole, own, others):
            freeze_norms(model)
    one = make_step(whole, **words)(clips, labels, step=0)
    crops = clips[:, None].repeat(1, len(one.configurations), 1, 1, 1, 1)
    same = make_step(own, own_crops=True, accumulation_steps=count, **words)(crops, labels, step=0)
    assert same.losses == pytest.approx(one.losses, rel=1e-5)
    for name, gradient in gradients(whole).items():
        assert torch.allclose(gradient, gradients(own)[name], atol=1e-6), name
    crops[:, -1] = 0
    other = make_step(others, own_crops=True, accumulation_steps=count, **words)(crops, labels, step=0)
    changed = [a != pytest.approx(b, rel=1e-5) for a, b in zip(other.losses, one.losses)]
    assert changed[3] and (objective != "labels" or changed == [False, False, False, True])


def test_fewer_crops_than_sizes_are_no_step_of_fewer_sizes():
    clips, labels = batch()
    step = make_step(network(), own_crops=True, subnets=["each_size"], largest=False, objective="ensemble_distillation")
    with pytest.raises(ValueError, match="shorter"):
        step(clips[:, None], labels, step=0)


def test_the_shares_of_an_ensemble_are_told_by_configuration():
    step = make_step(network(), subnets=["each_size"], largest=False, objective="ensemble_distillation")
    step.objective.alpha.data = torch.tensor([3.0, 2.0, 1.0, 0.0])
    assert list(step.ensemble()) == ["1-24-4", "1-24-2", "1-16-4", "1-16-2"]
    assert list(step.ensemble().values()) == pytest.approx(torch.tensor([3.0, 2.0, 1.0, 0.0]).softmax(0).tolist(), abs=1e-5)
    assert make_step(network()).ensemble() == {}


def test_only_the_largest_updates_running_statistics():
    alone, mutual = network(), network()
    make_step(alone, subnets=[])(*batch(), step=0)
    make_step(mutual)(*batch(), step=0)
    for (name, a), b in zip(slimmable_norms(alone).items(), slimmable_norms(mutual).values()):
        assert torch.equal(a.running_mean, b.running_mean) and a.num_batches_tracked == b.num_batches_tracked == 1, name


def test_labels_as_objective():
    model, (clips, labels) = network(), batch()
    result = make_step(model, objective="labels", subnets=["smallest"])(clips, labels, step=0)
    model.zero_grad()
    model.activate(SPACE.smallest)
    logits = model([fit_clip(normalize_clip(clips, MEAN, STD), SPACE.smallest, SPACE)])
    assert result.losses[1] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def freeze_norms(model):
    """Norms that keep their (first) running statistics, so that a batch's parts do not see each other."""

    def frozen(norm, x):
        c = x.shape[1]
        return F.batch_norm(x, norm.running_mean[:c], norm.running_var[:c], norm.weight[:c], norm.bias[:c])

    for norm in slimmable_norms(model).values():
        norm.forward = functools.partial(frozen, norm)
    return model


def test_accumulation_gives_the_gradients_of_the_whole_batch():
    whole, parts = freeze_norms(network()), freeze_norms(network())
    clips, labels = batch(6)
    one = make_step(whole)(clips, labels, step=0)
    three = make_step(parts, accumulation_steps=3)(clips, labels, step=0)
    assert three.losses == pytest.approx(one.losses, rel=1e-5) and three.logits.shape == (6, 2)
    for name, gradient in gradients(whole).items():
        assert torch.allclose(gradient, gradients(parts)[name], atol=1e-6), name


def test_a_loss_that_is_not_finite_names_its_configuration():
    model = network()
    with torch.no_grad():
        model.head.projection.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"configuration 1-24-4.*in step 7.*SOLVER.BASE_LR"):
        make_step(model)(*batch(), step=7)


def test_unknown_names_list_the_legal_ones():
    with pytest.raises(ValueError, match="no objective 'kd': choose among inplace_distillation, labels"):
        make_step(network(), objective="kd")
    with pytest.raises(ValueError, match="no sampling rule 'tiny': choose among smallest"):
        make_step(network(), subnets=["tiny"])(*batch(), step=0)


def test_mixed_precision_keeps_gradients_finite():
    model = network()
    step = make_step(model, autocast=functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16))
    result = step(*batch(), step=0)
    assert len(result.losses) == 3
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("subnets, largest, expected", [
    (["random_width"] * 3, False, "***"),
    (["smallest_width_full_size", "random_width", "random_width"], False, "-**"),
    (["random_width", "random_width"], True, "+**"),
    (["smallest_width_full_size", "random_width"], True, "+-*"),
])  # fmt: skip
def test_the_sampling_rules_that_us_net_compares_can_be_chosen(subnets, largest, expected):
    """US-Net, Table 2: random widths, with or without the smallest and the largest, all by labels."""
    step = make_step(network(), subnets=subnets, largest=largest, objective="labels")
    kinds = {SPACE.width_range[0]: "-", SPACE.width_range[1]: "+"}
    for number in range(5):
        configurations = step.configurations(number)
        assert "".join(kinds.get(c.width, "*") for c in configurations) == expected
        assert {(c.spatial, c.temporal) for c in configurations} == {(24, 4)}
    assert len(step(*batch(), step=0).losses) == 3


@pytest.mark.parametrize("subnets", [["random", "smallest"], ["random_size", "random"], ["shared_size", "random"]])
def test_an_objective_that_needs_a_teacher_refuses_one_that_does_not_contain_the_others(subnets):
    with pytest.raises(ValueError, match=r"inplace_distillation needs MUTUAL.LARGEST True.*MUTUAL.OBJECTIVE labels"):
        make_step(network(), subnets=subnets, largest=False)
    assert len(make_step(network(), subnets=subnets, largest=False, objective="labels").configurations(0)) == 2


def test_a_shared_size_teaches_narrower_networks_of_that_size():
    step = make_step(network(), subnets=["shared_size", "smallest_width_shared_size", "random_width_shared_size"], largest=False)
    assert len(step(*batch(), step=0).losses) == 3


def test_a_step_that_would_train_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing would be trained"):
        make_step(network(), subnets=[], largest=False)


def test_boxes_and_their_labels_go_with_their_clips():
    clips = torch.arange(5)[:, None]
    boxes = torch.tensor([[0, 0.1, 0, 0, 0], [2, 0.2, 0, 0, 0], [3, 0.3, 0, 0, 0], [4, 0.4, 0, 0, 0], [3, 0.5, 0, 0, 0]])
    first, second = split_step(clips, boxes[:, 1:2] * 10, boxes, 2)
    assert first.clips.flatten().tolist() == [0, 1, 2] and second.clips.flatten().tolist() == [3, 4]
    assert first.boxes[:, 0].tolist() == [0, 2] and second.boxes[:, 0].tolist() == [0, 1, 0]
    assert torch.allclose(second.labels.flatten(), torch.tensor([3.0, 4.0, 5.0]))


@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last_3d])
def test_a_step_trains_in_the_memory_format_that_the_network_prefers(monkeypatch, wanted):
    """As on a GPU, where some networks are faster in one and some in the other."""
    monkeypatch.setattr("mutual3d.models.adaptive.network.preferred_memory_format", lambda network, device: wanted)
    cfg, device = load_config(None, overrides("data", "out")), torch.device("cpu")
    model = build_model(cfg).place(device)
    clips = build_step(cfg, model, device).prepare(batch()[0])
    weights = [weight for weight in model.parameters() if weight.ndim == 5]
    assert weights and all(tensor.is_contiguous(memory_format=wanted) for tensor in (clips, *weights))
    assert clips.is_contiguous() == (wanted == torch.contiguous_format)
