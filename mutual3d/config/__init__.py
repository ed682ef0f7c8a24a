"""Every key of a run beside its sentence; merging, overriding and checking."""

from .check import check_config
from .defaults import get_cfg
from .node import CfgNode

__all__ = ["CfgNode", "check_config", "get_cfg", "load_config"]


def load_config(path, overrides=()):
    """Defaults, then the YAML at `path` (None for none), then `KEY VALUE` pairs; checked and frozen."""
    cfg = get_cfg()
    if path is not None:
        cfg.merge_from_file(path)
    cfg.merge_from_list([word for word in overrides if word != "--opts"])
    check_config(cfg)
    cfg.freeze()
    return cfg
