"""The reference backend: PyAV, exact by the packet table.

Counts and rates in a container's header are promises that files break. This reader demuxes every packet once, without
decoding, and numbers the frames by their presentation times. To read frames it seeks to the keyframe before each of
them, decodes forward, and checks every frame it returns by its presentation time. Files whose packets do not name
their frames one to one (MPEG-TS, AVI with B-frames, repeated times, ...) are decoded from the start and counted.
"""

from bisect import bisect_right
from typing import NamedTuple

import av
import numpy as np

from mutual3d.data.reader import VideoError, VideoReader, frame_rate, join_times

# Containers that store a presentation time for every packet, and codecs with one packet for each shown frame.
_INDEXED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
_INDEXED_CODECS = ("h264", "hevc", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg")
# AVI stores no presentation times. Those made up while demuxing are right for these codecs, without B-frames.
_INDEXED_AVI_CODECS = ("mpeg4", "mjpeg")
# Where the decoder's skip rule drops only pictures that no other picture refers to. HEVC's does not: it drops pictures
# that a higher temporal layer may refer to.
_SKIPPABLE_CODECS = ("h264", "mpeg4")
# Packed AVI streams carry placeholders of a few bytes for frames that came with an earlier packet.
_PLACEHOLDER_BYTES = 16

# Recordings in these containers are joined by writing one after the other: their times may jump either way. A step as long
# as this, in seconds, is such a jump for FFmpeg too.
_BROADCAST_FORMATS = ("mpegts", "mpeg")
_LONGEST_STEP = 10.0


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool
    size: int


class _Run(NamedTuple):
    """Packets `first` (a keyframe) to `last` in file order, decoded in one go for the frames of these times."""

    first: int
    last: int
    wanted: dict


class PyAVReader(VideoReader):
    """Exact frames of one video file; see the module's text. Raises VideoError when the file cannot be read."""

    def __init__(self, path):
        self.path = path
        self._container = None
        self._reformatter = av.video.reformatter.VideoReformatter()
        try:
            self._open()
            self._packets = self._list_packets()
            self._positions = {(packet.pts, packet.dts): place for place, packet in enumerate(self._packets)}
            self._position_of_time = {
                packet.pts: place for place, packet in enumerate(self._packets) if not packet.is_discard
            }
            self._is_indexed = _is_indexed(self._container, self._codec, self._packets)
            self._times = self._list_times()
        except BaseException:
            self.close()
            raise
        self.num_frames = len(self._times)
        self._seconds, self.fps = self._clock()

    def frames(self, indices):
        wanted = self._check_indices(indices)
        if not self._is_indexed:
            yield from self._decode_counting(wanted)
            return
        missing = {self._times[index]: index for index in wanted}
        for run in self._plan(missing):
            for index, frame in self._decode_run(run):
                del missing[frame.pts]
                yield index, self._to_rgb(index, frame)
        if missing:
            yield from self._decode_from_start(missing)

    def frame_times(self) -> np.ndarray:
        return self._seconds

    def close(self):
        if self._container is not None:
            self._container.close()
            self._container = None

    # --- opening ---

    def _open(self):
        """(Re)open the file at its first packet, with one decoder thread: more cost CPU and win nothing in workers."""
        self.close()
        try:
            self._container = av.open(self.path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(self.path, f"it is not a video, or its header is damaged ({_words(error)})") from error
        self._stream = _video_stream(self._container, self.path)
        self._codec = self._stream.codec_context
        if self._codec is None:
            raise VideoError(self.path, "there is no decoder for its video stream")
        self._codec.thread_count = 1
        self._codec.thread_type = "NONE"

    def _demux(self):
        """Packets of the video stream that hold data, from the current place on."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except av.error.FFmpegError as error:
            raise VideoError(self.path, f"the file is damaged ({_words(error)})") from error

    def _list_packets(self):
        packets = [
            _Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.is_corrupt, packet.size)
            for packet in self._demux()
        ]
        while packets and packets[-1].is_corrupt:
            packets.pop()
        if not packets:
            raise VideoError(self.path, "it has no decodable frame")
        return packets

    def _list_times(self):
        """Presentation times of all frames in display order, in the stream's time base."""
        if self._is_indexed:
            return sorted(self._position_of_time)
        self._open()
        times = [frame.pts for frame in self._decode_all()]
        if not times:
            raise VideoError(self.path, "it has no decodable frame")
        return times

    def _clock(self):
        """(the second of each frame, from the container's start; frames a second)."""
        unit = float(self._stream.time_base)
        announced = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        longest_step = _LONGEST_STEP if self._container.format.name in _BROADCAST_FORMATS else None
        times = [None if time is None else time * unit for time in self._times]
        seconds = join_times(times, 1 / (announced or 30.0), longest_step)
        fps = frame_rate(self.path, announced, None if times.count(None) == len(times) else seconds)
        start = self._container.start_time
        zero = seconds[0] if start is None else min(start / av.time_base, seconds[0])
        return seconds - zero, fps

    # --- decoding by the packet table ---

    def _plan(self, wanted):
        """Runs of packets, in file order and without overlap, that hold every wanted frame and what it refers to."""
        keyframes = [position for position, packet in enumerate(self._packets) if packet.is_keyframe]
        runs = []
        for time, index in sorted(wanted.items()):
            last = self._position_of_time[time]
            first = self._entry(keyframes, last, time)
            if runs and first <= runs[-1].last:
                runs[-1].wanted[time] = index
                runs[-1] = runs[-1]._replace(last=max(last, runs[-1].last))
            else:
                runs.append(_Run(first, last, {time: index}))
        return runs

    def _entry(self, keyframes, position, time):
        """The last keyframe at or before a packet that is also not shown after it.

        A picture shown before the keyframe that it follows in the file (open GOP) needs the keyframe before that one.
        """
        place = bisect_right(keyframes, position) - 1
        while place > 0 and self._packets[keyframes[place]].pts > time:
            place -= 1
        return keyframes[place]

    def _decode_run(self, run):
        """Yield (index, frame) for the wanted frames of a run; those that do not come out are left to the caller."""
        entry_time = self._packets[run.first].pts
        can_skip = self._codec.name in _SKIPPABLE_CODECS
        remaining = dict(run.wanted)
        for packet in self._packets_of_run(run):
            if packet.pts < entry_time:
                continue
            if can_skip:
                self._codec.skip_frame = "DEFAULT" if packet.pts in run.wanted else "NONREF"
            yield from _claim(remaining, self._decode(packet))
        yield from _claim(remaining, self._decode(None))
        self._codec.flush_buffers()

    def _packets_of_run(self, run):
        """The packets of a run after a seek; none when the seek failed or landed behind the first one."""
        entry = self._packets[run.first]
        try:
            # Seeking also empties the decoder, so that a reading given up halfway leaves nothing behind.
            self._container.seek(entry.pts if entry.dts is None else entry.dts, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return
        for packet in self._demux():
            position = self._positions.get((packet.pts, packet.dts))
            if position is None or position > run.last:
                return
            if position >= run.first:
                yield packet

    def _decode(self, packet):
        try:
            return self._codec.decode(packet)
        except av.error.FFmpegError as error:
            raise VideoError(self.path, f"a packet does not decode ({_words(error)})") from error

    # --- decoding from the start ---

    def _decode_from_start(self, missing):
        """Frames that seeking did not bring, by their presentation times."""
        self._open()
        for frame in self._decode_all():
            if frame.pts in missing:
                index = missing.pop(frame.pts)
                yield index, self._to_rgb(index, frame)
            if not missing:
                return
        raise VideoError(
            self.path,
            f"{len(missing)} frames, the first with index {min(missing.values())}, are announced "
            f"among its {self.num_frames} but do not decode",
        )

    def _decode_counting(self, wanted):
        """Frames by counting what the decoder gives."""
        self._open()
        remaining = set(wanted)
        for index, frame in enumerate(self._decode_all()):
            if index in remaining:
                remaining.remove(index)
                yield index, self._to_rgb(index, frame)
            if not remaining:
                return

    def _decode_all(self):
        """Every frame of a freshly opened file. A last packet that the file's end cut off is no error."""
        last = len(self._packets) - 1
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

    def _to_rgb(self, index, frame):
        """uint8 RGB, H, W, 3, upright. Every frame gets the size of the stream, should the size change on the way."""
        if frame.is_corrupt:
            raise VideoError(self.path, f"frame {index} is damaged")
        width, height = self._codec.width, self._codec.height
        image = self._reformatter.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
        quarter_turns = round(frame.rotation / 90)
        return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _video_stream(container, path):
    """The main video stream; cover pictures of audio files are none. Other streams are dropped while demuxing."""
    videos = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not videos:
        raise VideoError(path, "it has no video stream")
    stream = container.streams.best("video")
    chosen = stream if stream in videos else videos[0]
    for other in container.streams:
        if other.index != chosen.index:
            other.discard = av.stream.Discard.all
    return chosen


def _is_cover(stream):
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _is_indexed(container, codec, packets):
    """Whether the packets name the frames one to one, so that a frame's number follows from its presentation time."""
    if container.format.name not in _INDEXED_FORMATS or codec.name not in _INDEXED_CODECS:
        return False
    times = [packet.pts for packet in packets]
    if None in times or any(packet.is_corrupt for packet in packets):
        return False
    shown = [packet.pts for packet in packets if not packet.is_discard]
    names = {(packet.pts, packet.dts) for packet in packets}
    if not shown or len(set(shown)) < len(shown) or len(names) < len(packets):
        return False
    starts_clean = packets[0].is_keyframe and packets[0].pts == min(times)
    is_timed = container.format.name != "avi" or (codec.name in _INDEXED_AVI_CODECS and times == sorted(times))
    has_placeholders = codec.name == "mpeg4" and min(packet.size for packet in packets) < _PLACEHOLDER_BYTES
    return starts_clean and is_timed and not has_placeholders


def _claim(remaining, frames):
    """Yield (index, frame) for the frames whose presentation time is in `remaining`, and take it out."""
    for frame in frames:
        index = remaining.pop(frame.pts, None)
        if index is not None:
            yield index, frame


def _words(error):
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
