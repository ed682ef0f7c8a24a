"""The reference backend: PyAV, exact by the packet table.

Counts and rates in a container's header are promises that files break. This reader demuxes every packet once, without
decoding, and numbers the frames by their presentation times. To read frames it seeks to the keyframe before each of
them, decodes forward, and checks every frame it returns by its presentation time. Files whose packets do not name
their frames one to one (MPEG-TS, AVI with B-frames, repeated times, ...) are decoded from the start and counted.

Damage is looked for in every frame that a wanted one may refer to, not in the wanted ones alone, and by a decoder that stops at
the first error. Where it finds any, the file is decoded from its start, as players do, and is bad where a wanted frame, or one
between it and the keyframe before it, is still flagged. (The strict decoder alone would refuse harmless oddities of edited videos.)

What that one pass through a file tells is kept for its next opening in the same process: it takes a second for an hour of video.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np

from mutual3d.data.video.container import (
    TIMED_FORMATS,
    announced_rate,
    check_length,
    open_container,
    orientation_of_frame,
    read_announced,
    told,
    video_stream,
)
from mutual3d.data.video.file_cache import FileCache, file_fingerprint
from mutual3d.data.video.mjpeg import has_its_tables
from mutual3d.data.video.orientation import Orientation, upright
from mutual3d.data.video.reader import VideoError, VideoReader, frame_rate, join_times

# Containers that store a presentation time for every packet, and codecs with one packet for each shown frame.
_INDEXED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
_INDEXED_CODECS = ("h264", "hevc", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg")
# AVI stores no presentation times. Those made up while demuxing are right for these codecs, without B-frames.
_INDEXED_AVI_CODECS = ("mpeg4", "mjpeg")
# Where the decoder's skip rule drops only frames that no other frame refers to. HEVC's does not: it drops frames
# that a higher temporal layer may refer to.
_SKIPPABLE_CODECS = ("h264", "mpeg4")
# Where every frame stands by itself. Their decoder keeps tables and pixels of earlier frames, and fills a damaged one up with
# them without a word, so that each is decoded by a fresh one.
_INTRA_CODECS = ("mjpeg",)
# What makes a decoder give up at the first error.
_STRICT = {"err_detect": "explode"}
# Packed AVI streams carry placeholders of a few bytes for frames that came with an earlier packet.
_PLACEHOLDER_BYTES = 16

# Recordings in these containers are joined by writing one after the other: their times may jump either way. A step as long
# as this, in seconds, is such a jump for FFmpeg too.
_BROADCAST_FORMATS = ("mpegts", "mpeg")
_LONGEST_STEP = 10.0
# In these containers a track's announced seconds count from its own first frame; in others, from the file's zero.
_TRACK_LENGTHS = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")

# A packet without a time, in arrays of them.
_NO_TIME = np.iinfo(np.int64).min
# 18 hours of video at 30 frames a second.
_CACHE_BYTES = 1 << 26


@dataclass(frozen=True)
class _Table:
    """What one pass through a file tells. The packets in file order; the frames in display order.

    Times are in the stream's unit, `places` are bytes from the file's start. `packet_of_frame` is None for a file whose packets do not name its frames: its frames
    are counted. `frame_times` are float, NaN where unknown; `end`: when the last frame ends, NaN where unknown.
    """

    pts: np.ndarray
    dts: np.ndarray
    places: np.ndarray
    is_keyframe: np.ndarray
    packet_of_frame: np.ndarray | None
    frame_times: np.ndarray
    end: float

    def num_bytes(self) -> int:
        arrays = (self.pts, self.dts, self.places, self.is_keyframe, self.packet_of_frame, self.frame_times)
        return 1024 + sum(values.nbytes for values in arrays if values is not None)


class _Packets:
    """The packets of a file in file order, while they are listed."""

    def __init__(self) -> None:
        self.pts, self.dts, self.places, self.durations, self.sizes = (array("q") for _ in range(5))
        self.is_keyframe, self.is_discard, self.is_corrupt = bytearray(), bytearray(), bytearray()

    def append(self, packet: av.Packet) -> None:
        self.pts.append(_NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(_NO_TIME if packet.dts is None else packet.dts)
        self.places.append(-1 if packet.pos is None else packet.pos)
        self.durations.append(packet.duration or 0)
        self.sizes.append(packet.size)
        self.is_keyframe.append(packet.is_keyframe)
        self.is_discard.append(packet.is_discard)
        self.is_corrupt.append(packet.is_corrupt)

    def drop_corrupt_end(self) -> None:
        """A last packet that the file's end cut off is no packet."""
        while self.is_corrupt and self.is_corrupt[-1]:
            for values in vars(self).values():
                values.pop()

    def __len__(self) -> int:
        return len(self.pts)


class Run(NamedTuple):
    """Packets `first` (a keyframe) to `last` in file order, decoded in one go for the frames of these times.

    `seeks_exactly`: none of them where seeking leads to an earlier packet than the first.
    """

    first: int
    last: int
    wanted: dict[int, int]
    seeks_exactly: bool = False


_tables: FileCache[_Table] = FileCache(_CACHE_BYTES, _Table.num_bytes)


def forget_tables() -> None:
    """Forget what was learned of files in this process, as if none had been opened."""
    _tables.clear()


class PyAVReader(VideoReader):
    """Exact frames of one video file; see the module's text. Raises VideoError when the file cannot be read.

    All frames are upright and of one size, that of the stream when it is opened: where the frame's size changes on the way,
    the others are resized. `tolerate_short`: take a video whose container announces over 20 % more frames than there are.
    """

    _size: tuple[int, int]

    def __init__(self, path: str, tolerate_short: bool = False) -> None:
        self.path = path
        self._container: av.container.InputContainer | None = None
        self._is_strict = False
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._swaps_sides: bool | None = None
        try:
            with told(path, "the file is damaged"):
                self._read_header()
                if not tolerate_short:
                    self._check_length()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        fingerprint = file_fingerprint(self.path)
        self._open(is_strict=True)
        self._size = self._codec.width, self._codec.height
        table = _tables.get(fingerprint)
        if table is None:
            table = self._read_table()
            _tables.put(fingerprint, table)
        self._table = table
        self.num_frames = len(table.frame_times)
        self._seconds, self.fps = self._clock()

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        wanted = self._check_indices(indices)
        if not self._is_indexed:
            yield from self._decode_counting(wanted)
            return
        missing = {int(self._table.pts[self._packet_of_frame[index]]): index for index in wanted}
        if not self._is_strict:
            self._open(is_strict=True)
        for run in self._plan(missing):
            for index, frame in self._decode_run(run):
                assert frame.pts is not None, "a frame is claimed by its time"
                del missing[frame.pts]
                yield index, self._to_rgb(index, frame)
        if missing:
            yield from self._decode_from_start(missing)

    def frame_times(self) -> np.ndarray:
        return self._seconds

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    # --- opening ---

    @property
    def _is_indexed(self) -> bool:
        return self._table.packet_of_frame is not None

    @property
    def _packet_of_frame(self) -> np.ndarray:
        assert self._table.packet_of_frame is not None, "frames of this file are counted"
        return self._table.packet_of_frame

    @property
    def _file(self) -> av.container.InputContainer:
        assert self._container is not None, "the file is closed"
        return self._container

    @property
    def _unit(self) -> float:
        """Seconds of one step of the stream's times."""
        assert self._stream.time_base is not None, "the stream has no unit of time"
        return float(self._stream.time_base)

    @property
    def _is_intra(self) -> bool:
        return self._codec.name in _INTRA_CODECS

    def _open(self, is_strict: bool) -> None:
        """(Re)open the file at its first packet. A strict decoder gives up a frame at the first error in it."""
        self.close()
        self._container = open_container(self.path)
        self._stream = video_stream(self._file, self.path)
        self._codec = self._stream.codec_context
        self._is_strict = is_strict
        if is_strict:
            self._codec.options = _STRICT

    def _demux(self) -> Iterator[av.Packet]:
        """Packets of the video stream that hold data, from the current place on."""
        with told(self.path, "the file is damaged"):
            for packet in self._file.demux(self._stream):
                if packet.size:
                    yield packet

    def _read_table(self) -> _Table:
        packets = _Packets()
        for packet in self._demux():
            packets.append(packet)
        packets.drop_corrupt_end()
        if not len(packets):
            raise VideoError(self.path, "it has no decodable frame")
        pts, dts, places = np.array(packets.pts), np.array(packets.dts), np.array(packets.places)
        is_keyframe = np.array(packets.is_keyframe, bool)
        if _is_indexed(self._file, self._codec, packets):
            shown = np.flatnonzero(np.array(packets.is_discard) == 0)
            order = shown[np.argsort(pts[shown], kind="stable")].astype(np.int32)
            times = pts[order].astype(np.float64)
            end = float((times + np.array(packets.durations)[order]).max())
            return _Table(pts, dts, places, is_keyframe, order, times, end)
        self._open(is_strict=False)
        frames = [(frame.pts, frame.duration or 0) for frame in self._decode_all(len(packets))]
        if not frames:
            raise VideoError(self.path, "it has no decodable frame")
        times = np.array([time for time, _ in frames], np.float64)
        ends = (times + [duration for _, duration in frames])[np.isfinite(times)]
        return _Table(pts, dts, places, is_keyframe, None, times, float(ends.max()) if len(ends) else np.nan)

    def _clock(self) -> tuple[np.ndarray, float]:
        """(the second of each frame, from the container's start; frames a second)."""
        times = self._table.frame_times * self._unit
        announced = announced_rate(self._stream)
        longest_step = _LONGEST_STEP if self._file.format.name in _BROADCAST_FORMATS else None
        seconds = join_times(times, 1 / (announced or 30.0), longest_step)
        fps = frame_rate(self.path, announced, None if np.isnan(times).all() else seconds)
        start = self._file.start_time
        zero = seconds[0] if start is None else min(start / av.time_base, seconds[0])
        return seconds - zero, fps

    def _check_length(self) -> None:
        first, end = self._table.frame_times[0], self._table.end
        if np.isnan(end) or np.isnan(first):
            covered = self.num_frames / self.fps
        else:
            is_of_track = self._file.format.name in _TRACK_LENGTHS
            covered = (end - (first if is_of_track else min(first, 0))) * self._unit
        announced = read_announced(self._file, self._stream)
        times = self._seconds if self._file.format.name in TIMED_FORMATS else None
        check_length(self.path, announced, self.num_frames, float(covered), self.fps, times)

    # --- decoding by the packet table ---

    def _plan(self, wanted: Mapping[int, int]) -> list[Run]:
        """Runs of packets, in file order and without overlap, that hold every wanted frame and what it refers to."""
        keyframes = np.flatnonzero(self._table.is_keyframe).tolist()
        runs = []
        for time, index in sorted(wanted.items()):
            last = int(self._packet_of_frame[index])
            first = self._entry(keyframes, last, time)
            if runs and first <= runs[-1].last:
                runs[-1].wanted[time] = index
                runs[-1] = runs[-1]._replace(last=max(last, runs[-1].last))
            else:
                runs.append(Run(first, last, {time: index}))
        return runs

    def _entry(self, keyframes: Sequence[int], position: int, time: int) -> int:
        """The last keyframe at or before a packet that is also not shown after it.

        A frame shown before the keyframe that it follows in the file (open GOP) needs the keyframe before that one.
        """
        place = bisect_right(keyframes, position) - 1
        while place > 0 and self._table.pts[keyframes[place]] > time:
            place -= 1
        return keyframes[place]

    def _decode_run(self, run: Run) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, frame) for the wanted frames of a run; those that do not come out are left to the caller.

        Nothing comes out behind the first sign of damage, wanted or not: what follows may refer to it. Nor does anything where
        the run begins with a frame that only the container takes for a keyframe.
        """
        entry_time = self._table.pts[run.first]
        is_entered = False
        remaining = dict(run.wanted)
        for packet in self._packets_to_decode(run, entry_time):
            try:
                frames = self._decode(packet)
            except VideoError:
                break
            for frame in frames:
                is_entered = is_entered or bool(frame.pts == entry_time and frame.key_frame)
            if not is_entered and frames or any(frame.is_corrupt for frame in frames):
                break
            yield from _claim(remaining, frames)
        self._codec.flush_buffers()

    def _packets_to_decode(self, run: Run, entry_time: int) -> Iterator[av.Packet | None]:
        """The packets of a run, and None behind the last one, for which the decoder gives what it holds back."""
        can_skip = self._codec.name in _SKIPPABLE_CODECS
        for packet in self._packets_of_run(run):
            assert packet.pts is not None, "an indexed file has a time for every packet"
            if packet.pts < entry_time:
                continue
            if can_skip:
                self._codec.skip_frame = "DEFAULT" if packet.pts in run.wanted else "NONREF"
            yield packet
        yield None

    def _packets_of_run(self, run: Run) -> Iterator[av.Packet]:
        """The packets of a run after a seek; none when the seek failed or landed behind the first one."""
        table, last = self._table, run.last
        rows = list(zip(*(values[run.first : last + 1].tolist() for values in (table.pts, table.dts, table.places))))
        position = None
        for packet in self._packets_from(run):
            row = _row_of(packet)
            following = None if position is None else position + 1 - run.first
            if following is not None and 0 <= following < len(rows) and rows[following] == row:
                position = run.first + following
            else:
                position = self._position_of(row)
            if position is None or position > last or run.seeks_exactly and position < run.first:
                return
            if position >= run.first:
                yield packet

    def _packets_from(self, run: Run) -> Iterator[av.Packet]:
        """Packets from the first one of a run on, or from one before it; none where seeking fails.

        Where they are asked for by its presentation time they begin with it, unless the next keyframe is decoded before that
        time; by its decoding time they begin a keyframe earlier in files with B-frames, all of which would be read in vain.
        """
        pts, dts = int(self._table.pts[run.first]), int(self._table.dts[run.first])
        for time in (pts,) if dts == _NO_TIME or run.seeks_exactly else (pts, dts):
            try:
                # Seeking also empties the decoder, so that a reading given up halfway leaves nothing behind.
                self._file.seek(time, stream=self._stream, backward=True)
            except av.error.FFmpegError:
                continue
            packets = self._demux()
            first = next(packets, None)
            position = None if first is None else self._position_of(_row_of(first))
            if first is not None and position is not None and (position <= run.first or time == dts):
                yield first
                yield from packets
                return

    def _position_of(self, row: tuple[int, int, int]) -> int | None:
        """The position of a packet (see `_row_of`) in the table, or None.

        Its times alone would not do: after a seek, a damaged AVI numbers its packets by another list than from the start. Of the first
        packets after a seek Matroska tells no decoding time where there are B-frames.
        """
        pts, dts, place = row
        table = self._table
        found = np.flatnonzero((table.pts == pts) & (table.places == place))
        if dts != _NO_TIME:
            found = found[table.dts[found] == dts]
        return int(found[0]) if len(found) else None

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        with told(self.path, "a packet does not decode"):
            if self._is_intra:
                return self._decode_alone(packet) if packet else []
            return self._codec.decode(packet)

    def _decode_alone(self, packet: av.Packet) -> list[av.VideoFrame]:
        if not has_its_tables(bytes(packet)):
            raise VideoError(self.path, "a frame is damaged: it lacks tables that it needs")
        codec = av.CodecContext.create(self._codec.codec)
        assert isinstance(codec, av.VideoCodecContext)
        codec.width, codec.height, codec.extradata = self._codec.width, self._codec.height, self._codec.extradata
        codec.thread_count, codec.options = 1, _STRICT
        return codec.decode(packet) + codec.decode(None)

    # --- decoding from the start ---

    def _decode_from_start(self, missing: dict[int, int]) -> Iterator[tuple[int, np.ndarray]]:
        """Frames that seeking did not bring, by their presentation times."""
        self._open(is_strict=False)
        for frame, is_sound in self._decode_and_judge():
            if frame.pts in missing:
                index = missing.pop(frame.pts)
                yield index, self._to_rgb(index, frame, is_sound)
            if not missing:
                return
        raise VideoError(
            self.path,
            f"{len(missing)} frames, the first with index {min(missing.values())}, are announced "
            f"among its {self.num_frames} but do not decode",
        )

    def _decode_counting(self, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Frames by counting what the decoder gives."""
        self._open(is_strict=False)
        remaining = set(wanted)
        for index, (frame, is_sound) in enumerate(self._decode_and_judge()):
            if index in remaining:
                remaining.remove(index)
                yield index, self._to_rgb(index, frame, is_sound)
            if not remaining:
                return

    def _decode_and_judge(self) -> Iterator[tuple[av.VideoFrame, bool]]:
        """Yield (frame, is_sound) from a freshly opened file: what follows a damaged frame may refer to it, up to a keyframe."""
        is_sound = True
        for frame in self._decode_all(len(self._table.pts)):
            is_sound = not frame.is_corrupt and (is_sound or bool(frame.key_frame))
            yield frame, is_sound

    def _decode_all(self, num_packets: int) -> Iterator[av.VideoFrame]:
        """Every frame of a freshly opened file. A last packet that the file's end cut off is no error."""
        last = num_packets - 1
        for position, packet in enumerate(self._demux()):
            if position > last:
                break
            try:
                yield from self._decode(packet)
            except VideoError:
                if position < last:
                    raise
        yield from self._decode(None)

    # --- frames ---

    def _to_rgb(self, index: int, frame: av.VideoFrame, is_sound: bool = True) -> np.ndarray:
        """uint8 RGB, H, W, 3, upright, of the size of the stream."""
        if not is_sound:
            raise VideoError(self.path, f"frame {index} is damaged, or one that it may refer to")
        with told(self.path, f"frame {index} is damaged"):
            width, height = self._size
            # One thread: by default as many convert as there are cores, in every worker.
            image = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
            orientation = orientation_of_frame(frame)
            if self._swaps_sides is None:
                self._swaps_sides = orientation.swaps_sides
            if orientation.swaps_sides != self._swaps_sides:
                raise VideoError(self.path, f"frame {index} lies on its side, and others stand: it is turned on the way")
            # An upright one is given as it lies, its rows padded: turning would copy it.
            return image if orientation == Orientation.UPRIGHT else upright(image, orientation)


def _is_indexed(container: av.container.InputContainer, codec: av.VideoCodecContext, packets: _Packets) -> bool:
    """Whether the packets name the frames one to one, so that a frame's number follows from its presentation time."""
    if container.format.name not in _INDEXED_FORMATS or codec.name not in _INDEXED_CODECS:
        return False
    times = packets.pts
    if _NO_TIME in times or any(packets.is_corrupt):
        return False
    shown = [time for time, is_discard in zip(times, packets.is_discard) if not is_discard]
    names = set(zip(times, packets.dts))
    if not shown or len(set(shown)) < len(shown) or len(names) < len(packets):
        return False
    starts_clean = bool(packets.is_keyframe[0]) and times[0] == min(times)
    is_timed = container.format.name != "avi" or (codec.name in _INDEXED_AVI_CODECS and list(times) == sorted(times))
    has_placeholders = codec.name == "mpeg4" and min(packets.sizes) < _PLACEHOLDER_BYTES
    return starts_clean and is_timed and not has_placeholders


def _row_of(packet: av.Packet) -> tuple[int, int, int]:
    """What tells a packet from the others of its file: presentation time, decoding time, place."""
    pts, dts, place = packet.pts, packet.dts, packet.pos
    return _NO_TIME if pts is None else pts, _NO_TIME if dts is None else dts, -1 if place is None else place


def _claim(remaining: dict[int, int], frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (index, frame) for the frames whose presentation time is in `remaining`, and take it out."""
    for frame in frames:
        index = None if frame.pts is None else remaining.pop(frame.pts, None)
        if index is not None:
            yield index, frame
