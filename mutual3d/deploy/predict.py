"""Scores of one video or image file, or of the boxes in a video."""

import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image

from mutual3d.data.ava import keyframe_clip
from mutual3d.data.decode import open_video
from mutual3d.data.images import evaluation_transform, read_image
from mutual3d.data.kinetics import BadVideo, VideoDataset
from mutual3d.data.reader import VideoError
from mutual3d.data.transforms import WholeFrame, stack_clips
from mutual3d.utils.logging import progress_bar


class Prediction(NamedTuple):
    """scores: class probabilities K, joined over the clips. Times in milliseconds: decoding, and the network."""

    scores: torch.Tensor
    decode_ms: float
    network_ms: float

    def top(self, k, class_names=None):
        """[(name or class number, probability)] of the k best, descending."""
        values, classes = self.scores.topk(min(k, len(self.scores)))
        names = class_names or [str(i) for i in range(len(self.scores))]
        return [(names[i], value) for i, value in zip(classes.tolist(), values.tolist())]


def read_clips(path, preprocessing, *, num_views=1, backend="pyav"):
    """Clips of a video, `num_views` spread over time, centre crops: uint8 V, 3, T, S, S. VideoError if unreadable.

    An image gives one clip of T equal frames.
    """
    if is_image(path):
        image = evaluation_transform(preprocessing.crop, preprocessing.resize or preprocessing.crop)(read_image(path))
        return image[None, :, None].expand(-1, -1, preprocessing.num_frames, -1, -1)
    dataset = VideoDataset(
        [(str(path), 0)],
        num_frames=preprocessing.num_frames,
        sampling_rate=preprocessing.sampling_rate,
        target_fps=preprocessing.target_fps,
        crop_size=preprocessing.crop,
        num_views=num_views,
        backend=backend,
    )
    sample = dataset[0, 0]
    if isinstance(sample, BadVideo):
        raise VideoError(sample.path, sample.cause)
    return sample[0]


def is_image(path):
    """Whether a file name ends as those of images do."""
    return Image.registered_extensions().get(Path(path).suffix.lower()) in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


def predict_video(model, path, *, num_views=1, backend="pyav"):
    """Run an AdaptiveModel, at its active configuration, on a video or image file."""
    start = time.perf_counter()
    clips = read_clips(path, model.preprocessing, num_views=num_views, backend=backend)
    decoded = time.perf_counter()
    with torch.no_grad():
        by_view = model(clips.to(_device(model)))
    scores = (by_view.amax(0) if model.preprocessing.ensemble == "max" else by_view.mean(0)).cpu()
    return Prediction(scores, 1000 * (decoded - start), 1000 * (time.perf_counter() - decoded))


def predict_boxes(model, path, boxes_by_second, *, backend="pyav"):
    """{second: scores N, K} of the boxes at each second of a video, at the model's active configuration.

    boxes_by_second: {second: boxes float N, 4 in [0, 1] of the frame}. The clip is the one around the second, of whole
    frames. Raises VideoError if unreadable, ValueError for a second after the video's end.
    """
    scores = {}
    with open_video(path, backend) as reader, torch.no_grad():
        for second, boxes in progress_bar(boxes_by_second.items(), "boxes", len(boxes_by_second), unit="second"):
            clip = _clip_around(reader, second, model.preprocessing)
            numbered = F.pad(torch.as_tensor(boxes, dtype=torch.float32), (1, 0))
            scores[second] = model(clip.to(_device(model)), numbered.to(_device(model))).cpu()
    return scores


def _clip_around(reader, second, preprocessing):
    centre = round(second * reader.fps)
    if centre >= reader.num_frames:
        raise ValueError(f"'{reader.path}' ends at second {reader.num_frames / reader.fps:.2f}: it has no second {second:g}")
    stride = preprocessing.sampling_rate * reader.fps / preprocessing.target_fps
    indices = keyframe_clip(centre, reader.num_frames, num_frames=preprocessing.num_frames, stride=stride)
    view = WholeFrame(preprocessing.crop)
    frames = {i: view(frame) for i, frame in reader.frames(indices)}
    return stack_clips([[frames[i] for i in indices]])


def _device(model):
    return next(model.parameters()).device
