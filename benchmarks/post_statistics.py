"""How the batch norm statistics of a trained US-Net are computed, and what that is worth (US-Net, Table 3).

python benchmarks/post_statistics.py --run out/methods_2d/cifar10-30/US_NET-seed0

Statistics of every width from one batch, from 1024 images and from all of them, exact; and by a moving average over all.
Writes benchmarks/results/post_statistics.csv: top-1 in per cent at the full size, the mean of all widths beside each.
"""

import argparse
import statistics
from pathlib import Path

from common import save_rows

from mutual3d.cli.run import main as run_net
from mutual3d.table.query_table import QueryTable
from mutual3d.training import Checkpoints
from mutual3d.utils.files import load_tensors

BATCH = 64
KINDS = {
    "exact, one batch": ("exact", BATCH), "exact, 1024 images": ("exact", 1024), "exact, all": ("exact", 0),
    "moving, one batch": ("moving", BATCH), "moving, all": ("moving", 0),
}  # fmt: skip


def measure(checkpoint, output, average, images):
    """{width: top-1} at the full size; a table that is there is taken."""
    output.mkdir(parents=True, exist_ok=True)
    config = output / "config.yaml"
    config.write_text(load_tensors(checkpoint)["cfg"])
    if not (output / "query_table.json").is_file():
        run_net([
            "--cfg", config, "OUTPUT_DIR", output, "TRAIN.ENABLE", False, "TEST.CHECKPOINT_FILE_PATH", checkpoint,
            "CALIBRATION.AVERAGE", average, "CALIBRATION.NUM_CLIPS", images, "CALIBRATION.BATCH_SIZE", BATCH,
        ])  # fmt: skip
    rows = QueryTable.load(output / "query_table.json").rows
    size = max(row.configuration.spatial for row in rows)
    return {row.configuration.width: row.accuracy["top1_acc"] for row in rows if row.configuration.spatial == size}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="directories of finished US-Net runs, one a seed")
    options = parser.parse_args()
    rows = []
    for kind, (average, images) in KINDS.items():
        folder = kind.replace(", ", "-").replace(" ", "_")
        seeds = [
            measure(Checkpoints(run).last(), run / "post_statistics" / folder, average, images) for run in options.run
        ]
        means = {f"{width:g}": statistics.mean(seed[width] for seed in seeds) for width in seeds[0]}
        values = {"mean": statistics.mean(means.values()), **means}
        rows.append({"statistics": kind, **{key: f"{value:.2f}" for key, value in values.items()}, "seeds": len(seeds)})
    save_rows("post_statistics", rows)


if __name__ == "__main__":
    main()
