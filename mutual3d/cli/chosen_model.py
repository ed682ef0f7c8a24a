"""The model that a command runs: what chooses its configuration, and where and in what it computes."""

import argparse
from pathlib import Path

import torch

from mutual3d.cli.budgets import add_budgets, budgets_of
from mutual3d.cost.flops import count_costs
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.adaptive_model import load
from mutual3d.utils.command_line import positive_argument

# From so many videos on it pays to measure which runtime is the fastest, and to compile in it.
MANY_VIDEOS = 32


def add_choice(parser: argparse.ArgumentParser, *, config: str, runtime: str, with_means: bool = False) -> None:
    """Add what a command that runs a model asks for: --config or a budget, and where and in what it runs.

    config, runtime: help of these two, which differ. with_means: see `add_budgets`.
    """
    parser.add_argument("--config", help=config)
    add_budgets(parser, positive_argument, with_means=with_means)
    parser.add_argument("--device-key", help="another latency than this machine's: a key of the table, such as cpu.epyc_7b13-torch-fp32-b1-t2")
    parser.add_argument("--runtime", help=f"what computes: torch, openvino, ..., auto (the fastest), none (PyTorch on the model's own weights); default: {runtime}")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the network runs (default cpu)")


def config_of(model: Path, config: str | None) -> str | Path:
    """The config of the run that made a bundle: the one that is named, or the config.yaml beside it.

    model: the bundle. config: a path or a name, None where none is given. FileNotFoundError where the bundle, or that file, is not there.
    """
    if not model.is_file():
        raise FileNotFoundError(f"there is no file '{model}': give the adaptive.pyth that `mutual3d run` writes at its end")
    beside = model.parent / "config.yaml"
    if config is None and not beside.is_file():
        raise FileNotFoundError(f"there is no '{beside}', the config of the run that made '{model}': name it with --cfg")
    return config or beside


def load_chosen(path: str, device: str, runtime: str | None) -> AdaptiveModel:
    """The model of a file as --device and --runtime say; ValueError where torch sees no GPU.

    runtime: None and `none` are PyTorch on the model's own weights.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and torch sees no GPU here: leave --device out to run on the CPU")
    model = load(path)
    model.network.place(torch.device(device))
    return model.run_in(None if runtime == "none" else runtime)


def choose(model: AdaptiveModel, options: argparse.Namespace) -> None:
    """Activate what the options ask for: a configuration, a budget, or the largest."""
    budgets = budgets_of(options)
    if budgets:
        model.set_budget(device=options.device_key, source="clip", **budgets)
    elif options.config:
        model.activate(options.config)


def describe_active(model: AdaptiveModel) -> str:
    """The active configuration, or cascade, and its cost, in words."""
    if model.spending is not None:
        return f"cascade {model.cascade}, {model.spending.told_promise}"
    cost = count_costs(model.network, [model.active], model.preprocessing.crop)[model.active]
    return f"configuration {model.active}, {cost.gflops:.4g} GFLOPs a view, {cost.parameters:,} parameters"
