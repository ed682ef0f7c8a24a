"""The whole job, small: make videos, train one network, calibrate and measure it everywhere, run it at three budgets.

mutual3d demo [KEY VALUE ...]          the keys replace those of the config Demo/MUTUAL_X3D
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mutual3d.cli import predict, run
from mutual3d.data.prepare.demo import make_demo
from mutual3d.deploy.adaptive_model import load
from mutual3d.pipeline import data_directory, load_config, machine_of

CONFIG = "Demo/MUTUAL_X3D"


def predict_at_three_budgets(output: Path, video: Path) -> None:
    """One video with the cheapest, a middle and the dearest of the best configurations."""
    front = load(output / "adaptive.pyth").table.pareto_front()
    for index in sorted({0, len(front) // 2, len(front) - 1}):
        budget = f"{front[index].gflops * 1.001:.4g}"
        print(f"\n$ mutual3d predict {output / 'adaptive.pyth'} {video} --gflops {budget}")
        words = ["--model", output / "adaptive.pyth", "--video", video, "--gflops", budget, "--top", "3"]
        predict.main([str(word) for word in words])


def main(arguments: Sequence[str] | None = None) -> None:
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(overrides):
        print(__doc__)
        return
    cfg = load_config(CONFIG, overrides)
    data, output = data_directory(cfg), machine_of(cfg).output
    start = time.perf_counter()
    make_demo(data)
    print(f"videos in '{data}' ({time.perf_counter() - start:.0f} s)")
    run.main(["--cfg", CONFIG, *overrides])
    first_test_video = (data / "test.csv").read_text().split()[0]
    predict_at_three_budgets(output, data / first_test_video)
    print(f"\n{time.perf_counter() - start:.0f} seconds in all. Open {output / 'report.html'}; then, for example:")
    print(f"mutual3d select {output / 'adaptive.pyth'} --list")
