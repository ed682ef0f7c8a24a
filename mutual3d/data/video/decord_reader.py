"""The optional decord backend."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import av
import decord
import numpy as np
from decord.bridge import bridge_in

from mutual3d.data.video.container import open_container, orientation_of_frame, told, video_stream
from mutual3d.data.video.file_cache import FileCache, file_fingerprint
from mutual3d.data.video.orientation import Orientation, upright
from mutual3d.data.video.pyav_reader import PyAVReader, Run
from mutual3d.data.video.reader import VideoError

# Seconds by which decord may tell a frame's time otherwise than the packets do: it keeps them as 32-bit floats.
_TIME_TOLERANCE = 2e-3


class _Facts(NamedTuple):
    """What is learned of a file once: whether decord numbers its frames as they are, how its frames stand, and how many
    quarters, counterclockwise, decord turns them. `is_sound`: for each packet, whether it was found to decode."""

    is_exact: bool
    orientation: Orientation
    turns: int
    is_sound: np.ndarray


_facts: FileCache[_Facts] = FileCache(1 << 24, lambda facts: 1024 + facts.is_sound.nbytes)


class DecordReader(PyAVReader):
    """Frames by decord, one decoder thread, where it is found to be right; by PyAV elsewhere. See `open_video`.

    decord neither tells that a frame is damaged nor notices that one is missing, and then numbers those behind it otherwise.
    So the count, the times, how the frame stands and how long the file should be come from PyAV, and the packets that
    decord is to decode are first decoded by PyAV, once in a process for as long as the file stays as it is. tolerate_short:
    as of `PyAVReader`.
    """

    def __init__(self, path: str, tolerate_short: bool = False) -> None:
        self._decord = None
        super().__init__(path, tolerate_short)

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        wanted = self._check_indices(indices)
        facts = self._learn()
        if not facts.is_exact or not self._are_sound(wanted, facts):
            yield from super().frames(wanted)
            return
        for index, image in zip(wanted, self._decode_by_decord(wanted)):
            yield index, upright(np.rot90(image, -facts.turns), facts.orientation)

    def close(self) -> None:
        self._decord = None
        super().close()

    def _learn(self) -> _Facts:
        with told(self.path, "the file is damaged"):
            fingerprint = file_fingerprint(self.path)
            facts = _facts.get(fingerprint)
            if facts is None:
                facts = self._look()
                _facts.put(fingerprint, facts)
            return facts

    def _look(self) -> _Facts:
        is_sound = np.zeros(len(self._table.pts), bool)
        # decord's decoder of a codec without references fills up damaged frames from earlier ones.
        if self._is_intra or not self._names_every_frame() or not self._agrees():
            return _Facts(False, Orientation.UPRIGHT, 0, is_sound)
        with open_container(self.path) as container:
            frame = next(iter(container.decode(video_stream(container, self.path))), None)
            if frame is None:
                raise VideoError(self.path, "it has no decodable frame")
            orientation, turns = orientation_of_frame(frame), self._find_turns(frame)
        return _Facts(True, orientation, turns, is_sound)

    def _names_every_frame(self) -> bool:
        """Whether a frame is shown for each packet, and none before the keyframe that it follows (edit lists, open GOPs)."""
        table = self._table
        if table.packet_of_frame is None or len(table.packet_of_frame) < len(table.pts):
            return False
        keyframes = np.maximum.accumulate(np.where(table.is_keyframe, np.arange(len(table.pts)), 0))
        return bool((table.pts >= table.pts[keyframes]).all())

    def _agrees(self) -> bool:
        """Whether decord has the same frames and keyframes at the same times."""
        reader = self._open_decord()
        if len(reader) != self.num_frames:
            return False
        starts = reader.get_frame_timestamp(range(self.num_frames)).astype(np.float64)[:, 0]
        keyframes = np.searchsorted(self._table.frame_times, self._table.pts[self._table.is_keyframe])
        if sorted(reader.get_key_indices()) != keyframes.tolist():
            return False
        # 32-bit floats tell an hour to a quarter of a millisecond.
        error = np.abs((starts - starts[0]) - (self._seconds - self._seconds[0]))
        return bool((error <= _TIME_TOLERANCE + 1e-6 * self._seconds[-1]).all())

    def _are_sound(self, wanted: Sequence[int], facts: _Facts) -> bool:
        """Whether all that decord decodes for these frames decodes without any sign of damage, by PyAV."""
        table = self._table
        keyframes = np.flatnonzero(table.is_keyframe)
        if not self._is_strict:
            self._open(is_strict=True)
        entries = keyframes[np.searchsorted(keyframes, self._packet_of_frame[wanted], side="right") - 1]
        for entry in np.unique(entries):
            # decord counts the frames from the keyframe on, in the order in which they are shown.
            begin = int(np.searchsorted(table.frame_times, table.pts[entry]))
            end = max(index for index, own in zip(wanted, entries) if own == entry) + 1
            last = int(self._packet_of_frame[begin:end].max())
            if facts.is_sound[entry : last + 1].all():
                continue
            if not self._decodes(int(entry), last):
                return False
            facts.is_sound[entry : last + 1] = True
        return True

    def _decodes(self, first: int, last: int) -> bool:
        run = Run(first, last, {int(time): place for place, time in enumerate(self._table.pts[first : last + 1])}, seeks_exactly=True)
        frames = [frame for _, frame in self._decode_run(run)]
        return len(frames) == len(run.wanted) and all((frame.width, frame.height) == self._size for frame in frames)

    def _find_turns(self, first_frame: av.VideoFrame) -> int:
        """How many quarters, counterclockwise, decord turns each frame: it takes the matrix of most containers for an angle."""
        turns = round(first_frame.rotation / 90) % 4 if first_frame.rotation % 90 == 0 else 0
        if not turns:
            return 0
        stored = first_frame.to_ndarray(format="rgb24").astype(np.int16)
        shown = next(self._decode_by_decord([0]))
        turned = np.rot90(stored, turns)
        if turned.shape != stored.shape:
            return turns if shown.shape == turned.shape else 0
        return turns if np.abs(shown - turned).mean() < np.abs(shown - stored).mean() else 0

    def _open_decord(self) -> decord.VideoReader:
        if self._decord is None:
            with told(self.path, "decord cannot open it"):
                self._decord = decord.VideoReader(os.path.abspath(self.path), num_threads=1)
        return self._decord

    def _decode_by_decord(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames as decord gives them."""
        reader = self._open_decord()
        with told(self.path, "decord cannot decode it"):
            # The program around may have asked decord for tensors of its own framework.
            yield from bridge_in(reader.get_batch(indices)).asnumpy()
