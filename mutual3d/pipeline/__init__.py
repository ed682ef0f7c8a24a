"""From a config to a run: what needs every room below."""

from .build import check_machine, load_config, tell_of_devices

__all__ = ["check_machine", "load_config", "tell_of_devices"]
