"""Decoding a set once, for `DATA.CACHE`: see `mutual3d.data.video.frame_cache`. An interrupted one goes on where it was."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mutual3d.data.clips.transforms import resize, short_side_size
from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.prepare.claim import claim_directory
from mutual3d.data.prepare.extraction import PATIENCE
from mutual3d.data.video.decode import VideoOpening, open_video
from mutual3d.data.video.frame_cache import (
    ARGUMENTS,
    FRAMES,
    INDEX,
    CachedVideo,
    MappedFrames,
    content_of,
    frame_sum,
    index_content,
    read_index,
    sum_of,
)
from mutual3d.data.video.reader import VideoError, check_file
from mutual3d.data.workers.pool import OPTIONS, WorkerPool
from mutual3d.data.workers.process import show_life
from mutual3d.utils.files import readable_size, state_of, write_json
from mutual3d.utils.logging import progress_bar
from mutual3d.utils.run_lock import run_lock

# Seconds after which what was decoded is put into the index: what a killed process loses.
_SECONDS_BETWEEN_SAVES = 20.0


@dataclass(frozen=True)
class CacheLayout:
    """short_side: what the shorter side is resized to where it is longer; None keeps frames as decoded. opening: how videos are
    opened."""

    short_side: int | None = None
    opening: VideoOpening = VideoOpening()

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"the short side is {self.short_side} and must be positive")

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is stored of frames of this size."""
        if self.short_side is None or min(height, width) <= self.short_side:
            return height, width
        return short_side_size(height, width, self.short_side)


@dataclass
class Prepared:
    """What was done. new, kept: videos decoded now, and those that were there. bad: a VideoError of each other one."""

    new: int = 0
    kept: int = 0
    bad: list[VideoError] = field(default_factory=list)
    num_bytes: int = 0


@dataclass(frozen=True)
class Working:
    """By how many processes (None: one a core), and how many seconds one may be silent."""

    num_workers: int | None = None
    patience: float = PATIENCE


def prepare_cache(
    videos: Iterable[str | Path], directory: str | Path, layout: CacheLayout = CacheLayout(), *, working: Working = Working(),
    is_dry: bool = False, verify: bool = False, tell: Callable[[str], object] = print,
) -> Prepared:  # fmt: skip
    """Decode videos (paths) into the cache `directory`; those that are there and unchanged are kept, others added.

    tell: takes a sentence with the size, before anything is written. is_dry: nothing is. verify: compares all that is there with
    its sums, not what is new alone; what differs is decoded again. Raises ValueError for a folder that holds something else, or
    frames of another short side; OSError where the disk has no room.
    """
    directory = claim_directory(
        directory, ARGUMENTS, {"short_side": layout.short_side, "tolerate_short": layout.opening.tolerate_short}, "a frame cache"
    )
    names = list(dict.fromkeys(os.path.abspath(video) for video in videos))
    with run_lock(directory, instead="another --out"):
        try:
            return _Preparation(directory, layout, working).run(names, is_dry=is_dry, verify=verify, tell=tell)
        finally:
            # A dry run, or a disk without room, binds the folder to no arguments: what comes next may be smaller copies.
            if not (directory / FRAMES).exists() and not (directory / INDEX).exists():
                (directory / ARGUMENTS).unlink(missing_ok=True)


class _Preparation:
    def __init__(self, directory: Path, layout: CacheLayout, working: Working) -> None:
        self._directory, self._layout, self._working = directory, layout, working
        self._index = read_index(directory)
        self._done = Prepared()

    def run(self, names: list[str], *, is_dry: bool, verify: bool, tell: Callable[[str], object]) -> Prepared:
        self._drop_what_is_cut_off()
        if verify:
            self._verify(list(self._index), is_dry)
        known = dict(self._index)
        plans = self._look(names)
        offset = max((video.end for video in self._index.values()), default=0)
        for name, plan in plans.items():
            plans[name] = dataclasses.replace(plan, offset=offset)
            offset = plans[name].end
        self._done.num_bytes = sum(plan.end - plan.offset for plan in plans.values())
        free = shutil.disk_usage(self._directory).free
        tell(
            f"{len(plans)} videos to decode ({self._done.kept} are there): {sum(plan.num_frames for plan in plans.values())} frames, "
            f"{readable_size(self._done.num_bytes)}; {readable_size(free)} are free"
        )
        if self._done.num_bytes > free:
            raise OSError(
                f"'{self._directory}' has {readable_size(free)} free and {readable_size(self._done.num_bytes)} are needed: free space, choose "
                "another folder, or store smaller copies (--short-side)"
            )
        if plans and not is_dry:
            self._write(plans)
        elif self._index != known and not is_dry:
            self._save(None)  # times of files, which would else be read again by every run
        return self._done

    def _drop_what_is_cut_off(self) -> None:
        """What lies beyond the end of the file, or all where it is gone, is decoded again, as what was never there."""
        size = (state_of(self._directory / FRAMES) or (0, 0))[0]
        self._index = {name: video for name, video in self._index.items() if video.end <= size}

    def _look(self, names: list[str]) -> dict[str, CachedVideo]:
        """Where the frames of the videos that are missing would lie, but for the offset; the others are kept."""
        plans = {}
        for name, found in self._map(_Look(self._layout, self._index), names, "look at the videos"):
            if isinstance(found, VideoError):
                self._index.pop(name, None)
                self._done.bad.append(found)
            elif found.sum:
                self._index[name] = found
                self._done.kept += 1
            else:
                self._index.pop(name, None)
                plans[name] = found
        return plans

    def _write(self, plans: dict[str, CachedVideo]) -> None:
        frames = self._directory / FRAMES
        written = []
        with open(frames, "ab") as file:
            saved = time.monotonic()
            try:
                for name, found in self._map(_Decode(self._layout, frames, plans), list(plans), "decode"):
                    if isinstance(found, VideoError):
                        self._done.bad.append(found)
                        continue
                    written.append(name)
                    self._index[name] = found
                    if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                        self._save(file.fileno())
                        saved = time.monotonic()
            finally:
                self._save(file.fileno())
        lost = self._verify(written)
        self._done.new = len(written) - len(lost)
        if lost:
            raise OSError(f"{len(lost)} videos, such as '{lost[0]}', are not in '{frames}' as they were written: the disk may be failing")

    def _verify(self, names: list[str], is_dry: bool = False) -> list[str]:
        """Compare what is in the file with its sums; those that differ, which leave the index."""
        job = _Verify(self._directory / FRAMES, self._index)
        lost = [name for name, is_same in self._map(job, names, "verify") if is_same is not True]
        for name in lost:
            del self._index[name]
        if lost and not is_dry:
            self._save(None)
        return lost

    def _save(self, descriptor: int | None) -> None:
        """Put into the index what is on the disk."""
        if descriptor is not None:
            os.fsync(descriptor)
        write_json(self._directory / INDEX, index_content(self._index))

    def _map(self, job: "_Job", names: list[str], what: str) -> Iterator[tuple[str, Any]]:
        """(name, what the job makes of it). Raises the OSError of a disk that takes nothing more."""
        if not names:
            return
        workers = min(self._working.num_workers or os.cpu_count() or 1, len(names))
        pool = WorkerPool(job, workers, timeout=self._working.patience, settings=OPTIONS)
        try:
            results = pool.map([name] for name in names)
            for name, result in zip(names, progress_bar(results, what, total=len(names), unit="video")):
                if isinstance(result, OSError):
                    raise result
                yield name, result
        finally:
            pool.close()


class _Job:
    """The `Job` of a worker: the name of one video at a time."""

    def read(self, name: str) -> Any:
        """What is made of it, or the VideoError or OSError that kept it from being made."""
        try:
            return self.make(name)
        except (VideoError, OSError) as error:
            return error
        except Exception as error:
            return VideoError(name, describe_failure(error))

    def make(self, name: str) -> Any:
        """What becomes of the video `name`: a subclass says. Raises VideoError where it cannot be read."""
        raise NotImplementedError

    def join(self, items: list) -> Any:
        return items[0]

    def name(self, name: str) -> str:
        return name

    def lost(self, name: str, cause: str) -> VideoError:
        return VideoError(name, cause)


class _Look(_Job):
    """The entry of a video that is in the index as it is now; else one without a sum, of its size alone."""

    def __init__(self, layout: CacheLayout, index: dict[str, CachedVideo]) -> None:
        self._layout, self._index = layout, dict(index)

    def make(self, name: str) -> CachedVideo:
        known, state = self._index.get(name), state_of(name)
        if known is not None and state == (known.num_bytes, known.mtime_ns):
            return known
        check_file(name)
        if state is None:
            raise VideoError(name, "it was changed while it was read")
        content = content_of(name)
        if known is not None and known.content == content:
            return dataclasses.replace(known, mtime_ns=state[1])
        with open_video(name, self._layout.opening.backend, self._layout.opening.tolerate_short) as reader:
            height, width = self._layout.size_of(*reader.read([0]).shape[1:3])
            return CachedVideo(*state, content, 0, reader.num_frames, height, width, reader.fps)


class _Decode(_Job):
    """Writes the frames of a video to its place; gives its entry with the sum."""

    def __init__(self, layout: CacheLayout, frames: Path, plans: dict[str, CachedVideo]) -> None:
        self._layout, self._frames, self._plans = layout, frames, plans

    def make(self, name: str) -> CachedVideo:
        plan = self._plans[name]
        sums = [0] * plan.num_frames
        descriptor = os.open(self._frames, os.O_RDWR)
        try:
            with open_video(name, self._layout.opening.backend, self._layout.opening.tolerate_short) as reader:
                if (state_of(name), reader.num_frames) != ((plan.num_bytes, plan.mtime_ns), plan.num_frames):
                    raise VideoError(name, "it was changed while it was read")
                for index, frame in reader.frames(range(reader.num_frames)):
                    stored = self._fit(frame, plan)
                    _write_at(descriptor, stored, plan.offset + index * plan.frame_bytes)
                    sums[index] = frame_sum(stored)
                    show_life()
                times = np.ascontiguousarray(reader.frame_times(), np.float64)
            _write_at(descriptor, times, plan.times_offset)
        finally:
            os.close(descriptor)
        return dataclasses.replace(plan, sum=sum_of(sums, times))

    def _fit(self, frame_HWC: np.ndarray, plan: CachedVideo) -> np.ndarray:
        assert self._layout.size_of(*frame_HWC.shape[:2]) == (plan.height, plan.width), "a reader's frames are of one size"
        return np.ascontiguousarray(resize(torch.as_tensor(frame_HWC), plan.height, plan.width).numpy())


class _Verify(_Job):
    """Whether what is in the file has the sum that it was written with."""

    def __init__(self, frames: Path, index: dict[str, CachedVideo]) -> None:
        self._mapped, self._index = MappedFrames(frames), dict(index)

    def make(self, name: str) -> bool:
        video = self._index[name]
        sums = []
        for frame in self._mapped.frames(video):
            sums.append(frame_sum(frame))
            show_life()
        return sum_of(sums, self._mapped.times(video)) == video.sum


def _write_at(descriptor: int, values: np.ndarray, offset: int) -> None:
    left = values.reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
