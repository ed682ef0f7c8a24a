"""Adaptive networks: they turn a Configuration into channels for their layers. Nothing under them knows video."""

import importlib
import pkgutil

from .adaptive import AdaptiveNetwork
from .build import build_model
from .create import create_model, load_network
from .registry import NETWORKS, NetworkFacts, register_network

__all__ = ["NETWORKS", "AdaptiveNetwork", "NetworkFacts", "build_model", "create_model", "load_network", "register_network"]

# Every file of this folder registers the networks that it has; none is named anywhere else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
