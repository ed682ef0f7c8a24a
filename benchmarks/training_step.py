"""A training step with the backward of mutual3d/layers/depthwise.py against the same step with PyTorch's own.

python benchmarks/training_step.py --networks demo x3d_m mobilenet_v2 --repeats 9

Static step (the largest configuration alone) and mutual step of X3D-M (batch 2), the demo's network (batch 16) and MobileNet v2 (batch 8), the
two backwards in turns on the same clips and configurations; times are medians, `times_faster` is the median of the turns' ratios. With
`--threads 1` the times are CPU time, which other processes hardly change; else they are the clock's.
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` before the command measures as on a processor without AVX512, in rows of their own.
The gradients of the smallest configuration are compared in float64, and in float32 each with those of float64: the largest difference
over the largest value, of the parameter where it is largest.
Writes benchmarks/results/training_step.csv, and the way that each layer took to benchmarks/results/training_step_layers.csv.
"""

import argparse
import contextlib
import csv
import dataclasses
import statistics
import time
from unittest import mock

import torch
import torch.nn.functional as F
from common import RESULTS, machine, write_csv

from mutual3d.layers import SlimmableConv3d, depthwise
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.training.build import build_step

# (config, batch)
NETWORKS = {
    "demo": ("configs/Demo/MUTUAL_X3D.yaml", 16),
    "x3d_m": ("configs/Kinetics/MUTUAL_X3D_M.yaml", 2),
    "mobilenet_v2": ("configs/ImageNet/MUTUAL_MOBILENET_V2.yaml", 8),
}
CPU = torch.device("cpu")


def pytorch_s_own():
    """While it is open, every convolution is `F.conv3d` with PyTorch's backward."""
    return mock.patch.object(depthwise, "conv3d", F.conv3d)


def make_clips(cfg, batch):
    generator = torch.Generator().manual_seed(0)
    crop = cfg.DATA.TRAIN_CROP_SIZE
    clips = torch.randint(0, 256, (batch, 3, cfg.DATA.NUM_FRAMES, crop, crop), dtype=torch.uint8, generator=generator)
    return clips, torch.arange(batch) % cfg.MODEL.NUM_CLASSES


def compare_steps(cfg, batch, repeats):
    """[{step, milliseconds of both, times_faster}] of the static and the mutual step."""
    model = build_model(cfg).place(CPU).train()
    clips, labels = make_clips(cfg, batch)
    mutual, static = build_step(cfg, model, CPU), build_step(cfg, model, CPU)
    static.method = dataclasses.replace(static.method, subnets=())
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    rows = []
    for name, step in {"static": static, "mutual": mutual}.items():
        turns = []
        for number in range(repeats + 1):
            turn = {}
            # What runs second would find the caches of the first.
            order = ["own", "pytorch"] if number % 2 else ["pytorch", "own"]
            for backward in order:
                model.zero_grad()
                with pytorch_s_own() if backward == "pytorch" else contextlib.nullcontext():
                    start = clock()
                    step(clips, labels, number)
                    turn[backward] = 1000 * (clock() - start)
            turns.append(turn)
        turns = turns[1:]
        rows.append({
            "step": name, "pytorch_ms": f"{statistics.median(turn['pytorch'] for turn in turns):.0f}",
            "own_ms": f"{statistics.median(turn['own'] for turn in turns):.0f}",
            "times_faster": f"{statistics.median(turn['pytorch'] / turn['own'] for turn in turns):.2f}",
        })  # fmt: skip
    return rows


def gradients_at_smallest(cfg, batch, dtype, own):
    """{parameter: gradient} in float64 of one forward and backward of the smallest configuration."""
    torch.manual_seed(0)
    model = build_model(cfg).place(CPU).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for parameter in model.parameters():
        # A branch that begins at zero has no gradient before its last norm.
        if not parameter.any():
            torch.nn.init.constant_(parameter, 0.5)
    for module in model.modules():
        # In float64, PyTorch's convolutions leave channels last, and with it the own backward.
        if isinstance(module, SlimmableConv3d):
            module.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous(memory_format=torch.channels_last_3d))
    model.to(dtype)
    clips, labels = make_clips(cfg, batch)
    clips = (clips.to(dtype) / 127.5 - 1).contiguous(memory_format=torch.channels_last_3d)
    model.activate(model.space.smallest)
    with contextlib.nullcontext() if own else pytorch_s_own():
        F.cross_entropy(model(model.fit_clip(clips)), labels).backward()
    return {name: parameter.grad.double() for name, parameter in model.named_parameters() if parameter.grad is not None}


def compare_gradients(cfg, batch):
    exact = gradients_at_smallest(cfg, batch, torch.float64, own=False)

    # A bias before a norm has no gradient but rounding errors.
    largest = {name: grad.abs().max().item() for name, grad in exact.items()}
    counted = [name for name in exact if largest[name] > 1e-6 * max(largest.values())]

    def error(dtype, own):
        found = gradients_at_smallest(cfg, batch, dtype, own)
        return max((found[name] - exact[name]).abs().max().item() / largest[name] for name in counted)

    return {
        "float64_difference": f"{error(torch.float64, True):.0e}",
        "float32_error": f"{error(torch.float32, True):.0e}", "float32_error_pytorch": f"{error(torch.float32, False):.0e}",
    }  # fmt: skip


def ways_taken(cfg, batch):
    """A row for each depthwise 3D layer of the largest and of the smallest configuration: what it is, and the ways of its gradients."""
    model = build_model(cfg).place(CPU).train()
    rows = []

    def note(name):
        def hook(layer, inputs, output):
            if layer.groups > 1:
                size, kernel = tuple(inputs[0].shape[2:]), layer.kernel_size
                ways = depthwise.choose_ways(output.shape[2:], kernel, layer.stride, layer.padding, layer.dilation)
                rows.append({
                    "configuration": str(model.active), "layer": name, "batch": batch, "channels": inputs[0].shape[1],
                    "size": "x".join(map(str, size)), "kernel": "x".join(map(str, kernel)),
                    "stride": "x".join(map(str, layer.stride)), "input_gradient": ways[0], "weight_gradient": ways[1],
                })  # fmt: skip

        return hook

    for name, module in model.named_modules():
        if isinstance(module, SlimmableConv3d):
            module.register_forward_hook(note(name))
    clip = make_clips(cfg, 2)[0].float()
    with torch.no_grad():
        for configuration in (model.space.largest, model.space.smallest):
            model.activate(configuration)(model.fit_clip(clip))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default all")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--repeats", type=int, default=9, help="default 9")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps, layers = [], []
    for network in options.networks:
        path, batch = NETWORKS[network]
        cfg = load_config(path)
        gradients = compare_gradients(cfg, 2)
        for row in compare_steps(cfg, batch, options.repeats):
            instructions = torch.backends.cpu.get_cpu_capability()
            steps.append({"config": path, "batch": batch, "instructions": instructions, **row, **gradients, "machine": machine()})
            print(steps[-1], flush=True)
        layers += [{"config": path, **row} for row in ways_taken(cfg, batch)]
    for name, rows, keys in (("training_step", steps, ("config", "instructions")), ("training_step_layers", layers, ("config",))):
        path = RESULTS / f"{name}.csv"
        new = {tuple(row[key] for key in keys) for row in rows}
        earlier = list(csv.DictReader(path.open())) if path.is_file() else []
        write_csv(path, [row for row in earlier if tuple(row[key] for key in keys) not in new] + rows)


if __name__ == "__main__":
    main()
