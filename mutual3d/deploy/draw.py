"""Boxes with their labels, drawn into a video; and the csv of boxes that a detector made for one video."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from matplotlib.font_manager import findfont
from torchvision.utils import draw_bounding_boxes

from mutual3d.data.datasets.boxes import parse_box
from mutual3d.data.datasets.lists import existing_file, parse_decimal, place_of, read_table, shown
from mutual3d.data.video.container import open_container
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError
from mutual3d.data.workers.process import show_life
from mutual3d.deploy.decoding import Decoding, read_apart
from mutual3d.utils.files import atomic_write
from mutual3d.utils.logging import progress_bar

ROW = "second,x1,y1,x2,y2[,score]"
# Pixels of the shorter side under which a text in a box could not be read.
_LEAST_SIDE = 240
# Times of a drawn video count in these: a whole number of them is a frame at every usual rate, such as 30000/1001.
_TICK = Fraction(1, 90000)
# What an mp4 holds as it is, and containers whose packets need no change for it.
_SOUND_FORMATS = ("mov", "matroska")
_SOUND_CODECS = ("aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "flac", "alac")
_COLOURS = ("red", "yellow", "cyan", "magenta", "lime", "orange")


def read_boxes_csv(path: str | Path) -> dict[float, tuple[torch.Tensor, torch.Tensor]]:
    """Boxes of one video by time: {second: (boxes float n, 4 in [0, 1] of the frame; scores float n)}, times ascending.

    Rows are `second,x1,y1,x2,y2[,score]`, seconds (fractions allowed) from the video's beginning; a row without a score has
    1.0; a first row of names is skipped. Raises FileNotFoundError for a missing file and ValueError, with file, line and
    row, for what does not parse.
    """
    path = existing_file(path, "file of boxes", f"write rows '{ROW}'")
    found = {}
    for line, row in read_table(path):
        if line == 1 and row[0].strip() == "second":
            continue
        try:
            second, *box, score = _parse_row(row)
        except ValueError as error:
            raise ValueError(f"{place_of(path, line)}: {shown(','.join(row))}: {error}; rows are '{ROW}'") from None
        found.setdefault(second, []).append((*box, score))
    if not found:
        raise ValueError(f"the file of boxes '{path}' is empty: write rows '{ROW}'")
    tables = {second: torch.tensor(found[second]) for second in sorted(found)}
    return {second: (table[:, :4], table[:, 4]) for second, table in tables.items()}


def _parse_row(row: Sequence[str]) -> tuple[float, ...]:
    """second, x1, y1, x2, y2, score."""
    if len(row) not in (5, 6):
        raise ValueError(f"it has {len(row)} columns")
    numbers = []
    for text in row:
        number = parse_decimal(text)
        if number is None:
            raise ValueError(f"{shown(text)} is not a number")
        numbers.append(number)
    second, score = numbers[0], numbers[5] if len(row) == 6 else 1.0
    if second < 0 or not 0 <= score <= 1:
        raise ValueError("the second must be 0 or more and the score in [0, 1]")
    return second, *parse_box(row[1:5]), score


def describe_boxes(
    scores_NK: torch.Tensor, class_names: Sequence[str] | None = None, *, threshold: float = 0.3, most: int = 3
) -> list[str]:
    """A text for each box from its scores N, K: its best classes, at most `most`, none but the best below `threshold`.

    Each class has a line of its own, such as `walk 87 %`; classes without names are called by their number.
    """
    texts = []
    for values, classes in zip(*(part.tolist() for part in scores_NK.topk(min(most, scores_NK.shape[1]), dim=1))):
        kept = [(v, c) for i, (v, c) in enumerate(zip(values, classes)) if i == 0 or v >= threshold]
        texts.append("\n".join(f"{class_names[c] if class_names else c} {100 * value:.0f} %" for value, c in kept))
    return texts


def draw_boxes(
    video_path: str | Path,
    output_path: str | Path,
    boxes_by_time: Mapping[float, tuple[torch.Tensor, Sequence[str]]],
    *,
    hold: float = 0.5,
    decoding: Decoding = Decoding(),
) -> int:
    """Write the video as an H.264 mp4 with boxes drawn in it; returns the number of frames that show boxes.

    Each frame is shown when the video shows it, whatever its rate, and not before the video does. Sound is copied from mp4,
    mov, mkv and webm where it is of a kind that an mp4 holds.

    Args:
        boxes_by_time: {second: (boxes float n, 4 in [0, 1] of the frame; list of n texts)}.
        hold: seconds before and after a time in which its boxes are shown; of two times the nearer one's are.

    Small videos are enlarged by a whole factor, so that texts can be read; a side that is odd loses its last row or
    column, which H.264 cannot hold. The video is read in a process of its own. Raises VideoError for a video that cannot be read, ValueError where texts and boxes
    differ in number; the file is written whole or not at all.
    """
    for second, (boxes, texts) in boxes_by_time.items():
        if len(boxes) != len(texts):
            raise ValueError(f"at second {second} there are {len(boxes)} boxes and {len(texts)} texts: give one for each")
    # Arrays: tensors would travel in files of shared memory.
    plain = {second: (np.asarray(boxes), list(texts)) for second, (boxes, texts) in boxes_by_time.items()}
    with atomic_write(output_path) as temporary:
        (shown,) = read_apart(draw_into, video_path, [(temporary, plain, hold, decoding)], decoding)
    return shown


def draw_into(
    video_path: str | Path,
    output_path: str | Path,
    boxes_by_time: Mapping[float, tuple[np.ndarray, Sequence[str]]],
    hold: float,
    decoding: Decoding,
) -> int:
    """`draw_boxes` in this process, straight into a file."""
    times, shown = np.array(sorted(boxes_by_time)), 0
    with open_video(video_path, decoding.backend) as reader, _Sound(video_path) as sound:
        frames: Iterable[tuple[int, np.ndarray]] = reader.frames(range(reader.num_frames))
        if decoding.progress:
            frames = progress_bar(frames, "drawing", total=reader.num_frames, unit="frame")
        with av.open(str(output_path), "w", format="mp4") as container:
            encoder = FrameEncoder(container, reader.fps, sound)
            for index, frame_HWC in frames:
                frame_HWC = enlarge(frame_HWC)
                nearest = _nearest(times, reader.time_of(index), hold)
                if nearest is not None:
                    frame_HWC = draw_on_frame(frame_HWC, *boxes_by_time[nearest])
                    shown += len(boxes_by_time[nearest][1]) > 0
                is_last = index + 1 == reader.num_frames
                encoder.add(frame_HWC, reader.time_of(index), reader.duration if is_last else reader.time_of(index + 1))
                show_life()
            encoder.finish()
    return shown


def enlarge(frame_HWC: np.ndarray) -> np.ndarray:
    """A frame H, W, 3, repeated by a whole factor where texts in it could not be read."""
    factor = -(-_LEAST_SIDE // min(frame_HWC.shape[:2]))
    return frame_HWC.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else frame_HWC


def _nearest(times: np.ndarray, second: float, hold: float) -> float | None:
    """The one of `times` (an array) nearest to `second`; None when none is within `hold`."""
    if not len(times):
        return None
    nearest = times[np.abs(times - second).argmin()].item()
    # The small term keeps rounding errors of the times from hiding boxes at the very end of their span.
    return nearest if abs(nearest - second) <= hold + 1e-6 else None


def font_size(height: int, width: int) -> int:
    """Pixels of the texts in a frame of this size."""
    return max(8, min(height, width) // 24)


def draw_on_frame(
    frame_HWC: np.ndarray, boxes_N4: torch.Tensor | np.ndarray, texts: Sequence[str], colours: Sequence[str] = _COLOURS
) -> np.ndarray:
    """A uint8 frame H, W, 3 (array) with boxes, in [0, 1] of it, and a text in each; colours go with the order."""
    height, width = frame_HWC.shape[:2]
    boxes = torch.as_tensor(boxes_N4, dtype=torch.float32) * torch.tensor([width, height, width, height])
    if not len(boxes):
        return frame_HWC
    image_CHW = torch.tensor(frame_HWC).permute(2, 0, 1)
    line = max(1, round(min(height, width) / 200))
    drawn = draw_bounding_boxes(
        image_CHW, boxes.clamp(max=torch.tensor([width - 1, height - 1, width - 1, height - 1])), list(texts),
        colors=[colours[i % len(colours)] for i in range(len(boxes))], width=line,
        font=findfont("DejaVu Sans"), font_size=font_size(height, width),
    )  # fmt: skip
    return drawn.permute(1, 2, 0).numpy()


class FrameEncoder:
    """Frames in an H.264 track of a container, each at its own time, and the sound beside them, where there is any.

    fps: the usual rate. A side that is odd loses its last row or column; all frames are of the first one's size.
    """

    def __init__(self, container: av.container.OutputContainer, fps: float, sound: "_Sound | None" = None) -> None:
        self._container = container
        self._stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TICK
        self._last = -1
        self._size: tuple[int, int] | None = None
        self._sound = sound
        if sound is not None:
            sound.start(container)

    def add(self, frame_HWC: np.ndarray, second: float, end: float) -> None:
        """Show a frame, uint8 H, W, 3, from `second` to `end` of the video."""
        if self._size is None:
            self._stream.height, self._stream.width = self._size = frame_HWC.shape[0] // 2 * 2, frame_HWC.shape[1] // 2 * 2
        height, width = self._size
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC[:height, :width]), format="rgb24")
        if (frame.height, frame.width) != self._size:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24").reformat(width, height)
        # Two frames at one time, which a container may hold, need two ticks here.
        frame.pts = self._last = max(round(second / _TICK), self._last + 1)
        frame.time_base = _TICK
        frame.duration = max(round(end / _TICK) - frame.pts, 1)
        self._container.mux(self._stream.encode(frame))
        if self._sound is not None:
            self._sound.copy_until(end)

    def finish(self) -> None:
        """Write what is held back."""
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.copy_until(math.inf)


class _Sound:
    """The sound track of a video, copied as it is, so that the drawn video keeps the clock of its source.

    There is none in files that are no mp4, mov, mkv or webm, and of codecs that an mp4 does not hold.
    """

    def __init__(self, path: str | Path) -> None:
        self._source: av.container.InputContainer | None = None
        self._stream: av.AudioStream | None = None
        self._pending: av.Packet | None = None
        # A file of images or one that a backend alone can open has no sound to copy.
        with contextlib.suppress(VideoError):
            self._source = open_container(str(path))
            if self._source.format.name.startswith(_SOUND_FORMATS):
                found = (s for s in self._source.streams.audio if s.codec_context and s.codec_context.name in _SOUND_CODECS)
                self._stream = next(found, None)

    def __enter__(self) -> "_Sound":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._source is not None:
            self._source.close()

    def start(self, container: av.container.OutputContainer) -> None:
        """Make a track in `container`, before anything is written to it."""
        if self._source is None or self._stream is None:
            return
        self._container = container
        self._packets = self._demux(self._source, self._stream, container.add_stream_from_template(self._stream))
        self._pending = next(self._packets, None)

    def copy_until(self, second: float) -> None:
        """Copy the packets that begin before a second of the video's clock."""
        while self._pending is not None and (self._pending.pts or 0) * self._pending.time_base < second:
            self._container.mux(self._pending)
            self._pending = next(self._packets, None)

    @staticmethod
    def _demux(source: av.container.InputContainer, stream: av.AudioStream, copy: av.AudioStream) -> Iterator[av.Packet]:
        """Packets on the clock whose zero is the file's own. Damage ends the sound, not the pictures."""
        zero = Fraction(source.start_time or 0, av.time_base)
        last = -math.inf
        with contextlib.suppress(av.error.FFmpegError):
            for packet in source.demux(stream):
                if not packet.size or packet.pts is None or packet.pts <= last:
                    continue
                last = packet.pts
                # Sound is decoded in the order in which it is heard.
                packet.pts = packet.dts = packet.pts - round(zero / packet.time_base)
                packet.stream = copy
                yield packet
