"""Videos to image files, one a frame, at a frame rate of one's choice; an interrupted extraction goes on where it was."""

import contextlib
import itertools
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Formatter
from typing import NamedTuple

import numpy as np
from PIL import Image

from mutual3d.data.datasets.dataset import describe_failure
from mutual3d.data.datasets.lists import check_line
from mutual3d.data.prepare.claim import claim_directory
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.frame_list_reader import COLUMNS
from mutual3d.data.video.reader import VideoError, VideoReader
from mutual3d.data.workers.pool import OPTIONS, WorkerPool
from mutual3d.data.workers.process import show_life
from mutual3d.utils.files import atomic_write, ensure_directory, files_under, state_of
from mutual3d.utils.logging import progress_bar

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".m4v", ".3gp", ".flv", ".wmv", ".ts")

# Above this a rate is a mistake: no camera's frames are nearer to each other.
MAX_FPS = 1000
# Seconds without a new frame after which the process that reads a video is given up. A long film without a table of its
# frames is decoded once before the first one is written.
PATIENCE = 1800.0

_ARGUMENTS_FILE = "extraction.json"
# What may stand after the colon of a field in a pattern.
_FIELD_FORMS = {"video": r"", "frame": r"(0?[1-9]\d?)?d?"}
# A hidden folder with a file for each finished video that says how many frames it has.
_FINISHED = ".finished"
# And one with a file for each video that was begun, which tells it from another one of its name.
_SOURCES = ".sources"


class Layout(NamedTuple):
    """Which moments become frames, and the files that they go to.

    Frame k of a video shows it at second `start` + k / `fps` of its clock (see `VideoReader`), for all such moments before
    `end` (None: the video's end). Its file is `pattern` (in the style of str.format) of the video's name and k + `first_number`.
    """

    fps: float
    start: float = 0.0
    end: float | None = None
    first_number: int = 0
    pattern: str = "{video}/{video}_{frame:06d}.jpg"
    quality: int = 95

    def check(self) -> None:
        """Raise ValueError for values that make no frames, or files that overwrite each other or lie outside the folder."""
        times = (self.fps, self.start, *([] if self.end is None else [self.end]))
        if not all(map(math.isfinite, times)) or not 0 < self.fps <= MAX_FPS or self.start < 0:
            raise ValueError(f"{self._times()}: fps must be above 0 and at most {MAX_FPS}, start 0 or more, and both finite")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"{self._times()}: the end must be above the start")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality {self.quality} must be 1 to 100")
        self._check_pattern()

    def _times(self) -> str:
        return f"fps {self.fps}, start {self.start}, end {self.end}"

    def _check_pattern(self) -> None:
        try:
            fields = [field[1:] for field in Formatter().parse(self.pattern) if field[1] is not None]
        except ValueError as error:
            raise ValueError(f"the pattern {self.pattern!r} does not work ({error}): use {{video}} and {{frame}}") from None
        for name, spec, conversion in fields:
            if conversion or name not in _FIELD_FORMS or not re.fullmatch(_FIELD_FORMS[name], spec or ""):
                raise ValueError(
                    f"the pattern {self.pattern!r} does not work: use {{video}}, and {{frame}} or, with six digits, {{frame:06d}}"
                )
        if {name for name, *_ in fields} != set(_FIELD_FORMS):
            raise ValueError(f"the pattern {self.pattern!r} must hold both {{video}} and {{frame}}")
        example = self.path("video", 0)
        if os.path.isabs(example) or ".." in Path(example).parts or example.endswith("/") or "\0" in example:
            raise ValueError(f"the pattern {self.pattern!r} must name files in the output folder: '{example}' is none")
        if Path(example).parts[0] in (_FINISHED, _SOURCES):
            raise ValueError(f"the pattern {self.pattern!r} names files in a folder that is kept for what is finished")

    def path(self, video: str, frame: int) -> str:
        """File of frame `frame` (from 0) of a video, relative to the output folder."""
        return self.pattern.format(video=video, frame=frame + self.first_number)

    def source_frames(self, reader: VideoReader) -> list[int]:
        """For each frame to write, the frame of the video that is shown nearest to its moment."""
        last = reader.time_of(reader.num_frames - 1)
        # Past the middle of the last frame the next one, which there is not, would be nearer.
        end = (last + reader.duration) / 2
        end = end if self.end is None else min(end, self.end)
        count = max(math.ceil((end - self.start) * self.fps - 1e-6), 0)
        return reader.indices_at([self.start + frame / self.fps for frame in range(count)])


def list_videos(directory: str | Path) -> list[Path]:
    """Video files of a folder and the folders in it, sorted; FileNotFoundError when there are none."""
    directory = Path(directory)
    found = [path for path in files_under(directory) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not found:
        raise FileNotFoundError(f"there are no videos ({', '.join(VIDEO_SUFFIXES)}) in '{directory}'")
    return found


def extract_frames(
    videos: Iterable[str | Path],
    output: str | Path,
    layout: Layout,
    num_workers: int | None = None,
    patience: float = PATIENCE,
) -> tuple[dict[str, int], list[VideoError]]:
    """Write the frames of `videos` (paths; a video's name is its file's name without the ending) as JPEGs into `output`.

    Returns ({video: number of frames}, [VideoError of each video that cannot be read, or that killed or hung the process
    that read it]). A killed extraction goes on from the frames that it wrote; finished videos are not opened again, unless
    another file (by size and time of modification) has taken their place.
    `num_workers`: processes, one a core by default. `patience`: seconds without a new frame after which a process hangs.
    Raises ValueError for two videos of one name, a layout that cannot work, and a folder that was made with another one;
    OSError where frames cannot be written.
    """
    layout.check()
    if num_workers is not None and num_workers < 1 or not patience > 0:
        raise ValueError(f"{num_workers} workers, {patience} seconds of patience: give one worker or more, and time")
    paths = [Path(video) for video in videos]
    _check_names(paths)
    output = claim_directory(output, _ARGUMENTS_FILE, layout._asdict(), "a folder of extracted frames")
    ensure_directory(output / _FINISHED)
    workers = min(num_workers or os.cpu_count() or 1, len(paths))
    pool = WorkerPool(_Extraction(output, layout), workers, timeout=patience, settings=OPTIONS)
    counts, bad = {}, []
    try:
        results = pool.map([video] for video in paths)
        for video, result in zip(paths, progress_bar(results, "frames", total=len(paths), unit="video")):
            if isinstance(result, VideoError):
                bad.append(result)
            elif isinstance(result, OSError):
                raise result
            else:
                counts[video.stem] = result
    finally:
        pool.close()
    return counts, bad


class _Extraction:
    """The `Job` of a worker: videos, one after the other."""

    def __init__(self, output: Path, layout: Layout) -> None:
        self._output, self._layout = output, layout

    def read(self, video: Path) -> int | VideoError | OSError:
        """The number of frames; or what kept them from being read (VideoError) or written."""
        try:
            return _extract_one(self._output, self._layout, video)
        except (VideoError, OSError) as error:
            return error
        except Exception as error:
            return VideoError(video, describe_failure(error))

    def join(self, items: list) -> int | VideoError | OSError:
        return items[0]

    def name(self, video: Path) -> str:
        return str(video)

    def lost(self, video: Path, cause: str) -> VideoError:
        return VideoError(video, cause)


def _check_names(videos: Sequence[Path]) -> None:
    """Refuse videos whose frames would overwrite each other's, or lie outside the folder."""
    twice = [name for name, count in Counter(video.stem for video in videos).items() if count > 1]
    if twice:
        raise ValueError(f"two videos have the name '{twice[0]}': their frames would overwrite each other")
    for video in videos:
        if video.stem in (".", ".."):
            raise ValueError(f"'{video}' has the name '{video.stem}' without its ending, which is no name of a folder")


def write_frame_list(csv_path: str | Path, counts: dict[str, int], layout: Layout) -> None:
    """Write the csv of extracted frames in AVA's form, labels empty; `counts`: {video: number of frames}."""
    rows = (
        (video, number, frame, layout.path(video, frame), "")
        for number, (video, count) in enumerate(counts.items()) for frame in range(count)
    )  # fmt: skip
    write_frame_rows(csv_path, rows)


def write_frame_rows(csv_path: str | Path, rows: Iterable[tuple]) -> None:
    """Write rows (video, number of the video, number of the frame, path, labels joined by commas) as a frame list.

    Raises ValueError for a name that would not be read as it is (a line end in it, no UTF-8).
    """
    with atomic_write(csv_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        file.write(" ".join(COLUMNS) + "\n")
        for video, number, frame, path, labels in rows:
            file.write(check_line(f'{_quoted(video)} {number} {frame} {_quoted(path)} "{labels}"', csv_path) + "\n")


def write_image(path: str | Path, image_HWC: np.ndarray, quality: int = 95) -> None:
    """Write a uint8 RGB image as a JPEG, whole or not at all should the process be killed. OSError that says what to do.

    quality: JPEG's, up to 100.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(image_HWC).save(temporary, format="JPEG", quality=quality)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(f"cannot write '{path}' ({error.strerror or error}): free space, or name another folder") from error


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if " " in text or '"' in text else text


def _extract_one(output: Path, layout: Layout, video: Path) -> int:
    """Number of frames of one video. Raises VideoError, and OSError where frames cannot be written."""
    marker, known = output / _FINISHED / video.stem, output / _SOURCES / video.stem
    source = _source_of(video)
    if source is not None and known.is_file() and known.read_text() != source:
        _delete_frames(output, layout, video.stem)
        marker.unlink(missing_ok=True)
    if marker.is_file() and marker.read_text().strip().isdigit():
        return int(marker.read_text())
    count = _write_frames(output, layout, video)
    # All images reach the disk before the marker says that they are there; one by one would take far longer.
    os.sync()
    with atomic_write(marker) as temporary:
        temporary.write_text(f"{count}\n")
    return count


def _source_of(video: Path) -> str | None:
    """What a video's frames are known by: its size and time of modification. None when it is not there."""
    state = state_of(video)
    return None if state is None else f"{state[0]} bytes, {state[1]} ns\n"


def _delete_frames(output: Path, layout: Layout, name: str) -> None:
    """Delete the frames of another video that had this name; they were written one after the other."""
    for frame in itertools.count():
        path = output / layout.path(name, frame)
        if not path.exists():
            return
        path.unlink()


def _write_frames(output: Path, layout: Layout, video: Path) -> int:
    with open_video(video) as reader:
        sources = layout.source_frames(reader)
        show_life()
        if not sources:
            raise VideoError(video, f"it ends before second {layout.start:g}, where the frames begin")
        with atomic_write(output / _SOURCES / video.stem) as temporary:
            temporary.write_text(_source_of(video) or "")
        targets = defaultdict(list)
        for frame, source in enumerate(sources):
            path = output / layout.path(video.stem, frame)
            if not _is_written(path):
                targets[source].append(path)
        for folder in {path.parent for paths in targets.values() for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
        if targets:
            for source, image in reader.frames(targets):
                for path in targets[source]:
                    write_image(path, image, layout.quality)
                show_life()
    return len(sources)


def _is_written(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
