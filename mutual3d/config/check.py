"""What is wrong with a config, all of it at once: values that are not legal, and legal ones that do not go together."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

from .defaults import KEYS
from .legal import shown
from .node import CfgNode
from .problem import ConfigError, Problem

IMAGE_DATASETS = ("image_folder", "cifar10", "cifar100", "food101", "indoor67", "digits")
DATASETS = ("kinetics", "charades", "ava", *IMAGE_DATASETS)

_WORDS = {
    "TRAIN.DATASET": DATASETS,
    "TEST.DATASET": DATASETS,
    "MODEL.LOSS_FUNC": ("cross_entropy", "bce_logit", "bce"),
    "MUTUAL.OBJECTIVE": ("inplace_distillation", "labels", "ensemble_distillation", "ensemble_distillation_vanilla"),
    "MUTUAL.BATCHNORM": ("calibrated", "private_width", "private_size"),
}


def check_config(cfg: CfgNode) -> None:
    """Raise ConfigError with everything that cannot work, naming the keys, their values, the legal ones and the fix."""
    problems = find_problems(cfg)
    if problems:
        raise ConfigError(problems)


def find_problems(cfg: CfgNode, checks: Sequence[Callable[[CfgNode], Iterable[Problem]]] = ()) -> list[Problem]:
    """What is wrong with the values of single keys, and with sound ones that do not go together.

    checks: what else is asked of sound values; see `load_config`.
    """
    problems = [problem for key in KEYS for problem in _check_key(key, get_value(cfg, key))]
    wrong = {key for problem in problems for key in problem.keys}
    # A key that is wrong has its default in what follows, and nothing is said of it twice.
    sound = cfg.clone()
    sound.defrost()
    for key in wrong:
        *path, name = key.split(".")
        functools.reduce(lambda node, part: node[part], path, sound)[name] = KEYS[key].default
    found = [problem for check in (_check_together, *checks) for problem in check(sound)]
    return problems + [problem for problem in found if not wrong & set(problem.keys)]


def _check_key(key: str, value: object) -> Iterator[Problem]:
    legal = KEYS[key].legal
    if not legal.accepts(value):
        yield Problem((key,), f"{key} is {shown(value)}: {legal.explain(value)}")
    elif key in _WORDS and value not in _WORDS[key]:
        yield Problem((key,), f"{key} is {value!r}: mutual3d supports {' or '.join(map(repr, _WORDS[key]))}")


def get_value(cfg: CfgNode, key: str) -> object:
    """The value of a full key, `SOLVER.BASE_LR`."""
    return functools.reduce(lambda node, part: node[part], key.split("."), cfg)


def _check_together(cfg: CfgNode) -> Iterator[Problem]:
    yield from _check_batches(cfg)
    yield from _check_task(cfg)
    yield from _check_network(cfg)
    if cfg.TRAIN.DATASET == "ava":
        yield from _check_ava(cfg)
    if cfg.MUTUAL.ENABLE:
        yield from _check_sizes(cfg)
        yield from _check_method(cfg)
        yield from _check_interpolated(cfg)


def _check_task(cfg: CfgNode) -> Iterator[Problem]:
    """Data, labels, loss and scores must speak of the same thing."""
    several = cfg.TRAIN.DATASET in ("charades", "ava")
    wanted = {
        "TEST.DATASET": cfg.TRAIN.DATASET,
        "DATA.MULTI_LABEL": cfg.TRAIN.DATASET == "charades",
        "DETECTION.ENABLE": cfg.TRAIN.DATASET == "ava",
        "MODEL.HEAD_ACT": "sigmoid" if several else "softmax",
    }
    for key, value in wanted.items():
        if get_value(cfg, key) != value:
            yield Problem(
                (key, "TRAIN.DATASET"),
                f"{key} is {get_value(cfg, key)!r}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be {value!r}",
            )
    if several != (cfg.MODEL.LOSS_FUNC != "cross_entropy"):
        legal = "bce_logit or bce" if several else "cross_entropy"
        yield Problem(
            ("MODEL.LOSS_FUNC", "TRAIN.DATASET"),
            f"MODEL.LOSS_FUNC is '{cfg.MODEL.LOSS_FUNC}': with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be {legal}",
        )
    for name in ("TRAIN_JITTER_SCALES_RELATIVE", "TRAIN_JITTER_ASPECT_RELATIVE", "COLOR_JITTER", "CROP_PADDING"):
        if cfg.DATA[name] and cfg.TRAIN.DATASET not in IMAGE_DATASETS:
            yield Problem(
                (f"DATA.{name}", "TRAIN.DATASET"),
                f"DATA.{name} is {cfg.DATA[name]}: mutual3d supports it for images, not for {cfg.TRAIN.DATASET}",
            )


IMAGE_NETWORKS = ("MobileNetV1", "MobileNetV2", "MobileNetV3", "ImageResNet", "WideResNet")


def _check_network(cfg: CfgNode) -> Iterator[Problem]:
    """The network must take what the data set gives."""
    is_video = cfg.TRAIN.DATASET not in IMAGE_DATASETS
    if is_video and cfg.MODEL.MODEL_NAME in IMAGE_NETWORKS:
        yield Problem(
            ("MODEL.MODEL_NAME", "TRAIN.DATASET"),
            f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} takes images, and TRAIN.DATASET is {cfg.TRAIN.DATASET}",
        )
    if not is_video and cfg.DATA.NUM_FRAMES != 1:
        yield Problem(
            ("DATA.NUM_FRAMES", "TRAIN.DATASET"),
            f"DATA.NUM_FRAMES is {cfg.DATA.NUM_FRAMES}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be 1",
        )


def _check_ava(cfg: CfgNode) -> Iterator[Problem]:
    """AVA has two splits, results files of its own, and whole frames that differ in size."""
    wanted = {"GRID.SPLIT": "val", "TEST.SPLIT": "val", "TEST.SAVE_RESULTS_PATH": ""}
    if cfg.MUTUAL.ENABLE and cfg.CALIBRATION.ENABLE:
        wanted["CALIBRATION.TRANSFORM"] = "train"
    for key, value in wanted.items():
        if get_value(cfg, key) != value:
            yield Problem((key,), f"{key} is {get_value(cfg, key)!r}: with TRAIN.DATASET ava it must be {value!r}")


def _check_interpolated(cfg: CfgNode) -> Iterator[Problem]:
    key, sizes, trained = "GRID.INTERPOLATED_SIZES", cfg.GRID.INTERPOLATED_SIZES, cfg.MUTUAL.SPATIAL_SIZES
    wrong = [size for size in sizes if not trained or size in trained or not min(trained) < size < max(trained)]
    if sizes and cfg.MUTUAL.BATCHNORM != "private_size":
        yield Problem((key, "MUTUAL.BATCHNORM"), f"{key} is {sizes}: it needs MUTUAL.BATCHNORM private_size")
    if wrong:
        yield Problem((key, "MUTUAL.SPATIAL_SIZES"), f"{key} {wrong} must lie between the trained sizes {trained}")


_WHOLE_NETWORK_FIRST = ("shared_size", "each_width", "each_size")


def _check_method(cfg: CfgNode) -> Iterator[Problem]:
    """Rules, objective and norms of a step must go together."""
    mutual = cfg.MUTUAL
    if not mutual.LARGEST and not mutual.SUBNETS:
        yield Problem(
            ("MUTUAL.LARGEST", "MUTUAL.SUBNETS"), "MUTUAL.LARGEST is False and MUTUAL.SUBNETS is empty: nothing would be trained"
        )
        return
    if mutual.OBJECTIVE == "inplace_distillation" and not mutual.LARGEST and mutual.SUBNETS[0] not in _WHOLE_NETWORK_FIRST:
        yield Problem(
            ("MUTUAL.OBJECTIVE", "MUTUAL.LARGEST", "MUTUAL.SUBNETS"),
            f"MUTUAL.OBJECTIVE inplace_distillation needs MUTUAL.LARGEST True, or {' or '.join(_WHOLE_NETWORK_FIRST)} first "
            f"in MUTUAL.SUBNETS, which is {mutual.SUBNETS}; or set MUTUAL.OBJECTIVE labels",
        )
    if mutual.OBJECTIVE.startswith("ensemble") and (mutual.LARGEST or list(mutual.SUBNETS) != ["each_size"]):
        yield Problem(
            ("MUTUAL.OBJECTIVE", "MUTUAL.LARGEST", "MUTUAL.SUBNETS"),
            f"MUTUAL.OBJECTIVE {mutual.OBJECTIVE} needs MUTUAL.SUBNETS [each_size] and MUTUAL.LARGEST False",
        )
    for rule in ("each_width", "each_size") if mutual.LARGEST else ():
        if rule in mutual.SUBNETS:
            yield Problem(
                ("MUTUAL.LARGEST", "MUTUAL.SUBNETS"),
                f"MUTUAL.SUBNETS {mutual.SUBNETS}: {rule} runs the largest already; set MUTUAL.LARGEST False",
            )
    if mutual.BATCHNORM == "private_width" and list(mutual.SUBNETS) != ["each_width"]:
        yield Problem(
            ("MUTUAL.BATCHNORM", "MUTUAL.SUBNETS"),
            f"MUTUAL.SUBNETS is {mutual.SUBNETS}: with MUTUAL.BATCHNORM private_width it must be [each_width]",
        )
    if "each_width" in mutual.SUBNETS:
        yield from _check_widths(mutual)


def _check_widths(mutual: CfgNode) -> Iterator[Problem]:
    """The greatest of the listed widths is what is validated and tested, the least where budgets begin."""
    widths = list(mutual.WIDTHS)
    if not widths or [min(widths), max(widths)] != list(mutual.WIDTH_RANGE):
        yield Problem(
            ("MUTUAL.WIDTHS", "MUTUAL.WIDTH_RANGE"),
            f"MUTUAL.WIDTHS is {widths}: each_width needs a list from one end of MUTUAL.WIDTH_RANGE "
            f"{list(mutual.WIDTH_RANGE)} to the other",
        )


def _check_batches(cfg: CfgNode) -> Iterator[Problem]:
    if cfg.TRAIN.BATCH_SIZE % cfg.TRAIN.ACCUMULATION_STEPS:
        yield Problem(
            ("TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS"),
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} does not divide into "
            f"TRAIN.ACCUMULATION_STEPS {cfg.TRAIN.ACCUMULATION_STEPS} equal parts",
        )
    scales = list(cfg.DATA.TRAIN_JITTER_SCALES)
    if cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE or cfg.DATA.CROP_PADDING:
        return
    if not cfg.DATA.TRAIN_CROP_SIZE <= scales[0]:
        yield Problem(
            ("DATA.TRAIN_JITTER_SCALES", "DATA.TRAIN_CROP_SIZE"),
            f"DATA.TRAIN_JITTER_SCALES is {scales}: give [least, greatest] short sides, "
            f"none under DATA.TRAIN_CROP_SIZE {cfg.DATA.TRAIN_CROP_SIZE}",
        )


def _adaptive_frames(cfg: CfgNode) -> tuple[str, float]:
    """Key and frames of the pathway that has configurations."""
    if cfg.MODEL.MODEL_NAME == "SlowFast":
        return "DATA.NUM_FRAMES / SLOWFAST.ALPHA", cfg.DATA.NUM_FRAMES / cfg.SLOWFAST.ALPHA
    return "DATA.NUM_FRAMES", cfg.DATA.NUM_FRAMES


def _check_sizes(cfg: CfgNode) -> Iterator[Problem]:
    for key, sizes, other, largest in (
        ("MUTUAL.SPATIAL_SIZES", cfg.MUTUAL.SPATIAL_SIZES, "DATA.TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE),
        ("MUTUAL.TEMPORAL_SIZES", cfg.MUTUAL.TEMPORAL_SIZES, *_adaptive_frames(cfg)),
    ):
        if not sizes or max(sizes) != largest:
            yield Problem((key, other), f"{key} is {sizes}: its largest value must equal {other}, which is {largest}")
