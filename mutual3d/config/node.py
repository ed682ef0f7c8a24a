"""A CfgNode whose mistakes are explained: unknown keys name the nearest legal one, an int may stand for a float."""

import difflib
import logging
from pathlib import Path

import yaml
from fvcore.common.config import CfgNode as _CfgNode

logger = logging.getLogger(__name__)

# Settings of PySlowFast that its Slow, SlowFast and X3D files carry and that have no meaning here: accepted, with a
# warning when a file sets one. A name of a node stands for everything under it.
UNUSED_KEYS = (
    "AUG", "AVA.BGR", "AVA.FULL_TEST_ON_VAL", "AVA.IMG_PROC_BACKEND", "AVA.TEST_FORCE_FLIP", "AVA.TRAIN_PCA_EIGVAL",
    "AVA.TRAIN_PCA_EIGVEC", "AVA.TRAIN_PCA_JITTER_ONLY", "AVA.TRAIN_USE_COLOR_AUGMENTATION", "BENCHMARK",
    "BN.NUM_BATCHES_PRECISE", "BN.NUM_SPLITS", "BN.NUM_SYNC_DEVICES", "BN.USE_PRECISE_STATS", "CONTRASTIVE",
    "DATA.PATH_TO_PRELOAD_IMDB", "DATA.TRAIN_PCA_EIGVAL", "DATA.TRAIN_PCA_EIGVEC",
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE", "DEMO", "LOG_MODEL_INFO", "MASK", "MIXUP", "MODEL.MULTI_PATHWAY_ARCH",
    "MODEL.SINGLE_PATHWAY_ARCH", "MULTIGRID", "MVIT", "NONLOCAL.GROUP", "NONLOCAL.INSTANTIATION", "NONLOCAL.POOL",
    "RESNET.INPLACE_RELU", "SHARD_ID", "SOLVER.GAMMA", "SOLVER.STEP_SIZE", "SOLVER.WARMUP_FACTOR", "SSL",
    "TENSORBOARD.CATEGORIES_PATH", "TENSORBOARD.CLASS_NAMES_PATH", "TENSORBOARD.CONFUSION_MATRIX",
    "TENSORBOARD.HISTOGRAM", "TENSORBOARD.MODEL_VIS", "TENSORBOARD.PREDICTIONS_PATH", "TENSORBOARD.WRONG_PRED_VIS",
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN", "TRAIN.CHECKPOINT_EPOCH_RESET", "VIS_MASK",
)  # fmt: skip


class CfgNode(_CfgNode):
    """fvcore's CfgNode (`_BASE_`, freezing) with clear errors; see `merge_from_file` and `merge_from_list`."""

    def check(self):
        """ConfigError, a ValueError, for a config that cannot work; see `check_config`. Returns the config."""
        from .check import check_config  # what it checks is declared with this class

        check_config(self)
        return self

    def merge_from_file(self, cfg_filename, allow_unsafe=False):
        """Merge a YAML file. FileNotFoundError when it is missing; ValueError that names it for anything else."""
        if not Path(cfg_filename).is_file():
            raise FileNotFoundError(f"there is no config '{cfg_filename}': give --cfg the path of a YAML file")
        try:
            loaded = self.load_yaml_with_base(str(cfg_filename), allow_unsafe=allow_unsafe)
            pairs = list(_flatten(loaded))
        except (yaml.YAMLError, TypeError, AssertionError, AttributeError) as error:
            raise ValueError(f"'{cfg_filename}' is not a config, a YAML file of KEY: VALUE groups: {error}") from error
        self._merge_pairs(pairs, source=f" (in '{cfg_filename}')")

    def merge_from_other_cfg(self, cfg_other):
        self._merge_pairs(_flatten(cfg_other), source="")

    def merge_from_list(self, cfg_list):
        """Merge `KEY VALUE` pairs. ValueError for an odd list, an unknown key, or a value of the wrong type."""
        words = [str(word) if isinstance(word, Path) else word for word in cfg_list]
        if len(words) % 2:
            raise ValueError(f"overrides come as KEY VALUE pairs, but '{words[-1]}' stands alone in: {words}")
        self._merge_pairs(zip(words[0::2], words[1::2]), source=" (override)")

    def _merge_pairs(self, pairs, source):
        for key, value in pairs:
            if _is_unused(key):
                logger.warning("%s%s is a PySlowFast setting that has no meaning here: skipped", key, source)
            else:
                self._set(key, value, source)

    def _set(self, key, value, source):
        node, name = self._find(key, source)
        value = _coerce(self._decode_cfg_value(value), node[name], f"{key}{source}")
        node[name] = value

    def _find(self, key, source):
        *path, name = key.split(".")
        node = self
        for part in path:
            node = node.get(part) if isinstance(node, CfgNode) else None
        if not isinstance(node, CfgNode) or name not in node:
            raise ValueError(f"unknown config key {key}{source}{self._nearest(key)}")
        return node, name

    def _nearest(self, key):
        legal = [name for name, _ in _flatten(self)]
        close = difflib.get_close_matches(key, legal, n=1, cutoff=0.6)
        close = close or [name for name in legal if name.split(".")[-1] == key.split(".")[-1]][:1]
        return f": did you mean {close[0]}?" if close else ": see mutual3d/config/defaults.py for every key"


def _flatten(node, prefix=""):
    """(full key, value) for every leaf of a nested dict."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_unused(key):
    return any(key == unused or key.startswith(f"{unused}.") for unused in UNUSED_KEYS)


def _read_list(text):
    """A list of words as a YAML file has it, `[smallest, random]`, which Python would want in quotes; or the text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _coerce(value, original, where):
    """`value` as the type of `original`: int for float, tuple for list; ValueError that names both types otherwise."""
    if isinstance(original, CfgNode):
        raise ValueError(f"{where} is a group of keys and cannot be set to {value!r}: set one of {', '.join(original)}")
    if isinstance(value, type(original)) and isinstance(value, bool) == isinstance(original, bool):
        return value
    if isinstance(original, (list, tuple)) and isinstance(value, str):
        value = _read_list(value)
    if value is None and original == 0.0:
        return 0.0
    if isinstance(original, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(original, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(original)(value)
    if isinstance(original, str) and isinstance(value, (int, float)):
        return str(value)
    kinds = type(value).__name__, type(original).__name__
    raise ValueError(f"{where} is {value!r}, of type {kinds[0]}: it must be of type {kinds[1]}, like {original!r}")
