"""Damage videos in seeded ways and read them as training and testing do, in every backend that works here: nothing may be wrong in silence.

python benchmarks/fuzz_videos.py --count 500 --seed 0                          # generated videos, twelve kinds
python benchmarks/fuzz_videos.py --videos clips/*.mp4 --count 500 --keep bad/

Each mutation is read by a `VideoDataset` for training (one random clip) and for testing (ten views), each in a child
process with limits of memory and time. What comes out is compared with a plain decode of the same damaged file from its
start (fuzzing/judge.py). Outcomes: decoded; named as bad, with a cause; and four that must not be: crashed, hung, short in
silence (over a fifth of the announced frames are missing, unsaid), wrong in silence (other pictures than a plain decode
has, or damaged ones that the decoder flags). VP9 damage, which no decoder flags, is counted apart; so is what
`open_video` documents of decord. Writes benchmarks/results/fuzz_videos.csv, one row a kind of mutation, backend, access
and outcome; exit status 1 where one of the four is not zero.
"""

import argparse
import functools
import itertools
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from common import RESULTS, write_csv
from fuzzing.children import Ended, run_in_children
from fuzzing.judge import FAILURES, OUTCOMES, Originals, PlainDecode, Reading, Verdict, judge
from fuzzing.mutations import Mutation, write_mutation, write_videos

from mutual3d.data.clips.frames import ClipSampling, Views
from mutual3d.data.clips.transforms import TrainingCrop
from mutual3d.data.datasets.kinetics import BadVideo, Video, VideoDataset
from mutual3d.data.video.decode import BACKENDS, VideoOpening, VideoReader, check_backend, open_video, what_is_missing

ACCESSES = ("training", "test")
SIZE = 32


class Task(NamedTuple):
    """One access to a mutation; `judged` False only reads, to tell a reader's crash from the plain decode's."""

    mutation: Mutation
    backend: str
    access: str
    judged: bool = True


class RecordedVideo(Video):
    """A `Video` whose reader keeps every frame that it gives."""

    def open(self, backend: str, tolerate_short: bool = False) -> VideoReader:
        reader = super().open(backend, tolerate_short)
        self.readings.append(Reading(reader.num_frames, []))
        give = reader.frames

        def frames(indices):
            for index, picture in give(indices):
                self.readings[-1].frames.append((index, _second_of(reader, index), picture.copy()))
                yield index, picture

        reader.frames = frames
        return reader

    @property
    def readings(self) -> list[Reading]:
        return _readings


_readings: list[Reading] = []


def _second_of(reader: VideoReader, index: int) -> float | None:
    return reader.time_of(index) if hasattr(reader, "time_of") else None


def dataset_of(task: Task) -> VideoDataset:
    """The mutation as a list of one video."""
    videos = [RecordedVideo(str(task.mutation.path), 0)]
    sampling, opening = ClipSampling(num_frames=8, sampling_rate=4), VideoOpening(task.backend)
    if task.access == "training":
        return VideoDataset(videos, sampling, SIZE, training=True, crop=TrainingCrop((SIZE, SIZE + 8)), opening=opening)
    return VideoDataset(videos, sampling, SIZE, views=Views(10), opening=opening)


def read(task: Task) -> Verdict | Reading:
    """A `Reading`, or the verdict where there is none."""
    _readings.clear()
    try:
        sample = dataset_of(task)[task.mutation.number, 0]
    except MemoryError:
        return Verdict("crashed", "MemoryError")
    except Exception as error:  # whatever a reader lets out is what this command looks for
        return Verdict("crashed", f"{type(error).__name__}: {error}")
    if isinstance(sample, BadVideo):
        return Verdict("named as bad", sample.cause) if sample.cause else Verdict("crashed", "a bad video without a cause")
    return _readings[-1]


@functools.lru_cache(maxsize=1)
def _plain_decode(path: Path) -> PlainDecode:
    return PlainDecode(path)


_originals = functools.cache(Originals)


def examine(task: Task) -> Verdict:
    """Read and judge; runs in a child."""
    result = read(task)
    if isinstance(result, Verdict) or not task.judged:
        return result if isinstance(result, Verdict) else Verdict("decoded")
    plain = _plain_decode(task.mutation.path)
    return judge(result, plain, _originals(task.mutation.source), task.backend, open_video.__doc__)


def fuzz(
    sources: list[Path], numbers: range, seed: int, *, backends: list[str], processes: int, seconds: float, memory: int,
    keep: Path | None = None,
) -> Iterator[tuple[Task, Verdict]]:  # fmt: skip
    """Yield each access to each mutation, and its verdict. Mutations that fail are copied into `keep`."""
    options = {"processes": processes, "seconds": seconds, "memory": memory}
    with tempfile.TemporaryDirectory() as directory:
        tasks = (
            Task(mutation, backend, access)
            for mutation in (write_mutation(sources, number, seed, Path(directory)) for number in numbers)
            for backend, access in itertools.product(backends, ACCESSES)
        )
        for task, verdict in run_in_children(examine, tasks, **options):
            if isinstance(verdict, Ended):
                verdict = _verdict_on_ended(task, verdict, options)
            if keep and verdict.outcome in FAILURES:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(task.mutation.path, keep)
            yield task, verdict


def _verdict_on_ended(task: Task, ended: Ended, options: dict) -> Verdict:
    """Whether the reader's child died, or only the plain decode's."""
    (_, again), = run_in_children(examine, iter([task._replace(judged=False)]), **{**options, "processes": 1})
    if isinstance(again, Ended):
        return Verdict(*again)
    return again if again.outcome != "decoded" else Verdict(ended.outcome, f"in the plain decode: {ended.detail}")


def report(results: list[tuple[Task, Verdict]]) -> int:
    """Print the table and the failures; returns how many there were."""
    counts = Counter((task.backend, task.access, verdict.outcome) for task, verdict in results)
    columns = sorted({(task.backend, task.access) for task, _ in results}, reverse=True)
    print(f"{'':36}" + "".join(f"{backend + ' ' + access:>18}" for backend, access in columns))
    for outcome in OUTCOMES:
        print(f"{outcome:36}" + "".join(f"{counts[(*column, outcome)]:>18}" for column in columns))
    failed = [(task, verdict) for task, verdict in results if verdict.outcome in FAILURES]
    for task, verdict in failed:
        print(f"{verdict.outcome}: {task.mutation.path.name}, {task.backend}, {task.access}: {verdict.detail}")
    return len(failed)


def rows_of(results: list[tuple[Task, Verdict]]) -> list[dict]:
    """One row a kind of mutation, ending of the source, backend, access and outcome."""
    keys = ("mutation", "source", "backend", "access", "outcome")
    counts = Counter((t.mutation.kind, t.mutation.source.name, t.backend, t.access, v.outcome) for t, v in results)
    return [{**dict(zip(keys, key)), "count": count} for key, count in sorted(counts.items())]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", help="videos to damage (default: generated ones)")
    parser.add_argument("--count", type=int, default=500, help="mutations")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to look at one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", nargs="+", default=[name for name in BACKENDS if not what_is_missing(name)], choices=BACKENDS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit of an access")
    parser.add_argument("--memory", type=float, default=2.0, help="GiB that an access may allocate")
    parser.add_argument("--keep", type=Path, help="folder for the mutations that fail")
    parser.add_argument("--csv", type=Path, default=RESULTS / "fuzz_videos.csv")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    for backend in options.backends:
        check_backend(backend)
    with tempfile.TemporaryDirectory() as directory:
        sources = options.videos or write_videos(Path(directory))
        results = list(fuzz(
            sources, range(options.first, options.first + options.count), options.seed, backends=options.backends,
            processes=options.processes, seconds=options.seconds, memory=int(options.memory * 2**30), keep=options.keep,
        ))  # fmt: skip
    write_csv(options.csv, rows_of(results))
    failures = report(results)
    print(f"{options.count} mutations of {len(sources)} videos, seed {options.seed}: {failures} of {len(results)} accesses failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
