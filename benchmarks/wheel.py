"""Whoever installs the wheel has the whole product: every command, run from elsewhere, without the repository.

    python benchmarks/wheel.py

Builds the wheel, installs it into an environment of its own that borrows this one's libraries (nothing is downloaded), and runs
each command in an empty folder. Prints a line for each. Exit status: 0 when all of them work.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = (
    "OUTPUT_DIR demo/out DATA.PATH_TO_DATA_DIR demo/data SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0 CALIBRATION.NUM_CLIPS 8 "
    "MUTUAL.SUBNETS_START_EPOCH 0 GRID.WIDTH_STEP 0.5 GRID.LATENCY_REPEATS 1 TEST.ENABLE False MUTUAL.SPATIAL_SIZES [40,48] MUTUAL.TEMPORAL_SIZES [4,8] "
    "MUTUAL.WIDTH_RANGE [0.5,1.0]"
)
SHORT = (
    "SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0 TRAIN.BATCH_SIZE 2 CALIBRATION.NUM_CLIPS 2 GRID.WIDTH_STEP 0.5 "
    "GRID.LATENCY_REPEATS 1 TEST.NUM_ENSEMBLE_VIEWS 1"
)
COMMANDS = (
    f"demo {DEMO}",
    "init classes --out mine --minutes 600",
    f"run --cfg mine/config.yaml {SHORT}",
    "predict mine/out/adaptive.pyth classes --output found.csv",
    "select demo/out/adaptive.pyth --list",
    "export demo/out/adaptive.pyth --config 1.0-40-4 --format onnx --repeats 1",
    "complexity --cfg Kinetics/MUTUAL_X3D_M GRID.WIDTH_STEP 0.37",
    "compare a=demo/out/query_table.json b=mine/out/query_table.json --any-conditions",
    "check-data --csv mine/train.csv",
    "convert --help",
)


def make_classes(folder: Path) -> None:
    """Class folders of the demo's training videos, ten of each of two classes."""
    rows = [row.split() for row in (folder / "demo/data/train.csv").read_text().splitlines()]
    for label in "01":
        (folder / "classes" / label).mkdir(parents=True)
        for path, _ in [row for row in rows if row[1] == label][:10]:
            (folder / "classes" / label / Path(path).name).symlink_to((folder / "demo/data" / path).resolve())


def install(folder: Path) -> Path:
    """The script `mutual3d` of a new environment with the wheel in it."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True
    )
    venv.create(folder / "venv", with_pip=False)
    packages = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages, wheel], check=True)
    # After the wheel's own folder: an editable checkout in the borrowed libraries comes later on the path.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "python"


def main() -> int:
    failed = []
    with tempfile.TemporaryDirectory() as name:
        python, work = install(Path(name)), Path(name) / "work"
        work.mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        for command in COMMANDS:
            start = time.perf_counter()
            done = subprocess.run(
                [python, "-m", "mutual3d", *command.split()], cwd=work, env=environment, capture_output=True, text=True
            )
            print(f"{'ok' if not done.returncode else 'FAILED'}  {time.perf_counter() - start:5.1f} s  mutual3d {command}", flush=True)
            if done.returncode:
                failed.append(command)
                print(done.stderr[-1500:])
            if command.startswith("demo") and not done.returncode:
                make_classes(work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
