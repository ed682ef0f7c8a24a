"""A CfgNode whose mistakes are explained: unknown keys name the nearest legal one, an int may stand for a float."""

import difflib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from .legal import shown
from .problem import ConfigError, Problem
from .pyslowfast import is_foreign, refusal
from .yaml_file import flatten, read_settings

logger = logging.getLogger(__name__)


class CfgNode(_CfgNode):
    """fvcore's CfgNode (`_BASE_`, freezing) with clear errors; see `merge_from_file` and `merge_from_list`.

    What cannot be merged is told at once, as one ConfigError, after the rest is merged.
    """

    def merge_from_file(self, cfg_filename: str | Path, allow_unsafe: bool = False) -> None:
        """Merge a YAML file. FileNotFoundError when it is missing; ValueError that names it for anything else.

        allow_unsafe: as in fvcore's signature; a file that wants to run code is refused all the same.
        """
        self._merge_pairs(read_settings(cfg_filename), source=f" (in '{cfg_filename}')")

    def merge_from_other_cfg(self, cfg_other: dict) -> None:
        """Merge another config, or a nested dict. cfg_other: as in fvcore's signature."""
        self._merge_pairs(flatten(cfg_other), source="")

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge `KEY VALUE` pairs, `cfg_list`. ConfigError for an odd list, unknown keys, and values of the wrong type."""
        words = [str(word) if isinstance(word, Path) else word for word in cfg_list]
        if len(words) % 2:
            text = f"overrides come as KEY VALUE pairs, but '{words[-1]}' stands alone in: {words}"
            joined = next((word for word in words if isinstance(word, str) and re.fullmatch(r"[A-Z0-9_.]+=.*", word)), None)
            if joined:
                text += f"; write {joined.replace('=', ' ', 1)}, without the sign"
            raise ConfigError([Problem((str(words[-1]),), text)])
        self._merge_pairs(zip(words[0::2], words[1::2]), source=" (override)")

    def _merge_pairs(self, pairs: Iterable[tuple[str, object]], source: str) -> None:
        problems, skipped = [], []
        for key, value in pairs:
            try:
                if is_foreign(str(key)):
                    _check_foreign(key, _decoded(value), source)
                    skipped.append(key)
                else:
                    self._set(str(key), value, source)
            except ConfigError as error:
                problems += error.problems
        if skipped:
            logger.warning("skipped%s, since they change nothing here: PySlowFast's %s", source, ", ".join(skipped))
        if problems:
            raise ConfigError(problems)

    def _set(self, key: str, value: object, source: str) -> None:
        node, name = self._find(key, source)
        try:
            node[name] = _coerce(_decoded(value), node[name], f"{key}{source}")
        except ValueError as error:
            raise ConfigError([Problem((key,), str(error))]) from None

    def _find(self, key: str, source: str) -> tuple["CfgNode", str]:
        *path, name = key.split(".")
        node = self
        for part in path:
            node = node.get(part) if isinstance(node, CfgNode) else None
        if not isinstance(node, CfgNode) or name not in node:
            raise ConfigError([Problem((key,), f"unknown config key {key}{source}{self._nearest(key)}")])
        return node, name

    def _nearest(self, key: str) -> str:
        if "=" in key:
            return f"; write {key.replace('=', ' ', 1)}, without the sign"
        legal = [name for name, _ in flatten(self)]
        close = difflib.get_close_matches(key[:100], legal, n=1, cutoff=0.6)
        close = close or [name for name in legal if name.split(".")[-1] == key.split(".")[-1]][:1]
        return f": did you mean {close[0]}?" if close else ": `mutual3d run --cfg CONFIG --print-config` prints every key"


def _check_foreign(key: str, value: object, source: str) -> None:
    why = refusal(key, value)
    if why:
        raise ConfigError([Problem((key,), f"{key}{source} is {shown(value)}: {why}")])


def _decoded(value: object) -> object:
    """A value as it is meant: text that reads as a Python literal is that literal."""
    try:
        return _CfgNode._decode_cfg_value(value)
    except (RecursionError, MemoryError):
        return value


def _read_list(text: str) -> object:
    """A list of words as a YAML file has it, `[smallest, random]`, which Python would want in quotes; or the text."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text


def _coerce(value: object, original: object, where: str) -> object:
    """`value` as the type of `original`: int for float, tuple for list; ValueError that names both types otherwise."""
    if isinstance(original, CfgNode):
        raise ValueError(f"{where} is a group of keys and cannot be set to {shown(value)}: set one of {', '.join(original)}")
    if isinstance(value, type(original)) and isinstance(value, bool) == isinstance(original, bool):
        return [_number(part) for part in value] if isinstance(value, list) else value
    if isinstance(original, (list, tuple)) and isinstance(value, str):
        value = _read_list(value)
    if value is None and original == 0.0:
        return 0.0
    if isinstance(original, float) and isinstance(value, str) and re.fullmatch(r"[-+]?\.?(nan|inf)", value.lower()):
        return float(value.lower().replace(".", ""))  # refused as what it is, not as a word
    if isinstance(original, float) and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value)
    if isinstance(original, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(original)(_number(part) for part in value)
    if isinstance(original, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    kinds = type(value).__name__, type(original).__name__
    raise ValueError(f"{where} is {shown(value)}, of type {kinds[0]}: it must be of type {kinds[1]}, like {original!r}")


def _number(part: object) -> object:
    """`1e-5`, which YAML reads as text, as the number that it is; anything else as it is."""
    if isinstance(part, str) and re.fullmatch(r"[-+]?\d{1,20}(\.\d{0,20})?[eE][-+]?\d{1,3}", part):
        return float(part)
    return part


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
