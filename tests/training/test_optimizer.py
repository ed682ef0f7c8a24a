import pytest
import torch
import torch.nn as nn
from tiny import tiny_network

from mutual3d.models import create_model
from mutual3d.pipeline import load_config
from mutual3d.training import build_optimizer, cosine_schedule, parameter_groups, relative_steps_schedule
from mutual3d.training.objectives import LOSS_FUNCTIONS, EnsembleDistillation
from mutual3d.training.optimizer import load_optimizer_state
from mutual3d.training.schedule import linear_schedule, with_warmup


def test_every_parameter_is_in_exactly_one_group():
    model = tiny_network()
    grouped = [id(p) for group in parameter_groups(model, weight_decay=1e-4) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_convolutions_decay_and_norms_do_not():
    model = tiny_network()
    decay = {id(p): group["weight_decay"] for group in parameter_groups(model, weight_decay=1e-4) for p in group["params"]}
    for module in model.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            assert decay[id(module.weight)] == 1e-4
        elif isinstance(module, nn.BatchNorm3d):
            assert decay[id(module.weight)] == decay[id(module.bias)] == 0


def test_no_decay_on_one_dimension_when_asked():
    groups = {g["name"]: g for g in parameter_groups(tiny_network(), weight_decay=1e-4, no_decay_1d=True)}
    assert groups["no_decay"]["weight_decay"] == 0 and all(p.ndim == 1 for p in groups["no_decay"]["params"])


def test_depthwise_filters_do_not_decay_when_asked_and_nothing_else_changes():
    model = create_model("mobilenet_v1", space={"width_range": [0.5, 1.0], "spatial_sizes": [32]}, num_classes=2)
    plain, asked = (parameter_groups(model, weight_decay=1e-4, no_decay_depthwise=flag) for flag in (False, True))
    decay = {id(p): group["weight_decay"] for group in asked for p in group["params"]}
    depthwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(depthwise) == 13 and all(decay[id(m.weight)] == 0 for m in depthwise)
    spared = {id(m.weight) for m in depthwise}
    assert all(decay[id(p)] == group["weight_decay"] for group in plain for p in group["params"] if id(p) not in spared)
    assert "no_decay" not in {group["name"] for group in plain}
    video = {g["name"]: g for g in parameter_groups(tiny_network(), weight_decay=1e-4, no_decay_depthwise=True)}
    assert all(p.shape[1] == 1 and p.ndim == 5 for p in video["no_decay"]["params"]) and len(video["no_decay"]["params"]) > 2


@pytest.mark.parametrize("name, value", [("MOBILENET_V1", True), ("US_MOBILENET_V2", True), ("RS_MOBILENET_V2", False), ("RESNET50", False)])
def test_a_config_asks_for_it(name, value):
    assert load_config(f"ImageNet/{name}").SOLVER.ZERO_WD_DEPTHWISE is value


def test_frozen_parameters_are_left_out():
    model = tiny_network()
    model.head.requires_grad_(False)
    count = sum(len(g["params"]) for g in build_optimizer(model, base_lr=0.1, weight_decay=0.0).param_groups)
    assert count == sum(p.requires_grad for p in model.parameters())


def test_cosine_with_warmup():
    rate = with_warmup(cosine_schedule(base_lr=0.1, max_epoch=300), warmup_epochs=35, warmup_start_lr=0.01)
    plain = cosine_schedule(base_lr=0.1, max_epoch=300)
    assert rate(0) == 0.01
    assert rate(17.5) == pytest.approx((0.01 + plain(35)) / 2)
    assert rate(35) == plain(35) and rate(150) == pytest.approx(0.05) and rate(300) == pytest.approx(0)


def test_cosine_after_warmup_starts_at_its_peak():
    assert cosine_schedule(base_lr=0.1, max_epoch=100, start_epoch=10)(10) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="SOLVER.MAX_EPOCH 10"):
        cosine_schedule(base_lr=0.1, max_epoch=10, start_epoch=10)


def test_relative_steps():
    rate = relative_steps_schedule(base_lr=0.05, steps=[0, 10, 15], factors=[1, 0.1, 0.01])
    assert [round(rate(e), 6) for e in (0, 9.99, 10, 14.5, 15, 19)] == [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005]
    with pytest.raises(ValueError, match="SOLVER.STEPS"):
        relative_steps_schedule(base_lr=0.05, steps=[0, 10], factors=[1])


def test_a_line_falls_to_zero():
    rate = linear_schedule(base_lr=0.5, max_epoch=250)
    assert rate(0) == 0.5 and rate(125) == pytest.approx(0.25) and rate(250) == 0


def test_what_an_objective_learns_is_not_decayed():
    objective = EnsembleDistillation(LOSS_FUNCTIONS["cross_entropy"], 3)
    optimizer = build_optimizer(tiny_network(), base_lr=0.1, weight_decay=1e-4, objective=objective)
    (group,) = [group for group in optimizer.param_groups if group["params"][0] is objective.alpha]
    assert group["weight_decay"] == 0 and len(group["params"]) == 1


def step_after_resume(first, second):
    """The weight after a step with the settings `first`, a save, and a step with the settings `second`."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, base_lr=0.1, **first)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        if optimizer.state:
            state, optimizer = optimizer.state_dict(), build_optimizer(model, base_lr=0.1, **second)
            load_optimizer_state(optimizer, state)
        optimizer.step()
    return model.weight.detach().clone()


BEFORE = {"weight_decay": 0.0, "momentum": 0.9, "dampening": 0.0, "nesterov": False}


@pytest.mark.parametrize("change", [{"weight_decay": 0.1}, {"momentum": 0.5}, {"nesterov": True}, {"dampening": 0.5}])
def test_a_resumed_optimizer_keeps_its_own_settings_and_takes_the_momenta(change):
    plain, changed = step_after_resume(BEFORE, BEFORE), step_after_resume(BEFORE, BEFORE | change)
    assert not torch.equal(plain, changed)
    # What one optimizer, changed in place between its two steps, gives.
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, base_lr=0.1, **BEFORE)
    for settings in (BEFORE, BEFORE | change):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        for group in optimizer.param_groups:
            group.update(settings)
        optimizer.step()
    assert torch.equal(model.weight, changed)


@pytest.mark.parametrize("method", ["adam", "adamw"])
def test_adaptive_optimizers_take_the_same_groups_and_go_on_from_their_state(method):
    """Two steps, the second after a save and a load with another rate, equal torch's own by hand."""
    torch.manual_seed(0)
    layer, twin = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    twin.load_state_dict(layer.state_dict())
    settings = dict(method=method, betas=[0.8, 0.99], weight_decay=0.1)
    optimizer = build_optimizer(layer, base_lr=0.1, **settings)
    theirs = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[method](twin.parameters(), lr=0.1, betas=(0.8, 0.99), weight_decay=0.1)
    x = torch.randn(4, 3, dtype=torch.float64)
    for rate in (0.1, 0.05):
        for each, own in ((layer, optimizer), (twin, theirs)):
            for group in own.param_groups:
                group["lr"] = rate
            own.zero_grad()
            each(x).square().sum().backward()
            own.step()
        resumed = build_optimizer(layer, base_lr=0.05, **settings)
        load_optimizer_state(resumed, optimizer.state_dict())
        optimizer = resumed
    assert optimizer.param_groups[0]["lr"] == 0.05
    for mine, other in zip(layer.parameters(), twin.parameters()):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="no optimizer 'lbfgs': choose among sgd, adam, adamw"):
        build_optimizer(nn.Linear(1, 1), base_lr=0.1, method="lbfgs", weight_decay=0.0)
