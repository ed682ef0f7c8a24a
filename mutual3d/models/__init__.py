"""Adaptive networks: they turn a Configuration into channels for their layers. Nothing under them knows video."""

from .adaptive import AdaptiveNetwork
from .build import MODEL_REGISTRY, build_model, create_model, load_network

__all__ = ["AdaptiveNetwork", "MODEL_REGISTRY", "build_model", "create_model", "load_network"]
