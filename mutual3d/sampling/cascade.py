"""Several configurations in turn: cheap first, and a dearer one only where the cheap one is not sure."""

import re
from dataclasses import dataclass

import torch

from .configuration import Configuration

# No temperature is outside these: a softmax is a step below, and flat above.
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, order=True)
class Cascade:
    """Configurations in ascending cost, each but the last with the confidence at which it answers.

    Printed and parsed as `0.25-24-4@0.83T1.7+1.0-48-8`: run at 0.25-24-4, take its answer where its largest probability at
    the temperature 1.7 is 0.83 or more, and run at 1.0-48-8 otherwise.

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
        low, high = TEMPERATURES
        if not all(low <= temperature <= high for temperature in self.temperatures):
            raise ValueError(f"temperatures is {list(self.temperatures)}: each must be from {low} to {high}")

    def __str__(self) -> str:
        stages = [
            f"{configuration}@{threshold:.6g}T{temperature:.6g}"
            for configuration, threshold, temperature in zip(self.configurations, self.thresholds, self.temperatures)
        ]
        return "+".join([*stages, str(self.configurations[-1])])

    @classmethod
    def parse(cls, text: "Cascade | str") -> "Cascade":
        """Read what `str` writes; a temperature of 1 may be left out. ValueError that shows the form."""
        if isinstance(text, cls):
            return text
        *stages, last = str(text).split("+")
        found = [re.fullmatch(r"([^@]+)@([\d.e-]+?)(?:T([\d.e-]+))?", stage) for stage in stages]
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


def confidence(probabilities_BK: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """The largest probability of each row after its logits were divided by `temperature`: B values in [0, 1].

    The logarithm of a softmax is the logits but for a constant, which a softmax does not see.
    """
    logits = probabilities_BK.double().clamp_min(torch.finfo(torch.float32).tiny).log()
    return (logits / temperature).softmax(1).amax(1)
