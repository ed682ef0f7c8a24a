"""From clips whose frames have boxes to a set in AVA's form: who, in the middle of each clip, does what it shows."""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mutual3d.data.datasets.boxes import Box
from mutual3d.data.datasets.frame_boxes import FrameBoxes, read_frame_boxes
from mutual3d.data.datasets.kinetics import write_lines
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.extraction import Layout, extract_frames, write_frame_rows
from mutual3d.data.prepare.official_lists import read_whole_videos
from mutual3d.data.video.decode import open_video
from mutual3d.utils.files import ensure_directory
from mutual3d.utils.logging import progress_bar

SPLITS = ("train", "val", "test")
LABEL_MAP = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
# As on AVA.
_LAYOUT = Layout(fps=30)


class _Clip(NamedTuple):
    """name: of the file, without its ending. label: from 0. num_frames: of extracted ones; the keyframe is number `middle`, which `boxes` are of."""

    name: str
    label: int
    num_frames: int
    middle: int
    boxes: Sequence[Box]

    @property
    def second(self) -> int:
        """What annotations call the keyframe: AVA's seconds are whole numbers."""
        return max(1, math.ceil(self.middle / _LAYOUT.fps))

    def paths(self) -> list[str]:
        """The files that the frame list names, from second 0 on: what comes before the clip, and its frames."""
        return [*self.before(), *(_LAYOUT.path(self.name, frame) for frame in range(self.num_frames))]

    def before(self) -> list[str]:
        """The files that show the first frame until the keyframe is `second`, as clips repeat it before a video's beginning anyway."""
        return [f"{self.name}/before_{frame:06d}.jpg" for frame in range(round(self.second * _LAYOUT.fps) - self.middle)]


def write_keyframes(
    output: str | Path, lists: str | Path, boxes: str | Path, num_workers: int | None = None
) -> dict[str, tuple[int, list[str]]]:
    """Write frames/, frame_lists/ and annotations/, as AVA's users have them, with one keyframe a clip; frame 0 shows second 0.

    In annotations/ the files have the names of v2.2, and `ava_{train,val,test}_predicted_boxes.csv` are the boxes once more, with the score 1, as
    a perfect detector would give them: the score says how well actions are told, not how well people are found.

    lists: the folder of train.csv, val.csv, test.csv (those that are there count) and classes.txt. boxes: a csv, see `read_frame_boxes`; a
    keyframe without one is annotated as empty. num_workers: processes, one a core by default. An interrupted call is completed by the
    same one. Returns {"frame_lists/SPLIT": (number of clips, names of those that cannot be read)}. Raises ValueError for two videos of one name, a
    video with two labels, one without boxes or with boxes of frames that it has not, what the files get wrong, and where no video can be read.
    """
    output, lists = ensure_directory(output), Path(lists)
    names = read_class_names(lists / "classes.txt")
    found = read_frame_boxes(boxes)
    videos = {split: _read_list(lists / f"{split}.csv", names) for split in SPLITS if (lists / f"{split}.csv").is_file()}
    if not videos:
        raise FileNotFoundError(
            f"there is no {', '.join(f'{split}.csv' for split in SPLITS)} in '{lists}': give the folder of the lists"
        )
    labels = _one_label_each(videos)
    missing = [path for path in labels if path not in found]
    if missing:
        raise ValueError(
            f"'{boxes}' has no boxes of '{missing[0]}' ({len(missing)} such videos); relative paths start at the csv's folder"
        )
    counts, bad = extract_frames(labels, output / "frames", _LAYOUT, num_workers)
    if not counts:
        raise ValueError(f"no video of the lists in '{lists}' can be read; the first is '{bad[0].path}': {bad[0].cause}")
    unreadable = {Path(error.path).stem for error in bad}
    done = {}
    for split, own in videos.items():
        paths = list(own)
        good = [path for path in paths if Path(path).stem in counts]
        clips = [
            _clip(path, labels[path], counts[Path(path).stem], found[path], boxes)
            for path in progress_bar(good, split, len(good), unit="video")
        ]
        _write_split(output, split, clips)
        done[f"frame_lists/{split}"] = len(clips), [Path(path).stem for path in paths if Path(path).stem in unreadable]
    items = (line for action, name in enumerate(names, 1) for line in ("item {", f'  name: "{name}"', f"  id: {action}", "}"))
    write_lines(output / "annotations" / LABEL_MAP, items)
    return done


def _read_list(path: Path, names: Sequence[str]) -> dict[str, int]:
    """{path of a video, without links: its label}, each once, whose list it may be in again."""
    videos = read_whole_videos(path, names)
    own = {os.path.realpath(video.path): video.label for video in videos}
    for video in videos:
        _check_label(video.path, video.label, own[os.path.realpath(video.path)])
    return own


def _one_label_each(videos: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The label of each video of all lists, {split: {path: label}}."""
    labels: dict[str, int] = {}
    for own in videos.values():
        for path, label in own.items():
            _check_label(path, label, labels.setdefault(path, label))
    return labels


def _check_label(path: str, label: int, other: int) -> None:
    if label != other:
        raise ValueError(f"the lists give '{path}' the labels {min(label, other)} and {max(label, other)}, and a keyframe has one: remove the wrong row")


def _clip(path: str, label: int, count: int, boxes: FrameBoxes, source_of_boxes: str | Path) -> _Clip:
    """source_of_boxes: their file, for errors."""
    middle = count // 2
    with open_video(path) as reader:
        if max(boxes) >= reader.num_frames:
            raise ValueError(
                f"'{source_of_boxes}' has boxes of frame {max(boxes)} of '{path}', which has {reader.num_frames}, from 0 on: count frames from 0, "
                "in the video that is listed"
            )
        # The video's own frame that the extracted one is.
        source = _LAYOUT.source_frames(reader)[middle]
    return _Clip(Path(path).stem, label, count, middle, boxes.get(source, []))


def _write_split(output: Path, split: str, clips: Sequence[_Clip]) -> None:
    for clip in clips:
        for path in clip.before():
            _link(output / "frames" / _LAYOUT.path(clip.name, 0), output / "frames" / path)
    frames = ((clip.name, number, frame, path, "") for number, clip in enumerate(clips) for frame, path in enumerate(clip.paths()))
    write_frame_rows(ensure_directory(output / "frame_lists") / f"{split}.csv", frames)
    annotations = ensure_directory(output / "annotations")
    write_lines(annotations / f"ava_{split}_v2.2.csv", _truth_rows(clips))
    write_lines(annotations / f"ava_{split}_predicted_boxes.csv", _detection_rows(clips))
    write_lines(annotations / f"ava_{split}_excluded_timestamps_v2.2.csv", [])


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no such names."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _truth_rows(clips: Sequence[_Clip]) -> Iterator[str]:
    for clip in clips:
        if not clip.boxes:
            yield f"{clip.name},{clip.second:04d}"
        for person, box in enumerate(clip.boxes):
            yield f"{clip.name},{clip.second:04d},{_joined(box)},{clip.label + 1},{person}"


def _detection_rows(clips: Sequence[_Clip]) -> Iterator[str]:
    return (f"{clip.name},{clip.second:04d},{_joined(box)},,1.0" for clip in clips for box in clip.boxes)


def _joined(box: Box) -> str:
    return ",".join(f"{side:.4f}" for side in box)
