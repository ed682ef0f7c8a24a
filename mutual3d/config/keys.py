"""How a config key is declared: its default, its legal values, and what a resumed run does with another value."""

from dataclasses import dataclass
from enum import Enum

from .legal import Legal
from .node import CfgNode


class Resume(Enum):
    """What a run that goes on from a checkpoint does with a key whose value is not the checkpoint's."""

    TAKES_EFFECT = "takes effect from here on, and one line says so"
    IS_TOLD = "takes effect, and a warning says that the finished epochs were made with another value"
    IS_REFUSED = "is refused: the result would be neither run's"


TAKES_EFFECT, IS_TOLD, IS_REFUSED = Resume


@dataclass(frozen=True)
class Key:
    """A key of the config, written where its default would stand.

    default: its type is the key's type. legal: which values it may have; no key goes without. resume: see `Resume`.
    """

    default: object
    legal: Legal
    resume: Resume

    def __post_init__(self) -> None:
        assert isinstance(self.legal, Legal) and isinstance(self.resume, Resume), f"{self}: give legal values and a kind"
        assert self.legal.accepts(self.default), f"the default {self.default!r} is not legal: {self.legal.explain(self.default)}"


class Group(dict):
    """Keys, and groups of keys, written as attributes."""

    def __setattr__(self, name: str, value: "Key | Group") -> None:
        self[name] = value

    def __getattr__(self, name: str) -> "Key | Group":
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def declared(node: Group, prefix: str = "") -> dict[str, Key]:
    """{full name: Key} of every key under a node, whose own name is `prefix`; TypeError that names one that was given a bare value."""
    keys = {}
    for name, value in node.items():
        if isinstance(value, Group):
            keys |= declared(value, f"{prefix}{name}.")
        elif isinstance(value, Key):
            keys[f"{prefix}{name}"] = value
        else:
            raise TypeError(f"{prefix}{name} is declared as {value!r}: write Key(default, legal values, kind of resume)")
    return keys


def defaults_of(node: Group) -> CfgNode:
    """A CfgNode of the defaults of a tree of Keys."""
    values = {k: defaults_of(v) if isinstance(v, Group) else v.default for k, v in node.items()}
    return CfgNode(values)
