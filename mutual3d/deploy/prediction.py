"""What a network says of a file, an array or a part of them; many of these, and their file."""

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.timeline import THRESHOLD, Segment, join_windows
from mutual3d.utils.files import atomic_write, write_json
from mutual3d.utils.text import printable

# Clips whose seconds are told one by one.
_MOST_TOLD = 4
SUFFIXES = (".csv", ".json")


class Clips(NamedTuple):
    """What a network is shown of a file: clips uint8 V, 3, T, S, S, and where they come from.

    `seconds`: of each clip the seconds at which its first and its last frame are shown; empty for a still. `duration`: the
    second at which the video ends. `is_padded`: a clip is longer than the video, whose last frame is repeated. `frame_seconds`:
    of each clip the second at which each of its frames is shown.
    """

    clips_VCTHW: torch.Tensor
    seconds: tuple[tuple[float, float], ...] = ()
    duration: float = 0.0
    is_padded: bool = False
    frame_seconds: tuple[tuple[float, ...], ...] = ()

    def describe(self) -> str:
        """What was looked at, in words; "" for a still."""
        if not self.seconds:
            return ""
        parts = ", ".join(f"{first:.2f} to {last:.2f}" for first, last in self.seconds[:_MOST_TOLD])
        parts += ", ..." if len(self.seconds) > _MOST_TOLD else ""
        padding = "; it is shorter than a clip, which repeats its last frame" if self.is_padded else ""
        return f"looked at seconds {parts} of {self.duration:.2f}{padding}"

    @property
    def share(self) -> float:
        """The share of the video between the first and the last frame of a clip, in [0, 1]; 1 for a still."""
        covered = end = 0.0
        for first, last in sorted(self.seconds):
            covered += max(last - max(first, end), 0.0)
            end = max(end, last)
        return min(covered / self.duration, 1.0) if self.duration else 1.0


class Prediction(NamedTuple):
    """What a network says of a file, or of one window of it.

    scores: class probabilities K, joined over the clips. decode_ms, network_ms: milliseconds. clips: what the network was
    shown; those of `AdaptiveModel.predict` keep the seconds and no pixels. path: the file, or `array` with its number.
    class_names: K names; None numbers the classes. start, end: seconds of the window on the reader's clock; None without
    windows.
    """

    scores: torch.Tensor
    decode_ms: float
    network_ms: float
    clips: Clips
    path: str = ""
    class_names: Sequence[str] | None = None
    start: float | None = None
    end: float | None = None

    def top(self, k: int = 5, class_names: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """[(name or class number, probability)] of the k best, descending."""
        values, classes = self.scores.topk(min(k, len(self.scores)))
        names = class_names or self.class_names or [str(i) for i in range(len(self.scores))]
        return [(names[i], value) for i, value in zip(classes.tolist(), values.tolist())]

    @property
    def seconds(self) -> tuple[tuple[float, float], ...]:
        """Of each clip that was looked at the seconds of its first and its last frame; empty for a still."""
        return self.clips.seconds

    @property
    def window(self) -> str:
        """`2.00 to 4.00 s`; "" without windows."""
        return "" if self.start is None or self.end is None else f"{self.start:.2f} to {self.end:.2f} s"

    def __repr__(self) -> str:
        best = ", ".join(f"{printable(name)} {100 * value:.1f} %" for name, value in self.top(3))
        return f"Prediction({', '.join(filter(None, (printable(self.path), self.window)))}: {best})"


class Predictions(list[Prediction]):
    """A list of `Prediction`, in the order of the source. bad: VideoError of each file that cannot be read. several: several classes
    may be there at once, each with a probability of its own.
    """

    def __init__(self, predictions: Iterable[Prediction] = (), bad: Iterable[VideoError] = (), *, several: bool = False) -> None:
        super().__init__(predictions)
        self.bad, self.several = list(bad), several

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """`Prediction.top` where there is one prediction alone. Raises ValueError otherwise, VideoError of one bad file."""
        if len(self) == 1:
            return self[0].top(k)
        if not self and len(self.bad) == 1:
            raise self.bad[0]
        raise ValueError(f"there are {len(self)} predictions: ask one of them, such as predictions[0].top({k})")

    def timeline(
        self, threshold: float = THRESHOLD, background: Collection[str] = (), *, several: bool | None = None
    ) -> dict[str, list[Segment]]:
        """{path: its segments, by start}: windows that say the same, joined. Arguments and errors as of `TimelineBuilder`.

        several: None takes what the predictions' model says.
        """
        several = self.several if several is None else several
        by_path: dict[str, list[Prediction]] = {}
        for each in self:
            by_path.setdefault(each.path, []).append(each)
        return {path: join_windows(windows, threshold, background, several=several) for path, windows in by_path.items()}

    def save(self, path: str | Path, k: int = 5) -> None:
        """Write the k best classes of each prediction to a csv or a json file, which names the bad files too.

        The csv has a line for each class: path, start, end (seconds of the window), rank from 1, class, probability. A bad
        file is one line, its cause under `error`. Raises ValueError for a name with another ending.
        """
        if Path(path).suffix.lower() not in SUFFIXES:
            raise ValueError(f"'{path}' ends in '{Path(path).suffix}': give a name that ends in {' or '.join(SUFFIXES)}")
        write = self._save_json if Path(path).suffix.lower() == ".json" else self._save_csv
        write(Path(path), k)

    def _save_json(self, path: Path, k: int) -> None:
        entries = [
            {
                "path": each.path, "start": each.start, "end": each.end, "looked_at": [list(pair) for pair in each.seconds],
                "top": [{"class": name, "probability": value} for name, value in each.top(k)],
            }
            for each in self
        ]  # fmt: skip
        write_json(path, {"predictions": entries, "bad": [{"path": bad.path, "cause": bad.cause} for bad in self.bad]})

    def _save_csv(self, path: Path, k: int) -> None:
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "start", "end", "rank", "class", "probability", "error"])
            for each in self:
                for rank, (name, value) in enumerate(each.top(k), start=1):
                    writer.writerow([each.path, each.start, each.end, rank, name, f"{value:.6f}", ""])
            writer.writerows([bad.path, "", "", "", "", "", bad.cause] for bad in self.bad)

    def __repr__(self) -> str:
        shown = "".join(f"\n  {each!r}" for each in self[:5]) + ("\n  ..." if len(self) > 5 else "")
        return f"Predictions({len(self)} of them, {len(self.bad)} bad files){shown}"
