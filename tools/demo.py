"""The whole job, small: make videos, train one network, calibrate and measure it everywhere, run it at three budgets.

python tools/demo.py [KEY VALUE ...]          keys override configs/Demo/MUTUAL_X3D.yaml
"""

import sys
import time
from pathlib import Path

import mutual3d
import predict
import run_net
from mutual3d.pipeline import load_config
from mutual3d.data.prepare.demo import make_demo
from mutual3d.utils.command_line import run_command

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "Demo" / "MUTUAL_X3D.yaml"


def predict_at_three_budgets(output, video):
    """One video with the cheapest, a middle and the dearest of the best configurations."""
    frontier = mutual3d.load(output / "adaptive.pyth").table.frontier()
    for index in sorted({0, len(frontier) // 2, len(frontier) - 1}):
        budget = f"{frontier[index].gflops * 1.001:.4g}"
        print(f"\n$ python tools/predict.py --model {output / 'adaptive.pyth'} --video {video} --gflops {budget}")
        words = ["--model", output / "adaptive.pyth", "--video", video, "--gflops", budget, "--top", "3"]
        predict.main([str(word) for word in words])


def main(arguments=None):
    overrides = sys.argv[1:] if arguments is None else arguments
    cfg = load_config(CONFIG, overrides)
    data, output = Path(cfg.DATA.PATH_TO_DATA_DIR), Path(cfg.OUTPUT_DIR)
    start = time.perf_counter()
    make_demo(data)
    print(f"videos in '{data}' ({time.perf_counter() - start:.0f} s)")
    run_net.main(["--cfg", str(CONFIG), *overrides])
    first_test_video = (data / "test.csv").read_text().split()[0]
    predict_at_three_budgets(output, data / first_test_video)
    print(f"\n{time.perf_counter() - start:.0f} seconds in all. Open {output / 'report.html'}; then, for example:")
    print(f"python tools/select_config.py --table {output / 'query_table.json'} --list")


if __name__ == "__main__":
    run_command(main)
