"""Finding what is wrong with a copy of a data set before training does."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, describe_failure, read_sample
from mutual3d.data.datasets.kinetics import ListedVideo, as_videos, what_is_shown
from mutual3d.data.video.decode import VideoError, check_backend
from mutual3d.data.video.frame_list_reader import FrameListReader
from mutual3d.data.workers.pool import OPTIONS, WorkerPool
from mutual3d.data.workers.process import Job
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import progress_bar


@dataclass(frozen=True)
class CheckOptions:
    """How files are looked at. full: every frame, not only the first, the middle and the last one.

    With `num_workers` processes a file that crashes its decoder, or takes more than `timeout` seconds (0: any time), is a
    problem like others; without any, it ends or stops this process. backend: the decoder of videos.
    """

    full: bool = False
    num_workers: int = 0
    timeout: float = 0.0
    backend: str = "pyav"


@dataclass(frozen=True)
class ListToCheck:
    """The list that is checked, and how to read it: as of `read_video_list`. own: what the set's own flags say, by their names."""

    csv: str
    path_prefix: str = ""
    separator: str = " "
    num_classes: int | None = None
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """What a check finds. findings: a row of `columns` for each problem, the last two its place and its cause; None for what is
    fine. summary: a sentence, with `{}` for the number of problems."""

    columns: tuple[str, ...]
    findings: Iterator[Sequence[object] | None]
    summary: str


@dataclass(frozen=True)
class CheckFlag:
    """An option of `mutual3d check-data` that one data set alone has: --NAME. kind: makes the value of its text; many: of several."""

    name: str
    help: str
    kind: Callable[[str], Any]
    default: Any = None
    many: bool = False


def _fits_none(csv: str) -> int:
    return 0


@dataclass(frozen=True)
class SetCheck:
    """How a data set is checked. fits: how well a list looks like one of this set's, 0 for not at all; the best one is taken
    where nobody says whose a list is, and that of which a flag is given before all."""

    check: Callable[[ListToCheck, CheckOptions], Checked]
    fits: Callable[[str], int] = _fits_none
    flags: tuple[CheckFlag, ...] = ()


def check_of_list(read: Callable[[ListToCheck], Sequence[ListedVideo]], fits: Callable[[str], int] = _fits_none) -> SetCheck:
    """The check of a set whose lists `read` turns into videos: contradictions, and each video, see `check_videos`.

    fits: says of a list's path how well its form fits, 0 for not at all.
    """

    def check(given: ListToCheck, how: CheckOptions) -> Checked:
        videos = read(given)
        each = iter(progress_bar(check_videos(videos, how), "videos", len(videos), unit="video"))
        return Checked(BadVideo._fields, itertools.chain(find_contradictions(videos), each), f"{len(videos)} videos checked, {{}} bad")

    return SetCheck(check, fits)


def check_videos(videos: Sequence[Any], how: CheckOptions = CheckOptions()) -> Iterator[BadVideo | None]:
    """Yield, for each video of a list, in its order, a `BadVideo` with the cause, or None where all is well.

    `videos`: what a `VideoDataset` takes. Each is opened, and its first, middle and last frame are read, or every one. Of
    extracted frames, all files must be there.
    """
    return _map(_Checker(as_videos(videos), check_backend(how.backend), how.full), len(videos), how)


def check_samples(dataset: ClipDataset, how: CheckOptions) -> Checked:
    """The check of a set by reading each sample of it once."""
    each = iter(progress_bar(_map(_SampleChecker(dataset), len(dataset), how), "samples", len(dataset), unit="sample"))
    return Checked(BadVideo._fields, each, f"{len(dataset)} samples checked, {{}} bad")


def _map(job: Job, count: int, how: CheckOptions) -> Iterator[BadVideo | None]:
    pool = WorkerPool(job, how.num_workers, timeout=how.timeout, settings=OPTIONS)
    try:
        yield from pool.map([index] for index in range(count))
    finally:
        pool.close()


def find_contradictions(videos: Sequence[Any]) -> list[BadVideo]:
    """The videos of a list that stand in it again with other labels, each time but the first."""
    first, found = {}, []
    for index, video in enumerate(as_videos(videos)):
        before, other = first.setdefault(what_is_shown(video), (index, video))
        if before != index and fingerprint(other.content()) != fingerprint(video.content()):
            cause = f"the list has it with other labels too, as video {before}: one of them is wrong"
            found.append(BadVideo(index, str(video.path), cause))
    return found


class _Checker:
    """The job of the workers; a key is the index of a video."""

    def __init__(self, videos: list[ListedVideo], backend: str, full: bool) -> None:
        self._videos = videos
        self._backend = backend
        self._full = full

    def read(self, key: int) -> BadVideo | None:
        try:
            self._check(self._videos[key])
        except VideoError as error:
            return BadVideo(key, error.path, error.cause)
        except Exception as error:
            return self.lost(key, describe_failure(error))
        return None

    def join(self, items: list[BadVideo | None]) -> BadVideo | None:
        return items[0]

    def name(self, key: int) -> str:
        return str(self._videos[key].path)

    def lost(self, key: int, cause: str) -> BadVideo:
        return BadVideo(key, self.name(key), cause)

    def _check(self, video: ListedVideo) -> None:
        with video.open(self._backend) as reader:
            if isinstance(reader, FrameListReader):
                reader.check_files()
            last = reader.num_frames - 1
            wanted = range(last + 1) if self._full else (0, last // 2, last)
            for _ in reader.frames(wanted):
                pass


class _SampleChecker:
    """The job of the workers; a key is the index of a sample."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset

    def read(self, key: int) -> BadVideo | None:
        sample = read_sample(self._dataset, 0, key)
        return sample if isinstance(sample, BadVideo) else None

    def join(self, items: list[BadVideo | None]) -> BadVideo | None:
        return items[0]

    def name(self, key: int) -> str:
        return self._dataset.name_of(key)

    def lost(self, key: int, cause: str) -> BadVideo:
        return BadVideo(key, self.name(key), cause)
