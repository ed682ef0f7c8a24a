"""The config of a run: every key with its default, to be merged into and checked."""

from .check import check_config
from .defaults import DEFAULTS
from .node import CfgNode


class WholeCfgNode(CfgNode):
    """A CfgNode that has every key, and so can be checked as a whole."""

    def check(self) -> "WholeCfgNode":
        """ConfigError, a ValueError, for a config that cannot work; see `check_config`. Returns the config."""
        check_config(self)
        return self


def get_cfg() -> CfgNode:
    """A fresh copy of the defaults."""
    cfg = WholeCfgNode()
    cfg.update(DEFAULTS.clone())
    return cfg
