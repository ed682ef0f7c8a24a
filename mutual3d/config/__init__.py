"""Every key of a run beside its sentence; merging, overriding and checking."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from .check import Check, check_config, find_problems
from .defaults import KEYS
from .keys import IS_REFUSED, IS_TOLD, TAKES_EFFECT, Key, Resume
from .named import find_config, list_configs
from .node import CfgNode
from .problem import ConfigError, Problem
from .resume import Changes, changed_settings
from .whole import get_cfg

__all__ = [
    "CfgNode", "Changes", "Check", "ConfigError", "IS_REFUSED", "IS_TOLD", "KEYS", "Key", "Problem", "Resume", "TAKES_EFFECT", "changed_settings", "check_config",
    "find_config", "get_cfg", "list_configs", "load_config",
]  # fmt: skip


def load_config(path: str | Path | None, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> CfgNode:
    """Defaults, then the YAML at `path` (None for none), then `overrides`, `KEY VALUE` words; checked and frozen.

    checks: what the rooms above know of a config and this one cannot; `mutual3d.pipeline.load_config` has all of them.
    Raises ConfigError, a ValueError, with every mistake; FileNotFoundError for a missing file.
    """
    cfg = get_cfg()
    problems: list[Problem] = []
    merges: list[Callable[[], None]] = [functools.partial(cfg.merge_from_list, [word for word in overrides if word != "--opts"])]
    if path is not None:
        merges.insert(0, functools.partial(cfg.merge_from_file, path))
    for merge in merges:
        try:
            merge()
        except ConfigError as error:
            problems += error.problems
    # What could not be merged has its default, and nothing more is said of it.
    wrong = {key for problem in problems for key in problem.keys}
    problems += [problem for problem in find_problems(cfg, checks) if not wrong & set(problem.keys)]
    if problems:
        raise ConfigError(problems)
    cfg.freeze()
    return cfg
