"""How a pass over videos goes, whatever is made of them, and how videos become scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mutual3d.sampling import ACTIVATIONS
from mutual3d.utils.targets import map_tensors

from .resume import PartialResult
from .unreadable import UnreadableVideos


@dataclass(frozen=True)
class VideoPass:
    """A pass over the batches of a loader, once.

    num_batches, num_videos: of all of it, where known; num_videos of all processes. max_unreadable: the share of the videos
    that may be unreadable. partial: where the pass keeps what it has so far, to go on from after a kill.
    """

    num_batches: int | None = None
    num_videos: int | None = None
    max_unreadable: float = 0.0
    partial: PartialResult | None = None

    def unreadable(self, key: str, known: dict[str, str] | None = None) -> UnreadableVideos:
        """A count of its bad videos. key: the config key of `max_unreadable`. known: {path: cause} of an earlier part."""
        return UnreadableVideos(self.max_unreadable, self.num_videos, key, known)


@dataclass(frozen=True)
class Scoring:
    """How the views of a video become its scores.

    activation: what turns outputs into scores, softmax, sigmoid, or none. ensemble: whether those of a video's views are averaged
    (`sum`) or their maximum taken (`max`). clips_per_forward: clips that are computed together.
    """

    activation: str = "softmax"
    ensemble: str = "sum"
    clips_per_forward: int = 64

    def activate(self, outputs: Any) -> Any:
        """Scores of outputs, float rows, K, ...; what is no tensor stays as it is: one entry for each clip."""
        if not isinstance(outputs, torch.Tensor):
            return outputs
        function: Callable[[torch.Tensor, int], torch.Tensor] = ACTIVATIONS[self.activation]
        return function(outputs.float(), 1)

    def join(self, parts: Sequence[Any], views: int) -> Any:
        """Scores B, K, ... on the CPU, of the scores of B videos of V views each that came in `parts`.

        views: V; where scores are no tensors it is 1, and they stay a list with an entry for each video.
        """
        if not isinstance(parts[0], torch.Tensor):
            if views != 1:
                raise ValueError(f"what this network gives cannot be joined over {views} views of a video: ask for one")
            return [map_tensors(torch.Tensor.cpu, each) for part in parts for each in part]
        joined = torch.cat(list(parts)).cpu()
        scores_BVK = joined.view(-1, views, *joined.shape[1:])
        return scores_BVK.mean(1) if self.ensemble == "sum" else scores_BVK.amax(1)
