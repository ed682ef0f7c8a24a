"""A config, checked by every room that knows something of it, and the machine that it asks for."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mutual3d.config import CfgNode
from mutual3d.config import load_config as _load_config
from mutual3d.data.build import check_data, takes_images
from mutual3d.models.build import check_network, network_takes_images
from mutual3d.training.build import check_method
from mutual3d.utils.logging import logger


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> CfgNode:
    """Defaults, then the YAML at `path` (None for none), then `KEY VALUE` pairs; checked and frozen.

    Checked are the keys, their values, and what the registries know: a network, method or data set that nobody registered
    is refused here. Raises ConfigError, a ValueError, with every mistake; FileNotFoundError for a missing file.
    """
    return _load_config(path, overrides, checks=(check_data, check_network, check_method, _check_between_rooms, _check_outputs))


def _check_between_rooms(cfg: CfgNode) -> Iterator[tuple[tuple[str, ...], str]]:
    """The network must take what the data set gives."""
    data, network = takes_images(cfg.TRAIN.DATASET), network_takes_images(cfg.MODEL.MODEL_NAME)
    if data is not None and network and not data:
        yield (
            ("MODEL.MODEL_NAME", "TRAIN.DATASET"),
            f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} takes images, and TRAIN.DATASET is {cfg.TRAIN.DATASET}",
        )


# What a run writes, and what it reads again: names, and the beginnings of names.
_OWN_FILES = (
    "accuracy_vs_gflops.png", "adaptive.pyth", "checkpoints", "per_class_ap.json", "query_table.csv", "query_table.json",
    "report.html", "run.lock", "statistics.pyth", "stdout.log", "test_results.json",
)  # fmt: skip
_OWN_BEGINNINGS = (".", "detections_", "runs-")


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
    if cfg.GRID.ENABLE and cfg.MUTUAL.ENABLE:
        there = {"cpu", *(f"cuda:{i}" for i in range(gpus)), *(["cuda"] if gpus else [])}
        for name in cfg.GRID.LATENCY_DEVICES:
            if name not in there:
                logger.warning("GRID.LATENCY_DEVICES names %s and there is none: its latency will not be measured", name)
