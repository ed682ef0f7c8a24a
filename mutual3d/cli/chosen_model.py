"""The model that a command runs: what chooses its configuration, and where and in what it computes."""

import argparse

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
