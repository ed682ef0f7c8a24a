"""What the arguments of networks may be: types and limits, so that no file and no typo asks for endless work."""

import dataclasses
import inspect
import math
import numbers
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from mutual3d.sampling import SearchSpace


class Limit(NamedTuple):
    """Legal values of a number, both ends included but for `above`; of each number of a list of at most `max_entries`."""

    kind: type
    min: float
    max: float
    above: bool = False
    max_entries: int | None = None


# What a network's shapes cannot show, such as strides, is bounded by what is known to be useful, generously.
LIMITS: dict[str, Limit] = {
    "num_classes": Limit(int, 1, 1_000_000),
    "depth": Limit(int, 1, 2000),
    "width_per_group": Limit(int, 1, 4096),
    "widen_factor": Limit(int, 1, 1000),
    "se_reduction": Limit(int, 0, 1024),
    "refine_channels": Limit(int, 1, 4096),
    "width_factor": Limit(float, 0, 64, above=True),
    "depth_factor": Limit(float, 0, 50, above=True),
    "bottleneck_factor": Limit(float, 0, 64, above=True),
    "dim_c1": Limit(int, 1, 4096),
    "dim_c5": Limit(int, 1, 65536),
    "dim_fc": Limit(int, 1, 65536),
    "pyramid_channels": Limit(int, 1, 4096),
    "box_features": Limit(int, 1, 65536),
    "mask_channels": Limit(int, 1, 4096),
    "anchor_sizes": Limit(int, 1, 8192, max_entries=16),
    "num_proposals": Limit(int, 1, 100_000),
    "num_detections": Limit(int, 1, 100_000),
    "sampled_boxes": Limit(int, 1, 100_000),
    "alpha": Limit(int, 1, 256),
    "beta_inv": Limit(int, 0, 4096),
    "fusion_ratio": Limit(int, 1, 64),
    "fusion_kernel": Limit(int, 1, 63),
    "dropout_rate": Limit(float, 0, 1),
    "fc_init_std": Limit(float, 0, 100),
    "strides": Limit(int, 0, 16, max_entries=16),
    "dilations": Limit(int, 0, 32, max_entries=16),
    "temporal_blocks": Limit(int, 0, 2000, max_entries=16),
    "interpolated_sizes": Limit(int, 1, 8192, max_entries=256),
    "unseen_frames": Limit(int, 1, 8192, max_entries=256),
    "num_features": Limit(int, 1, 4096),
    "num_blocks": Limit(int, 1, 1000),
    "expansion": Limit(int, 1, 64),
    "scale": Limit(int, 1, 16),
    "mean": Limit(float, 0, 1, max_entries=3),
    "std": Limit(float, 0, 1, above=True, max_entries=3),
    "in_channels": Limit(int, 1, 64),
    "channels": Limit(int, 1, 100_000, max_entries=16),
    "kernel_sizes": Limit(int, 1, 63, max_entries=16),
    "hidden_features": Limit(int, 1, 100_000),
}
_FLAGS = ("zero_init_final_bn", "small_images", "scale_res2", "temporal_pool", "bicubic_start")
_DETECTION = {"resolution": Limit(int, 1, 64)}
_SPACE: dict[str, Limit] = {
    "width_range": Limit(float, 0, 64, above=True, max_entries=2),
    "spatial_sizes": Limit(int, 1, 8192, max_entries=1024),
    "temporal_sizes": Limit(int, 1, 8192, max_entries=1024),
    "listed_widths": Limit(float, 0, 64, above=True, max_entries=256),
    "divisor": Limit(int, 1, 4096),
    "width_groups": Limit(int, 1, 100_000),
}
_MOST_PRIVATE_SIZES = 256


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for the first argument of network `name` of a wrong type or outside its limits.

    Arguments that are not in the table are a stranger's own, and the builder's business.
    """
    for key, value in arguments.items():
        title = f"the network '{name}': {key}"
        if key in LIMITS:
            _check(title, _flat(value) if key == "temporal_blocks" else value, LIMITS[key])
        elif key in _FLAGS and not isinstance(value, bool):
            raise ValueError(f"{title} is {brief(value)}: give True or False")
        elif key == "detection" and value is not None:
            _check_detection(title, value)


def _flat(value: object) -> object:
    """A list in which pairs, one number for each of two pathways, are written out; anything else as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    parts = [part if isinstance(part, (list, tuple)) and len(part) == 2 else [part] for part in value]
    return [number for part in parts for number in part]


def _check_detection(title: str, value: object) -> None:
    if not isinstance(value, Mapping) or not value.keys() <= {"resolution", "aligned"}:
        raise ValueError(f"{title} is {brief(value)}: give None, or a dict with resolution and aligned")
    for key, limit in _DETECTION.items():
        # The lower end, and what it is called in a config, is the pool's own business.
        if key in value and not (_is_number(value[key], limit.kind) and value[key] < limit.min):
            _check(f"{title}.{key}", value[key], limit)
    if not isinstance(value.get("aligned", True), bool):
        raise ValueError(f"{title}.aligned is {brief(value['aligned'])}: give True or False")


def _groups(builder: Callable) -> dict[str, type]:
    """{parameter: the dataclass that it is} of those that arguments give by their fields; a space is given as it is."""
    hints = get_type_hints(builder)
    kinds = {key: hints.get(key) for key in inspect.signature(builder).parameters}
    return {key: kind for key, kind in kinds.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not SearchSpace}


def flat_signature(builder: Callable) -> inspect.Signature:
    """The builder's signature with the fields of its dataclasses in their place."""
    groups, parameters = _groups(builder), []
    for key, parameter in inspect.signature(builder).parameters.items():
        own = inspect.signature(groups[key]).parameters.values() if key in groups else [parameter]
        parameters += [part if part.kind is part.VAR_KEYWORD else part.replace(kind=part.KEYWORD_ONLY) for part in own]
    return inspect.Signature(parameters)


def group_arguments(builder: Callable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Plain arguments as the builder takes them: its dataclasses made of their fields."""
    left, groups = dict(arguments), _groups(builder)
    for key, kind in groups.items():
        left[key] = kind(**{field.name: left.pop(field.name) for field in dataclasses.fields(kind) if field.name in left})
    return left


def check_signature(name: str, builder: Callable, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an argument that the builder of network `name` does not take, or needs and is not given."""
    signature = flat_signature(builder)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(f"the network '{name}': {error}; its arguments are {', '.join(signature.parameters)}") from None


def read_space(space: SearchSpace | Mapping[str, Any]) -> SearchSpace:
    """A SearchSpace from its fields; ValueError, with the legal values, for what is none."""
    if isinstance(space, SearchSpace):
        return space
    fields = [field.name for field in dataclasses.fields(SearchSpace)]
    if not isinstance(space, Mapping) or not {"width_range", "spatial_sizes"} <= space.keys() <= set(fields):
        raise ValueError(f"space is {brief(space)}: give a SearchSpace, or a dict of its fields {', '.join(fields)}")
    for key, value in space.items():
        if key == "widths_by":
            continue
        # SearchSpace itself says what is wrong with `widths_by`, with an empty list, and with a number that is too small.
        if not (_is_number(value, _SPACE[key].kind) and value < _SPACE[key].min):
            _check(f"space.{key}", value, _SPACE[key]._replace(min=-math.inf, above=False))
    return SearchSpace(**space)


def check_private_parts(space: SearchSpace, interpolated_sizes: Sequence[int] = (), *, by_frames: bool = False) -> None:
    """Raise ValueError where norms, quantisers of activations or adapters of one's own for each size would be too many.

    interpolated_sizes: sizes in pixels whose parts lie between those of trained ones. by_frames: numbers of frames have them, whatever
    the pixels.
    """
    count, what, keys = len(space.temporal_sizes), "numbers of frames", "private_frames), or adapters (MUTUAL.TEMPORAL_ADAPTERS)"
    if not by_frames:
        count *= len(space.spatial_sizes) + len(interpolated_sizes)
        what, keys = "sizes in space and time", "private_size), or quantisers (MODEL.QUANTIZE.ACTIVATION_BITS)"
    if count > _MOST_PRIVATE_SIZES:
        raise ValueError(f"{count} {what} are to have norms of their own (MUTUAL.BATCHNORM {keys}: at most {_MOST_PRIVATE_SIZES} may")


def wrong_shared_norms(width_range: Sequence[float]) -> str:
    """What to say of a `width_range` that cannot share running statistics which every size adds to; empty where it is one width."""
    if len(set(width_range)) == 1:
        return ""
    return (
        f"MUTUAL.WIDTH_RANGE is {list(width_range)}: with MUTUAL.BATCHNORM shared, whose running statistics are those of all sizes, it must "
        "be one width twice; or set MUTUAL.BATCHNORM calibrated"
    )


def wrong_frames(temporal_sizes: Sequence[int]) -> str:
    """What to say where each of `temporal_sizes`, numbers of frames, is to have something of its own, and there is one; empty for several."""
    if len(temporal_sizes) > 1:
        return ""
    return (
        f"MUTUAL.TEMPORAL_SIZES is {list(temporal_sizes)}: norms and adapters of each number of frames (MUTUAL.BATCHNORM private_frames, "
        "MUTUAL.TEMPORAL_ADAPTERS True) need two or more, of a network that takes clips"
    )


def _check(title: str, value: object, limit: Limit) -> None:
    if limit.max_entries is None:
        if not _is_legal(value, limit):
            raise ValueError(f"{title} is {brief(value)}: give {_describe(limit)}")
        return
    if not isinstance(value, (list, tuple)) or len(value) > limit.max_entries:
        raise ValueError(f"{title} is {brief(value)}: give a list of at most {limit.max_entries} numbers")
    wrong = [number for number in value if not _is_legal(number, limit)]
    if wrong:
        raise ValueError(f"{title} is {brief(value)}: each must be {_describe(limit)}, and {brief(wrong[0])} is not")


def _is_legal(value: Any, limit: Limit) -> bool:
    if not _is_number(value, limit.kind):
        return False
    return limit.min <= value <= limit.max and not (limit.above and value == limit.min)


def _is_number(value: Any, kind: type) -> bool:
    number = numbers.Integral if kind is int else numbers.Real
    is_number = isinstance(value, number) and not isinstance(value, bool)
    return is_number and (isinstance(value, numbers.Integral) or math.isfinite(value))


def _describe(limit: Limit) -> str:
    noun = "a whole number" if limit.kind is int else "a number"
    if limit.min == -math.inf:
        return f"{noun} of at most {limit.max:g}"
    return f"{noun} {f'above {limit.min:g}' if limit.above else f'from {limit.min:g}'} {'and at most' if limit.above else 'to'} {limit.max:g}"


def brief(value: object) -> str:
    """A value for a message, cut short in length and depth: what a file holds may be of any size."""
    return _BRIEF.repr(value) if isinstance(value, _PLAIN) else f"a {type(value).__name__}"


_PLAIN = (str, int, float, bool, type(None), list, tuple, dict)
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 60, 60
