"""The peak memory of a stream after the first minute of a video, and at its end an hour later.

python benchmarks/stream_memory.py demo/out/adaptive.pyth

Makes the video itself, by writing the packets of a short one over and over, and reads it at full speed. Writes
benchmarks/results/stream_memory.csv.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import av
from common import machine, save_rows, write_moving_square

import mutual3d

SECONDS = 10


def loop_video(source, target, times):
    """The packets of `source`, ten seconds, `times` times one after the other."""
    with av.open(str(target), "w") as writer:
        copy = None
        for number in range(times):
            with av.open(str(source)) as reader:
                stream = reader.streams.video[0]
                copy = copy or writer.add_stream_from_template(stream)
                shift = round(number * SECONDS / stream.time_base)
                for packet in reader.demux(stream):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                        writer.mux(packet)


def peak_megabytes():
    """Of this process, since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(model, path, minutes, options):
    """A row: peaks after a minute and at the end."""
    start, first_minute, last = time.perf_counter(), None, 0.0
    with model.stream(path, fps=options.fps, deadline_ms=options.deadline_ms) as stream:
        for prediction in stream:
            last = prediction.end
            if first_minute is None and prediction.end >= 60:
                first_minute = peak_megabytes()
    first_minute = first_minute or peak_megabytes()
    end = peak_megabytes()
    return {
        "model": Path(options.model).parent.name, "runtime": model.runtime or "eager", "minutes": minutes, "size": options.size,
        "answers": stream.num_answered, "last_second": f"{last:.1f}", "took_s": f"{time.perf_counter() - start:.0f}",
        "peak_mb_first_minute": f"{first_minute:.0f}", "peak_mb_end": f"{end:.0f}", "growth_mb": f"{end - first_minute:.0f}",
        "machine": machine(),
    }  # fmt: skip


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo/out/adaptive.pyth", help="an adaptive.pyth (default demo/out/adaptive.pyth)")
    parser.add_argument("--runtime", help="default: PyTorch on the model's own weights")
    parser.add_argument("--minutes", type=int, default=60, help="length of the video; default 60")
    parser.add_argument("--size", default="240x320", help="height x width of the video; default 240x320")
    parser.add_argument("--fps", type=float, default=5.0, help="answers a second of the video; default 5")
    parser.add_argument("--deadline-ms", type=float, default=40.0, help="default 40")
    return parser.parse_args(arguments)


def run(options):
    """The row of a model on a video that is made for it."""
    model = mutual3d.load(options.model, runtime=options.runtime)
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        write_moving_square(short, SECONDS, *map(int, options.size.split("x")))
        loop_video(short, long, options.minutes * 60 // SECONDS)
        return measure(model, long, options.minutes, options)


def main():
    save_rows("stream_memory", [run(parse())])


if __name__ == "__main__":
    main()
