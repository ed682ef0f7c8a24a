"""Calls that name their configuration: modules that share a network's parameters, and a view of it at one configuration."""

from typing import Any, TypeVar

import torch
import torch.nn as nn

from mutual3d.sampling import Cascade, Configuration

from .extraction import Inputs

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class ConfigurationView(nn.Module):
    """A network or a deployed model at one configuration, for as many threads as hold it: `model.at(c)`.

    It has no weights of its own: parameters, statistics, device and dtype are the model's, and follow it. It evaluates,
    whatever mode the model is in. Called as the model is.
    """

    def __init__(self, model: nn.Module, configuration: Configuration | Cascade) -> None:
        super().__init__()
        self.model, self.configuration, self.training = model, configuration, False

    def forward(self, *inputs: Inputs, **options: torch.Tensor | None) -> torch.Tensor:
        return self.model(*inputs, configuration=self.configuration, **options)

    def train(self, mode: bool = True) -> "ConfigurationView":
        """Nothing: a view only evaluates, and the mode of the model is the model's."""
        return self

    def extra_repr(self) -> str:
        return f"configuration={self.configuration}"


def share(module: AnyModule, twins: dict[int, nn.Module]) -> AnyModule:
    """A module of the same class and attributes over the same parameters and buffers, its children likewise.

    twins: {id of a module: its twin}, which it fills. The dicts that hold parameters and buffers are the module's own, so
    that whatever is put into them later, by a move to a device or a load, is seen here too.
    """
    if id(module) not in twins:
        made = twins[id(module)] = module.__class__.__new__(module.__class__)
        made.__dict__.update(module.__dict__)
        made.__dict__.pop("_compiled_call_impl", None)
        children = module._modules.items()
        made.__dict__["_modules"] = {
            name: None if child is None else share(child, twins) for name, child in children
        }
    twin = twins[id(module)]
    assert isinstance(twin, type(module))
    return twin


def keep(cache: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    """Put a value into a cache, the oldest ones out. Callers hold the lock; readers need none.

    At most `limit` values stay, each under its `key`.
    """
    while len(cache) >= limit and key not in cache:
        del cache[next(iter(cache))]
    cache[key] = value
