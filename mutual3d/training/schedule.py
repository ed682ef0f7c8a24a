"""Learning rates as functions of the exact epoch (epoch + iteration / iterations per epoch), set at every iteration."""

import math


def with_warmup(schedule, *, warmup_epochs, warmup_start_lr):
    """Linear from `warmup_start_lr` to the schedule's own value at the end of warm-up."""

    def rate(epoch):
        if epoch >= warmup_epochs:
            return schedule(epoch)
        return warmup_start_lr + (schedule(warmup_epochs) - warmup_start_lr) * epoch / warmup_epochs

    return rate


def cosine_schedule(*, base_lr, max_epoch, end_lr=0.0, start_epoch=0.0):
    """Half a cosine from `base_lr` at `start_epoch` to `end_lr` at `max_epoch`."""
    if start_epoch >= max_epoch:
        raise ValueError(f"the cosine would start at epoch {start_epoch}, not before SOLVER.MAX_EPOCH {max_epoch}")

    def rate(epoch):
        progress = (epoch - start_epoch) / (max_epoch - start_epoch)
        return end_lr + (base_lr - end_lr) * (math.cos(math.pi * progress) + 1) / 2

    return rate


def linear_schedule(*, base_lr, max_epoch):
    """From `base_lr` at epoch 0 to 0 at `max_epoch` (US-Net, 5.1)."""

    def rate(epoch):
        return base_lr * (1 - epoch / max_epoch)

    return rate


def relative_steps_schedule(*, base_lr, steps, factors):
    """`base_lr` times the factor of the last step that the epoch has reached; `steps` begins with 0."""
    if len(steps) != len(factors) or not steps or steps[0] != 0 or list(steps) != sorted(steps):
        raise ValueError(
            f"SOLVER.STEPS {list(steps)} and SOLVER.LRS {list(factors)} must have one length, and steps ascend from 0"
        )

    def rate(epoch):
        return base_lr * factors[sum(step <= epoch for step in steps) - 1]

    return rate
