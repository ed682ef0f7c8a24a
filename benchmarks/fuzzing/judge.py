"""What a reading of a damaged video should have given, told from a plain decode that shares no line with the reader.

The plain decode opens the file with PyAV, decodes every packet from the first to the last as `ffmpeg` does (a packet that
does not decode is passed over), and keeps the frames in the order in which they come out.
"""

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from mutual3d.data.video.container import open_media

# A file that says to hold more pixels than this is not judged further on.
_MAX_PIXELS = 200_000_000
# Other backends convert colours by another version of the same library: values differ by a rounding or two.
_TOLERANCE = 8
# Where over a fifth of the frames that a file announces are missing, it was cut.
_SHORT = 0.8

OUTCOMES = (
    "decoded",
    "decoded, damage no decoder flags",
    "VP9 damage no decoder flags",
    "named as bad",
    "decord, documented",
    "crashed",
    "hung",
    "short in silence",
    "wrong in silence",
)
FAILURES = OUTCOMES[-4:]


class Reading(NamedTuple):
    """What an access gave: the reader's count of frames, and (index, its second or None, uint8 RGB H, W, 3) of each."""

    num_frames: int
    frames: list[tuple[int, float | None, np.ndarray]]


class Verdict(NamedTuple):
    """One of `OUTCOMES`, and why in words."""

    outcome: str
    detail: str = ""


class PlainDecode:
    """All frames of a file, decoded from its start. `error` says why there are none.

    `announced`: frames that the container says it holds, by its own count or by its duration and rate; None where it says
    nothing. `documented`: words of `open_video`'s text on decord that fit this file.
    """

    def __init__(self, path: Path):
        self.frames: list[av.VideoFrame] = []
        self.error, self.announced, self.codec, self.start = "", None, "", 0.0
        self.is_turned, self.documented = False, set()
        try:
            with open_media(str(path), {}) as container:
                self._decode(container)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.error = self.error or f"{type(error).__name__}: {error}"
        if not self.frames:
            self.error = self.error or "no frame decodes"

    def _decode(self, container) -> None:
        covers = av.stream.Disposition.attached_pic
        videos = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not videos:
            self.error = "it has no video stream"
            return
        best = container.streams.best("video")
        stream = best if best in videos else videos[0]
        if stream.codec_context is None:
            self.error = "it has no decoder"
            return
        stream.codec_context.thread_count = 1
        self.codec = stream.codec_context.name
        self.start = (container.start_time or 0) / av.time_base
        self.announced = _announced(container, stream)
        self.documented = {"MPEG-TS"} if container.format.name == "mpegts" else set()
        keyframe, pixels = None, 0
        for packet in container.demux(stream):
            keyframe = self._look_at(packet, keyframe)
            try:
                frames = stream.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in frames:
                pixels += frame.width * frame.height
                self.is_turned |= frame.side_data.get("DISPLAYMATRIX") is not None
                self.frames.append(frame)
            if pixels > _MAX_PIXELS:
                return

    def _look_at(self, packet, keyframe: int | None) -> int | None:
        """Time of the newest keyframe; notes what decord is known to get wrong."""
        if packet.is_discard:
            self.documented.add("edit list")
            # What an edit list hides is not promised.
            self.announced = self.announced and self.announced - 1
        if packet.pts is None or not packet.size:
            return keyframe
        if packet.is_keyframe:
            return packet.pts
        if keyframe is not None and packet.pts < keyframe:
            self.documented.add("open GOP")
        return keyframe

    def candidates(self, index: int, second: float | None) -> list[av.VideoFrame]:
        """Frames that a reader may rightly give: the index-th in the order of decoding or of time, or the one of `second`."""
        found = self.frames[index : index + 1]
        timed = [frame for frame in self.frames if frame.pts is not None]
        found += sorted(timed, key=lambda frame: frame.pts)[index : index + 1]
        if second is not None and timed:
            nearest = min(timed, key=lambda frame: abs(frame.time - self.start - second))
            found += [nearest] if abs(nearest.time - self.start - second) < 2e-3 else []
        return found


def _announced(container, stream) -> int | None:
    """Frames that the container promises; a stream without a header, such as MPEG-TS, promises none."""
    if stream.frames:
        return stream.frames
    if container.format.name == "mpegts" or not (stream.average_rate or stream.guessed_rate):
        return None
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    else:
        return None
    return round(seconds * float(stream.average_rate or stream.guessed_rate))


class Originals:
    """The undamaged pictures of a source: a damaged file's pictures that are none of them were altered."""

    def __init__(self, path: Path):
        self.pictures = [_picture(frame, frame.height, frame.width) for frame in PlainDecode(path).frames]

    def holds(self, picture: np.ndarray, tolerance: int) -> bool:
        return any(_same(picture, original, tolerance) for original in self.pictures)


def judge(reading: Reading, plain: PlainDecode, originals: Originals, backend: str, documented: str) -> Verdict:
    """The verdict on a reading that gave frames. `documented`: what `open_video` says of the backends."""
    verdict = _judge(reading, plain, originals, 0 if backend == "pyav" else _TOLERANCE)
    limits = [words for words in plain.documented if words.lower() in documented.lower()]
    if backend == "decord" and verdict.outcome in FAILURES and limits:
        return Verdict("decord, documented", f"{', '.join(limits)}: {verdict.detail}")
    return verdict


def _judge(reading: Reading, plain: PlainDecode, originals: Originals, tolerance: int) -> Verdict:
    if plain.error:
        return Verdict("wrong in silence", f"it gave frames where a plain decode gives none ({plain.error})")
    expected = max(plain.announced or 0, len(plain.frames))
    if reading.num_frames < _SHORT * expected:
        return Verdict(
            "short in silence",
            f"it says {reading.num_frames} frames; the file announces {plain.announced} and {len(plain.frames)} decode",
        )
    altered = False
    for index, second, picture in reading.frames:
        right = [frame for frame in plain.candidates(index, second) if _shows(frame, picture, plain.is_turned, tolerance)]
        is_original = originals.holds(picture, tolerance)
        if not right and not is_original and plain.codec.startswith(("vp9", "libvpx")):
            return Verdict("VP9 damage no decoder flags", f"frame {index} is altered, and depends on where decoding began")
        if not right:
            shown = [k for k, frame in enumerate(plain.frames) if _shows(frame, picture, plain.is_turned, tolerance)]
            words = f"it is frame {shown[0]}" if shown else "it is no frame of a plain decode"
            return Verdict("wrong in silence", f"frame {index} of {reading.num_frames}: {words} of {len(plain.frames)}")
        if all(frame.is_corrupt for frame in right):
            return Verdict("wrong in silence", f"frame {index} is damaged: the decoder says so, the reader does not")
        altered |= not is_original
    if not altered:
        return Verdict("decoded")
    return Verdict("VP9 damage no decoder flags" if plain.codec.startswith(("vp9", "libvpx")) else OUTCOMES[1])


def _shows(frame: av.VideoFrame, picture: np.ndarray, is_turned: bool, tolerance: int) -> bool:
    """Whether `picture` is this frame, in the reader's size; of a file with a display matrix, in any orientation."""
    for turns in range(4 if is_turned else 1):
        for mirrored in (False, True) if is_turned else (False,):
            seen = np.rot90(picture[:, ::-1] if mirrored else picture, turns)
            height, width = seen.shape[:2]
            if _same(seen, _picture(frame, height, width), tolerance):
                return True
    return False


def _picture(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    # One thread: a frame keeps what converted it, and a few hundred frames would keep a few hundred pools of threads.
    return frame.reformat(width=width, height=height, format="rgb24", threads=1).to_ndarray()


def _same(a: np.ndarray, b: np.ndarray, tolerance: int) -> bool:
    if a.shape != b.shape:
        return False
    return np.array_equal(a, b) if not tolerance else int(np.abs(a.astype(np.int16) - b).max()) <= tolerance
