"""The schedules are the papers' formulas at every iteration."""

import math

import pytest

from mutual3d.training.schedule import cosine_schedule, linear_schedule, relative_steps_schedule, with_warmup

EPOCHS = 40


def iterations(per_epoch):
    return [epoch + i / per_epoch for epoch in range(EPOCHS) for i in range(per_epoch)]


def cosine(epoch, start=0.0, end_lr=0.0):
    return end_lr + (0.3 - end_lr) * (math.cos(math.pi * (epoch - start) / (EPOCHS - start)) + 1) / 2


def linear(epoch):
    return 0.3 * (1 - epoch / EPOCHS)


def steps(epoch):
    return 0.3 * (1.0 if epoch < 12.5 else 0.1 if epoch < 30 else 0.01)


CASES = {
    "cosine": (cosine_schedule(base_lr=0.3, max_epoch=EPOCHS), cosine),
    "cosine to a rate": (
        cosine_schedule(base_lr=0.3, max_epoch=EPOCHS, end_lr=0.02), lambda epoch: cosine(epoch, end_lr=0.02)
    ),
    "cosine after warm-up": (
        cosine_schedule(base_lr=0.3, max_epoch=EPOCHS, start_epoch=3.5), lambda epoch: cosine(epoch, start=3.5)
    ),
    "linear": (linear_schedule(base_lr=0.3, max_epoch=EPOCHS), linear),
    "steps": (relative_steps_schedule(base_lr=0.3, steps=[0, 12.5, 30, 90], factors=[1, 0.1, 0.01, 0.001]), steps),
}  # fmt: skip


@pytest.mark.parametrize("per_epoch", [1, 7, 313])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("warmup_epochs", [0.0, 3.5])
def test_a_schedule_is_its_formula_at_every_iteration(name, warmup_epochs, per_epoch):
    schedule, formula = CASES[name]
    rate = with_warmup(schedule, warmup_epochs=warmup_epochs, warmup_start_lr=0.01)
    for epoch in iterations(per_epoch):
        if epoch < warmup_epochs:
            wanted = 0.01 + (formula(warmup_epochs) - 0.01) * epoch / warmup_epochs
        else:
            wanted = formula(epoch)
        assert rate(epoch) == pytest.approx(wanted, rel=0, abs=1e-12)


def test_the_last_iteration_before_a_step_and_of_warm_up_keeps_its_rate_in_a_training_of_millions():
    last = 10 - 1e-5
    assert relative_steps_schedule(base_lr=1.0, steps=[0, 10], factors=[1, 0.1])(last) == 1.0
    flat = relative_steps_schedule(base_lr=1.0, steps=[0], factors=[1])
    assert with_warmup(flat, warmup_epochs=10, warmup_start_lr=0.0)(last) == pytest.approx(1 - 1e-6, rel=0, abs=1e-12)
