"""Videos to image files, one a frame, at a frame rate of one's choice; an interrupted extraction goes on where it was."""

import os
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mutual3d.data.claim import claim_directory
from mutual3d.data.frame_list_reader import COLUMNS
from mutual3d.data.lists import check_line
from mutual3d.data.pyav_reader import PyAVReader
from mutual3d.data.reader import VideoError, check_file
from mutual3d.utils.files import atomic_write, ensure_directory
from mutual3d.utils.logging import progress_bar

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".m4v", ".3gp", ".flv", ".wmv", ".ts")

_ARGUMENTS_FILE = "extraction.json"
# A hidden folder with a file for each finished video that says how many frames it has.
_FINISHED = ".finished"


class Layout(NamedTuple):
    """Which moments become frames, and the files that they go to.

    Frame k of a video shows it `start` + k / `fps` seconds after its first frame, for all such moments before `end` (None:
    the video's end). Its file is `pattern` (in the style of str.format) of the video's name and k + `first_number`.
    """

    fps: float
    start: float = 0.0
    end: float | None = None
    first_number: int = 0
    pattern: str = "{video}/{video}_{frame:06d}.jpg"
    quality: int = 95

    def check(self):
        """Raise ValueError for values that make no frames or files that overwrite each other."""
        if self.fps <= 0 or self.start < 0 or (self.end is not None and self.end <= self.start):
            raise ValueError(f"fps {self.fps}, start {self.start}, end {self.end}: fps must be above 0, 0 <= start < end")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality {self.quality} must be 1 to 100")
        try:
            names = {self.pattern.format(video=video, frame=frame) for video in "ab" for frame in (0, 1)}
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"the pattern {self.pattern!r} does not work ({error!r}): use {{video}} and {{frame}}") from None
        if len(names) < 4:
            raise ValueError(f"the pattern {self.pattern!r} must hold both {{video}} and {{frame}}")

    def path(self, video, frame):
        """File of frame `frame` (from 0) of a video, relative to the output folder."""
        return self.pattern.format(video=video, frame=frame + self.first_number)

    def source_frames(self, times):
        """For each frame to write, the position of the source frame nearest to its moment; `times` ascend, in seconds."""
        last_duration = times[-1] - times[-2] if len(times) > 1 else 1 / self.fps
        end = times[-1] + last_duration / 2
        end = end if self.end is None else min(end, self.end)
        count = max(int(np.ceil((end - self.start) * self.fps - 1e-6)), 0)
        moments = self.start + np.arange(count) / self.fps
        return np.searchsorted((times[1:] + times[:-1]) / 2, moments, side="right").tolist()


def list_videos(directory):
    """Video files of a folder and the folders in it, sorted; FileNotFoundError when there are none."""
    directory = Path(directory)
    found = sorted(path for path in directory.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise FileNotFoundError(f"there are no videos ({', '.join(VIDEO_SUFFIXES)}) in '{directory}'")
    return found


def extract_frames(videos, output, layout, num_workers=None):
    """Write the frames of `videos` (paths; a video's name is its file's name without the ending) as JPEGs into `output`.

    Returns ({video: number of frames}, [VideoError of each unreadable video]). A killed extraction goes on from the frames
    that it wrote; finished videos are not opened again. Raises ValueError for two videos of one name, a layout that
    cannot work, and a folder that was made with another one.
    """
    layout.check()
    videos = [Path(video) for video in videos]
    twice = [name for name, count in Counter(video.stem for video in videos).items() if count > 1]
    if twice:
        raise ValueError(f"two videos have the name '{twice[0]}': their frames would overwrite each other")
    output = claim_directory(output, _ARGUMENTS_FILE, layout._asdict(), "a folder of extracted frames")
    ensure_directory(output / _FINISHED)
    workers = min(num_workers or os.cpu_count() or 1, len(videos))
    counts, bad = {}, []
    with ProcessPoolExecutor(workers) as pool, progress_bar(None, "frames", total=len(videos), unit="video") as progress:
        for video, result in zip(videos, pool.map(partial(_extract_one, output, layout), videos)):
            if isinstance(result, VideoError):
                bad.append(result)
            else:
                counts[video.stem] = result
            progress.update()
    return counts, bad


def write_frame_list(csv_path, counts, layout):
    """Write the csv of extracted frames in AVA's form, labels empty; `counts`: {video: number of frames}."""
    rows = (
        (video, number, frame, layout.path(video, frame), "")
        for number, (video, count) in enumerate(counts.items()) for frame in range(count)
    )  # fmt: skip
    write_frame_rows(csv_path, rows)


def write_frame_rows(csv_path, rows):
    """Write rows (video, number of the video, number of the frame, path, labels joined by commas) as a frame list.

    Raises ValueError for a name that would not be read as it is (a line end in it, no UTF-8).
    """
    with atomic_write(csv_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        file.write(" ".join(COLUMNS) + "\n")
        for video, number, frame, path, labels in rows:
            file.write(check_line(f'{_quoted(video)} {number} {frame} {_quoted(path)} "{labels}"', csv_path) + "\n")


def write_image(path, image_HWC, quality=95):
    """Write a uint8 RGB image as a JPEG, whole or not at all should the process be killed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(image_HWC).save(temporary, format="JPEG", quality=quality)
    os.replace(temporary, path)


def _quoted(text):
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if " " in text or '"' in text else text


def _extract_one(output, layout, video):
    """Number of frames of one video, or its VideoError."""
    marker = output / _FINISHED / video.stem
    if marker.is_file():
        return int(marker.read_text())
    try:
        check_file(video)
        count = _write_frames(output, layout, video)
    except VideoError as error:
        return error
    # All images reach the disk before the marker says that they are there; one by one would take far longer.
    os.sync()
    with atomic_write(marker) as temporary:
        temporary.write_text(f"{count}\n")
    return count


def _write_frames(output, layout, video):
    with PyAVReader(str(video)) as reader:
        sources = layout.source_frames(reader.frame_times())
        if not sources:
            raise VideoError(video, f"it ends before second {layout.start:g}, where the frames begin")
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
    return len(sources)


def _is_written(path):
    return path.is_file() and path.stat().st_size > 0
