"""Finding the unreadable videos of a list before training does."""

import torch

from mutual3d.data.decode import VideoError, check_backend
from mutual3d.data.frame_list_reader import FrameListReader
from mutual3d.data.kinetics import BadVideo, as_videos


def check_videos(videos, backend="pyav", num_workers=0, full=False):
    """Yield, for each video of a list, in its order, a `BadVideo` with the cause, or None where all is well.

    `videos`: what a `VideoDataset` takes. Each is opened, and its first, middle and last frame are read; with `full` every
    frame is. Of extracted frames, all files must be there.
    """
    checker = _Checker(videos, check_backend(backend), full)
    yield from torch.utils.data.DataLoader(
        checker, batch_size=None, num_workers=num_workers, collate_fn=_identity, worker_init_fn=_init_worker
    )


class _Checker(torch.utils.data.Dataset):
    def __init__(self, videos, backend, full):
        self._videos = as_videos(videos)
        self._backend = backend
        self._full = full

    def __len__(self):
        return len(self._videos)

    def __getitem__(self, index):
        try:
            with self._videos[index].open(self._backend) as reader:
                if isinstance(reader, FrameListReader):
                    reader.check_files()
                last = reader.num_frames - 1
                wanted = range(last + 1) if self._full else (0, last // 2, last)
                for _ in reader.frames(wanted):
                    pass
        except VideoError as error:
            return BadVideo(index, error.path, error.cause)
        return None


def _identity(item):
    return item


def _init_worker(worker):
    torch.set_num_threads(1)
