"""Finding the unreadable videos of a list before training does."""

from collections.abc import Iterator, Sequence

from mutual3d.data.datasets.dataset import BadVideo, describe_failure
from mutual3d.data.datasets.kinetics import as_videos
from mutual3d.data.video.decode import VideoError, check_backend
from mutual3d.data.video.frame_list_reader import FrameListReader
from mutual3d.data.workers.pool import OPTIONS, WorkerPool
from mutual3d.utils.fingerprint import fingerprint


def check_videos(
    videos: Sequence, backend: str = "pyav", num_workers: int = 0, full: bool = False, timeout: float = 0.0
) -> Iterator[BadVideo | None]:
    """Yield, for each video of a list, in its order, a `BadVideo` with the cause, or None where all is well.

    `videos`: what a `VideoDataset` takes. Each is opened, and its first, middle and last frame are read; with `full` every
    frame is. Of extracted frames, all files must be there. With `num_workers` processes a video that crashes its decoder,
    or takes more than `timeout` seconds (0: any time), is bad too; without any, it ends or stops this process.
    """
    checker = _Checker(as_videos(videos), check_backend(backend), full)
    pool = WorkerPool(checker, num_workers, timeout=timeout, settings=OPTIONS)
    try:
        yield from pool.map([index] for index in range(len(videos)))
    finally:
        pool.close()


def find_contradictions(videos: Sequence) -> list[BadVideo]:
    """The videos of a list that stand in it again with other labels, each time but the first."""
    first, found = {}, []
    for index, video in enumerate(as_videos(videos)):
        before, other = first.setdefault(str(video.path), (index, video))
        if before != index and fingerprint(other.content()) != fingerprint(video.content()):
            cause = f"the list has it with other labels too, as video {before}: one of them is wrong"
            found.append(BadVideo(index, str(video.path), cause))
    return found


class _Checker:
    """The job of the workers; a key is the index of a video."""

    def __init__(self, videos, backend, full) -> None:
        self._videos = videos
        self._backend = backend
        self._full = full

    def read(self, index):
        try:
            self._check(self._videos[index])
        except VideoError as error:
            return BadVideo(index, error.path, error.cause)
        except Exception as error:
            return self.lost(index, describe_failure(error))
        return None

    def join(self, items):
        return items[0]

    def name(self, index):
        return str(self._videos[index].path)

    def lost(self, index, cause):
        return BadVideo(index, self.name(index), cause)

    def _check(self, video):
        with video.open(self._backend) as reader:
            if isinstance(reader, FrameListReader):
                reader.check_files()
            last = reader.num_frames - 1
            wanted = range(last + 1) if self._full else (0, last // 2, last)
            for _ in reader.frames(wanted):
                pass
