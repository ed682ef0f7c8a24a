"""Batches of clips, in an order that depends on the seed and the epoch alone."""

import functools
import itertools
import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample, check_dataset, read_sample
from mutual3d.data.workers.pool import Settings, WorkerPool
from mutual3d.utils.batches import BatchSource
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.targets import Labels, Targets

_logger = logging.getLogger(__name__)

_SETTINGS = Settings(
    "DATA_LOADER.TIMEOUT", "DATA_LOADER.NUM_WORKERS",
    " or the batch size (TRAIN.BATCH_SIZE, TEST.BATCH_SIZE, CALIBRATION.BATCH_SIZE); DATA_LOADER.NUM_WORKERS 0 reads in "
    "the main process",
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """Which of `world_size` processes this one is: its rank, from 0."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class Reading:
    """By whom samples are read: `num_workers` processes beside this one, or this one for 0 (DATA_LOADER.NUM_WORKERS).

    timeout: seconds for one video; 0 waits for ever. pin_memory: batches lie where a GPU copies from faster. device: a CUDA device
    that batches are given on, each copied while the GPU still computes with the one before; None, or the CPU, leaves them.
    """

    num_workers: int = 0
    timeout: float = 0.0
    pin_memory: bool = False
    device: torch.device | None = None


class Batch(NamedTuple):
    """What a loader yields. Without a readable video, `clips_BVCTHW` has shape 0, 0, 0, 0, 0, 0.

    `clips_BVCTHW` is uint8 with channels last in memory; `labels` is int64 B, or float B, K where a clip has several, or a tensor B, ...
    or Targets of what another task learns from;
    `indices` (positions in the list of videos) is int64 B; `bad` lists the videos of this batch that could not be read,
    which B does not count. Where boxes are classified, `boxes` is float N, 5: position in the batch, then x1, y1, x2, y2
    normalised by the clip's frame; `origins` N, 4: the same boxes normalised by the whole frame; `labels` is float N, K.
    `num_padded`: how many of the videos are shorter than a clip, which repeats their last frame.
    """

    clips_BVCTHW: torch.Tensor
    labels: Labels
    indices: torch.Tensor
    bad: list[BadVideo]
    boxes: torch.Tensor | None = None
    origins: torch.Tensor | None = None
    num_padded: int = 0


class TrainingSampler:
    """Shuffled batches of (epoch, index), the same permutation on all ranks, incomplete global batches dropped.

    Rank r takes slice r of each global batch, so that step i sees the same videos on any number of ranks. num_videos:
    length of the list. batch_size: videos of one rank's batch.
    """

    def __init__(self, num_videos: int, batch_size: int, seed: int, share: Share) -> None:
        self._num_videos = num_videos
        self._batch_size = batch_size
        self._seed = seed
        self._rank = share.rank
        self._global_size = batch_size * share.world_size
        if num_videos < self._global_size:
            raise ValueError(
                f"the list has {num_videos} videos, fewer than one batch of {self._global_size} "
                f"({batch_size} on each of {share.world_size} processes): lower TRAIN.BATCH_SIZE"
            )

    def __len__(self) -> int:
        return self._num_videos // self._global_size

    @property
    def mean_batch(self) -> float:
        """Videos of a batch, of any rank."""
        return self._batch_size

    def batches(self, epoch: int, start: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of an epoch after the first `start`."""
        generator = np.random.default_rng(np.random.SeedSequence((self._seed, epoch)))
        order = generator.permutation(self._num_videos).tolist()
        for step in range(start, len(self)):
            first = step * self._global_size + self._rank * self._batch_size
            yield [(epoch, index) for index in order[first : first + self._batch_size]]


class EvaluationSampler:
    """Batches of (epoch, index) in list order; batch i belongs to rank i % world_size. Nothing is padded or dropped.

    groups: for each index a value; neighbours with different values (videos whose frames differ in size) share no batch.
    indices: the samples, in order. batch_size: samples of a batch.
    """

    def __init__(
        self, indices: Sequence[int], batch_size: int, share: Share, groups: Sequence[Hashable] | None = None
    ) -> None:
        runs = itertools.groupby(indices, key=lambda index: groups and groups[index])
        batches = [batch for _, run in runs for batch in _batched(list(run), batch_size)]
        self._batches = batches[share.rank :: share.world_size]
        # Of all ranks, so that they agree: the last batch may be all that one has, and another may have none.
        self._mean_batch = len(indices) / max(1, len(batches))

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def mean_batch(self) -> float:
        """Samples of a batch, on average over those of all ranks."""
        return self._mean_batch

    def batches(self, epoch: int, start: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of an epoch after the first `start`."""
        for batch in self._batches[start:]:
            yield [(epoch, index) for index in batch]


def _batched(indices: list[int], size: int) -> list[list[int]]:
    return [indices[first : first + size] for first in range(0, len(indices), size)]


class _ReadClips:
    """The job of a loader's workers. A key is (epoch, index)."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset

    def read(self, key: tuple[int, int]) -> Sample | BadVideo:
        return read_sample(self._dataset, *key)

    def join(self, items: list[Sample | BadVideo]) -> Batch:
        return collate(items, self._dataset.fill)

    def name(self, key: tuple[int, int]) -> str:
        return self._dataset.name_of(key[1])

    def lost(self, key: tuple[int, int], cause: str) -> BadVideo:
        return BadVideo(key[1], self.name(key), cause)


class TrainingLoader(BatchSource, Protocol):
    """What a training runs over: a `ClipLoader`, or whatever makes batches of what the network does."""

    @property
    def dataset(self) -> ClipDataset:
        """Whose fingerprint says what was trained on."""


class ClipLoader:
    """Batches of a `ClipDataset` for one rank.

    `len(loader)` counts this rank's batches in an epoch, `loader.num_samples` the videos of all ranks together. Pinned
    memory is used where there is a CUDA device to copy to. `batch_size`: the largest batch.

    Whatever a video does to the worker that reads it, it is one bad video: it raises an exception, crashes its decoder, or
    does not answer within `timeout` seconds. Workers are started again, and batches are made of the others. With
    `num_workers=0` videos are decoded in this process, which a crash ends and where nothing is timed out.

    Args:
        dataset: takes (epoch, index), gives a `Sample` or a `BadVideo`.
        batch_size: videos in a batch of this process.
        shuffle: True for training (see `TrainingSampler`), False for evaluation (see `EvaluationSampler`).
        share: which part of the batches is this process's.
        reading: by whom videos are read.
        indices: positions of the videos to serve, without `shuffle` only; all of them by default.
        lost: {name: cause} of videos that crashed a worker or did not answer: they are not read again. Loaders may share it.

    Raises TypeError for a dataset that is none (`check_dataset`).
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        share: Share = Share(),
        reading: Reading = Reading(),
        indices: Sequence[int] | None = None,
        lost: dict[str, str] | None = None,
    ) -> None:
        check_dataset(dataset)
        if batch_size < 1 or not 0 <= share.rank < share.world_size:
            raise ValueError(
                f"batch size {batch_size} on rank {share.rank} of {share.world_size}: "
                "the size must be 1 or more, the rank below the number of processes"
            )
        self._sampler: TrainingSampler | EvaluationSampler
        if shuffle:
            self.num_samples = len(dataset)
            self._sampler = TrainingSampler(len(dataset), batch_size, seed, share)
            self._order: tuple[str, int] | list[int] = ("shuffled", seed)
        else:
            served = list(range(len(dataset)) if indices is None else indices)
            self.num_samples = len(served)
            self._sampler = EvaluationSampler(served, batch_size, share, dataset.groups)
            self._order = served
        self.dataset, self.batch_size, self._device = dataset, batch_size, reading.device
        self._has_told_padded = False
        finish = _pin if reading.pin_memory and torch.cuda.is_available() else None
        self._pool = WorkerPool(
            _ReadClips(dataset), reading.num_workers, timeout=reading.timeout, lost=lost, finish=finish, settings=_SETTINGS
        )

    def __len__(self) -> int:
        return len(self._sampler)

    @property
    def mean_batch(self) -> float:
        """Samples of a batch, on average over all processes': fewer than `batch_size` where samples of several sizes share no batch."""
        return self._sampler.mean_batch

    def state(self) -> dict[str, Any]:
        """What a checkpoint inside an epoch is to keep of this loader: nothing, (seed, epoch) decide all that it gives."""
        return {}

    def load_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Take what `state` gave in each process. states: in the order of ranks."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Text that changes with the data set's content, the videos served, their order and the batches.

        Every file is looked at when it is first asked for. The same on all ranks that see the same files.
        """
        return fingerprint(self.dataset.fingerprint(), self._order, self.batch_size)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch; the first `start` are skipped without decoding them.

        One iteration at a time: starting another ends the one before.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"cannot start at batch {start}: an epoch has {len(self)} batches")
        batches = self._tell_padded(self._pool.map(self._sampler.batches(epoch, start)))
        return batches if self._device is None or self._device.type != "cuda" else copied_beside(batches, self._device)

    def _tell_padded(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; at the end, once, how many videos were shorter than a clip."""
        num_padded = num_videos = 0
        for batch in batches:
            num_padded, num_videos = num_padded + batch.num_padded, num_videos + len(batch.indices)
            yield batch
        if num_padded and not self._has_told_padded:
            self._has_told_padded = True
            _logger.warning(
                "%d of %d videos are shorter than a clip (DATA.NUM_FRAMES x DATA.SAMPLING_RATE at DATA.TARGET_FPS), which "
                "repeats their last frame", num_padded, num_videos,
            )  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


def _pin(batch: Batch) -> Batch:
    pinned: Any = (value.pin_memory() if isinstance(value, (torch.Tensor, Targets)) else value for value in batch)
    return Batch(*pinned)


def copied_beside(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches with what a step computes with on a CUDA device; their indices stay.

    Copied on a stream of its own, which waits for nothing: where the caller's kernels of the batch before are still running, the
    copy runs beside them. The caller's stream waits for the copy, this thread does not. Pinned batches alone are copied so.
    """
    side = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(side):
            copied = {name: getattr(batch, name).to(device, non_blocking=True) for name in _COMPUTED_WITH if getattr(batch, name) is not None}
        current = torch.cuda.current_stream(device)
        current.wait_stream(side)
        for tensor in copied.values():
            # Its memory was taken on the other stream, and must not be given away before this one is done with it.
            tensor.record_stream(current)
        yield batch._replace(**copied)


_COMPUTED_WITH = ("clips_BVCTHW", "labels", "boxes")


def collate(samples: list[Sample | BadVideo], fill: int | None = None) -> Batch:
    """A `Batch` of the readable samples; the others go to its list of bad videos. fill: of the data set (`ClipDataset.fill`)."""
    bad = [sample for sample in samples if isinstance(sample, BadVideo)]
    good = [sample for sample in samples if not isinstance(sample, BadVideo)]
    if fill is not None and good:
        good = _filled(good, fill)
    clips = _stack_channels_last([sample.clips_VCTHW for sample in good])
    indices = torch.tensor([sample.index for sample in good], dtype=torch.int64)
    num_padded = sum(sample.is_padded for sample in good)
    if good and good[0].boxes is not None:
        parts: dict[str, list[torch.Tensor]] = {name: [getattr(sample, name) for sample in good] for name in ("label", "boxes", "origins")}
        labels, origins = torch.cat(parts["label"]), torch.cat(parts["origins"])
        return Batch(clips, labels, indices, bad, _join_boxes(parts["boxes"]), origins, num_padded)
    return Batch(clips, _join_labels([sample.label for sample in good]), indices, bad, num_padded=num_padded)


def _filled(samples: list[Sample], value: int) -> list[Sample]:
    """The samples as high and as wide as the largest; see `ClipDataset.fill`."""
    height, width = (max(sample.clips_VCTHW.shape[dimension] for sample in samples) for dimension in (3, 4))
    filled = []
    for sample in samples:
        own_height, own_width = sample.clips_VCTHW.shape[3:]
        clips = torch.nn.functional.pad(sample.clips_VCTHW, (0, width - own_width, 0, height - own_height), value=value)
        label = sample.label
        if isinstance(label, Mapping):
            label = {**label, "canvas": torch.tensor([height, width])}
        filled.append(sample._replace(clips_VCTHW=clips, label=label))
    return filled


def _join_labels(labels: Sequence[Any]) -> Labels:
    if labels and isinstance(labels[0], Mapping):
        return Targets(labels)
    return torch.stack([torch.as_tensor(label) for label in labels]) if labels else torch.empty(0, dtype=torch.int64)


def _join_boxes(boxes: list[torch.Tensor]) -> torch.Tensor:
    """Boxes n, 4 of each clip -> N, 5 with the clip's position first."""
    return torch.cat([torch.nn.functional.pad(own, (1, 0), value=position) for position, own in enumerate(boxes)])


def _stack_channels_last(clips: list[torch.Tensor]) -> torch.Tensor:
    if not clips:
        return torch.empty((0,) * 6, dtype=torch.uint8)
    # Stacked as B, V, T, H, W, C, which is how frames are decoded: memory is copied in one piece.
    return torch.stack([clip.permute(0, 2, 3, 4, 1) for clip in clips]).permute(0, 1, 5, 2, 3, 4)
