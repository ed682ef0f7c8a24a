"""Learning rates as functions of the exact epoch (epoch + iteration / iterations per epoch), set at every iteration.

Curves are fvcore's. Two things are not: its CompositeParamScheduler and MultiStepParamScheduler change over a millionth of
the training too early, which in a training of more than a million iterations gives one iteration the next rate, and steps
must there be whole epochs before the last one, where PySlowFast's files have others.
"""

from collections.abc import Callable, Sequence

from fvcore.common.param_scheduler import CosineParamScheduler, LinearParamScheduler

Schedule = Callable[[float], float]


def with_warmup(schedule: Schedule, *, warmup_epochs: float, warmup_start_lr: float) -> Schedule:
    """Linear from `warmup_start_lr` to the schedule's own value at the end of warm-up.

    warmup_epochs: how long it lasts, a fraction of an epoch too.
    """
    if warmup_epochs <= 0:
        return schedule
    warmup = LinearParamScheduler(warmup_start_lr, schedule(warmup_epochs))

    def rate(epoch: float) -> float:
        return schedule(epoch) if epoch >= warmup_epochs else warmup(epoch / warmup_epochs)

    return rate


def cosine_schedule(*, base_lr: float, max_epoch: float, end_lr: float = 0.0, start_epoch: float = 0.0) -> Schedule:
    """Half a cosine from `base_lr` at `start_epoch` to `end_lr` at `max_epoch`; ValueError where it would start too late."""
    if start_epoch >= max_epoch:
        raise ValueError(f"the cosine would start at epoch {start_epoch}, not before SOLVER.MAX_EPOCH {max_epoch}")
    cosine = CosineParamScheduler(base_lr, end_lr)
    return lambda epoch: cosine((epoch - start_epoch) / (max_epoch - start_epoch))


def linear_schedule(*, base_lr: float, max_epoch: float) -> Schedule:
    """From `base_lr` at epoch 0 to 0 at `max_epoch` (US-Net, 5.1)."""
    linear = LinearParamScheduler(base_lr, 0.0)
    return lambda epoch: linear(epoch / max_epoch)


def relative_steps_schedule(*, base_lr: float, steps: Sequence[float], factors: Sequence[float]) -> Schedule:
    """`base_lr` times the factor of the last step that the epoch has reached; `steps` begins with 0.

    Raises ValueError for steps and factors of two lengths, and for steps that do not ascend from 0.
    """
    if len(steps) != len(factors) or not steps or steps[0] != 0 or list(steps) != sorted(steps):
        raise ValueError(
            f"SOLVER.STEPS {list(steps)} and SOLVER.LRS {list(factors)} must have one length, and steps ascend from 0"
        )

    def rate(epoch: float) -> float:
        return base_lr * factors[sum(step <= epoch for step in steps) - 1]

    return rate
