"""Opening a video's container with FFmpeg: only real containers, only files, and what its header announces."""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

from mutual3d.data.video.orientation import Orientation, orientation_of_matrix
from mutual3d.data.video.reader import VideoError

# FFmpeg's names of the formats that hold frames of their own. What is missing reads lists of other files and addresses
# (concat, hls, dash, sdp, image2, ...) or none that anybody keeps videos in.
FORMATS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "gxf", "wtv", "rm", "nut", "nsv", "nuv",
    "dv", "ivf", "amv", "swf", "yuv4mpegpipe", "gif", "apng", "h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "vc1",
    "h261", "h263", "mjpeg", "dirac", "cavsvideo",
)  # fmt: skip
# How the scripts begin that FFmpeg takes for videos.
_PLAYLISTS = (
    (rb"ffconcat version", "an ffconcat script"),
    (rb"\xef?\xbb?\xbf?\s*#EXTM3U", "an m3u8 playlist"),
    (rb"(?s).{0,1024}<MPD", "a DASH manifest"),
    (rb"(?s).{0,1024}<SmoothStreamingMedia", "a Smooth Streaming manifest"),
    (rb"v=0\r?\n", "an SDP description"),
    (rb"RTSPtextRTSP|\[Reference\]", "a list of streams"),
)
_NO_CONTAINER = "it is not a video in a container that is read (mp4, mkv, webm, avi, ts, mpg, flv, wmv, ...)"
# Containers that write a time beside each frame, and no number of frames.
TIMED_FORMATS = ("matroska,webm", "flv")
# A container that says this many times what is there was cut off, or is damaged.
_MAX_ANNOUNCED = 1.2
# A step of this many usual ones is a hole; phones in the dark and cameras that drop a frame stay below.
_HOLE_STEPS = 4


class Announced(NamedTuple):
    """What a header promises of the video track: its frames and seconds, None where it promises nothing; its rate or 0."""

    frames: int | None
    seconds: float | None
    rate: float
    # Whether the seconds may be those of a longer sound track.
    may_be_sound: bool = False


@contextmanager
def told(path: str, what: str) -> Iterator[None]:
    """Whatever fails inside becomes a VideoError of `path`, whose cause is `what` and the failure's own words."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(path, f"{what} ({words_of(error)})") from error


def words_of(error: Exception) -> str:
    """The first line of what an error says, or its kind."""
    lines = [line.strip() for line in str(getattr(error, "strerror", None) or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check_playlist(path: str) -> None:
    """Raise VideoError for a script that names other files or addresses, whatever its own name says."""
    with told(path, "it cannot be read"), open(path, "rb") as file:
        start = file.read(2048)
    for pattern, name in _PLAYLISTS:
        if re.match(pattern, start):
            raise VideoError(path, f"it is {name}, which names other files: only videos themselves are opened")


# What is no UTF-8 in titles and such is left out: PyAV does so by itself from version 19 on, and before where it is told.
_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_media(name: str, options: dict[str, str], timeout: float | None = None) -> av.container.InputContainer:
    """`av.open` of whichever version of PyAV. options: FFmpeg's, of the container. timeout: seconds to wait for data; None for ever."""
    return av.open(name, container_options=options, timeout=timeout, **_METADATA)


def open_container(path: str) -> av.container.InputContainer:
    """The open file, and no other one. Raises VideoError for what is no video container.

    The name is handed over as an absolute path: FFmpeg takes what stands before a colon for a protocol.
    """
    check_playlist(path)
    allowed = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    with told(path, "it is not a video, or its header is damaged"):
        try:
            return open_media(os.path.abspath(path), allowed)
        except av.error.ArgumentError as error:
            raise VideoError(path, _NO_CONTAINER) from error


def video_stream(container: av.container.InputContainer, path: str) -> av.VideoStream:
    """The main video stream; cover images of audio files are none. Other streams are dropped while demuxing."""
    videos = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not videos:
        raise VideoError(path, "it has no video stream")
    stream = container.streams.best("video")
    chosen = stream if stream in videos else videos[0]
    if chosen.codec_context is None:
        raise VideoError(path, "there is no decoder for its video stream")
    for other in container.streams:
        if other.index != chosen.index:
            other.discard = av.stream.Discard.all
    # One thread: more cost CPU and win nothing in workers.
    chosen.codec_context.thread_count = 1
    chosen.codec_context.thread_type = "NONE"
    return chosen


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def announced_rate(stream: av.VideoStream) -> float:
    """Frames a second by the header, 0 where it says nothing."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def orientation_of_frame(frame: av.VideoFrame) -> Orientation:
    """What the frame's display matrix says; upright without one."""
    matrix = _display_matrix(frame)
    return Orientation.UPRIGHT if matrix is None else orientation_of_matrix(struct.unpack("9i", bytes(matrix)))


def has_display_matrix(frame: av.VideoFrame) -> bool:
    """Whether the frame carries a display matrix, which may say that it is upright."""
    return _display_matrix(frame) is not None


def _display_matrix(frame: av.VideoFrame) -> Any:
    side_data: Any = frame.side_data  # by type, and of buffers, which its stubs do not say
    return side_data.get(SideDataType.DISPLAYMATRIX)


def read_announced(container: av.container.InputContainer, stream: av.VideoStream) -> Announced:
    """What the header says of the video track's length.

    Transport and program streams, Ogg and raw streams announce nothing: FFmpeg estimates their length from what is there.
    """
    name, rate = container.format.name, announced_rate(stream)
    unit = float(stream.time_base or 0)
    whole = container.duration / av.time_base if container.duration else None
    if name.startswith("mov"):
        # The samples of the whole track, and the seconds that an edit list leaves of it.
        seconds = stream.duration * unit if stream.duration else whole
        return Announced(stream.frames or None, seconds, rate, not stream.duration)
    if name == "avi":
        # The header counts in the stream's unit, which need not be a frame. FFmpeg corrects its duration where the file
        # is too short for it.
        return Announced(None, stream.frames * unit if stream.frames else None, rate)
    if name.startswith("matroska"):
        tagged = _seconds_of_tag(stream.metadata.get("DURATION", ""))
        if tagged is None or whole is None:
            return Announced(None, tagged or whole, rate, tagged is None)
        return Announced(None, min(tagged, whole), rate)
    if name in ("flv", "asf"):
        return Announced(None, whole, rate, True)
    return Announced(None, None, rate)


def _seconds_of_tag(text: str) -> float | None:
    """Seconds of Matroska's `00:00:02.000000000`; None for what is none."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", text.strip().rstrip("\0"))
    hours, minutes, seconds = map(float, match.groups()) if match else (0, 0, 0)
    return hours * 3600 + minutes * 60 + seconds or None


def check_length(
    path: str, announced: Announced, num_frames: int, seconds: float, fps: float, times: np.ndarray | None = None
) -> None:
    """Raise VideoError where the container announces over 20 % more than there is: it was cut off, or is damaged.

    `seconds`: what the frames that are there last, or for Matroska the second at which they end. Each of a container's own
    words may be wrong by itself (edit lists, a last frame that is held), so that all of them must say so. `times`: the second
    of each frame, where known: a container that counts no frames loses them where its constant rate has holes. num_frames:
    the frames that are there. fps: how many a second they are.
    """
    if times is not None and announced.frames is None and announced.rate:
        lost = _frames_in_holes(times, announced.rate)
        if lost >= 2 and num_frames + lost > _MAX_ANNOUNCED * num_frames:
            raise _too_short(path, num_frames + lost, num_frames)
    claims = []
    if announced.frames is not None:
        claims.append((announced.frames, num_frames))
    if announced.seconds is not None:
        claims.append((round(announced.seconds * fps), round(seconds * fps)))
    if not claims or any(claim <= _MAX_ANNOUNCED * there or claim - there < 2 for claim, there in claims):
        return
    if announced.may_be_sound and _other_streams_end(path) * _MAX_ANNOUNCED >= (announced.seconds or 0):
        return
    # A few frames that are left may tell another rate than the header, or the header a damaged one.
    rate = announced.rate if fps / 2 < announced.rate < fps * 2 else fps
    claim = round((announced.seconds or 0) * rate) if announced.frames is None else announced.frames
    raise _too_short(path, claim, num_frames)


def _too_short(path: str, claim: int, num_frames: int) -> VideoError:
    return VideoError(
        path,
        f"it is cut short or damaged: its container announces {claim} frames, and {num_frames} are there "
        "(a run with DATA.TOLERATE_SHORT True takes such videos as they are)",
    )


def _frames_in_holes(times: np.ndarray, rate: float) -> int:
    """How many frames are missing in holes of a video whose other frames come at its announced rate; else 0."""
    steps = np.diff(times)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if abs(usual * rate - 1) > 0.2:
        return 0
    holes = steps[steps > _HOLE_STEPS * usual]
    return int(np.round(holes / usual - 1).sum())


def _other_streams_end(path: str) -> float:
    """The second at which the last packet of any sound or text ends: 0 without any."""
    end = 0.0
    with open_container(path) as container, told(path, "the file is damaged"):
        others = [stream for stream in container.streams if stream.type != "video"]
        for packet in container.demux(others) if others else ():
            if packet.size and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return end
