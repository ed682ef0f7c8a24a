"""Clips around AVA's keyframes with the boxes of the keyframe: action detection (Gu et al., CVPR 2018)."""

import math
import os
from collections.abc import Collection

import numpy as np
import torch

from mutual3d.data.clips.frames import ClipSampling
from mutual3d.data.clips.transforms import RandomCrop, TrainingCrop, WholeFrame, random_crop, stack_clips
from mutual3d.data.datasets.ava.annotations import AvaFrames, Keyframes, Reference
from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample, stat_files
from mutual3d.data.datasets.kinetics import check_cut, sample_generator
from mutual3d.data.video.reader import VideoError
from mutual3d.utils.fingerprint import fingerprint


class AvaDataset(ClipDataset):
    """One sample a keyframe that has boxes. Indexed with (epoch, index); a `Sample` with boxes, or a `BadVideo`.

    Training (`training=True`): a random short side, crop and flip, the same for all frames of the clip and for its boxes.
    The random numbers come from (seed, epoch, index) alone. Boxes are clipped to the crop and those outside it left out; a
    crop that shows no box is moved as far as it takes to show the centre of one, drawn at random, so that every sample
    has a box. Evaluation: the whole frame, its short side resized to `crop_size`; all boxes.

    A sample's `boxes` are float n, 4 in [0, 1] of the view, its `origins` the same ones as annotated, and its `label` is
    float n, K: 1 in column a - 1 for each action a of the box.

    Args:
        frames: `AvaFrames` of the split; annotations: its `Keyframes`.
        crop_size: side of a training crop; short side of a test view.
        crop: how the crops of training are drawn.
        reference: what evaluation compares with, a `Reference`; `ground_truth`, `excluded` and `classes` are its parts.
    """

    noun = "keyframe"

    def __init__(
        self,
        frames: AvaFrames,
        annotations: Keyframes,
        sampling: ClipSampling,
        crop_size: int,
        *,
        training: bool = False,
        crop: TrainingCrop = TrainingCrop(),
        seed: int = 0,
        reference: Reference | None = None,
    ) -> None:
        self.frames = frames
        self.annotations = annotations
        self.reference = reference
        self.training = training
        self.seed = seed
        self.crop_size, self.crop = crop_size, crop
        self._num_frames = sampling.num_frames
        self._stride = sampling.sampling_rate * frames.fps / sampling.target_fps
        check_cut(crop_size, crop if training else None, seed)

    @property
    def keyframes(self) -> list[tuple[str, int]]:
        """(video, second) of each sample."""
        return self.annotations.names

    @property
    def groups(self) -> list[str] | None:
        """The video of each sample: whole frames of different videos differ in size and share no batch. None in training."""
        return None if self.training else [video for video, _ in self.keyframes]

    @property
    def ground_truth(self) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
        """{(video, second): (boxes n, 4; actions n)}."""
        return self._compared.ground_truth

    @property
    def excluded(self) -> Collection[tuple[str, int]]:
        """{(video, second)} that do not count."""
        return self._compared.excluded

    @property
    def classes(self) -> list[tuple[int, str]]:
        """[(id, name)] of the evaluated actions."""
        return self._compared.classes

    @property
    def _compared(self) -> Reference:
        assert self.reference is not None, "a split that is evaluated has a reference"
        return self.reference

    def __len__(self) -> int:
        return len(self.annotations)

    def name_of(self, index: int) -> str:
        video, second = self.keyframes[index]
        return f"video '{video}', second {second}"

    def fingerprint(self) -> str:
        """Changes with each box, label and listed frame, with the reference, and with each argument.

        Of the listed frames, the files of those that a clip shows are looked at (size, time of modification).
        """
        reference = None if self.reference is None else self.reference.fingerprint()
        parts = self.frames.fingerprint(), self.annotations.fingerprint(), reference, self.training, self.seed
        clip, crop = {"num_frames": self._num_frames, "stride": self._stride}, self.crop.fingerprinted(self.crop_size)
        return fingerprint(type(self).__name__, parts, clip, crop, stat_files(self._files()))

    def _files(self) -> list[str]:
        """The frames that any clip shows, each once."""
        shown = {}
        for video, second in self.keyframes:
            shown.setdefault(video, set()).update(self._positions(video, second))
        return [
            os.path.join(self.frames.root, os.fsdecode(self.frames.videos[video].paths[position]))
            for video, positions in shown.items()
            for position in sorted(positions)
        ]

    def _positions(self, video: str, second: int) -> list[int]:
        """The frames of the clip around a second."""
        centre = self.frames.keyframe(video, second)
        return keyframe_clip(
            centre, len(self.frames.videos[video].paths), num_frames=self._num_frames, stride=self._stride
        )

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        epoch, index = key
        keyframe = self.annotations[index]
        clip = self._positions(keyframe.video, keyframe.second)
        origins = torch.from_numpy(keyframe.boxes_N4)
        try:
            images, boxes = self._view(keyframe.video, sorted(set(clip)), origins, epoch, index)
        except VideoError as error:
            return BadVideo(index, error.path, error.cause)
        shown = _have_area(boxes)
        if not shown.any():  # a box thinner than a pixel, at the border of the crop that was moved to it
            shown[:] = True
        labels = torch.from_numpy(keyframe.labels_NK)[shown].float()
        return Sample(stack_clips([[images[i] for i in clip]]), labels, index, boxes[shown], origins[shown])

    def _view(
        self, video: str, positions: list[int], origins: torch.Tensor, epoch: int, index: int
    ) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """What the network sees of the frames at `positions`: {position: uint8 H, W, 3}, and the boxes in it."""
        images, view = {}, None
        # The reader is given the clip's own frames: making the paths of all of a video's would cost more than decoding.
        with self.frames.open(video, positions) as reader:
            for i, frame in reader.frames(range(len(positions))):
                if view is None:
                    height, width = frame.shape[:2]
                    view = self._choose_view(origins, height, width, epoch, index)
                images[positions[i]] = view(frame)
        assert view is not None, "a clip has frames"
        return images, view.view_boxes(origins, height, width)

    def _choose_view(self, origins: torch.Tensor, height: int, width: int, epoch: int, index: int) -> RandomCrop | WholeFrame:
        if not self.training:
            return WholeFrame(self.crop_size)
        generator = sample_generator(self.seed, epoch, index)
        crop = random_crop(generator, self.crop_size, self.crop)
        if _have_area(crop.view_boxes(origins, height, width)).any():
            return crop
        return crop.moved_to(origins[generator.integers(len(origins))], height, width)


def _have_area(boxes_N4: torch.Tensor) -> torch.Tensor:
    return (boxes_N4[:, 2] > boxes_N4[:, 0]) & (boxes_N4[:, 3] > boxes_N4[:, 1])


def keyframe_clip(centre: int, video_frames: int, *, num_frames: int, stride: float) -> list[int]:
    """Indices of a clip of `num_frames` at `stride` (a float) that spans half its length to each side of frame `centre`.

    The first frame is num_frames * stride / 2 before the keyframe; indices outside the video repeat its first or last.
    video_frames: the number of the video's frames.
    """
    # The small term keeps rounding errors of the arithmetic from turning a whole number into the one above.
    wanted = (math.ceil(centre + (i - num_frames / 2) * stride - 1e-6) for i in range(num_frames))
    return [min(max(i, 0), video_frames - 1) for i in wanted]
