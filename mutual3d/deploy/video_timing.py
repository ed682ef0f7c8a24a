"""The way from a file to the scores, measured: opening and decoding a video, cutting its frames, and then the network."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mutual3d.cost.axes import CostWords
from mutual3d.cost.latency import Repeating, Timing, time_in_turns
from mutual3d.cost.latency_key import LatencyKey
from mutual3d.cost.machine import describe_device
from mutual3d.data.clips.transforms import stack_clips
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import is_still
from mutual3d.deploy.predict import frame_transform, frames_of_views
from mutual3d.deploy.timing import Column, latency_key
from mutual3d.deploy.used_frames import fill_in, used_frames
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.threads import computing_threads

if TYPE_CHECKING:  # whose method `set_budget` uses this
    from mutual3d.deploy.adaptive_model import AdaptiveModel

# A clip that runs at several configurations is read once; `file_ms` of a cascade counts that at each, and is an upper bound.
DECODING = CostWords(name="decoding_ms", title="median time of opening and decoding a clip", unit="ms", by_device=True, is_drawn=False, adds=False)
CUTTING = CostWords(name="cutting_ms", title="median time of cutting a clip", unit="ms", by_device=True, is_drawn=False, adds=False)
FROM_FILE = CostWords(name="file_ms", title="median latency from a file on", unit="ms", per="decoded, cut and computed", by_device=True)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class FileTimes:
    """What a clip takes before the network sees it, by configuration: those of few frames read few.

    key: of the machine, the decoder and the threads. about: the video, for a table's provenance.
    """

    key: LatencyKey
    decoding: Mapping[Configuration, Timing]
    cutting: Mapping[Configuration, Timing]
    about: Mapping[str, Any] = field(default_factory=dict)

    def total(self, configuration: Configuration) -> float:
        """Median milliseconds of both."""
        return self.decoding[configuration].p50 + self.cutting[configuration].p50


def time_file(
    model: "AdaptiveModel",
    path: str | Path,
    configurations: Sequence[Configuration],
    *,
    threads: int | None = None,
    backend: str = "pyav",
    repeating: Repeating = Repeating(),
) -> FileTimes:
    """How long one clip of a video takes to read, and to cut, for each configuration; the file is opened anew each time.

    Of each number of frames it is measured once. Raises VideoError for a file that is no video or cannot be read.
    """
    if is_still(path):
        raise VideoError(path, "it is an image: give a video, whose decoding is what is measured")
    used = {c: tuple(used_frames(model.network, c)) for c in configurations}
    frames: dict[tuple[int, ...], dict[int, np.ndarray]] = {}

    def decode(positions: tuple[int, ...]) -> None:
        frames[positions] = _decode(model, path, positions, backend)

    def cut(positions: tuple[int, ...]) -> None:
        transform = frame_transform(model.preprocessing)
        stack_clips([[transform(frame) for frame in frames[positions].values()]])

    distinct = sorted(set(used.values()), key=len)
    with computing_threads(threads):
        for positions in distinct:
            decode(positions)
        parts: list[tuple[str, Callable[[tuple[int, ...]], None]]] = [("decode", decode), ("cut", cut)]
        groups = [{(name, positions): _bind(function, positions) for positions in distinct} for name, function in parts]
        found = time_in_turns(groups, _CPU, repeating)
    decoding, cutting = ({c: found[name, positions] for c, positions in used.items()} for name, _ in parts)
    about = {
        **describe_device(_CPU), **_describe(path, backend), "date": datetime.date.today().isoformat(),
        "repeats": min(timing.repeats for timing in found.values()), "spread": round(max(t.spread for t in found.values()), 4),
    }  # fmt: skip
    return FileTimes(LatencyKey.here(_CPU, backend, torch.uint8, 1, threads), decoding, cutting, about)


def _bind(function: Callable[[tuple[int, ...]], None], positions: tuple[int, ...]) -> Callable[[], Callable[[], None]]:
    return lambda: lambda: function(positions)


def _decode(model: "AdaptiveModel", path: str | Path, positions: Sequence[int], backend: str) -> dict[int, np.ndarray]:
    """The frames of the middle clip of a video that are read for a network which sees `positions` of it."""
    with open_video(path, backend) as reader:
        (indices,) = frames_of_views(reader, model.preprocessing, 1)
        return dict(reader.frames(fill_in(indices, positions)))


def _describe(path: str | Path, backend: str) -> dict[str, Any]:
    with open_video(path, backend) as reader:
        height, width = next(iter(reader.frames([0])))[1].shape[:2]
        return {"video": Path(path).name, "size": f"{width}x{height}", "fps": round(reader.fps, 3), "frames": reader.num_frames}


def with_file_times(table: QueryTable, times: FileTimes, columns: Sequence[Column]) -> QueryTable:
    """The table with what reading a clip takes, and, of the columns with one clip and as many threads, the whole way from a file.

    Configurations that are no rows are left out.
    """
    rows = {row.configuration for row in table.rows}
    key = str(times.key)
    costs: dict[str, dict[str, dict[Configuration, float]]] = {
        DECODING.name: {key: {c: timing.p50 for c, timing in times.decoding.items() if c in rows}},
        CUTTING.name: {key: {c: timing.p50 for c, timing in times.cutting.items() if c in rows}},
        FROM_FILE.name: {},
    }
    for column in columns:
        if column.key.batch == 1 and column.key.threads in (None, times.key.threads):
            known = [c for c in column.timings if c in rows and c in times.decoding]
            costs[FROM_FILE.name][str(column.key)] = {c: column.timings[c].p50 + times.total(c) for c in known}
    words = {each.name: each.to_dict() for each in (DECODING, CUTTING, FROM_FILE)}
    return table.with_costs(costs, {"latency": {key: dict(times.about)}, "costs": words})


def key_from_file(model: "AdaptiveModel") -> str:
    """The device key of the model's own calls on this machine, where the whole way from a file was measured with them.

    Raises ValueError, which names what the table has, where it was not.
    """
    assert model.table is not None, "a model with a table"
    key = str(latency_key(model, model.runtime))
    keys = model.table.keys(FROM_FILE.name)
    if key not in keys:
        there = f"the table has it on {', '.join(keys)}" if keys else "the table has it of no machine"
        raise ValueError(
            f"the way from a file was not measured on this machine as {key}; {there}: measure it with "
            "`mutual3d bench MODEL --video CLIP`, with a clip such as yours"
        )
    return key
