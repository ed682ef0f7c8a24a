"""A scan of an archive beside a loop of single predictions, killed on the way, on Ray, and in what memory.

python benchmarks/scan.py demo --clips /data/clips --videos 500

DEMO is the directory of `mutual3d demo`: its out/adaptive.pyth and its data/test.csv, whose videos are linked as often as it
takes. Of the videos 20 are broken, and those under --clips are of any kind. What the scan runs is chosen on val: of all
configurations and cascades the cheapest on average that is within half a point of the largest. The loop calls `model.predict(path)`
for each video, at the largest configuration in PyTorch. A scan of half a thousand videos is mostly its start:
`running_videos_a_second` is the pace from the first parts that were kept to the end. Writes benchmarks/results/scan.csv, a line for each question and number of videos.
"""

import argparse
import csv
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from common import RESULTS, machine, save_rows

import mutual3d
from mutual3d.deploy import Decoding
from mutual3d.deploy.scan import parts_of
from mutual3d.utils.files import files_under

NUM_BROKEN = 20
QUESTIONS = ("speed", "kill", "ray", "memory")
KEYS = ("question", "videos", "configuration", "seconds", "videos_a_second", "running_videos_a_second", "loop_videos_a_second", "times_as_fast",
        "running_times_as_fast", "accuracy", "loop_accuracy", "told", "peak_mb_main", "peak_mb_worker", "workers", "machine")  # fmt: skip
# Points of accuracy that the scan may lose.
LOSS = 0.5


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", nargs="?", type=Path, default=Path("demo"), help="directory of the demo (default demo)")
    parser.add_argument("--clips", type=Path, help="a folder of real videos, which are scanned too")
    parser.add_argument("--videos", type=int, default=500, help="default 500")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--singles", type=int, default=100, help="videos of the loop of single predictions (default 100)")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, help="answer these alone; other lines of the csv stay")
    return parser.parse_args(arguments)


def make_archive(folder, options, count):
    """({path: label or None}, in a shuffled order) of `count` videos in `folder`: links, and broken ones."""
    with open(options.demo / "data/test.csv", encoding="utf-8") as file:
        labelled = [line.rsplit(" ", 1) for line in file.read().split("\n") if line.strip()]
    real = [path for path in files_under(options.clips) if path.suffix in (".mp4", ".avi", ".mkv", ".webm")] if options.clips else []
    generator = random.Random(0)
    archive = {}
    good = count - NUM_BROKEN
    for number in range(good):
        path = folder / f"{number:06d}.mp4"
        if number < len(real):
            source, label = real[number], None
        else:
            name, label = labelled[number % len(labelled)]
            source, label = options.demo / "data" / name, int(label)
        path.symlink_to(source.resolve())
        archive[str(path)] = label
    whole = (options.demo / "data" / labelled[0][0]).read_bytes()
    for number in range(good, count):
        path = folder / f"{number:06d}.mp4"
        # Empty, text, cut in its head, and noise all over.
        path.write_bytes((b"", b"no video at all", whole[: 100 + number], generator.randbytes(4000))[number % 4])
        archive[str(path)] = None
    order = list(archive)
    generator.shuffle(order)
    return {path: archive[path] for path in order}


def choose(model):
    """The cheapest row on average that is within LOSS points of the largest configuration, by the table, which is of val."""
    table = model.table
    floor = table.merit(table.row(model.network.space.largest)) - LOSS
    return min((row for row in table.all_rows if table.merit(row) >= floor), key=lambda row: row.values("gflops")[""])


def words_of(options, listed, out, configuration, *more):
    return [sys.executable, "-m", "mutual3d", "scan", str(options.demo / "out/adaptive.pyth"), str(listed), "--out", str(out),
            "--config", str(configuration), "--workers", str(options.workers), *more]  # fmt: skip


class Watch(threading.Thread):
    """The largest resident memory of a process, and of each that it started, in MB, and when its first parts were kept."""

    def __init__(self, pid, parts):
        super().__init__(daemon=True)
        self.pid, self.parts, self.peaks, self.first = pid, parts, {}, None

    def run(self):
        while os.path.exists(f"/proc/{self.pid}"):
            if self.first is None and (count := len(list(self.parts.glob("part-*.json")))):
                self.first = count, time.perf_counter()
            for pid in [self.pid, *children_of(self.pid)]:
                try:
                    lines = Path(f"/proc/{pid}/status").read_text().split("\n")
                except OSError:
                    continue
                self.peaks[pid] = max([int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")] + [self.peaks.get(pid, 0)])
            time.sleep(0.05)


def children_of(pid):
    try:
        found = [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    except OSError:
        return []
    return [each for child in found for each in [child, *children_of(child)]]


class Ran(NamedTuple):
    """seconds: of the whole command. first: (parts, time) when the first were kept. end: time. main, worker: peak memory in MB."""

    seconds: float
    first: tuple
    end: float
    main: float
    worker: float

    def pace(self, num_videos):
        """Videos a second from the first parts that were kept to the end."""
        count, start = self.first
        done = sum(map(len, parts_of(range(num_videos))[:count]))
        return (num_videos - done) / (self.end - start)


def run_scan(words):
    out = Path(words[words.index("--out") + 1])
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid, out.with_name(f"{out.name}.parts"))
    watch.start()
    told, errors = process.communicate()
    end = time.perf_counter()
    if not out.is_file():
        raise RuntimeError(f"{told}\n{errors}")
    watch.join()
    return Ran(end - start, watch.first, end, watch.peaks.pop(process.pid, 0), max(watch.peaks.values(), default=0))


def table_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def accuracy(labels, classes):
    """Percent of the labelled videos whose class is right. classes: {path: name}."""
    known = [path for path, label in labels.items() if label is not None and path in classes]
    return 100 * sum(classes[path] == str(labels[path]) for path in known) / len(known)


def compare(folder, labels, listed, options, model, row):
    """Videos a second and accuracy of the loop and of the scan; the table of the scan stays in `folder`."""
    numbers = {name: str(number) for number, name in enumerate(model.class_names)}
    named = dict(zip(labels, labels.values()))
    singles = dict(list(labels.items())[: options.singles])
    alone = mutual3d.load(options.demo / "out/adaptive.pyth")
    alone.activate(alone.network.space.largest)
    start, classes = time.perf_counter(), {}
    for path in singles:
        found = alone.predict(path, decoding=Decoding(progress=False))
        if found:
            classes[path] = numbers[found[0].top(1)[0][0]]
    loop = len(singles) / (time.perf_counter() - start)
    ran = run_scan(words_of(options, listed, folder / "found.csv", row.configuration))
    rows = table_of(folder / "found.csv")
    by_scan = {each["path"]: numbers[each["label"]] for each in rows}
    largest = by_scan
    if row.configuration != model.network.space.largest:  # on all videos, for the accuracy alone
        run_scan(words_of(options, listed, folder / "largest.csv", model.network.space.largest))
        largest = {each["path"]: numbers[each["label"]] for each in table_of(folder / "largest.csv")}
    agreeing = sum(largest[path] == name for path, name in classes.items())
    rate, pace = len(labels) / ran.seconds, ran.pace(len(labels))
    return {
        "question": "speed", "videos": len(labels), "configuration": str(row.configuration), "seconds": f"{ran.seconds:.1f}", "videos_a_second": f"{rate:.1f}",
        "running_videos_a_second": f"{pace:.1f}", "running_times_as_fast": f"{pace / loop:.1f}",
        "loop_videos_a_second": f"{loop:.2f}", "times_as_fast": f"{rate / loop:.1f}", "accuracy": f"{accuracy(named, by_scan):.2f}",
        "loop_accuracy": f"{accuracy(named, largest):.2f}",
        "told": f"{len(table_of(folder / 'found.unreadable.csv'))} unreadable; of {len(classes)} single predictions {agreeing} have the class of a scan at the largest",
    }  # fmt: skip


def kill_and_resume(folder, labels, listed, options, row):
    """The table of a scan that was killed when part of it was written, and went on."""
    words = words_of(options, listed, folder / "killed.csv", row.configuration)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = folder / "killed.csv.parts"
    while process.poll() is None and len(list(parts.glob("part-*.json"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(parts.glob("part-*.json")))
    was_whole = (folder / "killed.csv").is_file()
    ran = run_scan(words)
    same = (folder / "killed.csv").read_bytes() == (folder / "found.csv").read_bytes()
    same &= (folder / "killed.unreadable.csv").read_bytes() == (folder / "found.unreadable.csv").read_bytes()
    return {
        "question": "kill -9 and resume", "videos": len(labels), "configuration": str(row.configuration), "seconds": f"{ran.seconds:.1f}",
        "told": f"killed with {kept} parts kept{', too late' if was_whole else ''}; the table is {'the same, byte for byte' if same else 'ANOTHER'}",
    }  # fmt: skip


def on_ray(folder, labels, listed, options, row):
    """The table of two actors of a local Ray."""
    ran = run_scan(words_of(options, listed, folder / "ray.csv", row.configuration, "--ray", "local"))
    same = (folder / "ray.csv").read_bytes() == (folder / "found.csv").read_bytes()
    return {
        "question": "Ray of two actors", "videos": len(labels), "configuration": str(row.configuration), "seconds": f"{ran.seconds:.1f}",
        "told": f"the table is {'the same, byte for byte' if same else 'ANOTHER'}",
    }  # fmt: skip


def memory_of(count, options, row):
    """Peak memory of a scan of `count` videos."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "videos").mkdir()
        labels = make_archive(folder / "videos", options, count)
        listed = folder / "list.txt"
        listed.write_text("\n".join(labels) + "\n")
        ran = run_scan(words_of(options, listed, folder / "found.csv", row.configuration))
    return {
        "question": "memory", "videos": count, "configuration": str(row.configuration), "seconds": f"{ran.seconds:.1f}",
        "peak_mb_main": f"{ran.main:.0f}", "peak_mb_worker": f"{ran.worker:.0f}",
    }  # fmt: skip


def main():
    options = parse()
    model = mutual3d.load(options.demo / "out/adaptive.pyth")
    row = choose(model)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "videos").mkdir()
        labels = make_archive(folder / "videos", options, options.videos)
        listed = folder / "list.txt"
        listed.write_text("\n".join(labels) + "\n")
        rows = []
        if {"speed", "kill", "ray"} & {*options.only}:
            rows.append(compare(folder, labels, listed, options, model, row))
        if "kill" in options.only:
            rows.append(kill_and_resume(folder, labels, listed, options, row))
        if "ray" in options.only and importlib.util.find_spec("ray"):
            rows.append(on_ray(folder, labels, listed, options, row))
        shutil.rmtree(folder / "videos")
    if "memory" in options.only:
        rows += [memory_of(count, options, row) for count in (50, 500)]
    rows = [{key: each.get(key, "") for key in KEYS} | {"workers": options.workers, "machine": machine()} for each in rows]
    answered = {(each["question"], str(each["videos"])) for each in rows}
    path = RESULTS / "scan.csv"
    earlier = [old for old in table_of(path) if (old["question"], old["videos"]) not in answered] if path.is_file() else []
    save_rows("scan", [*rows, *({key: old.get(key, "") for key in KEYS} for old in earlier)])


if __name__ == "__main__":
    main()
