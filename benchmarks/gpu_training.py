"""Clips a second and peak memory of a training step on a GPU, beside PyTorchVideo's networks in PyTorch as it comes.

python benchmarks/gpu_training.py
python benchmarks/gpu_training.py --device cpu --networks x3d_m --batch 1 --frames 4 --crop 64 --repeats 1

A step is forward, loss, backward and SGD, of clips that lie on the device as uint8 (PyTorchVideo's: normalised floats, so that it
is spared the normalising). For each network: the static step and the mutual one of its config, and PyTorchVideo's network of the same shapes;
in float32 (convolutions in TF32, as PyTorch has it by default) and under bfloat16 autocast; in PyTorch's own memory format and in
channels last. All ways of one network are called in turns; the median counts for the static ones and the mean for mutual ones, whose
cost is a random variable. Beside the measured ratio of mutual over static stands the ratio of FLOPs (paper, Tables 3 and 4).
Writes benchmarks/results/gpu_training.csv.
"""

import argparse
import csv
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import RESULTS, write_csv
from step_cost import flops_ratio

from mutual3d.cost.machine import device_name
from mutual3d.models import build_model
from mutual3d.pipeline import load_config
from mutual3d.training.build import build_optimizer, build_step

Run = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A config, the clips of a step that an 80 GB GPU has room for in float32 and any memory format, and PyTorchVideo's network.

    alpha: of how many frames the Slow pathway sees one; 0 for a network of one pathway.
    """

    config: str
    batch: int
    theirs: Callable[[int, int], nn.Module]
    alpha: int = 0


def _their_x3d(frames: int, crop: int) -> nn.Module:
    from pytorchvideo.models.x3d import create_x3d

    return create_x3d(input_clip_length=frames, input_crop_size=crop, model_num_class=400, depth_factor=2.2, head_activation=None)


def _their_slow(frames: int, crop: int) -> nn.Module:
    from pytorchvideo.models.resnet import create_resnet

    pool = (frames, max(1, crop // 32), max(1, crop // 32))
    return create_resnet(
        model_depth=50, model_num_class=400, dropout_rate=0.5, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=pool,
        stage_conv_a_kernel_size=((1, 1, 1), (1, 1, 1), (3, 1, 1), (3, 1, 1)), head_activation=None,
    )  # fmt: skip


def _their_slowfast(frames: int, crop: int) -> nn.Module:
    from pytorchvideo.models.slowfast import create_slowfast

    side = max(1, crop // 32)
    return create_slowfast(
        model_num_class=400, slowfast_fusion_conv_kernel_size=(5, 1, 1), slowfast_fusion_conv_stride=(8, 1, 1), head_activation=None,
        head_pool_kernel_sizes=((frames // 8, side, side), (frames, side, side)), slowfast_channel_reduction_ratio=(8,),
        slowfast_conv_channel_fusion_ratio=2,
    )  # fmt: skip


# SlowFast's head in PyTorchVideo takes Slow clips of frames / 8: alpha is 8 in the 4x16 network.
SUBJECTS = {
    "x3d_m": Subject("configs/Kinetics/MUTUAL_X3D_M.yaml", 32, _their_x3d),
    "slow": Subject("configs/Kinetics/MUTUAL_SLOW_8x8_R50.yaml", 32, _their_slow),
    "slowfast": Subject("configs/Kinetics/MUTUAL_SLOWFAST_4x16_R50.yaml", 32, _their_slowfast, alpha=8),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), help="default: all")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--batch", type=int, help="clips of a step (default: the network's, see SUBJECTS)")
    parser.add_argument("--frames", type=int, help="of a clip (default: the config's)")
    parser.add_argument("--crop", type=int, help="pixels (default: the config's)")
    parser.add_argument("--repeats", type=int, default=8, help="rounds in which every way is timed once (default 8)")
    parser.add_argument("--seconds", type=float, default=40.0, help="of a network's rounds, after which no further one begins (default 40)")
    parser.add_argument("--width-samples", type=int, default=10, help="how finely the ratio of FLOPs averages random widths (default 10)")
    return parser.parse_args()


def made_smaller(subject: Subject, frames: int | None, crop: int | None) -> list[str]:
    """KEY VALUE pairs of a config for clips of other sizes than its own."""
    words: dict[str, object] = {}
    if frames:
        seen = frames // (subject.alpha or 1)
        words |= {"DATA.NUM_FRAMES": frames, "MUTUAL.TEMPORAL_SIZES": [max(1, seen // 2), seen]}
    if crop:
        words |= {"DATA.TRAIN_CROP_SIZE": crop, "DATA.TEST_CROP_SIZE": crop, "MUTUAL.SPATIAL_SIZES": [crop // 2, crop]}
        words |= {"DATA.TRAIN_JITTER_SCALES": [crop, crop + 8]}
    return [str(word) for pair in words.items() for word in pair]


def last(module: nn.Module) -> None:
    """Weights in channels last, in place."""
    for parameter in module.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def our_ways(subject: Subject, options: argparse.Namespace, batch: int) -> Iterator[tuple[dict[str, str], Run]]:
    """(what tells it from the others, a step) of this project's."""
    device = torch.device(options.device)
    for memory in ("channels_first", "channels_last"):
        for dtype in ("fp32", "bf16"):
            words = ["NUM_GPUS", str(int(device.type == "cuda")), "TRAIN.MIXED_PRECISION", str(dtype == "bf16"), "TRAIN.MIXED_PRECISION_DTYPE", "bfloat16"]
            cfg = load_config(subject.config, [*words, *made_smaller(subject, options.frames, options.crop)])
            torch.manual_seed(0)
            model = build_model(cfg).to(device).train()
            if memory == "channels_last":
                last(model)
            shape = batch, 3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE
            clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
            labels = torch.arange(batch, device=device) % cfg.MODEL.NUM_CLASSES
            optimizer = build_optimizer(cfg, model)
            for method in ("static", "mutual"):
                step = build_step(cfg, model, device)
                if method == "static":
                    step.method = dataclasses.replace(step.method, subnets=())
                prepare, wanted = step.prepare, torch.channels_last_3d if memory == "channels_last" else torch.contiguous_format
                step.prepare = _in_format(prepare, wanted)
                steps = options.repeats if method == "mutual" else 1
                yield {"whose": "mutual3d", "method": method, "dtype": dtype, "memory": memory}, _step(step, optimizer, clips, labels, steps)


def _in_format(prepare: Callable[[torch.Tensor], torch.Tensor], wanted: torch.memory_format) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda clips: prepare(clips).contiguous(memory_format=wanted)


def _step(step: Callable[..., object], optimizer: torch.optim.Optimizer, clips: torch.Tensor, labels: torch.Tensor, steps: int) -> Run:
    """The steps 0 to `steps` - 1 over and over: their numbers say which sub-networks run."""
    numbers = itertools.cycle(range(steps))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        step(clips, labels, next(numbers))
        optimizer.step()

    return run


def their_ways(subject: Subject, options: argparse.Namespace, batch: int) -> Iterator[tuple[dict[str, str], Run]]:
    """The same of PyTorchVideo's network, as its users train it."""
    device = torch.device(options.device)
    cfg = load_config(subject.config, ["NUM_GPUS", "0", *made_smaller(subject, options.frames, options.crop)])
    frames, crop = cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE
    clip = torch.randn(batch, 3, frames, crop, crop, device=device)
    labels = torch.arange(batch, device=device) % 400
    for memory in ("channels_first", "channels_last"):
        for dtype in ("fp32", "bf16"):
            torch.manual_seed(0)
            model = subject.theirs(frames, crop).to(device).train()
            given = clip
            if memory == "channels_last":
                last(model)
                given = clip.contiguous(memory_format=torch.channels_last_3d)
            optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
            inputs = [given[:, :, :: subject.alpha], given] if subject.alpha else given

            def run(model=model, optimizer=optimizer, inputs=inputs, dtype=dtype) -> None:
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
                    logits = model(list(inputs) if isinstance(inputs, list) else inputs)
                F.cross_entropy(logits.float(), labels).backward()
                optimizer.step()

            yield {"whose": "pytorchvideo", "method": "static", "dtype": dtype, "memory": memory}, run


def timed(run: Run, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_gigabytes(run: Run, device: torch.device) -> float:
    """The most that PyTorch has allocated in a call, less what the other ways keep between theirs; 0 on a CPU."""
    if device.type != "cuda":
        run()
        return 0.0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def compare(name: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each way to train one network."""
    subject, device = SUBJECTS[name], torch.device(options.device)
    batch = options.batch or subject.batch
    ways, peaks, times, first = [], [], [], []
    for make in (our_ways, their_ways):
        for facts, run in make(subject, options, batch):
            try:
                # Libraries choose their kernels for each shape that they have not seen, the optimizer makes its momenta. A training
                # meets each shape of its sub-networks thousands of times: what its first time costs is told apart.
                run()
                first.append([timed(run, device) for _ in range(options.repeats - 1 if facts["method"] == "mutual" else 1)])
                peaks.append(peak_gigabytes(run, device))
                if facts["method"] == "mutual":
                    for _ in range(options.repeats - 1):  # back to the first step
                        run()
            except torch.OutOfMemoryError:
                print(f"{name} {facts}: no room for {batch} clips", flush=True)
                continue
            ways.append((facts, run))
            times.append([])
    start = time.perf_counter()
    for number in range(options.repeats):
        if number >= 3 and time.perf_counter() - start > options.seconds:
            break
        for (_, run), own in zip(ways, times):
            own.append(timed(run, device))
    cfg = load_config(subject.config, ["NUM_GPUS", "0", *made_smaller(subject, options.frames, options.crop)])
    ratio = flops_ratio(build_model(cfg).to("meta"), cfg.MUTUAL.SUBNETS, width_samples=options.width_samples)
    rows = []
    found = {tuple(facts.values()): _typical(facts, own) for (facts, _), own in zip(ways, times)}
    for (facts, _), own, peak, cold in zip(ways, times, peaks, first):
        seconds = _typical(facts, own)
        key = tuple(facts.values())
        static = found.get((key[0], "static", *key[2:]))
        theirs = found.get(("pytorchvideo", "static", key[2], "channels_first"))
        is_mutual = facts["method"] == "mutual"
        rows.append({
            "network": name, **facts, "batch": batch, "frames": cfg.DATA.NUM_FRAMES, "crop": cfg.DATA.TRAIN_CROP_SIZE,
            "step_ms": f"{1000 * seconds:.4g}", "first_time_ms": f"{1000 * statistics.median(cold):.4g}",
            "spread": f"{(max(own) - min(own)) / seconds:.2f}", "repeats": len(own),
            "clips_a_second": f"{batch / seconds:.4g}", "peak_gb": f"{peak:.3g}",
            "mutual_over_static": f"{seconds / static:.3f}" if is_mutual and static else "",
            "flops_ratio": f"{ratio:.3f}" if is_mutual else "",
            "faster_than_pytorchvideo_as_it_comes": f"{theirs / seconds:.2f}" if theirs and not is_mutual else "",
            "tf32": torch.backends.cudnn.allow_tf32 and device.type == "cuda",
            "machine": device_name(device), "torch": torch.__version__,
        })  # fmt: skip
    return rows


def _typical(facts: dict[str, str], seconds: list[float]) -> float:
    return statistics.mean(seconds) if facts["method"] == "mutual" else statistics.median(seconds)


def main() -> None:
    options = parse()
    path = RESULTS / "gpu_training.csv"
    for name in options.networks:
        rows = compare(name, options)
        for row in rows:
            print(", ".join(f"{key} {row[key]}" for key in ("network", "whose", "method", "dtype", "memory", "step_ms", "first_time_ms", "clips_a_second", "peak_gb", "mutual_over_static", "flops_ratio", "faster_than_pytorchvideo_as_it_comes")), flush=True)  # fmt: skip
        earlier = list(csv.DictReader(path.open())) if path.is_file() else []
        write_csv(path, [row for row in earlier if row["network"] != name] + rows)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
