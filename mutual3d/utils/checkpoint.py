"""Weights from a file into a network, with every mismatch explained."""

import logging
import os
import re
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
import torch.nn as nn

from .files import load_tensors

logger = logging.getLogger(__name__)

# What DataParallel and torch.compile put before the names of the network that they wrap, in any order and number.
_WRAPPER = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")


@runtime_checkable
class NamesClassifier(Protocol):
    """A network that says which of its layers depends on the classes: `classifier_name`, dotted; None for none."""

    classifier_name: str | None


class ClassCountError(ValueError):
    """Weights fit but for the number of classes: of `there` in the file `source`, and of `here` in the network.

    fix: what to do, in the words of whoever asked.
    """

    def __init__(self, source: str | os.PathLike, there: int | None, here: int, fix: str) -> None:
        super().__init__(f"'{source}' was made for {there} classes and this network has {here}: {fix}")
        self.source, self.there, self.here = source, there, here


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint of this project or of PySlowFast; ValueError when the file holds none."""
    content = load_tensors(path)
    state = content.get("model_state", content) if isinstance(content, dict) else None
    if not state or not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"'{path}' holds no weights: expected a checkpoint with 'model_state'")
    return state


def load_weights(
    model: nn.Module, state: Mapping[str, torch.Tensor], source: str | os.PathLike, reset_head: bool = False
) -> None:
    """Load a state dict that fits `model` exactly and holds finite numbers alone; ValueError that names `source`, what
    differs and the fix, before anything is loaded.

    Prefixes that DataParallel and torch.compile put before all names are left out, with a warning. reset_head: the
    classifier's last layer is left as it is, whatever the file has for it, with a warning that says so.
    """
    state = check_weights(model, state, source, reset_head)
    if reset_head:
        entries = _classifier_entries(model)
        logger.warning("the classifier is not taken from '%s': %s start anew", source, ", ".join(entries))
    model.load_state_dict(state)


def check_weights(
    model: nn.Module, state: Mapping[str, torch.Tensor], source: str | os.PathLike, reset_head: bool = False
) -> dict[str, torch.Tensor]:
    """The whole state dict that `load_weights` loads; `model` may lie on the meta device, where only shapes count.

    reset_head: as of `load_weights`. Raises ValueError as that does.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"'{source}' holds no weights: the state dict is a {type(state).__name__}, not a dict of tensors")
    own = model.state_dict()
    state = _unwrapped(own, state, source)
    no_weights = [str(key) for key, value in state.items() if not _holds_numbers(key, value, own)]
    if no_weights:
        raise ValueError("\n".join([
            f"'{source}' holds entries that are no weights:", *list_some("no tensor of numbers", no_weights),
            "give a checkpoint that a run wrote",
        ]))  # fmt: skip
    # Published files of older PyTorch versions do not count batches, and nothing here depends on the count.
    counts = {key for key in own if key.endswith("num_batches_tracked") and key not in state}
    kept = _classifier_entries(model, source) if reset_head else []
    theirs = {key: value for key, value in state.items() if key not in kept}
    missing = [key for key in own if key not in theirs and key not in counts and key not in kept]
    unexpected = [key for key in theirs if key not in own]
    reshaped = [key for key in own if key in theirs and own[key].shape != theirs[key].shape]
    if missing or unexpected or reshaped:
        fitting = sum(key in own for key in theirs) - len(reshaped)
        if reshaped and not missing and not unexpected and set(reshaped) <= set(_classifier_entries(model)):
            there, here = len(theirs[reshaped[0]]), len(own[reshaped[0]])
            fix = "set MODEL.NUM_CLASSES to match, or TRAIN.CHECKPOINT_RESET_HEAD True to train a new classifier"
            raise ClassCountError(source, there, here, fix)
        raise ValueError(_describe(own, theirs, source, missing, unexpected, reshaped, fitting))
    _refuse_unsound(theirs, source)
    return {key: theirs.get(key, tensor) for key, tensor in own.items()}


def _holds_numbers(key: object, value: object, own: Mapping[str, torch.Tensor]) -> bool:
    """Whether an entry is an ordinary tensor of the kind of number, real or whole, that the network has there."""
    if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    return key not in own or value.is_floating_point() or not (own[key].is_floating_point() or value.is_complex())


def _unwrapped(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: str | os.PathLike
) -> dict[str, torch.Tensor]:
    """`state` under the network's own names, where wrappers put prefixes before them."""
    renamed = {}
    for key in state:
        bare = _WRAPPER.sub("", key) if isinstance(key, str) else key
        renamed[key] = bare if key not in own and bare in own else key
    changed = [key for key, name in renamed.items() if key != name]
    twice = sorted({renamed[key] for key in changed if list(renamed.values()).count(renamed[key]) > 1}) if changed else []
    if twice:
        raise ValueError("\n".join([
            f"'{source}' holds the same weights twice, once under a wrapper's prefix:", *list_some("twice", twice),
            "keep one of the two",
        ]))  # fmt: skip
    if changed:
        prefix = _WRAPPER.search(changed[0])
        assert prefix is not None, "a name changes where it has the prefix alone"
        logger.warning("'%s': the prefix '%s', a wrapper's, is left out of %d names", source, prefix[0], len(changed))
    return {renamed[key]: value for key, value in state.items()}


def _refuse_unsound(state: Mapping[str, torch.Tensor], source: str | os.PathLike) -> None:
    """Weights must be finite, and variances not negative: anything else gives NaN scores, or none of the file's own."""
    unsound = [f"{key} (not finite)" for key, value in state.items() if not torch.isfinite(value).all()]
    unsound += [
        f"{key} (negative)" for key, value in state.items() if key.endswith("running_var") and (value < 0).any()
    ]
    if unsound:
        raise ValueError("\n".join([
            f"'{source}' holds weights that cannot be right ({len(unsound)} of {len(state)} entries):",
            *list_some("damaged", unsound),
            "its training diverged or the file is damaged: take an older checkpoint",
        ]))  # fmt: skip


def _classifier_entries(model: nn.Module, source: str | os.PathLike | None = None) -> list[str]:
    """The model's keys of the last layer alone: what comes before it in a head knows no classes."""
    name = model.classifier_name if isinstance(model, NamesClassifier) else None
    entries = [] if name is None else [key for key in model.state_dict() if key.startswith(f"{name}.")]
    if source is not None and not entries:
        raise ValueError(
            f"'{source}': the classifier is to start anew (TRAIN.CHECKPOINT_RESET_HEAD), and {type(model).__name__} does not "
            "say which layer that is: give its constructor the name, AdaptiveNetwork(..., classifier_name=\"head.projection\")"
        )
    return entries


def _describe(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: str | os.PathLike, missing: list[str],
    unexpected: list[str], reshaped: list[str], fitting: int,
) -> str:  # fmt: skip
    wanted = fitting + len(missing) + len(reshaped)
    lines = [f"'{source}' is a checkpoint of another network ({fitting} of {wanted} entries fit):"]
    lines += list_some("missing in the file", missing)
    lines += list_some("unknown to this network", unexpected)
    lines += list_some("of another shape", [f"{k} {tuple(state[k].shape)}, not {tuple(own[k].shape)}" for k in reshaped])
    return "\n".join(lines + ["check MODEL.MODEL_NAME and the network's keys in the config"])


def list_some(title: str, names: list[str], limit: int = 4) -> list[str]:
    """A line for an error message: the first `limit` names under a title, and how many more; no line for no names."""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return [f"  {title}: {', '.join(names[:limit])}{more}"] if names else []
