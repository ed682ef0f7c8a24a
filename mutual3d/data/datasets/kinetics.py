"""Lists of videos with one label each, as Kinetics has them, and the samples made of them."""

import csv
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from mutual3d.data.clips.augment import ClipAugmentation
from mutual3d.data.clips.frames import ClipSampling, Views, random_clip, view_clip
from mutual3d.data.clips.transforms import TrainingCrop, UniformCrops, fill_clips, random_crop
from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample, describe_failure, stat_files
from mutual3d.data.datasets.labels import LabelReader, parse_separator, split_segment_row
from mutual3d.data.datasets.lists import check_line, check_path, existing_file, place_of, read_lines, shown, tell, user_path
from mutual3d.data.datasets.segments import VideoSegment
from mutual3d.data.video.decode import VideoError, VideoOpening, VideoReader, open_video
from mutual3d.data.video.frame_cache import FrameCache
from mutual3d.utils.files import atomic_write
from mutual3d.utils.fingerprint import fingerprint


@runtime_checkable
class ListedVideo(Protocol):
    """What a list holds for a `VideoDataset`: a video that opens itself and knows its labels. It has a `path` to name it by."""

    @property
    def path(self) -> str:
        """What to call it: the name of its file or folder."""

    def open(self, backend: str, tolerate_short: bool = False) -> VideoReader:
        """Raises VideoError with the cause. See `open_video`. backend, tolerate_short: as of that."""

    def label_of(self, clips: Sequence[Sequence[int]] | None, time_of: Callable[[int], float]) -> int | torch.Tensor:
        """The label of `clips`, lists of ascending frame numbers of this video; of all of it for None.

        `time_of`: the second at which a frame is shown, see `VideoReader`.
        """

    def content(self) -> tuple:
        """All that it knows beside the files, for `mutual3d.utils.fingerprint`: what its label depends on."""

    def files(self) -> Iterable[str]:
        """The files that it reads."""


class Video(NamedTuple):
    """A file with one label: a `ListedVideo`."""

    path: str
    label: int

    def open(self, backend: str, tolerate_short: bool = False) -> VideoReader:
        """A `VideoReader`. Raises VideoError with the cause. backend, tolerate_short: as of `open_video`."""
        return open_video(self.path, backend, tolerate_short)

    def label_of(self, clips: Sequence[Sequence[int]] | None, time_of: Callable[[int], float]) -> int:
        """Its one label, whatever `clips` and `time_of` are."""
        return self.label

    def content(self) -> tuple:
        """Path and label."""
        return tuple(self)

    def files(self) -> Sequence[str]:
        """The video itself."""
        return (self.path,)


def as_videos(videos: Iterable[ListedVideo | tuple[str, int]]) -> list[ListedVideo]:
    """A list for a `VideoDataset`, where (path, label) may stand for a `Video`. TypeError for what is no `ListedVideo`."""
    listed: list[Any] = [Video(*video) if type(video) is tuple else video for video in videos]
    for kind, example in {type(video): video for video in listed}.items():
        if not isinstance(example, ListedVideo):
            raise TypeError(
                f"{kind.__name__} is no mutual3d.data.datasets.kinetics.ListedVideo: write its methods open, label_of, content and files, and its path"
            )
    return listed


def read_video_list(
    csv_path: str | os.PathLike,
    path_prefix: str | os.PathLike = "",
    separator: str = " ",
    num_classes: int | None = None,
    class_names_path: str | os.PathLike = "",
) -> list[Video | VideoSegment]:
    """Read rows `path<separator>label`: a list of `Video`, labels from 0; and of rows `path start end label`, stretches of untrimmed
    videos in seconds, of which a file may have several, a `VideoSegment` each.

    A row is split at its last separator, so that paths may contain it; both columns may be quoted. Labels may be names of
    the classes in `class_names_path`, by default classes.txt beside the csv. A relative path starts at `path_prefix` where
    one is given, else at the csv's own folder; `~` is the home folder. Videos that are listed twice are told. Raises
    FileNotFoundError for a missing csv and ValueError, with file, line and row, for what does not parse and for labels
    outside [0, num_classes).
    """
    csv_path, separator = user_path(csv_path), parse_separator(separator)
    labels = LabelReader(csv_path, num_classes, class_names_path)
    videos: list[Video | VideoSegment] = []
    lines = []
    for line, row in read_rows(csv_path, f"path{separator}label"):
        place = place_of(csv_path, line)
        name, seconds, text = split_segment_row(row, place, separator, labels)
        path, label = path_in_list(name, csv_path, path_prefix, place), labels.parse(text, row, place)
        videos.append(Video(path, label) if seconds is None else VideoSegment(path, *seconds, label))
        lines.append(line)
    labels.check()
    if num_classes is None and labels.start_at_one:
        tell(f"'{csv_path}': the smallest label is 1, and labels start at 0: subtract 1 from each unless class 0 has no video")
    tell_doubles(csv_path, videos, lines)
    return videos


def read_rows(csv_path: str | os.PathLike, form: str) -> list[tuple[int, str]]:
    """The rows of a video list that are not blank: (line, the row). `form` says in errors how rows look.

    Raises FileNotFoundError for a missing file and ValueError for one without rows.
    """
    fix = f"write one row '{form}' for each video (DATA.PATH_TO_DATA_DIR names the folder)"
    csv_path = existing_file(csv_path, "video list", fix)
    rows = [(line, text.strip(" \t")) for line, text in read_lines(csv_path) if text.strip(" \t")]
    if not rows:
        raise ValueError(f"the video list '{csv_path}' is empty: write one row '{form}' for each video")
    return rows


def path_in_list(name: str, csv_path: Path, path_prefix: str | os.PathLike, place: str) -> str:
    """The file that a list names: `~` is the home folder, a relative path starts at the prefix or the list's own folder.

    place: file and line, for messages.
    """
    root = user_path(path_prefix) if path_prefix else csv_path.parent
    return str(root / user_path(check_path(name, place)))


def what_is_shown(video: Any) -> tuple:
    """Of `video`, an entry of a list, its file, and of a stretch its seconds too: what has one label."""
    return (video.path, video.start, video.end) if isinstance(video, VideoSegment) else (video.path,)


def tell_doubles(csv_path: str | os.PathLike, videos: list, lines: list[int]) -> None:
    """Warn of videos that a list has more than once, with other labels or with the same ones; `lines`: where they stand."""
    first, twice, contradicted = {}, [], []
    for position, video in enumerate(videos):
        before = first.setdefault(what_is_shown(video), position)
        if before != position:
            (twice if videos[before] == video else contradicted).append((before, position))
    for pairs, what in ((contradicted, "with other labels: one of them is wrong"), (twice, "with the same label: they count twice")):
        if pairs:
            before, position = pairs[0]
            tell(
                f"'{csv_path}': {len(pairs)} rows list a video again {what}; the first is "
                f"{shown(videos[position].path)} (lines {lines[before]} and {lines[position]})"
            )


def write_bad_videos(path: str | Path, bad_videos: Sequence[BadVideo]) -> None:
    """Write BadVideo records as a csv with the columns index, path, cause."""
    write_table(path, BadVideo._fields, bad_videos)


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a csv, whole or not at all. Names that are not UTF-8 are written as the bytes that they are.

    A text that a spreadsheet would run as a formula gets an apostrophe in front, as is usual. header: the names of the
    columns. rows: their values.
    """
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_no_formula(value) for value in row] for row in rows)


# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all; ValueError for a line that would not be read as one, or is not UTF-8.

    lines: without their ends.
    """
    text = "".join(f"{check_line(line, path)}\n" for line in lines)
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


class VideoDataset(ClipDataset):
    """Clips of the videos of a list. Indexed with (epoch, index); gives a `Sample`, or a `BadVideo` where unreadable.

    Training (`training=True`): `num_views` random clips, each with its own random short side, crop, flip and augmentation. The random
    numbers come from (seed, epoch, index) alone: not from the worker, the rank or what was loaded before.
    Evaluation: `num_views` clips in time x `num_crops` in space, clip-major; the epoch has no influence.
    The video is opened once and every frame decoded once, whatever the number of views.

    Args:
        videos: list of `Video`s or of (path, label), or of `VideoSegment`s; or of other `ListedVideo`s (Charades).
        crop_size: side of the square crops.
        crop: how they are drawn in training.
        views: the clips of a sample. opening: how videos are opened. augmentation: what happens to a training clip beside.
        cache: where decoded frames are, of the videos that it has.

    Raises ValueError for a cache that holds videos which were cut off, where `opening` does not tolerate them.
    """

    def __init__(
        self,
        videos: Sequence[Any],
        sampling: ClipSampling,
        crop_size: int,
        *,
        training: bool = False,
        crop: TrainingCrop = TrainingCrop(),
        views: Views = Views(),
        opening: VideoOpening = VideoOpening(),
        seed: int = 0,
        augmentation: ClipAugmentation | None = None,
        cache: FrameCache | None = None,
    ) -> None:
        if cache is not None and cache.tolerates_short and not opening.tolerate_short:
            raise ValueError(f"the frame cache '{cache.directory}' was made with --tolerate-short: set DATA.TOLERATE_SHORT True, or make another one")
        self.cache = cache
        self.videos = as_videos(videos)
        self.training = training
        self.sampling, self.crop_size, self.crop, self.views, self.opening = sampling, crop_size, crop, views, opening
        self.num_views, self.num_crops = views.num_views, views.num_crops
        self.seed, self.augmentation = seed, augmentation
        check_cut(crop_size, crop if training else None, seed)

    def __len__(self) -> int:
        return len(self.videos)

    def name_of(self, index: int) -> str:
        return str(self.videos[index].path)

    def seconds_of(self, index: int) -> tuple[float, float] | None:
        video = self.videos[index]
        return (video.start, video.end) if isinstance(video, VideoSegment) else None

    def fingerprint(self) -> str:
        """Changes with each path, label, file (size, time of modification) and argument. Looks at every file."""
        files = stat_files([path for video in self.videos for path in video.files()])
        opened = self.opening.backend, self.opening.tolerate_short
        arguments = (self.training, self.num_views, self.num_crops, *opened, self.seed, self.views.offset_sampling)
        content = [video.content() for video in self.videos]
        clip, crop = dataclasses.asdict(self.sampling), self.crop.fingerprinted(self.crop_size)
        # Where nothing is augmented, fingerprints are those of before there was such a thing.
        augmented = [dataclasses.asdict(self.augmentation)] if self.training and self.augmentation else []
        # Cached frames as they were decoded are those of the videos.
        copies = [self.cache.fingerprint()] if self.cache is not None and self.cache.short_side is not None else []
        return fingerprint(type(self).__name__, arguments, clip, crop, content, files, *augmented, *copies)

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        epoch, index = key
        video = self.videos[index]
        try:
            with self._open(video) as reader:
                if not self.training:
                    return Sample(self._all_views(reader), video.label_of(None, reader.time_of), index, is_padded=self._is_padded(reader))
                clips_VCTHW, clips = self._random_clips(reader, epoch, index)
                return Sample(clips_VCTHW, video.label_of(clips, reader.time_of), index, is_padded=self._is_padded(reader))
        except VideoError as error:
            return BadVideo(index, error.path, error.cause)
        except Exception as error:  # a decoder may fail in any way, MemoryError among them: it is this video's failure
            return BadVideo(index, self.name_of(index), describe_failure(error))

    def _open(self, video: ListedVideo) -> VideoReader:
        cached = None if self.cache is None else self.cache.open(video.path)
        if cached is None:
            return video.open(self.opening.backend, self.opening.tolerate_short)
        return video.within(cached) if isinstance(video, VideoSegment) else cached

    def _random_places(self, reader: VideoReader, generator: np.random.Generator) -> list[int]:
        return random_clip(reader.num_frames, reader.fps, self.sampling, generator)

    def _view_places(self, reader: VideoReader, view: int) -> list[int]:
        return view_clip(reader.num_frames, reader.fps, self.sampling, view, self.views)

    def _is_padded(self, reader: VideoReader) -> bool:
        return self.sampling.is_padded(reader.num_frames, reader.fps)

    def _random_clips(self, reader: VideoReader, epoch: int, index: int) -> tuple[torch.Tensor, list[list[int]]]:
        """Clips V, C, T, H, W, and the frames that each of them is made of."""
        generator = sample_generator(self.seed, epoch, index)
        clips, crops = [], []
        for _ in range(self.num_views):
            clips.append(reader.evenly(self._random_places(reader, generator)))
            crops.append(random_crop(generator, self.crop_size, self.crop))
        wanted = [set(clip) for clip in clips]
        cut = (
            ((view, i), crop(frame))
            for i, frame in reader.frames(_union(clips)) for view, crop in enumerate(crops) if i in wanted[view]
        )  # fmt: skip
        clips_VCTHW = fill_clips([[(view, i) for i in clip] for view, clip in enumerate(clips)], cut, self.crop_size)
        if self.augmentation is not None:
            clips_VCTHW = self.augmentation(clips_VCTHW, int(generator.integers(2**63)))
        return clips_VCTHW, clips

    def _all_views(self, reader: VideoReader) -> torch.Tensor:
        clips = [reader.evenly(self._view_places(reader, view)) for view in range(self.num_views)]
        transform = UniformCrops(self.crop_size, self.num_crops)
        cut = (((place, i), crop) for i, frame in reader.frames(_union(clips)) for place, crop in enumerate(transform(frame)))
        return fill_clips([[(place, i) for i in clip] for clip in clips for place in range(self.num_crops)], cut, self.crop_size)


def check_cut(crop_size: int, crop: TrainingCrop | None, seed: int) -> None:
    """ValueError for a size that no crop has, a seed that no generator takes, and a training crop that does not fit.

    crop_size: in pixels.
    """
    if crop_size <= 0:
        raise ValueError(f"crop_size is {crop_size} and must be positive")
    if crop is not None:
        crop.check(crop_size)
    if seed < 0:
        raise ValueError(f"the seed is {seed} and must not be negative (RNG_SEED)")


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, independent of every other one's. index: the position of the sample."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(index,)))


def _union(clips: Iterable[Iterable[int]]) -> list[int]:
    return sorted({i for clip in clips for i in clip})
