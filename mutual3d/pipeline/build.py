"""From a config, checked by every room that knows something of it, to the plan of a run and the machine that it asks for."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import mutual3d.tasks  # noqa: F401  # they register their data sets, losses and metrics
from mutual3d.config import CfgNode, changed_settings, find_config
from mutual3d.config import load_config as _load_config
from mutual3d.cost.axes import ALWAYS_COUNTED, COSTS
from mutual3d.data.build import (
    build_calibration_loader,
    build_dataset,
    build_loader,
    build_training_loader,
    check_data,
    find_class_names,
    gives_bgr,
    image_resize,
    metric_word,
    takes_images,
    test_split,
    unused_classes,
    what_a_network_must_give,
)  # fmt: skip
from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.loader import ClipLoader
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.metrics.build import build_metric
from mutual3d.models import AdaptiveNetwork, build_model
from mutual3d.models.build import check_network, network_takes_images, what_network_gives
from mutual3d.models.registry import network_words
from mutual3d.pipeline.plans import (
    CalibrationPlan,
    CountingPlan,
    GridPlan,
    LogitsPlan,
    MachinePlan,
    MakeLoader,
    MakeTrainingLoader,
    MeasuringPlan,
    RunPlan,
    SlimPlan,
    TestPlan,
    TrainingPlan,
)  # fmt: skip
from mutual3d.pipeline.workspace import check_same_classes
from mutual3d.sampling import Preprocessing
from mutual3d.training import GradientClipping, StoredTeacher, TrainingCourse
from mutual3d.training.build import (
    build_average,
    build_optimizer,
    build_schedule,
    build_step,
    build_teacher,
    build_transforms,
    check_method,
)
from mutual3d.utils import distributed
from mutual3d.utils.logging import logger
from mutual3d.utils.words import unknown_word


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> CfgNode:
    """Defaults, then the YAML at `path` (None for none), then `KEY VALUE` pairs; checked and frozen.

    path: of a file, or the name of a config that comes with mutual3d, such as `Kinetics/MUTUAL_X3D_M`. Checked are the keys, their values, and what the registries know: a network, method or data set that nobody registered
    is refused here. Raises ConfigError, a ValueError, with every mistake; FileNotFoundError for a missing file.
    """
    path = None if path is None else find_config(path)
    return _load_config(path, overrides, checks=(check_data, check_network, check_method, _check_between_rooms, _check_costs, _check_outputs))


def _check_between_rooms(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """The network must take what the data set gives, and give what the set's task is about."""
    data, network = takes_images(cfg.TRAIN.DATASET), network_takes_images(cfg.MODEL.MODEL_NAME)
    if data is not None and network and not data:
        yield (
            ("MODEL.MODEL_NAME", "TRAIN.DATASET"),
            f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} takes images, and TRAIN.DATASET is {cfg.TRAIN.DATASET}",
        )
    needed, given = what_a_network_must_give(cfg.TRAIN.DATASET), what_network_gives(cfg)
    if needed and given and needed != given:
        yield (
            ("MODEL.MODEL_NAME", "TRAIN.DATASET"),
            f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} gives {given}, and TRAIN.DATASET {cfg.TRAIN.DATASET} needs {needed}: choose a network "
            f"that gives them ({', '.join(network_words(needed))})",
        )


def _check_costs(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, words, legal in (("GRID.COSTS", cfg.GRID.COSTS, COSTS), ("GRID.RUNTIMES", cfg.GRID.RUNTIMES, RUNTIMES)):
        yield from (((key,), text) for name in words if (text := unknown_word(key, name, legal)))


# What a run writes, and what it reads again: names, and the beginnings of names.
_OWN_FILES = (
    "adaptive.pyth", "checkpoints", "config.yaml", "per_class_ap.json", "predictions.csv",
    "query_table.csv", "query_table.json", "query_table_per_class.json", "report.html", "report.json", "run.lock", "statistics.pyth",
    "stdout.log", "step_trace.json", "submit", "test_results.json",
)  # fmt: skip
_OWN_BEGINNINGS = (".", "accuracy_vs_", "detections_", "runs-")


def _check_outputs(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """Scores are written to a file of their own in the output directory."""
    name = cfg.TEST.SAVE_RESULTS_PATH
    if not name:
        return
    output = Path(cfg.OUTPUT_DIR).resolve()
    path = (output / name).resolve()
    legal = "give the name of a new file in OUTPUT_DIR, such as 'scores.pyth'"
    if output not in path.parents:
        yield ("TEST.SAVE_RESULTS_PATH", "OUTPUT_DIR"), f"TEST.SAVE_RESULTS_PATH is {name!r}: it leaves OUTPUT_DIR; {legal}"
        return
    first = path.relative_to(output).parts[0]
    if first.lower() in _OWN_FILES or first.startswith(_OWN_BEGINNINGS):
        yield ("TEST.SAVE_RESULTS_PATH",), f"TEST.SAVE_RESULTS_PATH is {name!r}: a run has a '{first}' of its own; {legal}"
    elif path.is_dir():
        yield ("TEST.SAVE_RESULTS_PATH",), f"TEST.SAVE_RESULTS_PATH is {name!r}: that is a directory; {legal}"


def check_machine(cfg: CfgNode) -> None:
    """ValueError or ModuleNotFoundError where this machine cannot do what a run asks for, before any of it is done."""
    gpus, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if cfg.NUM_GPUS and gpus and processes > gpus:
        raise ValueError(
            f"torchrun started {processes} processes on this machine, and torch can use {gpus} GPUs: give --nproc_per_node {gpus}, "
            "or NUM_GPUS 0 to run on the CPU"
        )
    if cfg.TENSORBOARD.ENABLE and cfg.TRAIN.ENABLE and importlib.util.find_spec("tensorboard") is None:
        raise ModuleNotFoundError("TENSORBOARD.ENABLE needs tensorboard: pip install -e .[tensorboard], or set it False")


def tell_of_devices(cfg: CfgNode) -> None:
    """Warn of each device that a config names and that this run will not use."""
    gpus = torch.cuda.device_count()
    if cfg.NUM_GPUS and not gpus:
        logger.warning("NUM_GPUS is %d and this machine has no GPU that torch can use: running on the CPU", cfg.NUM_GPUS)
    elif cfg.NUM_GPUS > 1 and int(os.environ.get("WORLD_SIZE", 1)) == 1:
        logger.warning("NUM_GPUS is %d and one process runs: start it with torchrun --nproc_per_node", cfg.NUM_GPUS)
    if cfg.NUM_SHARDS > 1:
        logger.info(
            "NUM_SHARDS %d: torchrun starts the processes, on each machine (--nnodes %d); their number is %s",
            cfg.NUM_SHARDS, cfg.NUM_SHARDS, os.environ.get("WORLD_SIZE", 1),
        )  # fmt: skip
    if cfg.GRID.ENABLE:
        there = {"cpu", *(f"cuda:{i}" for i in range(gpus)), *(["cuda"] if gpus else [])}
        for name in cfg.GRID.LATENCY_DEVICES:
            if name not in there:
                logger.warning("GRID.LATENCY_DEVICES names %s and there is none: its latency will not be measured", name)


# ---- The plan --------------------------------------------------------------------------------------------------------


def _measures_grid(cfg: CfgNode) -> bool:
    """Whether a run measures the grid: a static network's one row only where it is trained.

    A file that tests a checkpoint of PySlowFast's names no validation set, and asks for none.
    """
    return cfg.GRID.ENABLE and (cfg.MUTUAL.ENABLE or cfg.TRAIN.ENABLE)


def from_config(cfg: CfgNode) -> RunPlan:
    """The plan of the run that a config describes, for this process's share of the data.

    Raises ValueError and FileNotFoundError for class names that do not fit.
    """
    # Videos that crashed a worker or never answered: no stage tries them again.
    lost: dict[str, str] = {}
    rank, world_size = distributed.rank(), distributed.world_size()
    measured = _as_measured(cfg)
    loader, measured_loader = (functools.partial(build_loader, one, rank=rank, world_size=world_size, lost=lost) for one in (cfg, measured))
    training_loader = functools.partial(build_training_loader, cfg, rank=rank, world_size=world_size, lost=lost)
    calibration_loader = functools.partial(build_calibration_loader, measured, rank=rank, world_size=world_size, lost=lost)
    adaptive = cfg.MUTUAL.ENABLE
    names = find_class_names(cfg)
    return RunPlan(
        output=Path(cfg.OUTPUT_DIR),
        make_model=functools.partial(build_model, cfg),
        seed=cfg.RNG_SEED,
        measuring=_measuring(cfg),
        training=_training(cfg, training_loader, loader) if cfg.TRAIN.ENABLE else None,
        calibration=_calibration(cfg, calibration_loader) if cfg.CALIBRATION.ENABLE and adaptive else None,
        grid=_grid(cfg, measured_loader) if _measures_grid(cfg) else None,
        test=_test(cfg, measured_loader) if cfg.TEST.ENABLE else None,
        weights=_path(cfg.TEST.CHECKPOINT_FILE_PATH),
        weights_kind=_kind(cfg.TEST.CHECKPOINT_TYPE),
        width_step=cfg.GRID.WIDTH_STEP,
        interpolated_sizes=tuple(cfg.GRID.INTERPOLATED_SIZES) if adaptive else (),
        unseen_frames=tuple(cfg.GRID.UNSEEN_FRAMES) if adaptive else (),
        has_statistics=adaptive,
        class_names=None if names is None else tuple(names),
        settings=cfg.dump(),
        save_seconds=cfg.PARTIAL_SAVE_SECONDS,
        num_threads=cfg.NUM_THREADS,
    )


def slim_plan(
    cfg: CfgNode,
    bundle: Path,
    output: Path,
    *,
    cost: str,
    budgets: Sequence[float],
    step: float = 0.1,
    start: str | None = None,
    split: str | None = None,
    num_videos: int = 256,
    num_clips: int = 128,
) -> SlimPlan:
    """The plan of a search for widths in the bundle of a config's run.

    split: name of the list that accuracy is compared on; None is GRID.SPLIT. num_videos: of it, spread evenly. num_clips: of
    CALIBRATION.SPLIT. cost, budgets, step, start: as of SlimPlan. Raises ValueError where the split is the test's, by which nothing
    may be chosen, and where the config calibrates or measures nothing.
    """
    split = cfg.GRID.SPLIT if split is None else split
    if split == "test" or _is_test_set(cfg, split):
        raise ValueError(
            f"the search would choose by the split '{split}', which is the test's: name another list with --split, such as 'train'"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TRAIN.ENABLE, cfg.TEST.ENABLE, cfg.CALIBRATION.ENABLE, cfg.GRID.ENABLE = False, False, True, True
    if not cfg.MUTUAL.ENABLE:
        raise ValueError("MUTUAL.ENABLE is False: a static network has one width, and nothing to choose among")
    cfg.freeze()
    run = dataclasses.replace(from_config(cfg), output=output)
    return SlimPlan(
        bundle=bundle, output=output, run=run, split=split, cost=cost, budgets=tuple(sorted(budgets, reverse=True)), step=step, start=start,
        calibration=functools.partial(build_calibration_loader, cfg, num_clips=num_clips),
        search=functools.partial(build_loader, cfg, split, "single_view", num_videos=num_videos),
    )  # fmt: skip


def logits_plan(
    cfg: CfgNode, bundle: Path, output: Path, *, split: str = "train", num_views: int = 1, configuration: str | None = None
) -> LogitsPlan:
    """The plan of the logits of a list, by the bundle of a config's run.

    split: name of the list. num_views: clips of a video, spread over time, whose logits are averaged; one centre crop each. configuration: as
    text; None is the largest.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TRAIN.ENABLE = cfg.CALIBRATION.ENABLE = cfg.GRID.ENABLE = cfg.TEST.ENABLE = False
    cfg.freeze()
    loader = functools.partial(build_loader, cfg, split, "single_view", distributed.rank(), distributed.world_size(), num_views)
    return LogitsPlan(bundle, output, from_config(cfg), loader, configuration, num_views)


def _is_test_set(cfg: CfgNode, split: str) -> bool:
    """Whether a split is the test's, by its name or, as of sets of images that have two parts, by what is in it."""
    if split == test_split(cfg):
        return True
    try:
        return build_dataset(cfg, split, "single_view").fingerprint() == build_dataset(cfg, "", "single_view").fingerprint()
    except FileNotFoundError:  # without a test set nothing can be chosen by it; a split that is missing is told when it is read
        return False


def machine_of(cfg: CfgNode) -> MachinePlan:
    """Where a config's run writes and what it runs on: known before the processes have met."""
    return MachinePlan(Path(cfg.OUTPUT_DIR), cfg.NUM_GPUS, cfg.DIST_BACKEND, cfg.TRAIN.MAX_MINUTES)


def counting_plan(cfg: CfgNode) -> CountingPlan:
    """What is counted of a config's network."""
    subnets = tuple(cfg.MUTUAL.SUBNETS) if cfg.MUTUAL.ENABLE else None
    make_model = functools.partial(build_model, cfg)
    return CountingPlan(
        make_model, cfg.DATA.TEST_CROP_SIZE, cfg.GRID.WIDTH_STEP, subnets, cfg.MUTUAL.LARGEST, cfg.MUTUAL.SUBNETS_START_EPOCH
    )


def initial_network(cfg: CfgNode) -> AdaptiveNetwork:
    """The network that a run of a config begins with: random weights of its seed."""
    torch.manual_seed(cfg.RNG_SEED)
    return build_model(cfg)


def data_directory(cfg: CfgNode) -> Path:
    """The folder of a config's lists."""
    return Path(cfg.DATA.PATH_TO_DATA_DIR)


def _as_measured(cfg: CfgNode) -> CfgNode:
    """The config with views cut for the largest size that is measured: one of GRID.INTERPOLATED_SIZES may be above the trained ones.

    The trained sizes see what they would have seen without it.
    """
    largest = max([cfg.DATA.TRAIN_CROP_SIZE, *(cfg.GRID.INTERPOLATED_SIZES if cfg.MUTUAL.ENABLE else ())])
    if largest == cfg.DATA.TRAIN_CROP_SIZE:
        return cfg
    measured = cfg.clone()
    measured.defrost()
    measured.DATA.TEST_CROP_SIZE = round(cfg.DATA.TEST_CROP_SIZE * largest / cfg.DATA.TRAIN_CROP_SIZE)
    return measured


def preprocessing_of(cfg: CfgNode) -> Preprocessing:
    """How a config's clips are cut for a test, normalised and scored."""
    cfg = _as_measured(cfg)
    data = cfg.DATA
    return Preprocessing(
        mean=tuple(data.MEAN), std=tuple(data.STD), num_frames=data.NUM_FRAMES, sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS, crop=data.TEST_CROP_SIZE, activation=cfg.MODEL.HEAD_ACT,
        ensemble=data.ENSEMBLE_METHOD, resize=image_resize(cfg), reverse_channels=gives_bgr(cfg),
    )  # fmt: skip


def _measuring(cfg: CfgNode) -> MeasuringPlan:
    return MeasuringPlan(
        preprocessing=preprocessing_of(cfg),
        metric=functools.partial(build_metric, metric_word(cfg)),
        clips_per_forward=max(1, cfg.TEST.BATCH_SIZE // distributed.world_size()),
        max_unreadable=cfg.DATA_LOADER.MAX_UNREADABLE_TEST,
    )


def _training(cfg: CfgNode, training_loader: MakeTrainingLoader, loader: functools.partial[ClipLoader]) -> TrainingPlan:
    board = cfg.TENSORBOARD.LOG_DIR or f"{cfg.OUTPUT_DIR}/runs-{cfg.TRAIN.DATASET}"
    return TrainingPlan(
        loader=training_loader,
        validation=functools.partial(loader, "val", "single_view"),
        make_step=functools.partial(build_step, cfg, reverse_channels=gives_bgr(cfg)),
        make_optimizer=functools.partial(build_optimizer, cfg),
        schedule=build_schedule(cfg),
        course=TrainingCourse(
            cfg.SOLVER.MAX_EPOCH, cfg.RNG_SEED, GradientClipping(cfg.SOLVER.CLIP_GRAD_VAL, cfg.SOLVER.CLIP_GRAD_L2NORM),
            cfg.DATA_LOADER.MAX_UNREADABLE_TRAIN, cfg.LOG_PERIOD, cfg.TRAIN.CHECKPOINT_SECONDS,
            cfg.MUTUAL.SUBNETS_START_EPOCH if cfg.MUTUAL.ENABLE else 0.0,
        ),
        settings=cfg.dump(),
        changed_settings=lambda saved: changed_settings(saved, cfg),
        doubts=functools.partial(unused_classes, cfg),
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        eval_period=cfg.TRAIN.EVAL_PERIOD,
        keep_checkpoints=cfg.TRAIN.KEEP_CHECKPOINTS,
        weights=_path(cfg.TRAIN.CHECKPOINT_FILE_PATH),
        weights_kind=_kind(cfg.TRAIN.CHECKPOINT_TYPE),
        inflate=cfg.TRAIN.CHECKPOINT_INFLATE,
        reset_head=cfg.TRAIN.CHECKPOINT_RESET_HEAD,
        auto_resume=cfg.TRAIN.AUTO_RESUME,
        allow_other_data=cfg.TRAIN.ALLOW_OTHER_DATA,
        tensorboard=Path(board) if cfg.TENSORBOARD.ENABLE else None,
        transforms=build_transforms(cfg),
        make_average=functools.partial(build_average, cfg),
        tracks_smallest=cfg.MUTUAL.ENABLE and cfg.MUTUAL.TRACK_SMALLEST,
        make_teacher=functools.partial(_teacher, cfg),
        precise_batches=cfg.BN.NUM_BATCHES_PRECISE if cfg.BN.USE_PRECISE_STATS and not cfg.MUTUAL.ENABLE else 0,
    )


def _teacher(cfg: CfgNode, dataset: ClipDataset) -> StoredTeacher | None:
    if not cfg.TRAIN.TEACHER_LOGITS:
        return None
    teacher = build_teacher(cfg, [dataset.title_of(index) for index in range(len(dataset))])
    check_same_classes(cfg.TRAIN.TEACHER_LOGITS, teacher.classes, find_class_names(cfg))
    return teacher


def _calibration(cfg: CfgNode, loader: MakeLoader) -> CalibrationPlan:
    return CalibrationPlan(
        loader=loader,
        average=cfg.CALIBRATION.AVERAGE,
        with_own=cfg.CALIBRATION.OWN_STATISTICS,
        max_unreadable=cfg.DATA_LOADER.MAX_UNREADABLE_TRAIN,
    )


def _grid(cfg: CfgNode, loader: functools.partial[ClipLoader]) -> GridPlan:
    return GridPlan(
        loader=functools.partial(loader, cfg.GRID.SPLIT, "single_view", num_views=cfg.GRID.NUM_VIEWS),
        split=cfg.GRID.SPLIT,
        latency_devices=tuple(cfg.GRID.LATENCY_DEVICES),
        latency_repeats=cfg.GRID.LATENCY_REPEATS,
        runtimes=tuple(cfg.GRID.RUNTIMES),
        costs=tuple(dict.fromkeys([*ALWAYS_COUNTED, *cfg.GRID.COSTS])),
        about={"dataset": cfg.DATA.PATH_TO_DATA_DIR, "model": cfg.MODEL.MODEL_NAME, **_averaged(cfg)},
        cascades=cfg.GRID.CASCADES,
    )


def _averaged(cfg: CfgNode) -> dict[str, str]:
    """For a table's provenance: that its weights are the moving average of those of training."""
    return {"weights": f"moving average of the steps' (MODEL.EMA_DECAY {cfg.MODEL.EMA_DECAY:g})"} if cfg.MODEL.EMA else {}


def _test(cfg: CfgNode, loader: functools.partial[ClipLoader]) -> TestPlan:
    return TestPlan(
        loader=functools.partial(loader, test_split(cfg), "multi_view"),
        split=test_split(cfg),
        configurations=tuple(cfg.TEST.CONFIGURATIONS),
        scores=cfg.TEST.SAVE_RESULTS_PATH or None,
        has_boxes=cfg.DETECTION.ENABLE,
    )


def _kind(text: str) -> str | None:
    """None for PySlowFast's default, which its files have where they name a Caffe2 file too: the file says what it is."""
    return None if text == "pytorch" else text


def _path(text: str) -> Path | None:
    return Path(text) if text else None
