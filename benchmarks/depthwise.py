"""The ways to compute the gradients of depthwise 3D convolutions, layer by layer, and the rules that follow (mutual3d/layers/depthwise.py).

python benchmarks/depthwise.py --threads 2 --repeats 15
python benchmarks/depthwise.py --device cuda

On a CPU: every layer of X3D-M (batch 2) and of the demo (batch 16) at the largest and the smallest configuration, and some of neither, in
turns and medians, once for each set of instructions that the processor has. Writes benchmarks/results/depthwise.csv and prints the
`RULES` that it gives. One thread is timed in CPU time, which other processes hardly change, more are timed on the clock.
On a GPU: the same layers, forward and backward, PyTorch's against ours, in both memory formats and three types, with a Triton kernel for the
forward and the input gradient where Triton is installed. Writes benchmarks/results/depthwise_cuda.csv and changes no rule: a GPU gets PyTorch's own.
"""

import argparse
import csv
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from common import RESULTS, machine, save_rows, write_csv

from mutual3d.layers import SlimmableConv3d, depthwise
from mutual3d.layers.depthwise import INPUT_WAYS, WEIGHT_WAYS, Given
from mutual3d.models import build_model
from mutual3d.pipeline import load_config

NETWORKS = {"configs/Demo/MUTUAL_X3D.yaml": 16, "configs/Kinetics/MUTUAL_X3D_M.yaml": 2}
INSTRUCTIONS = ("AVX2", "AVX512")


class Layer(NamedTuple):
    """A depthwise convolution and what it is given; each triple is (time, height, width)."""

    batch: int
    channels: int
    size: tuple
    kernel: tuple
    stride: tuple = (1, 1, 1)
    dilation: tuple = (1, 1, 1)

    @property
    def padding(self):
        return tuple(size // 2 * gap for size, gap in zip(self.kernel, self.dilation))

    @property
    def outputs(self):
        sizes = zip(self.size, self.padding, self.kernel, self.stride, self.dilation)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, k, s, d in sizes)


# Kernels and strides that the two networks lack: frames alone, time with a stride, dilation, a larger kernel.
OTHERS = [
    Layer(8, 64, (8, 28, 28), (1, 3, 3)), Layer(8, 64, (8, 28, 28), (1, 3, 3), (1, 2, 2)), Layer(8, 64, (16, 28, 28), (3, 1, 1)),
    Layer(8, 64, (16, 14, 14), (3, 1, 1), (2, 1, 1)), Layer(8, 64, (8, 28, 28), (3, 3, 3), (2, 2, 2)), Layer(8, 128, (8, 14, 14), (3, 3, 3), (2, 1, 1)),
    Layer(4, 64, (8, 28, 28), (3, 3, 3), (1, 1, 1), (1, 2, 2)), Layer(4, 64, (8, 14, 14), (3, 3, 3), (1, 1, 1), (1, 2, 2)),
    Layer(4, 64, (16, 14, 14), (3, 1, 1), (1, 1, 1), (2, 1, 1)), Layer(4, 64, (8, 14, 14), (3, 3, 3), (1, 2, 2), (1, 2, 2)),
    Layer(4, 64, (8, 14, 14), (5, 5, 5)), Layer(1, 54, (16, 56, 56), (3, 3, 3)),
    Layer(8, 64, (8, 7, 7), (3, 3, 3)), Layer(8, 64, (8, 7, 7), (3, 3, 3), (1, 2, 2)),
]  # fmt: skip


def layers_of(path, batch):
    """The depthwise layers of a config's network at its largest and its smallest configuration, in order, each once."""
    cfg = load_config(path)
    model = build_model(cfg).train()
    found = {}

    def note(layer, inputs, output):
        if layer.groups > 1:
            x = inputs[0]
            size, settings = tuple(x.shape[2:]), (layer.kernel_size, layer.stride, layer.dilation)
            found[Layer(batch, x.shape[1], size, *settings)] = None

    for module in model.modules():
        if isinstance(module, SlimmableConv3d):
            module.register_forward_hook(note)
    clip = torch.randn(2, 3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    with torch.no_grad():
        for configuration in (model.space.largest, model.space.smallest):
            model.activate(configuration)(model.fit_clip(clip))
    return list(found)


def make_given(layer, device="cpu", dtype=torch.float32, memory_format=torch.channels_last_3d):
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(shape, generator=generator).to(device, dtype).contiguous(memory_format=memory_format)

    x, weight = tensor(layer.batch, layer.channels, *layer.size), tensor(layer.channels, 1, *layer.kernel)
    grad = tensor(layer.batch, layer.channels, *layer.outputs)
    return Given(grad, x, weight, layer.stride, layer.padding, layer.dilation)


def fits(way, layer):
    """Whether a way computes the layer, in a time worth measuring."""
    pixels = layer.outputs[1] * layer.outputs[2]
    return {
        "plane": depthwise.kind_of(layer.kernel, layer.stride, layer.padding, layer.dilation) == "temporal",
        "spread": max(layer.stride) > 1, "shifted": pixels <= 200, "dense": pixels <= 64,
    }.get(way, True)  # fmt: skip


def median_ms(runs, repeats, clock, synchronize=lambda: None):
    """{key: milliseconds}, in turns, after one call that warms up."""
    times = {key: [] for key in runs}
    for repeat in range(repeats + 1):
        for key, run in runs.items():
            synchronize()
            start = clock()
            run()
            synchronize()
            if repeat:
                times[key].append(1000 * (clock() - start))
    return {key: statistics.median(values) for key, values in times.items()}


def largest_error(found, expected):
    """The largest difference over the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


# ---- CPU -----------------------------------------------------------------------------------------------------------------


def measure_cpu(layers, repeats):
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    rows = []
    for layer in layers:
        given = make_given(layer)
        chosen = depthwise.choose_ways(layer.outputs, layer.kernel, layer.stride, layer.padding, layer.dilation)
        # PyTorch's convolutions in float64 are too slow for the largest.
        small = given.x.numel() < 2e6
        double = Given(given.grad.double(), given.x.double(), given.weight.double(), layer.stride, layer.padding, layer.dilation)
        for gradient, ways, taken in zip(("input", "weight"), (INPUT_WAYS, WEIGHT_WAYS), chosen):
            runs = {way: (lambda way=way: ways[way](given)) for way in ways if fits(way, layer)}
            exact = ways["autograd"](double) if small else runs["autograd"]().double()
            errors = {way: largest_error(runs[way]().double(), exact) for way in ("autograd", taken)}
            ms = median_ms(runs, repeats, clock)
            rows.append({
                "gradient": gradient, "instructions": torch.backends.cpu.get_cpu_capability(), **describe(layer),
                **{f"{way}_ms": f"{ms[way]:.3f}" if way in ms else "" for way in {**INPUT_WAYS, **WEIGHT_WAYS}},
                "taken": taken, "times_faster": f"{ms['autograd'] / ms[taken]:.2f}", "error": f"{errors[taken]:.0e}",
                "error_autograd": f"{errors['autograd']:.0e}" if small else "", "machine": machine(),
            })  # fmt: skip
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items() if value), flush=True)
    return rows


def describe(layer):
    return {
        "batch": layer.batch, "channels": layer.channels, "size": "x".join(map(str, layer.size)),
        "kernel": "x".join(map(str, layer.kernel)), "stride": "x".join(map(str, layer.stride)),
        "dilation": "x".join(map(str, layer.dilation)), "kind": depthwise.kind_of(layer.kernel, layer.stride, layer.padding, layer.dilation),
        "output_pixels": layer.outputs[1] * layer.outputs[2],
    }  # fmt: skip


def derive_rules(rows):
    """Those of `RULES` that measured rows decide: for each gradient and kind the thresholds of least mean loss against each layer's fastest way.

    A loss is the logarithm of how many times slower; a further threshold has to save 1 % of the time.
    """
    rules = {}
    for gradient, kind in itertools.product(("input", "weight"), ("temporal", "strided", "unit")):
        own = [row for row in rows if (row["gradient"], row["kind"]) == (gradient, kind)]
        ways = {"input": INPUT_WAYS, "weight": WEIGHT_WAYS}[gradient]
        rules[gradient, kind] = best_rule([(int(row["output_pixels"]), losses(row, ways)) for row in own], list(ways))
    return rules


def losses(row, ways):
    ms = {way: float(row[f"{way}_ms"]) for way in ways if row[f"{way}_ms"]}
    return {way: math.log(value / min(ms.values())) for way, value in ms.items()}


def best_rule(points, ways):
    pixels = sorted({value for value, _ in points})
    best, least = None, math.inf
    for count in range(3):
        for ends in itertools.combinations(pixels[:-1], count):
            limits = [0, *ends, math.inf]
            parts = [[loss for value, loss in points if low < value <= high] for low, high in zip(limits, limits[1:])]
            chosen = [min(ways, key=lambda way: sum(loss.get(way, math.inf) for loss in part)) for part in parts]
            loss = sum(loss.get(way, math.inf) for part, way in zip(parts, chosen) for loss in part) / len(points)
            if loss < least - (0.01 if best and count >= len(best) else 0):
                best, least = tuple(zip([*ends, math.inf], chosen)), loss
    return best


def run_for_instructions(options):
    """The rows of a process for each set of instructions that this processor has."""
    rows = []
    ours = torch.backends.cpu.get_cpu_capability()
    for name in INSTRUCTIONS[: INSTRUCTIONS.index(ours) + 1]:
        isa = {"AVX2": "AVX2", "AVX512": "AVX512_CORE"}[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.csv"
            words = ["--rows", path, "--threads", options.threads, "--repeats", options.repeats]
            environment = {**os.environ, "ATEN_CPU_CAPABILITY": name.lower(), "ONEDNN_MAX_CPU_ISA": isa}
            subprocess.run([sys.executable, __file__, *map(str, words)], env=environment, check=True)
            rows += list(csv.DictReader(path.open()))
    return rows


# ---- GPU -----------------------------------------------------------------------------------------------------------------


def frames_forward(given):
    """The forward as 2D convolutions of the frames of all clips, one for each tap in time."""
    outputs = torch.zeros_like(given.grad)
    settings = given.stride[1:], given.padding[1:], given.dilation[1:], given.channels
    for tap, weight in enumerate(given.weight.unbind(2)):
        if (overlap := given.overlap(0, tap)) is not None:
            frames = given.x[:, :, overlap[0]].transpose(1, 2).flatten(0, 1)
            sums = F.conv2d(frames, weight, None, *settings).unflatten(0, (len(given.x), -1)).transpose(1, 2)
            outputs[:, :, overlap[1]] += sums
    return outputs


def plain_forward(given):
    return F.conv3d(given.x, given.weight, None, given.stride, given.padding, given.dilation, given.channels)


def triton_ways():
    """({name: forward}, {name: input gradient}) of the Triton kernel; empty without Triton."""
    try:
        import depthwise_triton
    except ImportError:
        return {}, {}
    return {"triton": depthwise_triton.forward}, {"triton": depthwise_triton.input_gradient}


def measure_cuda(layers, repeats):
    """Rows as `describe` and times; written after each layer, so that a run which is ended early has given something."""
    triton_forward, triton_input = triton_ways()
    parts = {
        "forward": {"autograd": plain_forward, "frames": frames_forward, **triton_forward},
        "input": {**INPUT_WAYS, **triton_input}, "weight": WEIGHT_WAYS,
    }  # fmt: skip
    names = list(dict.fromkeys(way for ways in parts.values() for way in ways))
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
    rows = []
    for layer, dtype, (format_name, memory_format) in itertools.product(
        layers, (torch.float32, torch.bfloat16, torch.float16), formats.items()
    ):
        given = make_given(layer, "cuda", dtype, memory_format)
        for part, ways in parts.items():
            # Triton's input gradient has no strides.
            fitting = [way for way in ways if fits(way, layer) and (part, way) != ("input", "triton" if max(layer.stride) > 1 else "")]
            runs = {way: (lambda way=way: ways[way](given)) for way in fitting}
            expected = runs["autograd"]().double()
            errors = {way: largest_error(run().double(), expected) for way, run in runs.items()}
            ms = median_ms(runs, repeats, time.perf_counter, torch.cuda.synchronize)
            fastest = min(ms, key=ms.get)
            rows.append({
                "part": part, "type": str(dtype).removeprefix("torch."), "format": format_name, **describe(layer),
                **{f"{way}_ms": f"{ms[way]:.4f}" if way in ms else "" for way in names}, "fastest": fastest,
                "times_faster": f"{ms['autograd'] / ms[fastest]:.2f}", "worst_error": f"{max(errors.values()):.0e}",
                "machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
            })  # fmt: skip
        write_csv(RESULTS / "depthwise_cuda.csv", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--repeats", type=int, default=15, help="default 15")
    parser.add_argument("--rows", type=Path, help="measure with this process's instructions alone, into this csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.rows is None and options.device == "cpu":
        rows = run_for_instructions(options)
        save_rows("depthwise", rows)
        for key, rule in derive_rules(rows).items():
            taken = "as it is" if rule == depthwise.RULES[key] else f"in the place of {depthwise.RULES[key]}"
            print(f"{key}: {rule}, {taken}")
        return
    layers = list(dict.fromkeys([*itertools.chain(*(layers_of(path, batch) for path, batch in NETWORKS.items())), *OTHERS]))
    if options.device == "cuda":
        measure_cuda(layers, options.repeats)
    else:
        write_csv(options.rows, measure_cpu(layers, options.repeats))


if __name__ == "__main__":
    main()
