"""Scores of one video or image file, or of the boxes in a video."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from mutual3d.data.datasets.ava.dataset import keyframe_clip
from mutual3d.data.video.decode import open_video
from mutual3d.data.frames import is_padded, view_clip
from mutual3d.data.datasets.images import evaluation_transform
from mutual3d.data.video.reader import VideoReader
from mutual3d.data.stills import is_still, read_image
from mutual3d.data.transforms import UniformCrops, WholeFrame, stack_clips
from mutual3d.deploy.adaptive_model import AdaptiveModel, Preprocessing
from mutual3d.utils.logging import progress_bar


class Clips(NamedTuple):
    """What a network is shown of a file: clips uint8 V, 3, T, S, S, and where they come from.

    `seconds`: of each clip the seconds at which its first and its last frame are shown; empty for a still. `duration`: the
    second at which the video ends. `is_padded`: a clip is longer than the video, whose last frame is repeated.
    """

    clips_VCTHW: torch.Tensor
    seconds: tuple[tuple[float, float], ...] = ()
    duration: float = 0.0
    is_padded: bool = False

    def describe(self) -> str:
        """What was looked at, in words; "" for a still."""
        if not self.seconds:
            return ""
        parts = ", ".join(f"{first:.2f} to {last:.2f}" for first, last in self.seconds[:_MOST_TOLD])
        parts += ", ..." if len(self.seconds) > _MOST_TOLD else ""
        padding = "; it is shorter than a clip, which repeats its last frame" if self.is_padded else ""
        return f"looked at seconds {parts} of {self.duration:.2f}{padding}"

    @property
    def share(self) -> float:
        """The share of the video between the first and the last frame of a clip, in [0, 1]; 1 for a still."""
        covered = end = 0.0
        for first, last in sorted(self.seconds):
            covered += max(last - max(first, end), 0.0)
            end = max(end, last)
        return min(covered / self.duration, 1.0) if self.duration else 1.0


# Clips whose seconds are told one by one.
_MOST_TOLD = 4


class Prediction(NamedTuple):
    """scores: class probabilities K, joined over the clips. Times in milliseconds: decoding, and the network.

    clips: what the network was shown.
    """

    scores: torch.Tensor
    decode_ms: float
    network_ms: float
    clips: Clips

    def top(self, k: int, class_names: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """[(name or class number, probability)] of the k best, descending."""
        values, classes = self.scores.topk(min(k, len(self.scores)))
        names = class_names or [str(i) for i in range(len(self.scores))]
        return [(names[i], value) for i, value in zip(classes.tolist(), values.tolist())]


def read_clips(
    path: str | Path, preprocessing: Preprocessing, *, num_views: int = 1, backend: str = "pyav"
) -> Clips:
    """Clips of a video, `num_views` spread over time, centre crops. Raises VideoError if unreadable.

    A still, which is a file of one image, gives one clip of equal frames. An image network (`preprocessing.resize`) is
    shown each frame of a video as it is shown an image: short side to `resize`, centre crop.
    """
    if is_still(path):
        image = _image_transform(preprocessing)(read_image(path))
        return Clips(image[None, :, None].expand(-1, -1, preprocessing.num_frames, -1, -1))
    clip = dict(
        num_frames=preprocessing.num_frames, sampling_rate=preprocessing.sampling_rate, target_fps=preprocessing.target_fps
    )
    with open_video(path, backend) as reader:
        indices = [
            reader.evenly(view_clip(reader.num_frames, reader.fps, **clip, view=view, num_views=num_views))
            for view in range(num_views)
        ]
        transform = _frame_transform(preprocessing)
        frames = {i: transform(frame) for i, frame in reader.frames(i for view in indices for i in view)}
        clips = stack_clips([frames[i] for i in view] for view in indices)
        seconds = tuple((reader.time_of(view[0]), reader.time_of(view[-1])) for view in indices)
        return Clips(clips, seconds, reader.duration, is_padded(reader.num_frames, reader.fps, **clip))


def _image_transform(preprocessing: Preprocessing):
    return evaluation_transform(preprocessing.crop, preprocessing.resize or preprocessing.crop)


def _frame_transform(preprocessing: Preprocessing):
    """A function of a decoded frame H, W, 3 that gives what the network sees of it, uint8 S, S, 3."""
    if preprocessing.resize is None:
        crops = UniformCrops(preprocessing.crop)
        return lambda frame_HWC: crops(frame_HWC)[0]
    image = _image_transform(preprocessing)
    return lambda frame_HWC: image(v2.functional.to_pil_image(frame_HWC)).permute(1, 2, 0)


def predict_video(
    model: AdaptiveModel, path: str | Path, *, num_views: int = 1, backend: str = "pyav"
) -> Prediction:
    """Run an AdaptiveModel, at its active configuration, on a video or image file. Raises VideoError if unreadable."""
    start = time.perf_counter()
    clips = read_clips(path, model.preprocessing, num_views=num_views, backend=backend)
    return score_clips(model, clips, 1000 * (time.perf_counter() - start))


def score_clips(model: AdaptiveModel, clips: Clips, decode_ms: float = 0.0) -> Prediction:
    """Run an AdaptiveModel, at its active configuration, on clips that were read before, in `decode_ms`."""
    start = time.perf_counter()
    with torch.no_grad():
        by_view = model(clips.clips_VCTHW.to(_device(model)))
    scores = (by_view.amax(0) if model.preprocessing.ensemble == "max" else by_view.mean(0)).cpu()
    return Prediction(scores, decode_ms, 1000 * (time.perf_counter() - start), clips)


def predict_boxes(
    model: AdaptiveModel, path: str | Path, boxes_by_second: Mapping[float, torch.Tensor], *, backend: str = "pyav"
) -> dict[float, torch.Tensor]:
    """{second: scores N, K} of the boxes at each second of a video, at the model's active configuration.

    boxes_by_second: {second: boxes float N, 4 in [0, 1] of the frame}. The clip is the one around the second, of whole
    frames: those that training saw, which are taken from the video at `target_fps` before it. Raises VideoError if
    unreadable, ValueError for a second after the video's end.
    """
    scores = {}
    with open_video(path, backend) as reader, torch.no_grad():
        for second, boxes in progress_bar(boxes_by_second.items(), "boxes", len(boxes_by_second), unit="second"):
            clip = _clip_around(reader, second, model.preprocessing)
            numbered = F.pad(torch.as_tensor(boxes, dtype=torch.float32), (1, 0))
            scores[second] = model(clip.to(_device(model)), numbered.to(_device(model))).cpu()
    return scores


def _clip_around(reader: VideoReader, second: float, preprocessing: Preprocessing) -> torch.Tensor:
    indices = frames_around(reader, second, preprocessing)
    view = WholeFrame(preprocessing.crop)
    frames = {i: view(frame) for i, frame in reader.frames(indices)}
    return stack_clips([[frames[i] for i in indices]])


def frames_around(reader: VideoReader, second: float, preprocessing: Preprocessing) -> list[int]:
    """The frames of the clip around a second: of those that extraction at `target_fps` would write, the ones of AVA's clip.

    Raises ValueError for a second after the video's end.
    """
    if second >= reader.duration:
        raise ValueError(f"'{reader.path}' ends at second {reader.duration:.2f}: it has no second {second:g}")
    fps = preprocessing.target_fps
    frames = keyframe_clip(
        round(second * fps), math.ceil(reader.duration * fps), num_frames=preprocessing.num_frames,
        stride=preprocessing.sampling_rate,
    )  # fmt: skip
    return reader.indices_at([frame / fps for frame in frames])


def _device(model: AdaptiveModel) -> torch.device:
    return next(model.parameters()).device
