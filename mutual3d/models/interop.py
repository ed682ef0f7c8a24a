"""Weights under other names: PySlowFast's, its Caffe2 zoo's, PyTorchVideo's, torchvision's ResNets', and those of a classifier for what is
built on it.

A format is data: the rules that rename this project's keys, applied in order. Read the other way, the same table of
names brings a checkpoint here, so that both directions cannot disagree. Nothing is dropped in silence: every
conversion comes with a Report, and what fits only in part is refused.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mutual3d.utils.checkpoint import ClassCountError, check_weights, list_some, read_weights
from mutual3d.utils.files import load_tensors
from mutual3d.utils.pickles import load_arrays

from .adaptive import AdaptiveNetwork
from .create import create_model

logger = logging.getLogger("mutual3d")

HEAD = ("head.projection.weight", "head.projection.bias")
BN_EPS = 1e-5
# What a norm holds for it to return its input.
_IDENTITY = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - BN_EPS}
_STAGES = (1, 2, 3, 4)
_NOTHING = r"(?!)"
# (pattern, replacement) of re.sub, applied in order.
Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Format:
    """How a project names the entries of a network.

    rules: {architecture: ((pattern, replacement), ...)}, applied in order with `re.sub` to keys of this project.
    absent: pattern of own keys that the format has no entry for. ignored: pattern of its entries that are no weights of
    the network. legacy: (pattern, replacement) of spellings in its older files. exported: whether it can be written.
    """

    rules: Mapping[str, Rules]
    absent: str = _NOTHING
    ignored: str = _NOTHING
    legacy: Rules = ()
    exported: bool = True


# ---- Caffe2: PySlowFast's .pkl files. `t_` is the Fast pathway; a fusion is named after the last block before it. ----

_CAFFE2 = (
    (r"^s1_fuse\.conv_f2s", "t_pool1_subsample"),
    (r"^s1_fuse\.bn", "t_pool1_subsample_bn"),
    (r"^s(\d)_fuse\.conv_f2s", r"t_res\1_<last \1>_branch2c_bn_subsample"),
    (r"^s(\d)_fuse\.bn", r"t_res\1_<last \1>_branch2c_bn_subsample_bn"),
    (r"^s1\.pathway0_stem\.bn", "res_conv1_bn"),
    (r"^s1\.pathway0_stem\.conv", "conv1"),
    (r"^s1\.pathway1_stem\.bn", "t_res_conv1_bn"),
    (r"^s1\.pathway1_stem\.conv", "t_conv1"),
    (r"^s(\d)\.pathway0_res(\d+)\.", r"res\1_\2_"),
    (r"^s(\d)\.pathway1_res(\d+)\.", r"t_res\1_\2_"),
    (r"branch2\.se\.", "branch2b_bn_"),
    (r"branch2\.", "branch2"),
    (r"^head\.projection", "pred"),
    (r"^head\.", ""),
    (r"bn\.weight$", "bn_s"),
    (r"bn\.bias$", "bn_b"),
    (r"bn\.running_mean$", "bn_rm"),
    (r"bn\.running_var$", "bn_riv"),
    (r"\.weight$", "_w"),
    (r"\.bias$", "_b"),
)

# ---- PyTorchVideo: blocks.0 is the stem, blocks.1 to 4 the stages; SlowFast pools in blocks.5, before its head. ------

_PYTORCHVIDEO_BLOCK = (
    (r"\.branch1\.", ".branch1_conv."),
    (r"\.branch1_bn\.", ".branch1_norm."),
    (r"\.branch2\.([abc])\.", r".branch2.conv_\1."),
    (r"\.branch2\.([abc])_bn\.", r".branch2.norm_\1."),
)
_PYTORCHVIDEO_SLOW = (
    (r"^s1\.pathway0_stem\.conv\.", "blocks.0.conv."),
    (r"^s1\.pathway0_stem\.bn\.", "blocks.0.norm."),
    *((rf"^s{i + 1}\.pathway0_res", f"blocks.{i}.res_blocks.") for i in _STAGES),
    *_PYTORCHVIDEO_BLOCK,
    (r"^head\.projection\.", "blocks.5.proj."),
)
# A pool after res2 is a block of its own.
_PYTORCHVIDEO_POOLED = (
    (r"^s1\.pathway0_stem\.conv\.", "blocks.0.conv."),
    (r"^s1\.pathway0_stem\.bn\.", "blocks.0.norm."),
    *((rf"^s{i + 1}\.pathway0_res", f"blocks.{i if i == 1 else i + 1}.res_blocks.") for i in _STAGES),
    *_PYTORCHVIDEO_BLOCK,
    (r"^head\.projection\.", "blocks.6.proj."),
)
_PYTORCHVIDEO = {
    "slow": _PYTORCHVIDEO_SLOW,
    "c2d": _PYTORCHVIDEO_POOLED,
    "i3d": _PYTORCHVIDEO_POOLED,
    "slowfast": (
        (r"^s1\.pathway(\d)_stem\.conv\.", r"blocks.0.multipathway_blocks.\1.conv."),
        (r"^s1\.pathway(\d)_stem\.bn\.", r"blocks.0.multipathway_blocks.\1.norm."),
        *((rf"^s{i}_fuse\.", f"blocks.{i - 1}.multipathway_fusion.") for i in _STAGES),
        (r"_fusion\.conv_f2s\.", "_fusion.conv_fast_to_slow."),
        (r"_fusion\.bn\.", "_fusion.norm."),
        *((rf"^s{i + 1}\.pathway(\d)_res", rf"blocks.{i}.multipathway_blocks.\1.res_blocks.") for i in _STAGES),
        *_PYTORCHVIDEO_BLOCK,
        (r"^head\.projection\.", "blocks.6.proj."),
    ),
    "x3d": (
        # Its stem calls the spatial convolution conv_t and the temporal one conv_xy.
        (r"^s1\.pathway0_stem\.conv_xy\.", "blocks.0.conv.conv_t."),
        (r"^s1\.pathway0_stem\.conv\.", "blocks.0.conv.conv_xy."),
        (r"\.branch2\.b_bn\.", ".branch2.norm_b.0."),
        (r"\.branch2\.se\.fc1\.", ".branch2.norm_b.1.block.0."),
        (r"\.branch2\.se\.fc2\.", ".branch2.norm_b.1.block.2."),
        (r"^head\.conv_5\.", "blocks.5.pool.pre_conv."),
        (r"^head\.conv_5_bn\.", "blocks.5.pool.pre_norm."),
        (r"^head\.lin_5\.", "blocks.5.pool.post_conv."),
        *_PYTORCHVIDEO_SLOW,
    ),
}

# ---- torchvision: a 2D ResNet of bottlenecks, inflated. --------------------------------------------------------------

_TORCHVISION = (
    (r"^s1\.pathway0_stem\.(conv|bn)\.", r"\g<1>1."),
    *((rf"^s{i + 1}\.pathway0_res", f"layer{i}.") for i in _STAGES),
    (r"\.branch1\.", ".downsample.0."),
    (r"\.branch1_bn\.", ".downsample.1."),
    *((rf"\.branch2\.{letter}\.", f".conv{i}.") for i, letter in enumerate("abc", start=1)),
    *((rf"\.branch2\.{letter}_bn\.", f".bn{i}.") for i, letter in enumerate("abc", start=1)),
)

# ---- A classifier of images, of this project or of torchvision, for a network that is built on one. --------------------

_BODY = ((r"^backbone\.body\.", ""),)

# ---- What a network has that no plain one has, whichever names. --------------------------------------------------------

# Norms of each width's, size's or number of frames' own begin alike, as the plain network's.
_PRIVATE_NORMS = (r"\.norms\.\d+\.", ".")
# Of a number of frames' own: without it, 0, a block's input is what the plain network's is.
_ADAPTERS = r"\.adapter\.filters\.\d+\."

# What DataParallel and torch.compile put before names.
_MODULE = (r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.", "")
FORMATS = {
    "pyslowfast": Format(
        {"slow": (), "c2d": (), "i3d": (), "slowfast": (), "x3d": ()},
        # A norm trained on parts of the batch was once written as the pair `bn` (the whole) and `split_bn` (the parts).
        ignored=r"bn\.split_bn\.",
        legacy=(_MODULE, (r"bn\.bn\.", "bn.")),
    ),
    "caffe2": Format(
        {"slow": _CAFFE2, "c2d": _CAFFE2, "i3d": _CAFFE2, "slowfast": _CAFFE2, "x3d": _CAFFE2},
        absent=r"num_batches_tracked$",
        ignored=r"momentum|(^|_)lr($|_)|model_iter",
    ),
    # PySlowFast's PTV networks hold PyTorchVideo's as `model`.
    "pytorchvideo": Format(_PYTORCHVIDEO, legacy=(_MODULE, (r"^model\.", ""))),
    "torchvision": Format(
        {"slow": _TORCHVISION, "c2d": _TORCHVISION, "i3d": _TORCHVISION}, absent=r"^head\.", ignored=r"^fc\.", legacy=(_MODULE,), exported=False
    ),
    "classifier": Format(
        {"mask_rcnn": _BODY, "refinenet": _BODY}, absent=r"^(?!backbone\.body\.)", ignored=r"^(fc|classifier)\.", legacy=(_MODULE,), exported=False
    ),
}


@dataclass
class Report:
    """What a conversion did with every entry.

    used: {name there: name here}. skipped: {name that was left behind: why}. reshaped: {name here: what was changed}.
    missing: {name here: what it holds, since the file had nothing for it}. is_own: the file has the network's own names.
    class_names: by label, where a file of this project has them.
    """

    title: str
    used: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    is_own: bool = False
    class_names: tuple[str, ...] | None = None

    def __str__(self) -> str:
        counts = ", ".join(f"{len(part)} {name}" for name, part in self._parts().items())
        lines = [f"{self.title}: {counts}"]
        for name, part in self._parts().items():
            lines += [f"{name}:"] * bool(part) + [f"  {left}: {right}" for left, right in part.items()]
        return "\n".join(lines)

    def summary(self) -> str:
        """Three lines: what was read, how many entries came of it, and what did not come as it was."""
        return f"{self.title}\n  {len(self.used)} entries are used\n  {self._rest()}"

    def outcome(self) -> str:
        """One line: how many entries are used, and what did not come as it was."""
        return f"{len(self.used)} entries are used; {self._rest()}"

    def _rest(self) -> str:
        told = {"reshaped": self.reshaped, "skipped": self.skipped, "missing": self.missing}
        rest = ", ".join(f"{len(part)} {name} (as {next(iter(part))})" for name, part in told.items() if part)
        return rest or "none is left out, missing or reshaped"

    def _parts(self) -> dict[str, dict[str, str]]:
        used = {there: "the same name" if there == here else here for there, here in self.used.items()}
        return {"used": used, "skipped": self.skipped, "reshaped": self.reshaped, "missing": self.missing}


def key_map(own: Mapping[str, torch.Tensor], format_name: str, architecture: str) -> dict[str, str | None]:
    """{own key: its name in the format, None where the format has no such entry}, a bijection of the named ones where it can be written.

    No format has norms of one's own or adapters: such norms have the name of the plain network's one norm, and adapters none.
    own: state dict, or any mapping of all keys of a network to tensors. Raises ValueError for an unknown format or an
    architecture that it does not know. format_name: one of FORMATS. architecture: slow, c2d, i3d, slowfast or x3d.
    """
    form = _format(format_name, architecture)
    bare = _norms_without_counterpart(own, format_name, architecture)
    last = _last_blocks(own)
    names = {}
    for key in own:
        plain = _renamed(key, (_PRIVATE_NORMS,))
        is_absent = re.search(form.absent, plain) or re.search(_ADAPTERS, key) or plain.rpartition(".")[0] in bare
        names[key] = None if is_absent else _renamed(plain, form.rules[architecture], last)
    named = [name for key, name in names.items() if name is not None and not _is_private(key)]
    assert len(set(named)) == len(named) or not form.exported, "two keys have one name"
    return names


def _format(format_name: str, architecture: str) -> Format:
    if format_name not in FORMATS:
        raise ValueError(f"there is no format '{format_name}': choose among {', '.join(FORMATS)}")
    rules = FORMATS[format_name].rules
    if architecture not in rules:
        raise ValueError(f"the format {format_name} has no '{architecture}': it has {', '.join(rules)}")
    return FORMATS[format_name]


def _renamed(key: str, rules: Rules, last_blocks: Mapping[str, str] | None = None) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return re.sub(r"<last (\d)>", lambda match: (last_blocks or {})[match[1]], key)


def _is_private(key: str) -> bool:
    """Whether a key is of what a network without norms and adapters of one's own does not have."""
    return bool(re.search(_PRIVATE_NORMS[0], key) or re.search(_ADAPTERS, key))


def _last_blocks(keys: Iterable[str]) -> dict[str, str]:
    """{stage number: number of its last block}, as text."""
    blocks: dict[str, str] = {}
    for stage, block in re.findall(r"^s(\d)\.pathway0_res(\d+)\.", "\n".join(keys), re.MULTILINE):
        blocks[stage] = max(blocks.get(stage, "0"), block, key=int)
    return blocks


def _norms_without_counterpart(own: Mapping[str, torch.Tensor], format_name: str, architecture: str) -> list[str]:
    """Shortcut norms that PyTorchVideo's X3D lacks: where a shortcut's convolution keeps the number of channels."""
    if (format_name, architecture) != ("pytorchvideo", "x3d"):
        return []
    shortcuts = {key: tensor.shape for key, tensor in own.items() if key.endswith(".branch1.weight")}
    return [f"{key.removesuffix('.weight')}_bn" for key, shape in shortcuts.items() if shape[0] == shape[1]]


# ---- From another project --------------------------------------------------------------------------------------------


def recognise_format(state: Mapping, model: AdaptiveNetwork, source: str | os.PathLike = "checkpoint") -> str:
    """The format of a checkpoint's content: the one in whose names most of the network's entries are in the file.

    state: as of `convert_state`. Raises ValueError, naming `source`, where not even half of any format's are.
    """
    names, architecture = set(_unwrapped(state, source)), model.arguments["name"]
    own, shares = model.state_dict(), dict[str, float]()
    for form, rules in FORMATS.items():
        if architecture not in rules.rules:
            continue
        wanted = set(key_map(own, form, architecture).values()) - {None}
        shares[form] = len(wanted & {_renamed(name, rules.legacy) for name in names}) / len(wanted)
    best = max(shares, key=lambda form: shares[form], default=None)
    if best is None or shares[best] < 0.5:
        found = ", ".join(f"{form} {share:.0%}" for form, share in shares.items())
        raise ValueError(
            f"'{source}' has the names of no format that is known for {architecture} (of the network's names there are: "
            f"{found or 'none'}): check MODEL.MODEL_NAME, MODEL.ARCH and RESNET.DEPTH"
        )
    return best


def load_checkpoint(
    model: AdaptiveNetwork,
    path: str | os.PathLike,
    *,
    reset_head: bool | None = False,
    kind: str | None = None,
    inflate: bool = True,
) -> Report:
    """Load a checkpoint of this project or of any of `FORMATS`, recognised by its names, and log in three lines what became
    of a foreign one; returns what was done.

    reset_head, kind: as of `read_checkpoint`. inflate: take kernels without a time axis. Raises ValueError, naming the file,
    for one of another kind or network, and for kernels that would have to be inflated.
    """
    state, report = read_checkpoint(model, path, reset_head=reset_head, kind=kind)
    inflated = sum("inflated" in change for change in report.reshaped.values())
    if inflated and not inflate:
        raise ValueError(f"'{path}' holds {inflated} kernels of images, without a time axis: set TRAIN.CHECKPOINT_INFLATE True")
    model.load_state_dict(state)
    if not report.is_own:
        logger.info("%s", report.summary())
    return report


def read_checkpoint(
    model: AdaptiveNetwork,
    path: str | os.PathLike,
    *,
    reset_head: bool | None = False,
    kind: str | None = None,
    format_name: str | None = None,
) -> tuple[dict[str, torch.Tensor], Report]:
    """(state dict that loads into the network, Report) of a checkpoint of this project or of any of `FORMATS`.

    reset_head: leave the classifier as it is in the network; None does so where the file's has another number of classes,
    with a warning. kind: `pytorch` or `caffe2` where the file is known to be such. format_name: of `FORMATS`; None recognises
    it by the file's names. Raises ValueError, naming the file, for one of another kind or network.
    """
    content, is_caffe2 = (read_source(path, format_name), format_name == "caffe2") if format_name else _read_either(path)
    if kind is not None and is_caffe2 != (kind == "caffe2"):
        there = "caffe2" if is_caffe2 else "pytorch"
        raise ValueError(f"'{path}' is a file of the kind {there}, not {kind}: set TRAIN.CHECKPOINT_TYPE (TEST.CHECKPOINT_TYPE) {there}")
    form = format_name or _foreign_format(content, is_caffe2, model, path)
    if reset_head is None:
        theirs, ours = _numbers_of_classes(content, form, model, path)
        reset_head = theirs is not None and theirs != ours
        if reset_head:
            logger.warning("'%s' was made for %d classes and this network has %d: its classifier is left new", path, theirs, ours)
    if form is not None:
        state, report = convert_state(content, form, model, reset_head=reset_head, source=path)
        # A plain network's of this project, for one with norms of its own, is read as PySlowFast's are.
        report.class_names = _class_names(content)
        return state, report
    own = read_weights(path)
    report = Report(f"{path}, {model.arguments.get('name', 'a network')} under its own names", is_own=True, class_names=_class_names(content))
    state = check_weights(model, own, path, reset_head)
    kept = [key for key in state if reset_head and key.startswith(f"{model.classifier_name}.")]
    report.used.update({key: key for key in state if key not in kept})
    report.missing.update({key: "RE-INITIALISED: the classifier has to be trained" for key in kept})
    if kept:
        logger.warning("the classifier is not taken from '%s': %s start anew", path, ", ".join(kept))
    return state, report


def _class_names(content: Any) -> tuple[str, ...] | None:
    """The names of the classes, by label, in the content of a file; None where it has none."""
    names = content.get("class_names") if isinstance(content, Mapping) else None
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list and names else None


def _foreign_format(content: Any, is_caffe2: bool, model: AdaptiveNetwork, path: str | os.PathLike) -> str | None:
    """The format of a checkpoint that has not the network's own names and shapes; None for one that has, or of no format."""
    own, names = model.state_dict(), _unwrapped(content, path)
    has_foreign_names = sum(_renamed(name, (_MODULE,)) in own for name in names) < len(own) / 2
    # A plain network's, for one with norms or adapters of its own.
    private = [key for key in own if _is_private(key)]
    is_plain = bool(private) and not any(_renamed(name, (_MODULE,)) in private for name in names)
    is_flat = any(isinstance(value, torch.Tensor) and key in own and value.ndim == 4 < own[key].ndim for key, value in names.items())
    is_known = any(model.arguments.get("name") in form.rules for form in FORMATS.values())
    if not is_caffe2 and not (is_known and (has_foreign_names or is_flat or is_plain)):
        return None
    try:
        return recognise_format(content, model, path)
    except ValueError:
        if is_caffe2:
            raise
        return None  # what differs from the network's own names is said then


def _numbers_of_classes(
    content: Any, form: str | None, model: AdaptiveNetwork, path: str | os.PathLike
) -> tuple[int | None, int | None]:
    """Rows of the classifier in the file and in the network; None where there is none. form: the file's, None for own names."""
    own, weights = model.state_dict(), _unwrapped(content, path)
    key = f"{model.classifier_name}.weight"
    name, legacy = (key, (_MODULE,)) if form is None else (key_map(own, form, model.arguments["name"]).get(key), FORMATS[form].legacy)
    rows = [len(value) for there, value in weights.items() if _renamed(there, legacy) == name and np.ndim(value) > 0]
    return (rows[0] if rows else None), (len(own[key]) if key in own else None)


def _read_either(path: str | os.PathLike) -> tuple[Any, bool]:
    """(content, whether it is Caffe2's): torch's files are zip archives, or pickles that begin with torch's own number."""
    try:
        return load_tensors(path), False
    except ValueError as error:
        try:
            return load_arrays(path), True
        except ValueError:
            raise error from None


def read_source(path: str | os.PathLike, source_format: str) -> Any:
    """The content of a checkpoint file of that format, without executing anything in it; ValueError as its readers.

    source_format: one of FORMATS.
    """
    return load_arrays(path) if source_format == "caffe2" else load_tensors(path)


def convert_state(
    state: Mapping,
    source_format: str,
    model_or_arguments: AdaptiveNetwork | Mapping,
    *,
    reset_head: bool = False,
    source: str | os.PathLike = "checkpoint",
) -> tuple[dict[str, torch.Tensor], Report]:
    """(state dict that loads into the network, Report) of another project's weights.

    state: {name: tensor or array}, or a checkpoint's content that holds it (`model_state`, `state_dict`, `blobs`).
    model_or_arguments: the network, or the arguments of `create_model`. reset_head: leave the classifier as the network
    initialised it, whatever the number of classes; torchvision's is never taken. Kernels without a time axis are
    repeated over time and divided by its length (inflation; Carreira and Zisserman, CVPR 2017). Norms of a width's own (S-Net)
    are the first channels of the plain network's.
    PyTorchVideo's X3D has one norm less. Here it becomes one that changes nothing with its running statistics, but
    normalises once training or calibration gives it others.
    Raises ValueError, naming `source`, when any weight is left over, missing, not finite or of another shape.
    source_format: one of FORMATS.
    """
    if isinstance(model_or_arguments, AdaptiveNetwork):
        network = model_or_arguments
    else:
        network = create_model(**model_or_arguments)
    own, architecture = network.state_dict(), network.arguments["name"]
    names = key_map(own, source_format, architecture)
    report = Report(f"{source}, {source_format} -> {architecture}")
    theirs = _weights(state, source_format, report, source)
    match = _Match(own, names, theirs, report, optional=HEAD if reset_head else ())
    if match.unfit or match.lost or match.unknown:
        raise match.misfit(source, source_format, architecture)
    norms = _norms_without_counterpart(own, source_format, architecture)
    return check_weights(network, match.fill(norms), source), report


def _weights(
    state: Mapping, source_format: str, report: Report, source: str | os.PathLike
) -> dict[str, torch.Tensor]:
    """{up-to-date name: tensor}; entries that are no weights go to `report.skipped`."""
    form, weights = FORMATS[source_format], dict[str, torch.Tensor]()
    for name, value in _unwrapped(state, source).items():
        if re.search(form.ignored, name):
            report.skipped[name] = "no weight of this network"
        else:
            weights[_renamed(name, form.legacy)] = _tensor(value, name, source)
    return weights


def _unwrapped(state: Any, source: str | os.PathLike) -> Mapping[str, Any]:
    for container in ("model_state", "state_dict", "blobs"):
        if isinstance(state, Mapping) and isinstance(state.get(container), Mapping):
            state = state[container]
    if not isinstance(state, Mapping) or not state or not all(isinstance(name, str) for name in state):
        raise ValueError(f"'{source}' holds no weights: expected names and tensors, or a checkpoint with 'model_state'")
    return state


def _tensor(value: object, name: str, source: str | os.PathLike) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise ValueError(f"'{source}' holds no weights: there is {type(value).__name__}, not a tensor, under '{name}'")


class _Match:
    """A network's entries beside those of a file.

    fitting: {own key: tensor}. unfit: {own key: the shapes}. lost: own keys that the file should have and has not.
    unknown: names in the file that the network has nothing for. optional: own keys that are not taken from the file.
    """

    def __init__(
        self,
        own: Mapping[str, torch.Tensor],
        names: Mapping[str, str | None],
        theirs: Mapping[str, torch.Tensor],
        report: Report,
        optional: Sequence[str],
    ) -> None:
        self.own, self.names, self.theirs, self.report = own, names, theirs, report
        self.fitting: dict[str, torch.Tensor] = {}
        self.unfit: dict[str, str] = {}
        self.lost: list[str] = []
        for key, name in names.items():
            if name is not None and name in theirs and key in optional:
                report.skipped[name] = "the head is re-initialised, as asked"
            elif name is not None and name in theirs:
                self._take(key, name)
            elif name is not None and key not in optional and not key.endswith("num_batches_tracked"):
                self.lost.append(key)
        known = set(names.values())
        self.unknown = [name for name in theirs if name not in known]

    def _take(self, key: str, name: str) -> None:
        tensor, change = _fitted(self.theirs[name], self.own[key].shape, narrows=_is_private(key))
        if tensor is None:
            self.unfit[key] = change
            return
        self.fitting[key] = tensor.to(self.own[key])
        self.report.used[name] = key
        if change:
            self.report.reshaped[key] = change

    def fill(self, norms: Sequence[str]) -> dict[str, torch.Tensor]:
        """The whole state dict: what fits, and the values of what the file does not have. norms: those that are to change nothing."""
        missing = {key: _filler(key, tensor, norms) for key, tensor in self.own.items() if key not in self.fitting}
        self.report.missing.update({key: why for key, (_, why) in missing.items()})
        return {key: self.fitting[key] if key in self.fitting else missing[key][0] for key in self.own}

    def misfit(self, source: str | os.PathLike, source_format: str, architecture: str) -> ValueError:
        """Why the two do not meet, with counts, examples and the fix."""
        there, here = self._class_counts()
        if not self.lost and not self.unknown and self.unfit.keys() <= set(HEAD) and there != here:
            fix = "set MODEL.NUM_CLASSES to match, or re-initialise the head with reset_head=True (--reset-head)"
            return ClassCountError(source, there, here, fix)
        named = sum(name is not None for name in self.names.values())
        lines = [
            f"'{source}' is a checkpoint of another architecture or format: {len(self.fitting)} of the {named} entries "
            f"that {architecture} has in the format {source_format} fit, {len(self.unknown)} of the file's "
            f"{len(self.theirs)} are unknown"
        ]
        lines += list_some("missing in the file", [str(self.names[key]) for key in self.lost])
        lines += list_some("unknown to this network", self.unknown)
        lines += list_some("of another shape", [f"{self.names[key]} {shapes}" for key, shapes in self.unfit.items()])
        return ValueError("\n".join([*lines, self._advice(source_format, architecture)]))

    def _class_counts(self) -> tuple[int | None, int]:
        """Classes in the file (None when it has no classifier) and of the network."""
        if HEAD[1] not in self.own:
            return None, 0
        bias = self.theirs.get(self.names[HEAD[1]] or "")
        return None if bias is None else bias.numel(), self.own[HEAD[1]].numel()

    def _advice(self, source_format: str, architecture: str) -> str:
        for name, form in FORMATS.items():
            if name != source_format and architecture in form.rules:
                wanted = set(key_map(self.own, name, architecture).values()) - {None}
                if len(wanted & self.theirs.keys()) > len(wanted) / 2:
                    return f"its names are those of the format {name}"
        return "check the format, MODEL.MODEL_NAME and the network's keys in the config"


def _fitted(tensor: torch.Tensor, shape: torch.Size, *, narrows: bool) -> tuple[torch.Tensor | None, str]:
    """(tensor in that shape or None, what was changed or what differs). narrows: whether the first channels do, of a norm with more."""
    change = f"{tuple(tensor.shape)} -> {tuple(shape)}"
    if tensor.shape == shape:
        return tensor, ""
    if narrows and tensor.ndim == len(shape) == 1 and len(tensor) > shape[0]:
        return tensor[: shape[0]], f"{change}, a narrower width's norm: the first channels"
    if tensor.ndim == 4 and len(shape) == 5 and tensor.shape == shape[:2] + shape[3:]:
        return tensor.unsqueeze(2).expand(shape) / shape[2], f"{change}, inflated: repeated over time and divided by it"
    if _without_ones(tensor.shape) == _without_ones(shape):
        return tensor.reshape(shape), f"{change}, axes of size 1"
    return None, f"{tuple(tensor.shape)}, not {tuple(shape)}"


def _without_ones(shape: Sequence[int]) -> list[int]:
    """The shape without trailing ones: fully connected weights may stand for 1x1x1 convolutions and the reverse."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _filler(key: str, like: torch.Tensor, norms: Sequence[str]) -> tuple[torch.Tensor, str]:
    """(value, why) of an entry that the file does not have."""
    module, _, entry = _renamed(key, (_PRIVATE_NORMS,)).rpartition(".")
    if key in HEAD:
        return like, "RE-INITIALISED: the classifier has to be trained"
    if entry == "num_batches_tracked":
        return like, f"{like.item()}, as before: the file does not count batches"
    if re.search(_ADAPTERS, key):
        return torch.zeros_like(like), "0, which leaves a block's input as it is: the file has no adapters, and they have to be trained"
    if module not in norms:
        return like, "NEW: the file has nothing for it, and it has to be trained"
    return torch.full_like(like, _IDENTITY[entry]), "a norm that the other project lacks, set to change nothing"


# ---- To another project ----------------------------------------------------------------------------------------------


def export_state(
    state: Mapping[str, torch.Tensor], target_format: str, architecture: str
) -> tuple[dict[str, torch.Tensor], Report]:
    """(state dict under the other project's names, Report) of a full-width network's state dict.

    architecture: slow, slowfast or x3d. A norm that the other project lacks (PyTorchVideo's X3D) is folded into the
    convolution before it and the bias of the norm that is added to it: the same function in evaluation.
    Raises ValueError for a format that cannot be written and for the state of another architecture. target_format: one of
    FORMATS that is written.
    """
    if not _format(target_format, architecture).exported:
        raise ValueError(f"the format {target_format} is read and not written: it has no time axis")
    if private := [key for key in state if _is_private(key)]:
        raise ValueError(
            f"{len(private)} entries are of norms or adapters of one's own (as {private[0]}), which {target_format} has no names for: take one "
            "configuration out, with `mutual3d export`"
        )
    # Slow, C2D and I3D have the same names.
    if _architecture(state) != ("slow" if architecture in ("c2d", "i3d") else architecture):
        raise ValueError(f"these weights are of {_architecture(state)}, not of {architecture}")
    names = key_map(state, target_format, architecture)
    report = Report(f"{architecture} -> {target_format}")
    state = _folded(state, _norms_without_counterpart(state, target_format, architecture), report)
    for key, name in names.items():
        if name is None:
            report.skipped[key] = report.skipped.get(key, f"{target_format} has no such entry")
        else:
            report.used[name] = key
    return {name: state[key] for name, key in report.used.items()}, report


def _architecture(keys: Iterable[str]) -> str:
    if "s1.pathway0_stem.conv_xy.weight" in keys:
        return "x3d"
    return "slowfast" if "s1_fuse.conv_f2s.weight" in keys else "slow"


def _folded(state: Mapping[str, torch.Tensor], norms: Sequence[str], report: Report) -> dict[str, torch.Tensor]:
    """`state` with each shortcut norm's scale in its convolution and its shift in the residual branch's last norm."""
    state = dict(state)
    for norm in norms:
        weight, bias, mean, variance = (
            state[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / torch.sqrt(variance + BN_EPS)
        convolution, sum_bias = f"{norm.removesuffix('_bn')}.weight", f"{norm.removesuffix('1_bn')}2.c_bn.bias"
        for key, value in (
            (convolution, state[convolution] * scale[:, None, None, None, None]),
            (sum_bias, state[sum_bias] + bias - mean * scale),
        ):
            state[key] = value.to(state[key])
            report.reshaped[key] = f"{norm} is folded into it"
        report.skipped.update({key: "folded into its neighbours" for key in state if key.startswith(f"{norm}.")})
    return state
