"""What is wrong with a config, told all at once."""

from collections.abc import Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """The keys that something is wrong with, and a sentence that says what, what is legal and the fix."""

    keys: tuple[str, ...]
    text: str


class ConfigError(ValueError):
    """A config that cannot work; `problems` has every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        texts = list(dict.fromkeys(problem.text for problem in problems))
        super().__init__(texts[0] if len(texts) == 1 else "\n  - ".join([f"{len(texts)} mistakes in the config:", *texts]))
