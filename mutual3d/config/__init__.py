"""Every key of a run beside its sentence; merging, overriding and checking."""

from .check import ConfigError, Problem, check_config
from .defaults import KEYS, get_cfg
from .keys import IS_REFUSED, IS_TOLD, TAKES_EFFECT, Key, Resume
from .node import CfgNode

__all__ = [
    "CfgNode", "ConfigError", "IS_REFUSED", "IS_TOLD", "KEYS", "Key", "Problem", "Resume", "TAKES_EFFECT", "check_config",
    "get_cfg", "load_config",
]  # fmt: skip


def load_config(path, overrides=()):
    """Defaults, then the YAML at `path` (None for none), then `KEY VALUE` pairs; checked and frozen."""
    cfg = get_cfg()
    if path is not None:
        cfg.merge_from_file(path)
    cfg.merge_from_list([word for word in overrides if word != "--opts"])
    check_config(cfg)
    cfg.freeze()
    return cfg
