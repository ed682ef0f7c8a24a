"""What the benchmarks share: options, csv files of results, paired timing."""

import argparse
import csv
import platform
import statistics
import time
from pathlib import Path

import av
import numpy as np
import torch

from mutual3d.utils.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def parse_timing(description, *, cfg, **counts):
    """Options of a timing: --cfg, and a whole number for each of `counts`; the values are the defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", default=cfg, help=f"the YAML of the network (default {cfg})")
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def save_rows(name, rows):
    """Print rows (dicts with one set of keys) and write them to results/`name`.csv."""
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    write_csv(RESULTS / f"{name}.csv", rows)


def write_csv(path, rows):
    """Write rows (dicts with one set of keys) to a csv."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def replace_row(name, key, row):
    """Save `row` in results/`name`.csv in place of the row with the same value under `key`."""
    path = RESULTS / f"{name}.csv"
    earlier = list(csv.DictReader(path.open())) if path.is_file() else []
    save_rows(name, [old for old in earlier if old[key] != row[key]] + [row])


def dress_axes(axes, xlabel, ylabel, title=""):
    """Labels, a light grid and a legend, as all figures of the benchmarks have them."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, color="#e6e8eb")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def save_figure(figure, path):
    """Write a figure as png, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def machine():
    """Where a time was taken, for its row."""
    return f"{platform.machine()} {torch.get_num_threads()} threads, torch {torch.__version__}"


def paired_medians(runs, repeats, warmup=2):
    """{key: median seconds} of each function in `runs`, called in turns so that noise meets all alike."""
    return {key: statistics.median(seconds) for key, seconds in paired_times(runs, repeats, warmup).items()}


def paired_means(runs, repeats, warmup=2):
    """As `paired_medians`, for functions whose cost is a random variable and whose expectation is wanted."""
    return {key: statistics.mean(seconds) for key, seconds in paired_times(runs, repeats, warmup).items()}


def paired_times(runs, repeats, warmup):
    """{key: seconds of every call after the warm-up}."""
    times = {key: [] for key in runs}
    for repeat in range(warmup + repeats):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= warmup:
                times[key].append(time.perf_counter() - start)
    return times


def write_moving_square(path, seconds, height, width, *, fps=30, gop_size=30):
    """A video of a bright square that moves over noise, H.264 with B-frames; `ultrafast`: under a minute an hour of it."""
    ground = np.random.default_rng(0).integers(40, 120, (height, width), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop_size
        for number in range(seconds * fps):
            image = ground.copy()
            top, left = number % (height - 12), (2 * number) % (width - 12)
            image[top : top + 12, left : left + 12] = 255
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p", threads=1)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
