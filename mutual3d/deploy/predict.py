"""Scores of one video file."""

import time
from typing import NamedTuple

import torch

from mutual3d.data.kinetics import BadVideo, VideoDataset
from mutual3d.data.reader import VideoError


class Prediction(NamedTuple):
    """scores: class probabilities K, averaged over the clips. Times in milliseconds: decoding, and the network."""

    scores: torch.Tensor
    decode_ms: float
    network_ms: float

    def top(self, k, class_names=None):
        """[(name or class number, probability)] of the k best, descending."""
        values, classes = self.scores.topk(min(k, len(self.scores)))
        names = class_names or [str(i) for i in range(len(self.scores))]
        return [(names[i], value) for i, value in zip(classes.tolist(), values.tolist())]


def read_clips(path, preprocessing, *, num_views=1, backend="pyav"):
    """Clips of a video, `num_views` spread over time, centre crops: uint8 V, 3, T, S, S. VideoError if unreadable."""
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


def predict_video(model, path, *, num_views=1, backend="pyav"):
    """Run an AdaptiveModel, at its active configuration, on a video file."""
    start = time.perf_counter()
    clips = read_clips(path, model.preprocessing, num_views=num_views, backend=backend)
    decoded = time.perf_counter()
    with torch.no_grad():
        scores = model(clips.to(next(model.parameters()).device)).mean(0).cpu()
    return Prediction(scores, 1000 * (decoded - start), 1000 * (time.perf_counter() - decoded))
