"""What a run that goes on from a checkpoint does with settings that are not the checkpoint's."""

from typing import NamedTuple

import yaml

from .check import get_value
from .defaults import KEYS
from .keys import IS_REFUSED, IS_TOLD, TAKES_EFFECT
from .legal import shown
from .node import CfgNode
from .yaml_file import flatten


class Changes(NamedTuple):
    """`KEY old -> new` of every key whose value is another one than before, by what the key's kind says of it."""

    take_effect: list[str]
    are_told: list[str]
    are_refused: list[str]


def changed_settings(saved: str, cfg: CfgNode) -> Changes:
    """What differs between the config that a checkpoint holds as text (`saved`, its `cfg.dump()`) and this one.

    A key that the text lacks is one that was added since, and had its default. Of a group that is switched off by its own
    ENABLE, before and now, nothing else is read. Raises ValueError for a text that is no config.
    """
    before = _read(saved)
    found = {kind: [] for kind in (TAKES_EFFECT, IS_TOLD, IS_REFUSED)}
    for name, key in KEYS.items():
        old, new = before.get(name, key.default), get_value(cfg, name)
        if old != new and not _is_off(name, before, cfg):
            found[key.resume].append(f"{name} {shown(old)} -> {shown(new)}")
    return Changes(found[TAKES_EFFECT], found[IS_TOLD], found[IS_REFUSED])


def _read(saved: str) -> dict[str, object]:
    try:
        return dict(flatten(yaml.safe_load(saved)))
    except (yaml.YAMLError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"the settings in it cannot be read: {str(error).splitlines()[0]}") from None


def _is_off(name: str, before: dict[str, object], cfg: CfgNode) -> bool:
    group, _, own = name.rpartition(".")
    switch = f"{group}.ENABLE"
    return own != "ENABLE" and switch in KEYS and not before.get(switch, KEYS[switch].default) and not get_value(cfg, switch)
