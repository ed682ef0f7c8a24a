"""Batch norm statistics of configurations: whether they can be a network's, and what is said where there are none."""

from collections.abc import Iterable, Mapping

import torch

from mutual3d.layers import BNStatistics, SlimmableNorm, Width
from mutual3d.sampling import Configuration


class NotCalibratedError(RuntimeError):
    """A configuration was asked to run in evaluation before its batch norm statistics were computed."""


def not_calibrated(configuration: Configuration, calibrated: Iterable[Configuration]) -> NotCalibratedError:
    """The error of a configuration that has no statistics, beside those that have."""
    others = list(calibrated)
    known = f"calibrated are {len(others)}, such as {others[0]}" if others else "none is"
    return NotCalibratedError(
        f"configuration {configuration} was never calibrated ({known}), and batch norm statistics of another one are "
        "wrong for it: run `mutual3d run --cfg CONFIG.yaml TRAIN.ENABLE False`, or call "
        "mutual3d.evaluation.calibrate(model, ...) for it"
    )


def check_norm_statistics(
    configuration: Configuration,
    statistics: BNStatistics,
    norms: Mapping[str, SlimmableNorm],
    width: Width,
    needed: Iterable[str],
) -> None:
    """Raise ValueError, naming configuration and norm, where statistics cannot be those of a network's norms.

    norms: {name: norm}, all of them. width: the configuration's, for layers. needed: names of the norms that it runs.
    """
    needed = list(needed)
    for title, values in (("mean", statistics.mean), ("variance", statistics.variance)):
        problems = [f"norm '{name}' is missing" for name in needed if name not in values]
        problems += [f"there is no norm '{name}'" for name in values if name not in norms]
        for name in values.keys() & norms.keys():
            channels = norms[name].rule.at(width)
            if tuple(values[name].shape) != (channels,):
                problems.append(f"norm '{name}' has the shape {tuple(values[name].shape)}, not ({channels},)")
        if not problems and not _is_sound(torch.cat(list(values.values())), title):
            legal = "finite" if title == "mean" else "finite and 0 or more"
            unsound = sorted(name for name, tensor in values.items() if not _is_sound(tensor, title))
            problems = [f"norm '{name}' has values that are not {legal}" for name in unsound]
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ValueError(
                f"statistics of configuration {configuration}, {title}: {problems[0]}{more}; calibrate again: "
                "`mutual3d run --cfg CONFIG.yaml TRAIN.ENABLE False`"
            )


def _is_sound(tensor: torch.Tensor, title: str) -> bool:
    return bool(torch.isfinite(tensor).all()) and (title == "mean" or bool((tensor >= 0).all()))
