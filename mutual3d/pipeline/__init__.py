"""From a config to a run: what needs every room below."""

from .build import load_config, prepare_machine

__all__ = ["load_config", "prepare_machine"]
