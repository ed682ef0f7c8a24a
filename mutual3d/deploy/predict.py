"""Scores of one video or image file, or of the boxes in a video."""

import contextlib
import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

from mutual3d.data.clips.frames import ClipSampling, Views, view_clip
from mutual3d.data.clips.transforms import UniformCrops, WholeFrame, stack_clips
from mutual3d.data.datasets.ava.dataset import keyframe_clip
from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.datasets.images import evaluation_transform
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError, VideoReader
from mutual3d.data.video.stills import is_still, read_image
from mutual3d.data.workers.pool import WorkerPool
from mutual3d.data.workers.process import show_life
from mutual3d.deploy.cascade import at_present
from mutual3d.deploy.decoding import Decoding, read_apart
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.prediction import Clips, Prediction, Predictions
from mutual3d.deploy.sources import Array, ArrayReader, Source, frames_of, is_array, list_sources
from mutual3d.deploy.used_frames import fill_in, used_by_all, used_frames
from mutual3d.sampling import Cascade, Configuration, Preprocessing
from mutual3d.utils.logging import logger, progress_bar

if TYPE_CHECKING:  # whose method `predict` is what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# More windows than these of a video say nothing new: each frame may be looked at by some, and a slide may be shown for hours.
_MOST_EMPTY_WINDOWS, _WINDOWS_OF_A_FRAME = 10_000, 10
# Clips of boxes that are read at a time: some tens of megabytes.
_SECONDS_AT_ONCE = 4


def read_clips(
    path: str | Path,
    preprocessing: Preprocessing,
    *,
    num_views: int = 1,
    backend: str = "pyav",
    used: Sequence[int] | None = None,
) -> Clips:
    """Clips of a video, `num_views` spread over time, centre crops. Raises VideoError if unreadable.

    used: the positions in a clip that will be looked at (`used_frames`); the others are not read, and hold the frame before.

    A still, which is a file of one image, gives one clip of equal frames. An image network (`preprocessing.resize`) is
    shown each frame of a video as it is shown an image: short side to `resize`, centre crop.
    """
    if is_still(path):
        return read_still(path, preprocessing)
    with open_video(path, backend) as reader:
        return read_views(reader, preprocessing, num_views, used)


def read_still(path: str | Path, preprocessing: Preprocessing) -> Clips:
    """One clip of equal frames of a file of one image. Raises VideoError if unreadable."""
    image = _image_transform(preprocessing)(read_image(path))
    return Clips(image[None, :, None].expand(-1, -1, preprocessing.num_frames, -1, -1))


def read_views(reader: VideoReader, preprocessing: Preprocessing, num_views: int, used: Sequence[int] | None = None) -> Clips:
    """`num_views` clips spread over an open video. used: as of `read_clips`."""
    return _read_frames(reader, preprocessing, [frames_of_views(reader, preprocessing, num_views)], used)[0]


def frames_of_views(reader: VideoReader, preprocessing: Preprocessing, num_views: int) -> list[list[int]]:
    """The frames of each of `num_views` clips spread over an open video, by index."""
    sampling, views = _sampling(preprocessing), Views(num_views)
    return [reader.evenly(view_clip(reader.num_frames, reader.fps, sampling, view, views)) for view in range(num_views)]


def _sampling(preprocessing: Preprocessing) -> ClipSampling:
    return ClipSampling(preprocessing.num_frames, preprocessing.sampling_rate, preprocessing.target_fps)


def _read_frames(
    reader: VideoReader, preprocessing: Preprocessing, groups: Sequence[Sequence[Sequence[int]]], used: Sequence[int] | None
) -> list[Clips]:
    """The clips of each group, whose frames are given by index; each frame is decoded once, for all groups in one pass."""
    transform = frame_transform(preprocessing)
    read = [[fill_in(view, used) for view in group] for group in groups]
    frames = {i: transform(frame) for i, frame in reader.frames(i for group in read for view in group for i in view)}
    padded = _sampling(preprocessing).is_padded(reader.num_frames, reader.fps)
    return [
        Clips(
            stack_clips([frames[i] for i in view] for view in filled),
            tuple((reader.time_of(view[0]), reader.time_of(view[-1])) for view in group), reader.duration, padded,
            tuple(tuple(map(reader.time_of, view)) for view in group),
        )
        for group, filled in zip(groups, read)
    ]  # fmt: skip


def _image_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], torch.Tensor]:
    return evaluation_transform(preprocessing.crop, preprocessing.resize or preprocessing.crop)


def frame_transform(preprocessing: Preprocessing) -> Callable[[np.ndarray], torch.Tensor]:
    """A function of a decoded frame H, W, 3 that gives what the network sees of it, uint8 S, S, 3."""
    if preprocessing.resize is None:
        crops = UniformCrops(preprocessing.crop)
        return lambda frame_HWC: crops(frame_HWC)[0]
    image = _image_transform(preprocessing)
    return lambda frame_HWC: image(v2.functional.to_pil_image(frame_HWC)).permute(1, 2, 0)


def predict_video(
    model: "AdaptiveModel", path: str | Path, *, num_views: int = 1, backend: str = "pyav"
) -> Prediction:
    """Run an AdaptiveModel, at its active configuration, on a video or image file. Raises VideoError if unreadable."""
    start = time.perf_counter()
    used = used_by_all(model.network, model.stages)
    clips = read_clips(path, model.preprocessing, num_views=num_views, backend=backend, used=used)
    return score_clips(model, clips, 1000 * (time.perf_counter() - start))


def score_clips(model: "AdaptiveModel", clips: Clips, decode_ms: float = 0.0) -> Prediction:
    """Run an AdaptiveModel, at its active configuration, on clips that were read before, in `decode_ms`."""
    start = time.perf_counter()
    by_view = model(clips.clips_VCTHW.to(_device(model)))
    scores = _join_views(by_view, model.preprocessing)
    return Prediction(scores, decode_ms, 1000 * (time.perf_counter() - start), clips, class_names=model.class_names)


def _join_views(by_view_VK: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    return (by_view_VK.amax(0) if preprocessing.ensemble == "max" else by_view_VK.mean(0)).cpu()


def predict_boxes(
    model: "AdaptiveModel", path: str | Path, boxes_by_second: Mapping[float, torch.Tensor], decoding: Decoding = Decoding()
) -> dict[float, torch.Tensor]:
    """{second: scores N, K} of the boxes at each second of a video, at the model's active configuration.

    boxes_by_second: {second: boxes float N, 4 in [0, 1] of the frame}. The clip is the one around the second, of whole
    frames: those that training saw, which are taken from the video at `target_fps` before it. The video is read in a process
    of its own. Raises VideoError if unreadable, ValueError for a second after the video's end.
    """
    scores, seconds = {}, list(boxes_by_second)
    parts = [seconds[i : i + _SECONDS_AT_ONCE] for i in range(0, len(seconds), _SECONDS_AT_ONCE)]
    used = used_frames(model.network, model.active)
    clips = read_apart(clips_around, path, [(part, model.preprocessing, decoding.backend, used) for part in parts], decoding)
    pairs = zip(seconds, (clip for part in clips for clip in part))
    for second, clip in progress_bar(pairs, "boxes", len(seconds), unit="second") if decoding.progress else pairs:
        numbered = F.pad(torch.as_tensor(boxes_by_second[second], dtype=torch.float32), (1, 0))
        scores[second] = model(clip.to(_device(model)), numbered.to(_device(model))).cpu()
    return scores


def clips_around(
    path: str | Path, seconds: Sequence[float], preprocessing: Preprocessing, backend: str, used: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Of each second of a video the clip around it, of whole frames: uint8 1, 3, T, H, W. Raises as `predict_boxes` does.

    used: as of `read_clips`.
    """
    with open_video(path, backend) as reader:
        return [_clip_around(reader, second, preprocessing, used) for second in seconds]


def _clip_around(
    reader: VideoReader, second: float, preprocessing: Preprocessing, used: Sequence[int] | None
) -> torch.Tensor:
    indices = fill_in(frames_around(reader, second, preprocessing), used)
    view = WholeFrame(preprocessing.crop)
    frames = {}
    for i, frame in reader.frames(indices):
        frames[i] = view(frame)
        show_life()
    return stack_clips([[frames[i] for i in indices]])


def frames_around(reader: VideoReader, second: float, preprocessing: Preprocessing) -> list[int]:
    """The frames of the clip around a second: of those that extraction at `target_fps` would write, the ones of AVA's clip.

    Raises ValueError for a second after the video's end.
    """
    if second >= reader.duration:
        raise ValueError(f"'{reader.path}' ends at second {reader.duration:.2f}: it has no second {second:g}")
    fps = preprocessing.target_fps
    frames = keyframe_clip(
        round(second * fps), math.ceil(reader.duration * fps), num_frames=preprocessing.num_frames,
        stride=preprocessing.sampling_rate,
    )  # fmt: skip
    return reader.indices_at([frame / fps for frame in frames])


def _device(model: "AdaptiveModel") -> torch.device:
    return next(model.parameters()).device


# ---- Many files --------------------------------------------------------------------------------------------------------

_WINDOW = re.compile(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}) ?(s|ms|min|)")
_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "min": 60.0}


def window_seconds(window: str | float) -> float:
    """Seconds of `2s`, `500ms`, `1min`, or of a number of seconds. Raises ValueError for anything else."""
    match = _WINDOW.fullmatch(str(window).strip()) if not isinstance(window, bool) else None
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"the window {window!r} is no length of time above 0: give seconds, such as '2s', '500ms' or 2.0")
    return seconds


class Reading(NamedTuple):
    """How files become clips. num_views: of a video, or of each window. window, step: seconds of a window, and between the
    starts of two; None looks at the video as a whole. chunk: windows that are read at a time. used: as of `read_clips`.
    """

    num_views: int = 1
    window: float | None = None
    step: float | None = None
    chunk: int = 32
    decoding: Decoding = Decoding()
    used: tuple[int, ...] | None = None


class Part(NamedTuple):
    """Clips of a file, or of one window of it from second `start` to second `end`."""

    clips: Clips
    start: float | None = None
    end: float | None = None


class _Read(NamedTuple):
    """What was read at once, in how many milliseconds, and how many windows the whole file has."""

    parts: list[Part]
    milliseconds: float
    num_windows: int


class _Job:
    """The `Job` of the process that reads videos, so that one which kills or hangs its decoder costs that video alone.

    A key is a file and the number of its first window.
    """

    def __init__(self, preprocessing: Preprocessing, how: Reading) -> None:
        self._preprocessing, self._how = preprocessing, how

    def read(self, key: tuple[Path, int]) -> _Read | VideoError:
        path, first = key
        start = time.perf_counter()
        try:
            parts, count = self._parts(path, first)
        except VideoError as error:
            return error
        except Exception as error:
            return VideoError(path, describe_failure(error))
        return _Read(parts, 1000 * (time.perf_counter() - start), count)

    def _parts(self, path: Path, first: int) -> tuple[list[Part], int]:
        with contextlib.closing(read_parts(path, self._preprocessing, self._how, first)) as found:
            return next(found)

    def join(self, items: list) -> _Read | VideoError:
        return items[0]

    def name(self, key: tuple[Path, int]) -> str:
        return str(key[0])

    def lost(self, key: tuple[Path, int], cause: str) -> VideoError:
        return VideoError(key[0], cause)


def read_parts(
    path: Path, preprocessing: Preprocessing, how: Reading, first: int = 0
) -> Generator[tuple[list[Part], int], None, None]:
    """What is looked at in a file, from its window `first` on, `how.chunk` windows at a time; and how many it has in all.

    The file is opened once. Raises VideoError if unreadable.
    """
    if how.window is None or is_still(path):
        yield [Part(read_clips(path, preprocessing, num_views=how.num_views, backend=how.decoding.backend, used=how.used))], 1
        return
    with open_video(path, how.decoding.backend) as reader:
        count = first + 1
        while first < count:
            parts, count = read_windows(reader, preprocessing, how, first)
            first += len(parts)
            yield parts, count


def read_windows(
    reader: VideoReader, preprocessing: Preprocessing, how: Reading, first: int = 0
) -> tuple[list[Part], int]:
    """`how.chunk` windows of a video from window `first` on, and how many it has in all.

    Window k lasts from `how.step` * k seconds after the first frame for `how.window` seconds, the last one to the video's
    end. A clip keeps the pace that the network was trained at: one that is longer than a window reaches out of it, equally
    far on both sides.
    """
    assert how.window is not None, "there are no windows to read"
    step, begin, end = how.step or how.window, reader.time_of(0), reader.duration
    # Windows that would begin in the last thousandth of a second are rounding errors of clocks.
    count = max(1, math.ceil((end - begin - 1e-3) / step))
    if count > _MOST_EMPTY_WINDOWS + _WINDOWS_OF_A_FRAME * reader.num_frames:
        raise VideoError(
            reader.path, f"its {reader.num_frames} frames are to last {end - begin:.0f} s by its own clock, which would be {count:,} windows of {step:g} s: "
            "the clock is damaged, or the windows are far too short"
        )  # fmt: skip
    bounds = [
        (begin + step * k, min(begin + step * k + how.window, end)) for k in range(first, min(first + how.chunk, count))
    ]
    groups = [_views_between(reader, preprocessing, *window, how.num_views) for window in bounds]
    clips = _read_frames(reader, preprocessing, groups, how.used)
    return [Part(found, *window) for found, window in zip(clips, bounds)], count


def _views_between(
    reader: VideoReader, preprocessing: Preprocessing, start: float, end: float, num_views: int
) -> list[list[int]]:
    """The frames of `num_views` clips spread from second `start` to second `end`; one alone is in the middle."""
    span = preprocessing.num_frames * preprocessing.sampling_rate / preprocessing.target_fps
    slack = end - start - span
    places = [0.5] if num_views == 1 or slack < 0 else [view / num_views for view in range(num_views)]
    offsets = np.linspace(0, max(span - 1 / reader.fps, 0), preprocessing.num_frames)
    return [reader.indices_at((start + slack * place + offsets).tolist()) for place in places]


def predict_each(
    model: "AdaptiveModel", sources: Sequence[Path | Array], how: Reading, *, batch: int = 32,
    configuration: Configuration | Cascade | str | None = None,
) -> Iterator[Prediction | VideoError]:
    """For each file and array of `sources`, in their order, its prediction (with windows: its predictions), or what is
    wrong with it.

    batch: clips of several files that the network computes together. configuration: None runs at the one that is active when
    it begins. Videos are read in a process of their own while the network computes; of their frames, those that the
    configuration sees. Raises ValueError for an array that the network cannot take.
    """
    check_gives_classes(model, "predicting files")
    if model.network.takes_boxes:
        raise ValueError("this model classifies boxes in a video: use mutual3d.deploy.predict_boxes, or mutual3d predict --boxes")
    run, stages = at_present(model, configuration)
    how = how._replace(used=tuple(used_by_all(model.network, stages)))
    waiting: list[tuple[str, Part, float]] = []
    for name, found in read_all(model, sources, how):
        if isinstance(found, VideoError):
            yield from score_parts(model, waiting, batch, run)
            waiting.clear()
            yield found
            continue
        # Joined with what is normalised already, pixels would pass for that.
        if waiting and waiting[-1][1].clips.clips_VCTHW.dtype != found.parts[0].clips.clips_VCTHW.dtype:
            yield from score_parts(model, waiting, batch, run)
            waiting.clear()
        waiting += [(name, part, found.milliseconds / len(found.parts)) for part in found.parts]
        if sum(len(part.clips.clips_VCTHW) for _, part, _ in waiting) >= batch:
            yield from score_parts(model, waiting, batch, run)
            waiting.clear()
    yield from score_parts(model, waiting, batch, run)


def read_clip(model: "AdaptiveModel", source: Source, decoding: Decoding = Decoding()) -> Clips:
    """The one clip of a file or an array that `predict` looks at, in its middle, whole: uint8 1, 3, T, S, S.

    The file is read in a process of its own. Raises VideoError if unreadable, ValueError for several sources, and for an array that
    is no frames and no clip.
    """
    sources = list_sources(source)
    if len(sources) != 1:
        raise ValueError(f"the source is {len(sources)} files or arrays: give one")
    found = [read for _, read in read_all(model, sources, Reading(decoding=decoding))]
    if isinstance(found[0], VideoError):
        raise found[0]
    parts = [part for read in found if not isinstance(read, VideoError) for part in read.parts]
    if len(parts) != 1:
        raise ValueError(f"the array is {len(parts)} clips: give one")
    clips = parts[0].clips
    clip_BCTHW = clips.clips_VCTHW.unsqueeze(2) if clips.clips_VCTHW.ndim == 4 else clips.clips_VCTHW
    return clips._replace(clips_VCTHW=clip_BCTHW)


def score_parts(
    model: "AdaptiveModel", waiting: Sequence[tuple[str, Part, float]], batch: int, run: Callable[[torch.Tensor], torch.Tensor]
) -> list[Prediction]:
    """The prediction of each part, whose clips are computed together. waiting: (file, part, milliseconds that reading it took).

    batch: clips that `run` computes at once.
    """
    if not waiting:
        return []
    start = time.perf_counter()
    clips = torch.cat([part.clips.clips_VCTHW for _, part, _ in waiting])
    by_clip = torch.cat([run(part.to(_device(model))) for part in clips.split(batch)])
    milliseconds = 1000 * (time.perf_counter() - start) / len(waiting)
    by_part = by_clip.split([len(part.clips.clips_VCTHW) for _, part, _ in waiting])
    return [
        Prediction(
            # The pixels of a thousand videos would fill the memory.
            _join_views(scores, model.preprocessing), decode_ms, milliseconds,
            part.clips._replace(clips_VCTHW=part.clips.clips_VCTHW[:0].clone()), name, model.class_names, part.start, part.end,
        )
        for scores, (name, part, decode_ms) in zip(by_part, waiting)
    ]  # fmt: skip


def read_all(
    model: "AdaptiveModel", sources: Sequence[Path | Array], how: Reading
) -> Iterator[tuple[str, _Read | VideoError]]:
    """(name, what was read) of each source; of a long video several times, one after the other."""
    pool = WorkerPool(_Job(model.preprocessing, how), 1, timeout=how.decoding.timeout, settings=how.decoding.settings)
    try:
        if how.window is None and not any(map(is_array, sources)):
            yield from zip(map(str, sources), pool.map([(path, 0)] for path in sources))
            return
        for number, source in enumerate(sources):
            if not isinstance(source, Path):
                name = "array" if len(sources) == 1 else f"array {number}"
                yield from ((name, read) for read in _read_array(model, source, how, name))
            else:
                yield from ((str(source), read) for read in _read_chunks(pool, source, how))
    finally:
        pool.close()


def _read_chunks(pool: WorkerPool, path: Path, how: Reading) -> Iterator[_Read | VideoError]:
    (found,) = pool.map([[(path, 0)]])
    yield found
    if not isinstance(found, VideoError):
        for more in pool.map([(path, first)] for first in range(how.chunk, found.num_windows, how.chunk)):
            yield more
            if isinstance(more, VideoError):
                return


def _read_array(model: "AdaptiveModel", array: Array, how: Reading, name: str) -> Iterator[_Read]:
    """Frames uint8 T, H, W, 3 are a video at the network's own rate; anything else is taken for clips."""
    frames, preprocessing = frames_of(array), model.preprocessing
    if frames is None:
        clips = torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) and array.dtype.kind in "biuf" else array
        is_one = clips.ndim == (3 if model.network.takes == "images" else 4)
        clips = clips[None] if is_one else clips
        for chunk in clips.split(how.chunk) if isinstance(clips, torch.Tensor) else [clips]:
            yield _Read([Part(Clips(clip[None])) for clip in chunk], 0.0, 1)
        return
    reader = ArrayReader(frames, preprocessing.target_fps, name)
    if len(frames) == 1 or how.window is None:
        yield _Read([Part(read_views(reader, preprocessing, how.num_views if len(frames) > 1 else 1))], 0.0, 1)
        return
    first, count = 0, 1
    while first < count:
        parts, count = read_windows(reader, preprocessing, how, first)
        first += len(parts)
        yield _Read(parts, 0.0, count)


class PredictionStream:
    """An iterator over predictions as they come. bad: VideoError of each file so far that cannot be read."""

    def __init__(self, found: Iterable[Prediction | VideoError]) -> None:
        self._found, self.bad = iter(found), list[VideoError]()

    def __iter__(self) -> "PredictionStream":
        return self

    def __next__(self) -> Prediction:
        for found in self._found:
            if not isinstance(found, VideoError):
                return found
            self.bad.append(found)
        raise StopIteration


def collect(found: Iterable[Prediction | VideoError], total: int, *, progress: bool) -> Predictions:
    """All predictions of `total` files, with a progress bar; the bad ones are told at the end."""
    result, seen = Predictions(), set()
    bar = progress_bar(range(total), "predict", total, unit="file") if progress else None
    for each in found:
        result.bad.append(each) if isinstance(each, VideoError) else result.append(each)
        if bar is not None and each.path not in seen:
            seen.add(each.path)
            bar.update()
    if bar is not None:
        bar.close()
    if result.bad:
        listed = "".join(f"\n  {bad.path}: {bad.cause}" for bad in result.bad[:20])
        logger.warning("%d of %d files cannot be read:%s", len(result.bad), total, listed)
    return result
