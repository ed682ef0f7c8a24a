"""The paper's Table 1 in miniature: what happens to a static network that is made smaller at run time?

python benchmarks/table1.py --output out/table1 --seeds 0 1 2

On the demo set's test videos (one centre view): a static X3D run at reduced width, size and frames, with the first
channels of its own batch norm statistics and with calibrated ones; the mutual network; networks trained at each
configuration alone. Every training is resumed where it was stopped. Writes benchmarks/results/table1.csv.
"""

import argparse
import statistics
from pathlib import Path

from common import ROOT, save_rows

from mutual3d.data.prepare.demo import make_demo
from mutual3d.evaluation import calibrate
from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.pipeline import from_config, load_config
from mutual3d.pipeline.training import train
from mutual3d.pipeline.workspace import Workspace
from mutual3d.sampling import Configuration
from mutual3d.utils import distributed
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.logging import setup_logging

CONFIGURATIONS = [Configuration.parse(text) for text in ("1-48-8", "0.5-48-8", "1-32-8", "1-48-4", "0.5-32-4")]
SHARED = {
    "DATA.NUM_FRAMES": 8, "DATA.SAMPLING_RATE": 3, "DATA.TRAIN_JITTER_SCALES": [48, 56], "DATA.TRAIN_CROP_SIZE": 48,
    "DATA.TEST_CROP_SIZE": 48, "MUTUAL.SPATIAL_SIZES": [32, 40, 48], "MUTUAL.TEMPORAL_SIZES": [4, 6, 8], "GRID.SPLIT": "test",
    # Every method learns by the paper's recipe, whatever else the demo does.
    "MUTUAL.SUBNETS_START_EPOCH": 0.0,
}  # fmt: skip


def make_run(output, data, seed, epochs, **changes):
    values = {**SHARED, "OUTPUT_DIR": output, "DATA.PATH_TO_DATA_DIR": data, "RNG_SEED": seed}
    values |= {"SOLVER.MAX_EPOCH": epochs, "TRAIN.EVAL_PERIOD": epochs, **changes}
    path = ROOT / "configs" / "Demo" / "MUTUAL_X3D.yaml"
    cfg = load_config(path, [str(word) for pair in values.items() for word in pair])
    ensure_directory(cfg.OUTPUT_DIR)
    setup_logging(cfg.OUTPUT_DIR)
    return Workspace(from_config(cfg), distributed.choose_device(0))


def alone(configuration):
    """Changes that train one configuration by itself, on clips of its own size."""
    size, frames = configuration.spatial, configuration.temporal
    return {
        "MUTUAL.WIDTH_RANGE": [configuration.width] * 2, "MUTUAL.SPATIAL_SIZES": [size],
        "MUTUAL.TEMPORAL_SIZES": [frames], "MUTUAL.SUBNETS": [], "DATA.TRAIN_CROP_SIZE": size,
        "DATA.TEST_CROP_SIZE": size, "DATA.NUM_FRAMES": frames,
        "DATA.TRAIN_JITTER_SCALES": [size, round(size * 56 / 48)], "DATA.SAMPLING_RATE": 24 // frames,
    }  # fmt: skip


def accuracy(run, configurations, calibrated=True):
    """{configuration: top-1 on the test videos}."""
    if calibrated:
        loader = run.plan.calibration.loader()
        calibrate(run.model, lambda start: loader.batches(0, start), configurations, prepare=run.prepare)
    metrics = run.measure(run.plan.grid.loader(), configurations, "measure")
    return {c: m.values()["top1_acc"] for c, m in metrics.items()}


def own_statistics(model, configuration):
    """The first channels of the full network's running statistics: what a reader of Table 1 would try first."""
    norms = slimmable_norms(model)
    first = {name: norm.rule.at(configuration.width) for name, norm in norms.items()}
    return BNStatistics(
        {name: norm.running_mean[: first[name]].clone() for name, norm in norms.items()},
        {name: norm.running_var[: first[name]].clone() for name, norm in norms.items()},
    )


def measure_seed(output, data, seed, epochs):
    """{method: {configuration: top-1}} of one seed."""
    results = {}
    mutual = make_run(output / f"mutual-{seed}", data, seed, epochs)
    train(mutual, mutual.plan.training)
    results["mutual"] = accuracy(mutual, CONFIGURATIONS)
    static = make_run(output / f"static-{seed}", data, seed, epochs, **{"MUTUAL.SUBNETS": []})
    train(static, static.plan.training)
    static.model.set_statistics({c: own_statistics(static.model, c) for c in CONFIGURATIONS})
    results["static, own BN statistics"] = accuracy(static, CONFIGURATIONS, calibrated=False)
    results["static, calibrated"] = accuracy(static, CONFIGURATIONS)
    results["trained alone"] = {CONFIGURATIONS[0]: results["static, calibrated"][CONFIGURATIONS[0]]}
    for configuration in CONFIGURATIONS[1:]:
        run = make_run(output / f"alone-{configuration}-{seed}", data, seed, epochs, **alone(configuration))
        train(run, run.plan.training)
        results["trained alone"] |= accuracy(run, [configuration])
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "table1")
    parser.add_argument("--data", type=Path, default=ROOT / "demo" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    make_demo(options.data)
    seeds = [measure_seed(options.output, options.data, seed, options.epochs) for seed in options.seeds]
    rows = []
    for method in seeds[0]:
        for configuration in CONFIGURATIONS:
            values = [results[method][configuration] for results in seeds]
            rows.append({
                "method": method, "configuration": str(configuration),
                "top1_acc_mean": f"{statistics.mean(values):.1f}",
                "top1_acc_min": f"{min(values):.1f}", "top1_acc_max": f"{max(values):.1f}", "seeds": len(values),
                "epochs": options.epochs, "split": "test, 240 videos, 1 view",
            })  # fmt: skip
    save_rows("table1", rows)


if __name__ == "__main__":
    main()
