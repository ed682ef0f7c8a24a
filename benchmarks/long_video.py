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

import av
import numpy as np
from common import machine, save_rows

from mutual3d.data.clips.frames import ClipSampling
from mutual3d.data.clips.transforms import TrainingCrop
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.video import pyav_reader
from mutual3d.data.video.decode import VideoOpening

FPS = 30


def write_long_video(path, minutes, height, width):
    """A bright square that moves over noise; `ultrafast`, so that making it takes less than a minute an hour."""
    ground = np.random.default_rng(0).integers(40, 120, (height, width), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 250
        for number in range(minutes * 60 * FPS):
            image = ground.copy()
            top, left = number % (height - 12), (2 * number) % (width - 12)
            image[top : top + 12, left : left + 12] = 255
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p", threads=1)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


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
        write_long_video(path, options.minutes, 48, 64)
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
