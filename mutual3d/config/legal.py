"""What values a config key may have: stated beside the key, and read by whoever checks one."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeGuard


class Legal(ABC):
    """The legal values of a key."""

    @abstractmethod
    def accepts(self, value: object) -> bool:
        """Whether `value`, of any type, is legal."""

    @abstractmethod
    def form(self) -> str:
        """What a legal value is, to be read after `must be`."""

    def explain(self, value: object) -> str:
        """Of a value that is not legal: what ends the sentence `KEY is VALUE: `."""
        return f"it must be {self.form()}"


class Integer(Legal):
    """A whole number from `low` to `high`, both legal."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def accepts(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def form(self) -> str:
        return f"{'above 0' if self.low == 1 else f'{self.low} or more'}, at most {self.high}, and whole"


class Number(Legal):
    """A finite number from `low` to `high`; `above` and `below` leave the ends themselves out. note: said of the unit."""

    def __init__(self, low: float, high: float, *, above: bool = False, below: bool = False, note: str = "") -> None:
        self.low, self.high, self.above, self.below, self.note = low, high, above, below, note

    def accepts(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        # Every comparison with NaN is False.
        is_over = self.low < value if self.above else self.low <= value
        return is_over and (value < self.high if self.below else value <= self.high)

    def form(self) -> str:
        start = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        end = f"below {self.high:g}" if self.below else f"at most {self.high:g}"
        return f"{start} and {end}{f', {self.note}' if self.note else ''}"


class Share(Number):
    """A number from 0 to 1: of all there is, never per cent. `below`: all of it is not legal."""

    def __init__(self, *, below: bool = False) -> None:
        super().__init__(0, 1, below=below, note="a share (0.5 is 50 %)")


class Flag(Legal):
    """True or False."""

    def accepts(self, value: object) -> bool:
        return isinstance(value, bool)

    def form(self) -> str:
        return "True or False"


class Only(Legal):
    """One of a few values: others would be another task or network. instead: what to do for those."""

    def __init__(self, *values: object, instead: str = "") -> None:
        self.values, self.instead = values, instead

    def accepts(self, value: object) -> bool:
        return any(type(value) is type(legal) and value == legal for legal in self.values)

    def form(self) -> str:
        return " or ".join(map(repr, self.values))

    def explain(self, value: object) -> str:
        return f"mutual3d supports {self.form()}{f'; {self.instead}' if self.instead else ''}"


class Text(Legal):
    """Text. empty: whether no character at all is legal. pattern: a regular expression for the whole of it, with `meaning`, its form in words."""

    LONGEST = 4096

    def __init__(self, *, empty: bool = True, pattern: str = "", meaning: str = "") -> None:
        self.empty, self.pattern, self.meaning = empty, pattern, meaning

    def accepts(self, value: object) -> bool:
        if not isinstance(value, str) or len(value) > self.LONGEST or "\0" in value or not (value or self.empty):
            return False
        return not self.pattern or bool(re.fullmatch(self.pattern, value))

    def form(self) -> str:
        some = "text" if self.empty else "text that is not empty"
        return self.meaning or f"{some}, of at most {self.LONGEST} characters, none of them NUL"


class Registered(Text):
    """A word that a registry of the rooms above knows (`what`: network, objective, ...); they refuse another one."""

    def __init__(self, what: str) -> None:
        super().__init__(empty=False, meaning=f"the name of a {what}")
        self.what = what


class Each(Legal):
    """A list of `shortest` to `longest` elements that are legal as `element` says.

    ascending: none is smaller than the one before it. distinct: none stands there twice.
    """

    def __init__(
        self, element: Legal, shortest: int, longest: int, *, ascending: bool = False, distinct: bool = False
    ) -> None:
        self.element, self.shortest, self.longest = element, shortest, longest
        self.ascending, self.distinct = ascending, distinct

    def accepts(self, value: object) -> bool:
        return self._is_list(value) and not self._wrong(value) and not self._repeated(value) and not self._unordered(value)

    def _is_list(self, value: object) -> TypeGuard[Sequence]:
        return isinstance(value, (list, tuple)) and self.shortest <= len(value) <= self.longest

    def _wrong(self, value: Sequence) -> list:
        return [part for part in value if not self.element.accepts(part)]

    def _repeated(self, value: Sequence) -> list:
        return [part for i, part in enumerate(value) if part in value[:i]] if self.distinct else []

    def _unordered(self, value: Sequence) -> bool:
        return self.ascending and any(later < earlier for earlier, later in zip(value, value[1:]))

    def form(self) -> str:
        count = str(self.shortest) if self.shortest == self.longest else f"{self.shortest} to {self.longest}"
        order = f"{', ascending' if self.ascending else ''}{', none twice' if self.distinct else ''}"
        return f"a list of {count}{order}, each {self.element.form()}"

    def explain(self, value: object) -> str:
        if not self._is_list(value):
            return super().explain(value)
        if self._wrong(value):
            return f"{shown(self._wrong(value)[0])} in it is not legal: {super().explain(value)}"
        if self._repeated(value):
            return f"it names {shown(self._repeated(value)[0])} twice: {super().explain(value)}"
        return f"it does not ascend: {super().explain(value)}"


class AnyOf(Legal):
    """Whatever one of `kinds` accepts."""

    def __init__(self, *kinds: Legal) -> None:
        self.kinds = kinds

    def accepts(self, value: object) -> bool:
        return any(kind.accepts(value) for kind in self.kinds)

    def form(self) -> str:
        return ", or ".join(kind.form() for kind in self.kinds)


class Empty(Legal):
    """A list, of lists, that holds nothing at any depth. why: said of one that holds something."""

    def __init__(self, why: str = "") -> None:
        self.why = why

    def accepts(self, value: object) -> bool:
        return isinstance(value, (list, tuple)) and all(self.accepts(part) for part in value)

    def form(self) -> str:
        return "empty"

    def explain(self, value: object) -> str:
        return f"{super().explain(value)}{f'; {self.why}' if self.why else ''}"


def shown(value: object) -> str:
    """A value for an error message, cut where it is very long."""
    is_huge = isinstance(value, int) and abs(value) >= 10**100
    text = "a number of over 100 digits" if is_huge else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
