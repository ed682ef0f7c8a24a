"""Weights from a file into a network, with every mismatch explained."""

import logging

from .files import load_tensors

logger = logging.getLogger(__name__)

# Where networks keep the layer that depends on the classes.
_CLASSIFIER = ("head.projection.", "classifier.", "fc.")


def read_weights(path):
    """The state dict in a checkpoint of this project or of PySlowFast; ValueError when the file holds none."""
    content = load_tensors(path)
    state = content.get("model_state", content) if isinstance(content, dict) else None
    if not state or not isinstance(state, dict) or not all(hasattr(value, "shape") for value in state.values()):
        raise ValueError(f"'{path}' holds no weights: expected a checkpoint with 'model_state'")
    return state


def load_weights(model, state, source, reset_head=False):
    """Load a state dict that fits `model` exactly; ValueError that names `source`, what differs and the fix.

    reset_head: the classifier's last layer is left as it is, whatever the file has for it, with a warning that says so.
    """
    own = model.state_dict()
    # Published files of older PyTorch versions do not count batches, and nothing here depends on the count.
    counts = {key: own[key] for key in own if key.endswith("num_batches_tracked")}
    state = {**counts, **state, **(_own_classifier(own, source) if reset_head else {})}
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or reshaped:
        raise ValueError(_describe(own, state, source, missing, unexpected, reshaped))
    model.load_state_dict(state)


def _own_classifier(own, source):
    """The entries of the last layer alone: what comes before it in a head knows no classes."""
    last = [key for key in own if key.startswith(_CLASSIFIER)][-1].rpartition(".")[0]
    entries = {key: value for key, value in own.items() if key.startswith(f"{last}.")}
    logger.warning("the classifier is not taken from '%s': %s start anew", source, ", ".join(entries))
    return entries


def _describe(own, state, source, missing, unexpected, reshaped):
    if reshaped and not missing and not unexpected and all(key.startswith(_CLASSIFIER) for key in reshaped):
        return (
            f"'{source}' was made for {len(state[reshaped[0]])} classes and this network has {len(own[reshaped[0]])}: "
            "set MODEL.NUM_CLASSES to match, or TRAIN.CHECKPOINT_RESET_HEAD True to train a new classifier"
        )
    fitting = len(own) - len(missing) - len(reshaped)
    lines = [f"'{source}' is a checkpoint of another network ({fitting} of {len(own)} entries fit):"]
    lines += list_some("missing in the file", missing)
    lines += list_some("unknown to this network", unexpected)
    lines += list_some("of another shape", [f"{k} {tuple(state[k].shape)}, not {tuple(own[k].shape)}" for k in reshaped])
    return "\n".join(lines + ["check MODEL.MODEL_NAME and the network's keys in the config"])


def list_some(title, names, limit=4):
    """A line for an error message: the first `limit` names under a title, and how many more; no line for no names."""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return [f"  {title}: {', '.join(names[:limit])}{more}"] if names else []
