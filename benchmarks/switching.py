"""What switching the configuration costs, beside a forward at the cheapest one and beside what else would be done instead.

python benchmarks/switching.py --cfg configs/Kinetics/MUTUAL_X3D_M.yaml

Writes two rows, in turns and medians: benchmarks/results/switching.csv (of the network in PyTorch: `activate` by object and by
text, and how much slower an activated network is than the extracted one, in CPU time of its thread) and
benchmarks/results/prepared.csv (of a prepared front in each of two runtimes: the call that switches against the one that does not, against
loading another model from its file; memory of the prepared front against a static model each). Statistics are random: they do
not change the time.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import machine, paired_medians, parse_timing, replace_row

import mutual3d
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.models import build_model
from mutual3d.pipeline import load_config

SWITCHES = 1000
CPU = torch.device("cpu")


def random_statistics(model, configuration):
    channels = {name: norm.rule.at(configuration.width) for name, norm in slimmable_norms(model).items()}
    return BNStatistics(
        {name: torch.randn(count) for name, count in channels.items()},
        {name: torch.rand(count) + 0.5 for name, count in channels.items()},
    )


def make_model(cfg, count):
    """The network of a config, calibrated at `count` configurations from the cheapest to the dearest."""
    network = build_model(cfg).place(CPU).eval()
    space = network.space
    sizes = [(space.spatial_sizes[i * (len(space.spatial_sizes) - 1) // (count - 1)],
              space.temporal_sizes[i * (len(space.temporal_sizes) - 1) // (count - 1)]) for i in range(count)]  # fmt: skip
    least, greatest = space.width_range
    chosen = [space.check(f"{least + (greatest - least) * i / (count - 1):g}-{s}-{t}") for i, (s, t) in enumerate(sizes)]
    network.set_statistics({c: random_statistics(network, c) for c in [*space.corners(), *chosen]})
    return network, chosen


def compare(path, cfg, repeats):
    model, _ = make_model(cfg, 2)
    corners = model.space.corners()
    clip = torch.randn(1, 3, model.clip_frames, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    pathways = model.activate(model.space.smallest).fit_clip(clip)
    texts = [str(corner) for corner in corners]

    def switch(configurations):
        for i in range(SWITCHES):
            model.activate(configurations[i % len(configurations)])

    def forward():
        model.activate(model.space.smallest)
        with torch.no_grad():
            model(pathways)

    runs = {"object": lambda: switch(corners), "text": lambda: switch(texts), "forward": forward}
    seconds = paired_medians(runs, repeats)
    switch_us, text_us = (1e6 * seconds[key] / SWITCHES for key in ("object", "text"))
    forward_us = 1e6 * seconds["forward"]
    over = {c: over_extracted(model, model.space.check(c), clip, repeats) for c in (model.space.smallest, model.space.largest)}
    return {
        "config": path, "switch_us": f"{switch_us:.1f}", "switch_by_text_us": f"{text_us:.1f}",
        "cheapest_forward_us": f"{forward_us:.0f}", "switch_percent_of_forward": f"{100 * switch_us / forward_us:.3f}",
        "smallest_percent_over_extracted": f"{over[model.space.smallest]:.1f}",
        "largest_percent_over_extracted": f"{over[model.space.largest]:.1f}", "machine": machine(),
    }  # fmt: skip


def over_extracted(model, configuration, clip, repeats):
    """Per cent of CPU time, in one thread, that the activated network takes over the extracted one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pathways, extracted = model.fit_clip(clip, configuration), model.extract(configuration)
    for parameter in extracted.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    times = {"active": [], "extracted": []}
    model.activate(configuration)
    with torch.no_grad():
        for _ in range(2 + max(repeats, 21)):
            for key, network in (("active", model), ("extracted", extracted)):
                start = time.thread_time()
                network(pathways)
                times[key].append(time.thread_time() - start)
    torch.set_num_threads(threads)
    # Another process that takes the caches only ever adds.
    return 100 * (min(times["active"][2:]) / min(times["extracted"][2:]) - 1)


# ---- A prepared front ----------------------------------------------------------------------------------------------------

# A process that prepares some configurations of a model, or as many models of one each, and says how much it grew.
GROWTH = """
import sys, torch, mutual3d
from mutual3d.utils.memory import resident_bytes
torch.set_num_threads(1)
path, runtime, cache, is_static, *configurations = sys.argv[1:]
clip = None
def served(names, kept=[]):
    model = mutual3d.load(path, runtime, cache=cache)
    model.prepare(names, progress=False)
    cut = model.preprocessing
    clip = torch.zeros(1, 3, cut.num_frames, cut.crop, cut.crop, dtype=torch.uint8)
    for name in names: model(clip, configuration=name)
    kept.append(model)
served(configurations[:1], [])
before = resident_bytes()
for names in ([[name] for name in configurations] if is_static == "static" else [configurations]): served(names)
print(resident_bytes() - before)
"""


def compare_prepared(path, cfg, runtime, count, repeats):
    network, chosen = make_model(cfg, count)
    crop = cfg.DATA.TRAIN_CROP_SIZE
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, network.clip_frames, 2, 30, crop)
    with tempfile.TemporaryDirectory() as directory:
        bundle, cache = Path(directory) / "adaptive.pyth", Path(directory) / "cache"
        AdaptiveModel(network, preprocessing=preprocessing).save(bundle)
        model = mutual3d.load(bundle, runtime, cache=cache)
        prepared = model.prepare(chosen, progress=False)
        clip = torch.randint(0, 256, (1, 3, network.clip_frames, crop, crop), dtype=torch.uint8)
        cheapest = chosen[0]

        def load():
            other = mutual3d.load(bundle, runtime, cache=cache)
            other(clip, configuration=cheapest)

        def lookups():
            for i in range(SWITCHES):
                model._compiled.find(chosen[i % count], clip)

        for configuration in chosen:
            model(clip, configuration=configuration)
        runs = {
            "stay": lambda: model(clip, configuration=cheapest), "load": load, "lookup": lookups,
            "other": lambda: model(clip, configuration=chosen[1]), "back": lambda: model(clip, configuration=cheapest),
        }  # fmt: skip
        seconds = paired_medians(runs, repeats, warmup=1)
        grown = {
            kind: int(subprocess.run(
                [sys.executable, "-c", GROWTH, str(bundle), runtime, str(cache), kind, *map(str, chosen)],
                capture_output=True, text=True, check=True,
            ).stdout.split()[-1])
            for kind in ("front", "static")
        }  # fmt: skip
    switch_us = 1e6 * seconds["lookup"] / SWITCHES
    return {
        "config": path, "runtime": runtime, "configurations": count, "compile_s": f"{prepared.seconds:.1f}",
        "switch_us": f"{switch_us:.1f}", "cheapest_call_ms": f"{1e3 * seconds['stay']:.2f}",
        "cheapest_call_after_another_ms": f"{1e3 * seconds['back']:.2f}", "load_another_model_ms": f"{1e3 * seconds['load']:.0f}",
        "load_over_switch": f"{seconds['load'] / (seconds['lookup'] / SWITCHES):.0f}", "front_mb": f"{grown['front'] / 1e6:.0f}",
        "separate_static_models_mb": f"{grown['static'] / 1e6:.0f}", "machine": machine(),
    }  # fmt: skip


def main():
    options = parse_timing(__doc__, cfg="configs/Kinetics/MUTUAL_X3D_M.yaml", repeats=11, configurations=4)
    torch.set_num_threads(2)
    cfg = load_config(options.cfg)
    replace_row("switching", "config", compare(options.cfg, cfg, options.repeats))
    for runtime in ("torch", "openvino"):
        row = compare_prepared(options.cfg, cfg, runtime, options.configurations, options.repeats)
        replace_row("prepared", "key", {"key": f"{options.cfg} {runtime}", **row})


if __name__ == "__main__":
    main()
