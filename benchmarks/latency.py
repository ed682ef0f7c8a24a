"""How long four configurations from the cheapest to the dearest take, in PyTorch as it comes, as served, and in each runtime.

python benchmarks/latency.py --cfg configs/Kinetics/MUTUAL_X3D_M.yaml
python benchmarks/latency.py --bundle demo/out/adaptive.pyth --name demo
python benchmarks/latency.py --cfg configs/Kinetics/MUTUAL_X3D_M.yaml --device cuda --batch 1 8 --runtimes torch cuda torch_compile --name cuda_x3d_m

Each way takes the same uint8 clip at full size and gives probabilities: `eager_contiguous` is the extracted network, norms and all, in
PyTorch's own memory format; `eager` is a call of the model at an active configuration, all configurations sharing their weights; the
others are the runtimes that are installed and compile in seconds, or those of --runtimes (`torch` is the extracted network, its norms
folded). With --device cuda the clip lies on the GPU already. All are warm and called in turns, what is noisy again,
so that ratios are of one run. A runtime is used once its scores are PyTorch's. Of a config, weights and statistics are random, which
does not change the time; of a bundle, configurations are those of its Pareto front over GFLOPs. Writes one row for each
configuration and way into benchmarks/results/latency_NAME.csv.
"""

import argparse
import copy
from pathlib import Path

import torch
from common import RESULTS, write_csv
from switching import make_model

import mutual3d
from mutual3d.cost.flops import count_costs
from mutual3d.cost.latency import Repeating, time_in_turns
from mutual3d.cost.machine import cpu_features, device_name
from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.compiled import CompilationError, RuntimeMismatchError
from mutual3d.deploy.runtimes import RUNTIMES
from mutual3d.pipeline import load_config
from mutual3d.pipeline.build import preprocessing_of
from mutual3d.sampling import normalize_clip

CPU = torch.device("cpu")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cfg", help="the YAML of a network, such as configs/Kinetics/MUTUAL_X3D_M.yaml")
    which.add_argument("--bundle", type=Path, help="the adaptive.pyth of a run")
    parser.add_argument("--name", help="of the csv (default: the network's config)")
    parser.add_argument("--runtimes", nargs="+", choices=list(RUNTIMES), help="default: those that `auto` may choose, and torch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the network runs (default cpu)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1], help="clips at a time (default 1)")
    parser.add_argument("--repeats", type=int, default=20, help="default 20")
    parser.add_argument("--count", type=int, default=4, help="configurations (default 4)")
    return parser.parse_args()


def load(options):
    """(model, its configurations from the cheapest to the dearest, name)"""
    if options.bundle:
        model = mutual3d.load(options.bundle)
        front = [row.configuration for row in model.table.pareto_front()]
        count = min(options.count, len(front))
        places = sorted({round(i * (len(front) - 1) / max(count - 1, 1)) for i in range(count)})
        return model, [front[place] for place in places], options.name or "bundle"
    cfg = load_config(options.cfg, [])
    torch.manual_seed(0)
    network, chosen = make_model(cfg, options.count)
    return AdaptiveModel(network, preprocessing=preprocessing_of(cfg)), chosen, options.name or Path(options.cfg).stem.lower()


def eager_contiguous(model, configuration):
    """A function of a uint8 clip: the extracted network, as somebody would run it who does not look at memory formats."""
    cut, network = model.preprocessing, model.extract(configuration).eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()

    def run(clip):
        with torch.no_grad():
            pathways = model.network.fit_clip(normalize_clip(clip, cut.mean, cut.std).contiguous(), configuration)
            inputs = pathways.contiguous() if isinstance(pathways, torch.Tensor) else [each.contiguous() for each in pathways]
            return network(inputs).softmax(1)

    return run


def main():
    options = parse()
    model, configurations, name = load(options)
    device = torch.device(options.device)
    model.network.place(device)
    weights = next(model.parameters())
    names = options.runtimes or [
        n for n, r in RUNTIMES.items() if r.is_installed and (r.is_automatic or n == "torch") and r.placement(weights)[0].type == device.type
    ]  # fmt: skip
    served = {each: AdaptiveModel(model.network, preprocessing=model.preprocessing).run_in(each) for each in names}
    rows = []
    for batch in options.batch:
        rows += compare(model, served, configurations, name, batch, options.repeats)
        write_csv(RESULTS / f"latency_{name}.csv", rows)


def compare(model, served, configurations, name, batch, repeats):
    """A row for each configuration and way of a batch of clips."""
    cut, device = model.preprocessing, next(model.parameters()).device
    clip = torch.randint(0, 256, (batch, 3, cut.num_frames, cut.crop, cut.crop), dtype=torch.uint8, device=device)
    groups, differences = [{} for _ in range(len(served) + 2)], {}
    for configuration in configurations:
        plain = eager_contiguous(model, configuration)
        expected = plain(clip).cpu()
        ways = {"eager_contiguous": plain, "eager": active(model, configuration)}
        ways |= {each: named(other, configuration) for each, other in served.items()}
        for group, (way, run) in zip(groups, ways.items()):
            try:
                differences[configuration, way] = (run(clip).cpu() - expected).abs().max().item()
            except (CompilationError, RuntimeMismatchError) as error:
                print(f"{configuration} in {way} is left out: {error}", flush=True)
                continue
            group[configuration, way] = prepared(run, clip, model, configuration if way == "eager" else None)
    timings = time_in_turns(groups, device, Repeating(repeats))
    costs, rows = count_costs(copy.deepcopy(model.network).place(CPU), configurations, cut.crop), []
    host = f" ({' '.join(cpu_features())}), {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    for configuration in configurations:
        base, today = (timings[configuration, way].p50 for way in ("eager_contiguous", "eager"))
        for (c, way), timing in timings.items():
            if c == configuration:
                rows.append({
                    "network": name, "batch": batch, "configuration": c, "gflops": f"{costs[c].gflops:.4g}", "way": way,
                    "p50_ms": f"{timing.p50:.4g}", "p90_ms": f"{timing.p90:.4g}", "p99_ms": f"{timing.p99:.4g}", "spread": f"{timing.spread:.2f}",
                    "faster_than_eager_contiguous": f"{base / timing.p50:.2f}", "faster_than_eager": f"{today / timing.p50:.2f}",
                    "probabilities_differ_by": f"{differences[c, way]:.1g}",
                    "version": RUNTIMES[way].version() if way in RUNTIMES else f"torch {torch.__version__}",
                    "machine": f"{device_name(device)}{host}",
                })  # fmt: skip
    for row in rows:
        print(", ".join(f"{key} {row[key]}" for key in ("configuration", "batch", "gflops", "way", "p50_ms", "spread", "faster_than_eager_contiguous")))
    ways = ("eager_contiguous", "eager", *served)
    print(f"dearest over cheapest, batch {batch}: {', '.join(span(timings, configurations, way) for way in ways)}", flush=True)
    return rows


def active(model, configuration):
    """As served without a runtime: `activate`, once, and a call."""

    def run(clip):
        if model.active != configuration:
            model.activate(configuration)
        return model(clip)

    return run


def named(model, configuration):
    return lambda clip: model(clip, configuration=configuration)


def prepared(run, clip, model, configuration):
    """What `time_in_turns` takes; switching is outside the clock."""

    def prepare():
        if configuration is not None:
            model.activate(configuration)
        return lambda: run(clip)

    return prepare


def span(timings, configurations, way):
    """How many times longer the dearest configuration takes, and whether times rise with GFLOPs."""
    times = [timings[c, way].p50 for c in configurations if (c, way) in timings]
    rising = "in order" if times == sorted(times) else "not in order"
    return f"{way} {times[-1] / times[0]:.2f} ({rising})" if times else f"{way} -"


if __name__ == "__main__":
    main()
