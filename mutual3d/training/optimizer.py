"""Optimizers over parameter groups: norms apart from the rest."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn

# Optimizers that scale each parameter's step by its gradients' moments.
_ADAPTIVE: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    model: nn.Module, *, weight_decay: float, bn_weight_decay: float = 0.0, no_decay_1d: bool = False, no_decay_depthwise: bool = False
) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one group: {params, weight_decay, name}. Empty groups are left out.

    Norms, bias included, decay by `bn_weight_decay`; everything else by `weight_decay`, whatever its number of
    dimensions, but for parameters of one dimension when `no_decay_1d`, and for filters of convolutions that see one channel each
    when `no_decay_depthwise` (MobileNet v1: Howard et al., 3.2).
    """
    norms, no_decay, others = [], [], []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if isinstance(module, _NORMS):
                norms.append(parameter)
            elif (no_decay_1d and parameter.ndim == 1) or (no_decay_depthwise and _is_depthwise(module) and parameter.ndim > 1):
                no_decay.append(parameter)
            else:
                others.append(parameter)
    groups = (("norms", norms, bn_weight_decay), ("no_decay", no_decay, 0.0), ("others", others, weight_decay))
    return [{"name": n, "params": p, "weight_decay": d} for n, p, d in groups if p]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1


def build_optimizer(
    model: nn.Module,
    *,
    base_lr: float,
    method: str = "sgd",
    momentum: float = 0.9,
    dampening: float = 0.0,
    nesterov: bool = True,
    betas: Sequence[float] = (0.9, 0.999),
    objective: nn.Module | None = None,
    **decay: Any,
) -> torch.optim.Optimizer:
    """An optimizer; `decay` goes to `parameter_groups`. The parameters of an `objective` join without decay (RS-Net, 4.1).

    method: sgd, adam or adamw (SOLVER.OPTIMIZING_METHOD). base_lr, momentum, dampening, nesterov: as of torch's SGD. betas: as of
    torch's Adam and AdamW, which read these instead of the last three. Raises ValueError for another method.
    """
    groups = parameter_groups(model, **decay)
    own = list(objective.parameters()) if objective is not None else []
    if own:
        groups.append({"name": "objective", "params": own, "weight_decay": 0.0})
    if method == "sgd":
        return torch.optim.SGD(groups, lr=base_lr, momentum=momentum, dampening=dampening, nesterov=nesterov)
    if method not in _ADAPTIVE:
        raise ValueError(f"there is no optimizer '{method}': choose among sgd, {', '.join(_ADAPTIVE)} (SOLVER.OPTIMIZING_METHOD)")
    return _ADAPTIVE[method](groups, lr=base_lr, betas=(betas[0], betas[1]))


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Take the momenta, or moments, of a saved state, and keep this optimizer's own settings: rates, decays, momentum.

    `load_state_dict` alone would put the saved settings in place of those that the run was started with. Raises ValueError
    for a state of other groups of parameters.
    """
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own):
        group.update(settings)
