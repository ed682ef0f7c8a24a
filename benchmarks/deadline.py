"""Deadlines met, and the accuracy that it costs, by the controller, the largest and the smallest configuration, on one stream.

python benchmarks/deadline.py demo/out/adaptive.pyth --video demo/data/test/00000.mp4 --runtime openvino

Each plays the video over and over at its own pace for `--seconds`, while another process takes a core for a tenth of that time,
twice. A window that was dropped counts as late. The accuracy is the mean of the table's rows that answered. The default deadline is
1.5 times what nine in ten answers of the largest configuration take, waiting included, in a twentieth of the time before, when
nothing else runs. Writes benchmarks/results/deadline.csv.
"""

import argparse
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import machine, save_rows, write_csv

import mutual3d
from mutual3d.data.video.forward import open_file
from mutual3d.deploy import FrameSource
from mutual3d.deploy.live import Paced
from mutual3d.deploy.timing import timed_front

# When the other process runs, as shares of the stream.
BUSY = ((0.2, 0.3), (0.6, 0.7))


class Looped(FrameSource):
    """A video file over and over, decoded each time, without a break in its clock."""

    def __init__(self, path):
        self.name, self._path, self._stopped = str(path), path, threading.Event()

    def frames(self):
        begin = 0.0
        while not self._stopped.is_set():
            reader, seconds = open_file(self._path), []
            for frame in reader.frames():
                if self._stopped.is_set():
                    break
                seconds.append(frame.second)
                yield frame._replace(second=begin + frame.second)
            reader.close()
            usual = statistics.median(b - a for a, b in zip(seconds, seconds[1:])) if len(seconds) > 1 else 1 / 30
            begin += seconds[-1] + usual

    def close(self):
        self._stopped.set()


@contextmanager
def busy_spans(seconds, processes):
    """Takes as many cores as there are processes during BUSY of the next `seconds`."""
    ended = threading.Event()

    def run():
        start = time.monotonic()
        for first, last in BUSY:
            if ended.wait(max(0.0, start + first * seconds - time.monotonic())):
                return
            spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
            ended.wait(max(0.0, start + last * seconds - time.monotonic()))
            for process in spinning:
                process.kill()
                process.wait()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def answer(model, options, configuration):
    """(the stream after its end, its answers) of `options.seconds`."""
    source = Paced(Looped(options.video))
    with model.stream(
        source, deadline_ms=options.deadline_ms, fps=options.fps, seconds=options.seconds, configuration=configuration
    ) as stream, busy_spans(options.seconds, options.processes):
        return stream, list(stream)


def usual_ms(model, options, configuration):
    """What nine in ten answers at a configuration take on the quiet machine, milliseconds."""
    source = Paced(Looped(options.video))
    with model.stream(source, fps=options.fps, seconds=options.seconds / 20 + 2, configuration=configuration) as stream:
        return float(np.percentile([found.total_ms for found in stream], 90))


def is_in_busy_span(second, seconds):
    return any(first * seconds <= second < last * seconds for first, last in BUSY)


def row_of(policy, model, stream, answers, options):
    """A row of the results. Windows that were dropped are put to the answer before which they were."""
    total = len(answers) + stream.num_dropped
    accuracies = [model.table.accuracy(model.table.row(found.configuration)) for found in answers]
    median, last = np.percentile([found.total_ms for found in answers], [50, 99])
    met = {True: 0, False: 0}
    windows = {True: 0, False: 0}
    dropped = 0
    for found in answers:
        span = is_in_busy_span(found.end, options.seconds)
        met[span] += found.is_met
        windows[span] += 1 + found.num_dropped - dropped
        dropped = found.num_dropped
    return {
        "policy": policy, "model": Path(options.model).parent.name, "runtime": model.runtime or "eager", "seconds": f"{options.seconds:g}",
        "fps": f"{options.fps:g}", "deadline_ms": f"{options.deadline_ms:.3g}", "windows": total, "dropped": stream.num_dropped,
        "met_percent": f"{100 * sum(met.values()) / total:.2f}",
        "met_percent_busy": f"{100 * met[True] / max(windows[True], 1):.2f}",
        "met_percent_quiet": f"{100 * met[False] / max(windows[False], 1):.2f}",
        "mean_accuracy": f"{statistics.mean(accuracies):.2f}", "p50_ms": f"{median:.3g}",
        "p99_ms": f"{last:.3g}", "configurations": len({found.configuration for found in answers}),
        "machine": machine(),
    }  # fmt: skip


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo/out/adaptive.pyth", help="an adaptive.pyth (default demo/out/adaptive.pyth)")
    parser.add_argument("--video", default="demo/data/test/00000.mp4", help="default demo/data/test/00000.mp4")
    parser.add_argument("--runtime", help="default: PyTorch on the model's own weights")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each of the three streams; default 600")
    parser.add_argument("--fps", type=float, default=5.0, help="answers a second; default 5")
    parser.add_argument("--deadline-ms", type=float, help="default: see above")
    parser.add_argument("--processes", type=int, default=1, help="cores that are taken; default 1")
    parser.add_argument("--answers", help="a csv for every answer of every policy")
    return parser.parse_args(arguments)


def compare(options):
    """(rows, {policy: answers})."""
    model = mutual3d.load(options.model, runtime=options.runtime)
    front = timed_front(model)
    options.deadline_ms = options.deadline_ms or 1.5 * usual_ms(model, options, front[-1].configuration)
    print(f"deadline {options.deadline_ms:.3g} ms; front: " + ", ".join(f"{t.configuration} {t.quiet_ms:.3g} ms" for t in front), flush=True)
    policies = {"controller": None, "largest": front[-1].configuration, "smallest": front[0].configuration}
    rows, found = [], {}
    for policy, configuration in policies.items():
        stream, found[policy] = answer(model, options, configuration)
        rows.append(row_of(policy, model, stream, found[policy], options))
        print(rows[-1], flush=True)
    return rows, found


def main():
    options = parse()
    rows, found = compare(options)
    save_rows("deadline", rows)
    if options.answers:
        write_csv(Path(options.answers), [
            {"policy": policy, "end": f"{a.end:.2f}", "configuration": a.configuration, "wait_ms": f"{a.wait_ms:.2f}",
             "network_ms": f"{a.network_ms:.2f}", "met": int(a.is_met), "dropped": a.num_dropped}
            for policy, answers in found.items() for a in answers
        ])  # fmt: skip


if __name__ == "__main__":
    main()
