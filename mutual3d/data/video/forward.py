"""Frames of a file, a camera or an address from first to last, each decoded once, as they come.

`VideoReader` knows a whole file before it gives a frame. Here nothing is known ahead, so that a live feed can be read, and an hour
of video in no more memory than a second of it.
"""

import collections
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from mutual3d.data.video.container import (
    FORMATS,
    announced_rate,
    open_container,
    open_media,
    orientation_of_frame,
    told,
    video_stream,
)
from mutual3d.data.video.orientation import upright
from mutual3d.data.video.reader import MAX_FPS, VideoError, check_file

# What an address may be read through: its own protocol, and what that is made of.
_PROTOCOLS = {
    "http": "http,tcp", "https": "https,tls,tcp", "rtsp": "rtsp,rtp,rtcp,udp,tcp", "rtsps": "rtsps,rtsp,rtp,tls,tcp",
    "rtmp": "rtmp,tcp", "rtmps": "rtmps,rtmp,tls,tcp", "srt": "srt", "tcp": "tcp", "udp": "udp",
}  # fmt: skip
# Formats that are met in feeds alone: RTSP's own, and images that a camera sends one after the other over HTTP.
_FEED_FORMATS = (*FORMATS, "rtsp", "rtp", "mpjpeg", "live_flv")
# Feeds in these formats tell no times; those that FFmpeg makes up are of another rate than the camera's.
_UNTIMED_FORMATS = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo")
# Steps of which the usual one is the median; a step longer than the other, in seconds, is a jump in a broadcast.
_STEPS, _LONGEST_STEP = 64, 10.0
_BROADCAST_FORMATS = ("mpegts", "mpeg")


class TimedFrame(NamedTuple):
    """A decoded frame, upright, uint8 RGB H, W, 3.

    second: when it is shown, on the clock of `VideoReader`: never before the frame that came before. arrival: when its data
    came, in seconds of `time.perf_counter`. is_cut: it does not follow on the one before it: a feed broke in between.
    """

    second: float
    image_HWC: np.ndarray
    arrival: float
    is_cut: bool = False


class RunningClock:
    """The second of each frame in display order, as `VideoReader` tells it, without knowing what follows.

    unit: seconds of one tick of a presentation time. zero: the second that counts as 0, unless the first frame is shown
    before it; None takes the first frame's. usual_step: seconds between two frames where times tell none yet.
    longest_step: seconds; a longer step is a jump, such as one backwards is: the frame follows after a usual step. None where
    any step may be.
    """

    def __init__(self, unit: float, zero: float | None, usual_step: float, longest_step: float | None = None) -> None:
        self._unit, self._zero, self._longest = unit, zero, longest_step
        self._steps = collections.deque([usual_step], maxlen=_STEPS)
        self._told_any = False
        self._last: float | None = None
        self._shift = 0.0

    def second_of(self, pts: int | None) -> float:
        """The second of the next frame, whose presentation time is `pts` ticks, or None where it has none."""
        if self._last is None:
            raw = 0.0 if pts is None else pts * self._unit
            zero = raw if self._zero is None or pts is None else min(self._zero, raw)
            self._shift, self._last = -zero, raw - zero
            return self._last
        usual = statistics.median(self._steps)
        second = self._last + usual if pts is None else pts * self._unit + self._shift
        step = second - self._last
        if step < 0 or (self._longest is not None and step > self._longest):
            self._shift += self._last + usual - second
            second = self._last + usual
        elif step > 0 and pts is not None:
            if not self._told_any:
                self._steps.clear()
                self._told_any = True
            self._steps.append(step)
        self._last = second
        return second


class ForwardReader:
    """Decodes an open container to its end. `num_bad`: packets and frames so far that do not decode; they are left out.

    name: for messages. by_arrival: frames are shown when they arrive, whatever times the container tells. The container is
    closed with it; it may be handed to another thread as a whole. Raises VideoError for a container without a video stream.
    """

    def __init__(self, container: av.container.InputContainer, name: str, by_arrival: bool = False) -> None:
        self.name, self.num_bad, self._by_arrival = name, 0, by_arrival
        self._container = container
        self._reformatter = av.video.reformatter.VideoReformatter()
        try:
            self._stream = video_stream(container, name)
        except BaseException:
            self.close()
            raise

    @property
    def is_endless(self) -> bool:
        """Whether the container tells no length, as one that is made while it is read."""
        return self.announced_seconds is None

    @property
    def announced_seconds(self) -> float | None:
        """The length that the container tells, with its sound; None where it tells none."""
        return self._container.duration / av.time_base if self._container.duration else None

    def frames(self) -> Iterator[TimedFrame]:
        """Every frame that decodes, of its own size. Raises VideoError where the data end otherwise than by their end."""
        clock = self._clock()
        packets = self._container.demux(self._stream)
        first_arrival = None
        while True:
            with told(self.name, "it breaks off"):
                try:
                    packet = next(packets, None)
                except av.error.ExitError as error:
                    raise VideoError(self.name, "no data came for too long") from error
            if packet is None:
                return
            arrival = time.perf_counter()
            first_arrival = arrival if first_arrival is None else first_arrival
            for frame in self._decode(packet):
                second = arrival - first_arrival if self._by_arrival else clock.second_of(frame.pts)
                if frame.is_corrupt:
                    self.num_bad += 1
                    continue
                yield TimedFrame(second, self._to_rgb(frame), arrival)

    def _clock(self) -> RunningClock:
        start, rate = self._container.start_time, announced_rate(self._stream)
        longest = _LONGEST_STEP if self._container.format.name in _BROADCAST_FORMATS else None
        usual = 1 / rate if 0 < rate <= MAX_FPS else 1 / 30
        unit = float(self._stream.time_base or 1 / av.time_base)
        return RunningClock(unit, None if start is None else start / av.time_base, usual, longest)

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet if packet.size else None)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.num_bad += 1
            return []

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        image = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return upright(image, orientation_of_frame(frame))

    def close(self) -> None:
        """Release the file, the camera or the connection."""
        self._container.close()


def open_file(path: str | os.PathLike) -> ForwardReader:
    """A video file to be read forward. Raises VideoError for what is no file, and no video container."""
    check_file(str(path))
    return ForwardReader(open_container(str(path)), str(path))


def open_address(address: str, timeout: float) -> ForwardReader:
    """What an address such as `rtsp://camera/stream` gives, through its protocol alone.

    timeout: seconds to wait for an answer, and later for data. Raises ValueError for an address of a protocol that is not
    read, VideoError where nothing answers, or answers with no video.
    """
    protocol, name = address.partition("://")[0].lower(), without_password(address)
    if protocol not in _PROTOCOLS:
        raise ValueError(f"the address '{name}' is of the protocol '{protocol}': {', '.join(_PROTOCOLS)} are read")
    allowed = {"format_whitelist": ",".join(_FEED_FORMATS), "protocol_whitelist": _PROTOCOLS[protocol]}
    with told(name, "the address cannot be opened"):
        try:
            container = open_media(address, allowed, timeout)
        except (av.error.ArgumentError, av.error.InvalidDataError) as error:
            cause = "it gives no video that is read; a playlist (m3u8, mpd) names other addresses: give the stream's own"
            raise VideoError(name, cause) from error
        except av.error.ExitError as error:
            raise VideoError(name, f"nothing answers within {timeout:g} s") from error
    return ForwardReader(container, name, by_arrival=container.format.name in _UNTIMED_FORMATS)


def open_camera(number: int, timeout: float) -> ForwardReader:
    """The camera /dev/video`number` of a Linux machine. timeout: seconds to wait for a frame.

    Raises VideoError where it is not there, in use, or gives no frames.
    """
    name = f"camera {number}"
    if not sys.platform.startswith("linux"):
        raise VideoError(name, "cameras are read by number on Linux alone: give the address of a program that serves it")
    device = f"/dev/video{number}"
    if not os.path.exists(device):
        there = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video[0-9]*"))
        raise VideoError(name, f"there is no {device} on this machine; it has {'cameras ' + ', '.join(there) if there else 'no camera'}: give another number, a file or an address")
    with told(name, f"{device} cannot be opened"):
        return ForwardReader(av.open(device, format="v4l2", timeout=timeout), name)


def without_password(address: str) -> str:
    """An address as it may be shown: what stands before an @ is left out."""
    return re.sub(r"(?<=://)[^/@]*@", "...@", address)
