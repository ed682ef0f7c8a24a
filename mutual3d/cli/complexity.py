"""What a config's network costs, by counting alone: no data, no weights, no measuring.

    mutual3d complexity --cfg Kinetics/MUTUAL_X3D_M
    mutual3d complexity --cfg Kinetics/MUTUAL_X3D_M --crop 224 --csv grid.csv GRID.WIDTH_STEP 0.1

    The estimate of the paper's Table 4, with the factors as it prints them:
    mutual3d complexity --cfg Kinetics/MUTUAL_SLOW_8x8_R50 \\
        --spatial-factors 0.63 0.8 1.0 --temporal-factors 0.4 0.63 1.0

It prints parameters and GFLOPs of every configuration of the grid (each distinct network once), the expected cost of a
training step, the stages of the largest configuration, and the memory of its activations. GFLOPs are 1e9 multiply-adds
of convolutions and linears in the forward pass of one view.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mutual3d.config import KEYS
from mutual3d.cost.complexity import (
    StageCost,
    count_activation_bytes,
    counted_step_cost,
    factor_step_cost,
    size_factors,
    split_cost,
)
from mutual3d.cost.flops import Cost, count_costs
from mutual3d.evaluation.grid import grid_configurations
from mutual3d.models.adaptive import AdaptiveNetwork
from mutual3d.pipeline import counting_plan, load_config
from mutual3d.sampling import Configuration, SearchSpace
from mutual3d.utils.command_line import command_parser, parse_with_settings
from mutual3d.utils.files import atomic_write


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("complexity", __doc__)
    parser.add_argument("--cfg", required=True, help="a YAML file, or the name of a config (mutual3d --configs lists them)")
    parser.add_argument("--crop", type=int, help="pixels that a view is cut at; default: DATA.TEST_CROP_SIZE")
    parser.add_argument("--csv", help="write the grid to this file")
    for name in ("spatial", "temporal"):
        parser.add_argument(
            f"--{name}-factors", type=float, nargs="+",
            help=f"factors of the estimate, one for each {name} size, ascending; default: sizes over the largest",
        )  # fmt: skip
    options, settings = parse_with_settings(parser, arguments)
    options.opts = settings
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    plan = counting_plan(load_config(options.cfg, options.opts))
    crop = plan.crop if options.crop is None else options.crop
    legal = KEYS["DATA.TEST_CROP_SIZE"].legal
    if not legal.accepts(crop):
        raise ValueError(f"--crop is {crop}: {legal.explain(crop)}")
    if options.csv and Path(options.csv).is_dir():
        raise ValueError(f"--csv '{options.csv}' is a directory: give the name of a file")
    with torch.device("meta"):
        model = plan.make_model()
    assert model.arguments is not None, "a network of a config knows what it was made of"
    space = model.space
    factors = [
        size_factors("spatial", space.spatial_sizes, options.spatial_factors),
        size_factors("temporal", space.temporal_sizes, options.temporal_factors),
    ]
    print(f"{model.arguments['name']}, clips of {model.clip_frames} frames, one view cut at {crop} pixels")
    costs = count_costs(model, grid_configurations(space, plan.width_step, model.signature), crop)
    print_grid(costs, space, plan.width_step)
    if options.csv:
        write_grid(options.csv, costs, crop)
    stages = split_cost(model, space.largest, crop)
    print_stages(stages, space.largest)
    if plan.subnets is not None:
        print_step(model, plan.subnets, plan.with_largest, crop, costs, stages, factors)
        if plan.subnets and plan.subnets_start_epoch:
            print(f"    before epoch {plan.subnets_start_epoch:g} (MUTUAL.SUBNETS_START_EPOCH): {costs[space.largest].gflops:.2f} GFLOPs, the largest alone")
    print_memory(count_activation_bytes(model, space.largest, crop), space.largest)


def print_grid(costs: dict[Configuration, Cost], space: SearchSpace, width_step: float) -> None:
    """Print a line a configuration, and the ends. width_step: between two widths of the grid."""
    # Where all widths round to the same channels, the min width is no network of its own.
    cheapest = min(costs, key=lambda configuration: (costs[configuration].gflops, configuration))
    largest, smallest = costs[space.largest], costs[cheapest]
    print("\nconfiguration        GFLOPs  of largest     parameters")
    for configuration, cost in sorted(costs.items(), key=lambda pair: pair[1].gflops):
        share = cost.gflops / largest.gflops
        print(f"{str(configuration):16}{cost.gflops:11.3f}{share:12.3f}{cost.parameters:15,}")
    print(f"distinct configurations, widths {width_step:g} apart: {len(costs)}")
    for name, configuration in ("largest", space.largest), ("smallest", cheapest):
        cost = costs[configuration]
        print(f"{name} {configuration}: {cost.gflops:.2f} GFLOPs, {cost.parameters:,} parameters")
    print(f"largest over smallest: {largest.gflops / smallest.gflops:.1f}", flush=True)


def write_grid(path: str | Path, costs: dict[Configuration, Cost], crop: int) -> None:
    """Write the grid as a csv. crop: pixels that a view is cut at."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["configuration", "width", "spatial", "temporal", "crop", "gflops_per_view", "parameters"])
        for c, cost in sorted(costs.items()):
            writer.writerow([c, c.width_text, c.spatial, c.temporal, crop, round(cost.gflops, 6), cost.parameters])


def print_stages(stages: list[StageCost], largest: Configuration) -> None:
    """A line a stage; where there are two pathways, what each of them and what joins them takes."""
    names = ["slow", "fast", "fusion, head"] if len(stages[0].pathways) > 1 else []
    lines = {stage.name: [*stage.pathways, stage.joint] for stage in stages}
    lines["all"] = [sum(parts) for parts in zip(*lines.values())]
    total = sum(lines["all"])
    print("\n" + f"stage of {largest}".ljust(21) + "GFLOPs     share" + "".join(f"{name:>14}" for name in names))
    for name, parts in lines.items():
        columns = "".join(f"{part:14.3f}" for part in parts) if names else ""
        print(f"{name:15}{sum(parts):12.3f}{sum(parts) / total:10.1%}{columns}", flush=True)


def print_step(
    model: AdaptiveNetwork,
    subnets: Sequence[str],
    with_largest: bool,
    crop: int,
    costs: dict[Configuration, Cost],
    stages: list[StageCost],
    factors: Sequence[Mapping[int, float]],
) -> None:
    """Print what a training step costs, counted and estimated.

    subnets: the rules of the step. with_largest: whether the largest configuration is trained beside them. crop: pixels that a
    view is cut at. factors: {size: factor}, of the sizes in space and in time.
    """
    largest = costs[model.space.largest].gflops
    counted = counted_step_cost(model, subnets, crop, known=costs, largest=with_largest)
    estimated = factor_step_cost(model.space, subnets, stages, *factors, largest=with_largest)
    spatial, temporal = (", ".join(f"{value:.3g}" for value in values.values()) for values in factors)
    scope = ", of the Slow pathway alone" if len(stages[0].pathways) > 1 else ""
    print(f"\ntraining step, forward passes of one clip: {', '.join(['largest'] * with_largest + list(subnets))}")
    print(f"every configuration counted: {counted:.2f} GFLOPs, {counted / largest:.3f} times the largest")
    print(f"by factors w^2 s^2 t{scope}: {estimated:.2f} GFLOPs, {estimated / largest:.3f} times the largest")
    print(f"    s = {spatial}; t = {temporal}", flush=True)


def print_memory(activation_bytes: int, largest: Configuration) -> None:
    """Print what the activations of one clip take. activation_bytes: bytes, in fp32."""
    print(f"\nactivations of one clip at {largest}, forward and backward: {activation_bytes / 2**20:.0f} MiB in fp32")
    print("    counted: the clip, what autograd keeps, gradients on their way")
    print("    not counted: weights with their gradients, optimizer state, workspaces of convolution libraries")
