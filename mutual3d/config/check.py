"""What is wrong with a config, all of it at once: values that are not legal, and legal ones that do not go together."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

from .defaults import KEYS
from .legal import shown
from .node import CfgNode
from .problem import ConfigError, Problem

# A function of a whole config -> (keys, sentence) of what is wrong with it. Rooms offer one for what they alone know.
Check = Callable[[CfgNode], Iterable[tuple[tuple[str, ...], str]]]


def check_config(cfg: CfgNode) -> None:
    """Raise ConfigError with everything that cannot work, naming the keys, their values, the legal ones and the fix."""
    problems = find_problems(cfg)
    if problems:
        raise ConfigError(problems)


def find_problems(cfg: CfgNode, checks: Sequence[Check] = ()) -> list[Problem]:
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
    found = [Problem(*told) for check in (_check_together, *checks) for told in check(sound)]
    return problems + [problem for problem in found if not wrong & set(problem.keys)]


def _check_key(key: str, value: object) -> Iterator[Problem]:
    legal = KEYS[key].legal
    if not legal.accepts(value):
        yield Problem((key,), f"{key} is {shown(value)}: {legal.explain(value)}")


def get_value(cfg: CfgNode, key: str) -> object:
    """The value of a full key, `SOLVER.BASE_LR`."""
    return functools.reduce(lambda node, part: node[part], key.split("."), cfg)


def _check_together(cfg: CfgNode) -> Iterator[Problem]:
    yield from _check_batches(cfg)
    yield from _check_channels(cfg)
    yield from _check_solver(cfg)
    yield from _check_test(cfg)


def _check_batches(cfg: CfgNode) -> Iterator[Problem]:
    if cfg.TRAIN.BATCH_SIZE % cfg.TRAIN.ACCUMULATION_STEPS:
        yield Problem(
            ("TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS"),
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} does not divide into "
            f"TRAIN.ACCUMULATION_STEPS {cfg.TRAIN.ACCUMULATION_STEPS} equal parts",
        )
    elif cfg.BN.NORM_TYPE == "sub_batchnorm" and cfg.TRAIN.BATCH_SIZE // cfg.TRAIN.ACCUMULATION_STEPS % cfg.BN.NUM_SPLITS:
        yield Problem(
            ("TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS", "BN.NUM_SPLITS"),
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} / TRAIN.ACCUMULATION_STEPS {cfg.TRAIN.ACCUMULATION_STEPS} does not divide "
            f"into BN.NUM_SPLITS {cfg.BN.NUM_SPLITS} equal parts",
        )
    scales = list(cfg.DATA.TRAIN_JITTER_SCALES)
    if cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE or cfg.DATA.CROP_PADDING:
        return
    if not cfg.DATA.TRAIN_CROP_SIZE <= scales[0]:
        yield Problem(
            ("DATA.TRAIN_JITTER_SCALES", "DATA.TRAIN_CROP_SIZE"),
            f"DATA.TRAIN_JITTER_SCALES is {scales}: give [min, max] short sides, "
            f"none under DATA.TRAIN_CROP_SIZE {cfg.DATA.TRAIN_CROP_SIZE}",
        )


def _check_channels(cfg: CfgNode) -> Iterator[Problem]:
    counts = list(cfg.DATA.INPUT_CHANNEL_NUM)
    for key in ("MEAN", "STD"):
        if set(counts) != {len(cfg.DATA[key])}:
            yield Problem(
                (f"DATA.{key}", "DATA.INPUT_CHANNEL_NUM"),
                f"DATA.{key} is {cfg.DATA[key]}: it must be a list of one number for each channel, and DATA.INPUT_CHANNEL_NUM, which is "
                f"{counts}, must say how many those are, for each pathway alike; RGB has 3",
            )


def _check_solver(cfg: CfgNode) -> Iterator[Problem]:
    solver = cfg.SOLVER
    if solver.NESTEROV and (solver.MOMENTUM == 0 or solver.DAMPENING != 0):
        yield Problem(
            ("SOLVER.NESTEROV", "SOLVER.MOMENTUM", "SOLVER.DAMPENING"),
            f"SOLVER.NESTEROV is True with SOLVER.MOMENTUM {solver.MOMENTUM} and SOLVER.DAMPENING {solver.DAMPENING}: it needs a "
            "momentum above 0 and no dampening; or set it False",
        )
    if solver.WARMUP_EPOCHS > solver.MAX_EPOCH:
        yield Problem(
            ("SOLVER.WARMUP_EPOCHS", "SOLVER.MAX_EPOCH"),
            f"SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS:g}: it must be at most SOLVER.MAX_EPOCH, which is {solver.MAX_EPOCH}",
        )


def _check_test(cfg: CfgNode) -> Iterator[Problem]:
    """A view is cut for the largest configuration, and a smaller one sees it shrunk: it cannot be a fraction of the clip."""
    crop, trained = cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE
    if not trained / 2 <= crop <= trained * 4:
        yield Problem(
            ("DATA.TEST_CROP_SIZE", "DATA.TRAIN_CROP_SIZE"),
            f"DATA.TEST_CROP_SIZE is {crop}: it must be between a half of DATA.TRAIN_CROP_SIZE, which is {trained}, and four "
            "times as much",
        )
    if cfg.TEST.DATASET != cfg.TRAIN.DATASET:
        yield Problem(
            ("TEST.DATASET", "TRAIN.DATASET"),
            f"TEST.DATASET is {cfg.TEST.DATASET!r}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be {cfg.TRAIN.DATASET!r}",
        )
