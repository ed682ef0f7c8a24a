"""From a config to the parts of a training run."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn as nn
from fvcore.common.config import CfgNode
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from mutual3d.layers import batch_over
from mutual3d.sampling import RULES, SearchSpace, prepare_clip, smallest_of_every_step
from mutual3d.training.schedule import Schedule
from mutual3d.utils import distributed
from mutual3d.utils.logging import logger
from mutual3d.utils.words import unknown_word

from .averaging import WeightAverage
from .mixing import BatchTransform, Mixing
from .objectives import (
    LOSS_FUNCTIONS,
    OBJECTIVES,
    Method,
    StoredTeaching,
    check_feature_loss,
    check_objective,
    check_stored_teaching,
)
from .optimizer import build_optimizer as _build_optimizer
from .schedule import cosine_schedule, linear_schedule, relative_steps_schedule, with_warmup
from .step import MutualStep, Networks, StepNetwork
from .teacher import TeacherRows, load_teacher


def build_optimizer(cfg: CfgNode, model: nn.Module, objective: nn.Module | None = None) -> torch.optim.Optimizer:
    """The config's optimizer with its decays; what an objective learns of its own is not decayed."""
    return _build_optimizer(
        model,
        objective=objective,
        base_lr=cfg.SOLVER.BASE_LR,
        method=cfg.SOLVER.OPTIMIZING_METHOD,
        momentum=cfg.SOLVER.MOMENTUM,
        dampening=cfg.SOLVER.DAMPENING,
        nesterov=cfg.SOLVER.NESTEROV,
        betas=cfg.SOLVER.BETAS,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        bn_weight_decay=cfg.BN.WEIGHT_DECAY,
        no_decay_1d=cfg.SOLVER.ZERO_WD_1D_PARAM,
        no_decay_depthwise=cfg.SOLVER.ZERO_WD_DEPTHWISE,
    )


def build_schedule(cfg: CfgNode) -> Schedule:
    """Exact epoch -> learning rate."""
    unused = cfg.SOLVER.LRS[len(cfg.SOLVER.STEPS) :]
    if cfg.SOLVER.LR_POLICY == "steps_with_relative_lrs" and unused:
        logger.warning("SOLVER.LRS has %s beyond SOLVER.STEPS %s: never reached", unused, cfg.SOLVER.STEPS)
    return _schedule(cfg)


def _schedule(cfg: CfgNode) -> Schedule:
    if cfg.SOLVER.LR_POLICY == "cosine":
        schedule = cosine_schedule(
            base_lr=cfg.SOLVER.BASE_LR,
            max_epoch=cfg.SOLVER.MAX_EPOCH,
            end_lr=cfg.SOLVER.COSINE_END_LR,
            start_epoch=cfg.SOLVER.WARMUP_EPOCHS if cfg.SOLVER.COSINE_AFTER_WARMUP else 0.0,
        )
    elif cfg.SOLVER.LR_POLICY == "linear":
        schedule = linear_schedule(base_lr=cfg.SOLVER.BASE_LR, max_epoch=cfg.SOLVER.MAX_EPOCH)
    else:
        # PySlowFast's stepwise files carry more factors than steps.
        steps = cfg.SOLVER.STEPS
        schedule = relative_steps_schedule(base_lr=cfg.SOLVER.BASE_LR, steps=steps, factors=cfg.SOLVER.LRS[: len(steps)])
    return with_warmup(
        schedule, warmup_epochs=cfg.SOLVER.WARMUP_EPOCHS, warmup_start_lr=cfg.SOLVER.WARMUP_START_LR
    )


def build_step(cfg: CfgNode, model: Any, device: torch.device, *, reverse_channels: bool = False) -> MutualStep:
    """The mutual step on `device`; a static network (MUTUAL.ENABLE False) has no sub-networks.

    reverse_channels: the network sees BGR, which depends on the data set too. model: the adaptive network, on the device.
    """
    _set_norms(cfg.BN, model)
    network: StepNetwork = Networks(model)
    if distributed.is_distributed():
        # Norms and adapters of one's own take part in some configurations' backward only. And torch puts gradients in another order after a process's
        # first step unless it looks for unused ones (it warns, once, that it finds none): on that order depend the last bits of sums of
        # three and more processes, and a run on CPUs that goes on is to end with the bits of one that was not stopped.
        finds_unused = model.has_private_parameters or (device.type == "cpu" and distributed.world_size() > 2)
        network = DistributedDataParallel(Networks(model), broadcast_buffers=False, find_unused_parameters=finds_unused)
        if cfg.TRAIN.GRADIENT_COMPRESSION == "bfloat16":
            network.register_comm_hook(None, bf16_compress_hook)
    scaler = None
    if cfg.TRAIN.MIXED_PRECISION and cfg.TRAIN.MIXED_PRECISION_DTYPE == "float16":
        scaler = torch.amp.GradScaler(device.type)
    prepare = functools.partial(
        prepare_clip, device=device, mean=cfg.DATA.MEAN, std=cfg.DATA.STD, reverse_channels=reverse_channels,
        memory_format=model.memory_format,
    )  # fmt: skip
    return MutualStep(
        model,
        _method(cfg),
        prepare=prepare,
        seed=cfg.RNG_SEED,
        network=network,
        accumulation_steps=cfg.TRAIN.ACCUMULATION_STEPS,
        autocast=_autocast(cfg, device),
        scaler=scaler,
        own_crops=cfg.MUTUAL.ENABLE and cfg.MUTUAL.OWN_CROPS,
    )


def build_transforms(cfg: CfgNode) -> list[BatchTransform]:
    """What becomes of a step's clips and labels before any configuration sees them; empty in the papers' recipes."""
    mixup = cfg.MIXUP
    if not mixup.ENABLE:
        return []
    return [
        Mixing(cfg.MODEL.NUM_CLASSES, mixup.ALPHA, mixup.CUTMIX_ALPHA, mixup.PROB, mixup.SWITCH_PROB, mixup.LABEL_SMOOTH_VALUE)
    ]  # fmt: skip


def build_average(cfg: CfgNode, model: nn.Module) -> WeightAverage | None:
    """The moving average of the model's weights; None where there is to be none."""
    return WeightAverage(model, cfg.MODEL.EMA_DECAY) if cfg.MODEL.EMA else None


def build_teacher(cfg: CfgNode, titles: Sequence[str]) -> TeacherRows:
    """The stored logits that a training learns from beside its labels (TRAIN.TEACHER_LOGITS).

    titles: what the samples of the training set are called, in their order. Raises as `load_teacher`.
    """
    return load_teacher(cfg.TRAIN.TEACHER_LOGITS, titles, cfg.MODEL.NUM_CLASSES, max_missing=cfg.DATA_LOADER.MAX_UNREADABLE_TRAIN)


def _method(cfg: CfgNode) -> Method:
    mutual, train = cfg.MUTUAL, cfg.TRAIN
    stored = StoredTeaching(train.TEACHER_WEIGHT, train.TEACHER_TEMPERATURE) if train.TEACHER_LOGITS else None
    if not mutual.ENABLE:
        return Method(loss_function=cfg.MODEL.LOSS_FUNC, stored=stored)
    return Method(tuple(mutual.SUBNETS), mutual.OBJECTIVE, cfg.MODEL.LOSS_FUNC, mutual.LARGEST, mutual.FEATURE_LOSS, stored)


def _set_norms(bn: CfgNode, model: torch.nn.Module) -> None:
    """Whose clips training takes as one batch."""
    if bn.NORM_TYPE == "sync_batchnorm":
        there = distributed.world_size()
        wanted = there if bn.GLOBAL_SYNC else bn.NUM_SYNC_DEVICES
        if wanted > there:
            logger.warning("BN.NUM_SYNC_DEVICES is %d and there are %d processes: norms take the clips of those", wanted, there)
        batch_over(model, group=distributed.neighbours(min(wanted, there)))
    elif bn.NORM_TYPE == "sub_batchnorm":
        batch_over(model, num_parts=bn.NUM_SPLITS)


def check_method(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys, sentence) of rules, objectives, losses and schedules that nobody registered or that do not go together."""
    loss = unknown_word("MODEL.LOSS_FUNC", cfg.MODEL.LOSS_FUNC, LOSS_FUNCTIONS)
    objective = unknown_word("MUTUAL.OBJECTIVE", cfg.MUTUAL.OBJECTIVE, OBJECTIVES)
    rules = [text for name in cfg.MUTUAL.SUBNETS if (text := unknown_word("MUTUAL.SUBNETS", name, RULES))]
    if loss:
        yield ("MODEL.LOSS_FUNC",), loss
    if objective:
        yield ("MUTUAL.OBJECTIVE",), objective
    for text in rules:
        yield ("MUTUAL.SUBNETS",), text
    if cfg.MUTUAL.ENABLE and not rules:
        yield from _check_rules(cfg.MUTUAL, objective_is_known=not objective)
    if cfg.TRAIN.ENABLE:
        yield from _check_schedule(cfg)
        yield from _check_start_of_subnets(cfg)
        yield from _check_tracking(cfg)
        yield from _check_mixing(cfg)
        if cfg.TRAIN.TEACHER_LOGITS and not loss and not (cfg.MUTUAL.ENABLE and objective):
            yield from _check_stored_teaching(cfg)


def _check_stored_teaching(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """Stored logits are of whole samples, each as it is."""
    told = f"TRAIN.TEACHER_LOGITS is {cfg.TRAIN.TEACHER_LOGITS!r}"
    if cfg.DETECTION.ENABLE:
        yield ("TRAIN.TEACHER_LOGITS", "DETECTION.ENABLE"), f"{told}: stored logits are of whole videos, and DETECTION.ENABLE True classifies boxes; leave it empty"
    if cfg.MIXUP.ENABLE and cfg.MIXUP.PROB:
        yield (
            ("TRAIN.TEACHER_LOGITS", "MIXUP.ENABLE", "MIXUP.PROB"),
            f"{told}: stored logits are of whole videos, and say nothing of two that MIXUP.ENABLE True mixes; set it False, or MIXUP.PROB 0, which "
            "smooths labels alone",
        )
    try:
        check_stored_teaching(_method(cfg))
    except ValueError as error:
        yield ("TRAIN.TEACHER_LOGITS", "MODEL.LOSS_FUNC", "MUTUAL.OBJECTIVE"), str(error)


def _check_rules(mutual: CfgNode, objective_is_known: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a step runs must be something, each once, and give the objective what it needs."""
    if not mutual.LARGEST and not mutual.SUBNETS:
        yield (
            ("MUTUAL.LARGEST", "MUTUAL.SUBNETS"),
            "MUTUAL.LARGEST is False and MUTUAL.SUBNETS is empty: nothing would be trained",
        )
        return
    if mutual.SUBNETS_START_EPOCH and not mutual.LARGEST:
        yield (
            ("MUTUAL.SUBNETS_START_EPOCH", "MUTUAL.LARGEST"),
            f"MUTUAL.SUBNETS_START_EPOCH is {mutual.SUBNETS_START_EPOCH}: until then the largest configuration trains alone, which "
            "MUTUAL.LARGEST False leaves out; set one of them otherwise",
        )
    for name in mutual.SUBNETS if mutual.LARGEST else ():
        if RULES[name].runs_largest:
            yield (
                ("MUTUAL.LARGEST", "MUTUAL.SUBNETS"),
                f"MUTUAL.SUBNETS {mutual.SUBNETS}: {name} runs the largest already; set MUTUAL.LARGEST False",
            )
    if objective_is_known:
        try:
            check_objective(mutual.OBJECTIVE, mutual.SUBNETS, mutual.LARGEST)
        except ValueError as error:
            yield ("MUTUAL.OBJECTIVE", "MUTUAL.SUBNETS", "MUTUAL.LARGEST"), str(error)
        try:
            check_feature_loss(Method(tuple(mutual.SUBNETS), mutual.OBJECTIVE, largest=mutual.LARGEST, feature_loss=mutual.FEATURE_LOSS))
        except ValueError as error:
            yield ("MUTUAL.FEATURE_LOSS", "MUTUAL.OBJECTIVE", "MUTUAL.LARGEST"), str(error)
    if mutual.OWN_CROPS and (mutual.LARGEST or list(mutual.SUBNETS) != ["each_size"]):
        yield (
            ("MUTUAL.OWN_CROPS", "MUTUAL.SUBNETS", "MUTUAL.LARGEST"),
            f"MUTUAL.OWN_CROPS is True, which gives each size a crop: it needs MUTUAL.SUBNETS [each_size], which is {mutual.SUBNETS}, and "
            "MUTUAL.LARGEST False",
        )
    # The max of the listed widths is what is validated and tested, the min is where budgets begin.
    widths = list(mutual.WIDTHS)
    lists_widths = any(RULES[name].width == "each" for name in mutual.SUBNETS)
    if lists_widths and (not widths or [min(widths), max(widths)] != list(mutual.WIDTH_RANGE)):
        yield (
            ("MUTUAL.WIDTHS", "MUTUAL.WIDTH_RANGE"),
            f"MUTUAL.WIDTHS is {widths}: each_width needs a list from one end of MUTUAL.WIDTH_RANGE "
            f"{list(mutual.WIDTH_RANGE)} to the other",
        )


def _check_start_of_subnets(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """Sub-networks that never train would be calibrated and measured as if they had been."""
    start, end = cfg.MUTUAL.SUBNETS_START_EPOCH, cfg.SOLVER.MAX_EPOCH
    if cfg.MUTUAL.ENABLE and cfg.MUTUAL.LARGEST and cfg.MUTUAL.SUBNETS and start >= end:
        yield (
            ("MUTUAL.SUBNETS_START_EPOCH", "SOLVER.MAX_EPOCH"),
            f"MUTUAL.SUBNETS_START_EPOCH is {start:g}, and training ends with SOLVER.MAX_EPOCH {end}: no sub-network would ever train; "
            "lower the one or raise the other",
        )


def _check_tracking(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is tracked must run in every step, with weights and norms of which nothing else is kept."""
    mutual = cfg.MUTUAL
    if not mutual.ENABLE or not mutual.TRACK_SMALLEST:
        return
    if cfg.MODEL.EMA:
        yield (
            ("MUTUAL.TRACK_SMALLEST", "MODEL.EMA"),
            "MUTUAL.TRACK_SMALLEST is True: its statistics are of the weights themselves, and with MODEL.EMA their average is validated; set one of them False",
        )
    if mutual.BATCHNORM != "calibrated":
        yield (
            ("MUTUAL.TRACK_SMALLEST", "MUTUAL.BATCHNORM"),
            f"MUTUAL.TRACK_SMALLEST is True: with MUTUAL.BATCHNORM {mutual.BATCHNORM} norms keep their own running statistics; set it False",
        )
    with contextlib.suppress(ValueError):  # which the network's own check tells
        space = SearchSpace(tuple(mutual.WIDTH_RANGE), tuple(mutual.SPATIAL_SIZES), tuple(mutual.TEMPORAL_SIZES), listed_widths=tuple(mutual.WIDTHS))
        if smallest_of_every_step(space, mutual.SUBNETS) is None:
            yield (
                ("MUTUAL.TRACK_SMALLEST", "MUTUAL.SUBNETS"),
                f"MUTUAL.TRACK_SMALLEST is True, and no rule of MUTUAL.SUBNETS {list(mutual.SUBNETS)} runs one and the same configuration in every "
                "step: add smallest or smallest_width_full_size, or set it False",
            )


def _check_mixing(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    if cfg.MIXUP.ENABLE and cfg.DETECTION.ENABLE:
        yield ("MIXUP.ENABLE", "DETECTION.ENABLE"), "MIXUP.ENABLE is True: clips with boxes cannot be mixed; set it False"
    if cfg.MIXUP.ENABLE and cfg.MUTUAL.ENABLE and cfg.MUTUAL.OWN_CROPS:
        yield (
            ("MIXUP.ENABLE", "MUTUAL.OWN_CROPS"), "MIXUP.ENABLE is True: crops that each size has for itself have one label; set one of them False"
        )
    try:
        build_transforms(cfg)
    except ValueError as error:
        yield ("MIXUP.ALPHA", "MIXUP.CUTMIX_ALPHA", "MIXUP.PROB"), str(error)


def _check_schedule(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    try:
        _schedule(cfg)
    except ValueError as error:
        yield ("SOLVER.LR_POLICY", "SOLVER.STEPS", "SOLVER.LRS", "SOLVER.WARMUP_EPOCHS", "SOLVER.MAX_EPOCH"), str(error)


def _autocast(cfg: CfgNode, device: torch.device) -> Callable[[], AbstractContextManager] | None:
    if not cfg.TRAIN.MIXED_PRECISION:
        return None
    dtype = getattr(torch, cfg.TRAIN.MIXED_PRECISION_DTYPE)
    if device.type == "cpu" and dtype == torch.float16:
        raise ValueError("TRAIN.MIXED_PRECISION_DTYPE float16 needs a GPU: use bfloat16, or no mixed precision")
    return functools.partial(torch.autocast, device.type, dtype=dtype)
