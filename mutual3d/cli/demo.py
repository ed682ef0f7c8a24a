"""The whole job, small: make videos, train one network, calibrate and measure it everywhere, run it at three budgets.

    mutual3d demo
    mutual3d demo SOLVER.MAX_EPOCH 10 OUTPUT_DIR quick

KEY VALUE pairs replace those of the config Demo/MUTUAL_X3D.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from mutual3d.cli import predict, run
from mutual3d.data.prepare.demo import make_demo
from mutual3d.deploy.adaptive_model import load
from mutual3d.pipeline import data_directory, load_config, machine_of
from mutual3d.pipeline.run import words_of_times
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.command_line import command_parser, parse_with_settings
from mutual3d.utils.files import ensure_directory

CONFIG = "Demo/MUTUAL_X3D"


def parse(arguments: Sequence[str] | None = None) -> run.RunOptions:
    """The command line, as that of `mutual3d run` on the demo's config."""
    return run.RunOptions(CONFIG, parse_with_settings(command_parser("demo", __doc__), arguments)[1], [])


def predict_at_three_budgets(output: Path, video: Path, table: QueryTable) -> None:
    """One video with the cheapest, a middle and the dearest of the best configurations."""
    front = table.pareto_front()
    for index in sorted({0, len(front) // 2, len(front) - 1}):
        budget = f"{front[index].gflops * 1.001:.4g}"
        print(f"\n$ mutual3d predict {output / 'adaptive.pyth'} {video} --gflops {budget}")
        words = ["--model", output / "adaptive.pyth", "--video", video, "--gflops", budget, "--top", "3"]
        predict.main([str(word) for word in words])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo; `arguments`, by default those of the command line, are KEY VALUE pairs."""
    options = parse(arguments)
    overrides = options.overrides
    cfg = load_config(CONFIG, overrides)
    data, output = data_directory(cfg), machine_of(cfg).output
    start = time.perf_counter()
    ensure_directory(output)  # which may be refused, before minutes of making videos
    make_demo(data)
    seconds = {"videos": time.perf_counter() - start}
    print(f"videos in '{data}' ({seconds['videos']:.0f} s)")
    run.run_config(options, seconds)
    start = time.perf_counter()
    table = load(output / "adaptive.pyth").table
    if table is None:
        print("no query table: GRID.ENABLE is False, and so there is no budget to choose by")
        return
    first_test_video = (data / "test.csv").read_text().split()[0]
    predict_at_three_budgets(output, data / first_test_video, table)
    seconds["predict"] = time.perf_counter() - start
    print(f"\n{words_of_times(seconds)}. Open {output / 'report.html'}; then, for example:")
    print(f"mutual3d select {output / 'adaptive.pyth'} --list")
