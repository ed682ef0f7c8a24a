"""What the optional backends share: another decoder gives the pixels, where PyAV has found it to be right."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np

from mutual3d.data.video.container import has_display_matrix, open_container, orientation_of_frame, told, video_stream
from mutual3d.data.video.file_cache import FileCache, file_fingerprint
from mutual3d.data.video.orientation import Orientation, upright
from mutual3d.data.video.pyav_reader import PyAVReader, Run
from mutual3d.data.video.reader import VideoError

# Frames that are asked for together: such decoders give all of them at once.
_FRAMES_AT_ONCE = 32
# How far apart, on average, two conversions of the same image may be.
_ROUNDING = 2.0


class OtherFrames(Exception):
    """The other decoder gives other frames than those that were asked for."""


class _Facts(NamedTuple):
    """What is learned of a file once: whether the other decoder numbers its frames as they are, how its frames stand, and how
    many quarters, counterclockwise, that decoder turns them. `is_sound`: for each packet, whether it was found to decode."""

    is_exact: bool
    orientation: Orientation
    turns: int
    is_sound: np.ndarray


_facts: FileCache[_Facts] = FileCache(1 << 24, lambda facts: 1024 + facts.is_sound.nbytes)


class CheckedReader(PyAVReader):
    """Frames by another decoder where it is found to be right, one thread; by PyAV elsewhere. See `open_video`.

    Such decoders neither tell that a frame is damaged nor, all of them, notice that one is missing, and then number those behind
    it otherwise. So the count, the times, how the frame stands and how long the file should be come from PyAV, and the packets
    that the other one is to decode are first decoded by PyAV, once in a process for as long as the file stays as it is.
    A subclass writes `_agrees` and `_decode_by_other`. tolerate_short: as of `PyAVReader`.
    """

    def _agrees(self) -> bool:
        """Whether the other decoder has the same frames at the same times, as far as it tells without decoding."""
        raise NotImplementedError

    def _decode_by_other(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames as the other decoder gives them, uint8 RGB H, W, 3. Raises OtherFrames where it notices that they are not
        those that were asked for."""
        raise NotImplementedError

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        wanted = self._check_indices(indices)
        facts = self._learn()
        if not facts.is_exact or not self._are_sound(wanted, facts):
            yield from super().frames(wanted)
            return
        for first in range(0, len(wanted), _FRAMES_AT_ONCE):
            some = wanted[first : first + _FRAMES_AT_ONCE]
            try:
                images = list(self._decode_by_other(some))
            except OtherFrames:
                yield from super().frames(wanted[first:])
                return
            for index, image in zip(some, images):
                yield index, upright(np.rot90(image, -facts.turns), facts.orientation)

    def _learn(self) -> _Facts:
        with told(self.path, "the file is damaged"):
            key = type(self).__name__, file_fingerprint(self.path)
            facts = _facts.get(key)
            if facts is None:
                facts = self._look()
                _facts.put(key, facts)
            return facts

    def _look(self) -> _Facts:
        is_sound = np.zeros(len(self._table.pts), bool)
        # Their decoder of a codec without references fills up damaged frames from earlier ones.
        if self._is_intra or not self._names_every_frame() or not self._agrees():
            return _Facts(False, Orientation.UPRIGHT, 0, is_sound)
        with open_container(self.path) as container:
            frame = next(iter(container.decode(video_stream(container, self.path))), None)
            if frame is None:
                raise VideoError(self.path, "it has no decodable frame")
            try:
                orientation, turns = orientation_of_frame(frame), self._find_turns(frame)
            except OtherFrames:
                return _Facts(False, Orientation.UPRIGHT, 0, is_sound)
        return _Facts(True, orientation, turns, is_sound)

    def _names_every_frame(self) -> bool:
        """Whether a frame is shown for each packet, and none before the keyframe that it follows (edit lists, open GOPs)."""
        table = self._table
        if table.packet_of_frame is None or len(table.packet_of_frame) < len(table.pts):
            return False
        keyframes = np.maximum.accumulate(np.where(table.is_keyframe, np.arange(len(table.pts)), 0))
        return bool((table.pts >= table.pts[keyframes]).all())

    def _are_sound(self, wanted: Sequence[int], facts: _Facts) -> bool:
        """Whether all that the other one decodes for these frames decodes without any sign of damage, by PyAV."""
        table = self._table
        keyframes = np.flatnonzero(table.is_keyframe)
        if not self._is_strict:
            self._open(is_strict=True)
        entries = keyframes[np.searchsorted(keyframes, self._packet_of_frame[wanted], side="right") - 1]
        for entry in np.unique(entries):
            # They count the frames from the keyframe on, in the order in which they are shown.
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
        """How many quarters, counterclockwise, the other one turns each frame; decord and torchcodec take the matrices of some
        containers, and of some that mirror or squeeze, for an angle. Raises OtherFrames where the first frame does not tell."""
        if not has_display_matrix(first_frame):
            return 0
        stored = first_frame.to_ndarray(format="rgb24").astype(np.int16)
        shown = next(self._decode_by_other([0]))
        turned = {turns: np.rot90(stored, turns) for turns in range(4)}
        errors = {turns: np.abs(shown - image).mean() for turns, image in turned.items() if image.shape == shown.shape}
        found = [turns for turns, error in errors.items() if error <= _ROUNDING]
        if len(found) != 1:
            raise OtherFrames
        return found[0]
