"""Wall-clock of a mutual training step over a static one, beside the ratio of FLOPs (paper, Tables 3 and 4).

python benchmarks/step_cost.py --cfg configs/Demo/MUTUAL_X3D.yaml --batch 8

Both steps run in turns on the same clips, without loading. Means, since a mutual step's cost is a random variable whose
expectation is the FLOPs ratio's. Writes benchmarks/results/step_cost.csv.
"""

import dataclasses

import torch
from common import machine, paired_means, parse_timing, replace_row

from mutual3d.cost.complexity import counted_step_cost
from mutual3d.cost.flops import count_costs
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.training.build import build_step
from mutual3d.utils import distributed


def flops_ratio(model, subnets, width_samples=10):
    """Expected GFLOPs of a step over the largest configuration's, counted."""
    crop, largest = model.space.spatial_sizes[-1], model.space.largest
    return counted_step_cost(model, subnets, crop, width_samples=width_samples) / count_costs(model, [largest], crop)[largest].gflops


def compare(path, batch, repeats):
    cfg = load_config(path)
    device = distributed.choose_device(cfg.NUM_GPUS)
    model = build_model(cfg).place(device).train()
    mutual = build_step(cfg, model, device)
    static = build_step(cfg, model, device)
    static.method = dataclasses.replace(static.method, subnets=())
    crop, frames = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.NUM_FRAMES
    clips = torch.randint(0, 256, (batch, 3, frames, crop, crop), dtype=torch.uint8, device=device)
    labels = torch.arange(batch, device=device) % cfg.MODEL.NUM_CLASSES
    number = iter(range(10**9))
    seconds = paired_means(
        {"static": lambda: static(clips, labels, 0), "mutual": lambda: mutual(clips, labels, next(number))}, repeats
    )
    return {
        "config": path, "device": device.type, "batch": batch,
        "static_ms": f"{1000 * seconds['static']:.0f}", "mutual_ms": f"{1000 * seconds['mutual']:.0f}",
        "measured_ratio": f"{seconds['mutual'] / seconds['static']:.3f}",
        "flops_ratio": f"{flops_ratio(model, cfg.MUTUAL.SUBNETS):.3f}", "machine": machine(),
    }  # fmt: skip


def main():
    options = parse_timing(__doc__, cfg="configs/Demo/MUTUAL_X3D.yaml", batch=8, repeats=15)
    torch.set_num_threads(2)
    replace_row("step_cost", "config", compare(options.cfg, options.batch, options.repeats))


if __name__ == "__main__":
    main()
