"""Several configurations in turn: cheap first, and a dearer one only where the cheap one is not sure."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .configuration import Configuration

# What a cascade's temperatures are fitted to: so few that a sum for each is kept of every clip while a grid is measured.
TEMPERATURES = (0.5, 0.7, 1.0, 1.25, 1.6, 2.0, 2.8, 4.0)
# No temperature is outside these: a softmax is a step below, and flat above.
_LEGAL_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, order=True)
class Cascade:
    """Configurations in ascending cost, each but the last with the confidence at which it answers.

    Printed and parsed as `0.25-24-4@0.83T1.6+1-48-8`: run at 0.25-24-4, take its answer where its largest probability at
    the temperature 1.6 is 0.83 or more, and run at 1-48-8 otherwise.

    thresholds: one for each configuration but the last, in [0, 1]. temperatures: as many, above 0: what the logits are
    divided by before their softmax counts as confidence (Guo et al., ICML 2017); 1 leaves them as they are.
    """

    configurations: tuple[Configuration, ...]
    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.configurations)
        if count < 2 or len(set(self.configurations)) < count:
            names = ", ".join(map(str, self.configurations)) or "none"
            raise ValueError(f"a cascade of {names}: give two or more different configurations")
        for name, values in (("thresholds", self.thresholds), ("temperatures", self.temperatures)):
            if len(values) != count - 1:
                raise ValueError(f"{name} is {list(values)}: give {count - 1}, one for each configuration but the last")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"thresholds is {list(self.thresholds)}: a probability is from 0 to 1")
        low, high = _LEGAL_TEMPERATURES
        if not all(low <= temperature <= high for temperature in self.temperatures):
            raise ValueError(f"temperatures is {list(self.temperatures)}: each must be from {low} to {high}")

    def __str__(self) -> str:
        # A float's shortest text that is the same float: who activates a cascade by its text runs the very same one.
        stages = [
            f"{configuration}@{_text(threshold)}{'' if temperature == 1 else f'T{_text(temperature)}'}"
            for configuration, threshold, temperature in zip(self.configurations, self.thresholds, self.temperatures)
        ]
        return "+".join([*stages, str(self.configurations[-1])])

    @classmethod
    def parse(cls, text: "Cascade | str") -> "Cascade":
        """Read what `str` writes; a temperature of 1 may be left out. ValueError that shows the form."""
        if isinstance(text, cls):
            return text
        # A plus may stand in an exponent, never before a configuration's first digit and behind an e.
        *stages, last = re.split(r"(?<!e)\+", str(text))
        found = [re.fullmatch(r"([^@]+)@([\d.e+-]+?)(?:T([\d.e+-]+))?", stage) for stage in stages]
        try:
            parts = [match.groups() for match in found if match]
            if len(parts) != len(stages) or not parts:
                raise ValueError("no stage")
            thresholds = tuple(float(threshold) for _, threshold, _ in parts)
            temperatures = tuple(float(temperature or 1) for _, _, temperature in parts)
        except ValueError:
            raise ValueError(
                f"'{text}' is not a cascade: write each configuration with the confidence at which it answers, and the last "
                "without, for example 0.25-24-4@0.83+1.0-48-8"
            ) from None
        names = [name for name, _, _ in parts] + [last]
        return cls(tuple(map(Configuration.parse, names)), thresholds, temperatures)


def _text(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def parse_any(text: "Configuration | Cascade | str") -> "Configuration | Cascade":
    """A configuration or a cascade, which has an @ in its text. ValueError that shows the form."""
    if isinstance(text, (Configuration, Cascade)):
        return text
    return Cascade.parse(text) if "@" in str(text) else Configuration.parse(text)


def confidence(probabilities_BK: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """The largest probability of each row after its logits were divided by `temperature`: B values in [0, 1].

    The logarithm of a softmax is the logits but for a constant, which a softmax does not see.
    """
    return (log_scores(probabilities_BK) / temperature).softmax(1).amax(1)


def log_scores(probabilities: torch.Tensor) -> torch.Tensor:
    """Logarithms, in float64, of probabilities of which some are 0."""
    return probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()


# ---- What a clip costs -----------------------------------------------------------------------------------------------


def mean_cost(shares: Sequence[float], costs: Sequence[float]) -> float:
    """Of a clip. shares: of the clips that each configuration answers, which sum to 1; costs: of a clip at each."""
    return sum(share * total for share, total in zip(shares, itertools.accumulate(costs)))


def p99_cost(shares: Sequence[float], costs: Sequence[float]) -> float:
    """What 99 of 100 clips cost at most. shares, costs: as of `mean_cost`."""
    totals = list(itertools.accumulate(costs))
    within = zip(itertools.accumulate(shares), totals)
    return next((total for share, total in within if share >= 0.99 - 1e-9), totals[-1])
