"""What a training clip of a long video costs: the first time that its file is opened in a process, and later ones.

python benchmarks/long_video.py

Makes the video itself (an hour of a small picture at 30 frames a second, H.264, a keyframe every 250 frames), and reads clips of
16 frames at stride 5 from random places, with the file opened for each as in training. Writes benchmarks/results/long_video.csv.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from common import machine, save_rows, write_moving_square

from mutual3d.data.clips.frames import ClipSampling
from mutual3d.data.clips.transforms import TrainingCrop
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.video import pyav_reader
from mutual3d.data.video.decode import VideoOpening


def clip_times(path, backend, repeats):
    """(wall, CPU) seconds of the first clip, and the medians of later ones."""
    clips = VideoDataset(
        [(str(path), 0)], ClipSampling(num_frames=16, sampling_rate=5), 48, training=True, crop=TrainingCrop((48, 56)),
        opening=VideoOpening(backend),
    )  # fmt: skip
    pyav_reader.forget_tables()
    seconds, cpu_seconds = [], []
    for epoch in range(repeats + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        clips[epoch, 0].clips_VCTHW
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    later = statistics.median(seconds[1:]), statistics.median(cpu_seconds[1:])
    return (seconds[0], cpu_seconds[0]), later


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60, help="length of the video; default 60")
    parser.add_argument("--repeats", type=int, default=15, help="later clips of each backend; default 15")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_moving_square(path, 60 * options.minutes, 48, 64, gop_size=250)
        rows = []
        for backend in ("pyav", "decord"):
            first, later = clip_times(path, backend, options.repeats)
            rows.append(
                {
                    "backend": backend, "minutes": options.minutes, "megabytes": f"{os.path.getsize(path) / 1e6:.0f}",
                    "first_clip_ms": f"{1e3 * first[0]:.0f}", "first_clip_cpu_ms": f"{1e3 * first[1]:.0f}",
                    "later_clip_ms": f"{1e3 * later[0]:.0f}", "later_clip_cpu_ms": f"{1e3 * later[1]:.0f}", "machine": machine(),
                }
            )  # fmt: skip
    save_rows("long_video", rows)


if __name__ == "__main__":
    main()
