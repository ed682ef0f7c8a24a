"""How a pass over videos goes, whatever is made of them, and how videos become scores."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mutual3d.sampling import ACTIVATIONS

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

    activation: what turns logits into scores, softmax or sigmoid. ensemble: whether those of a video's views are averaged
    (`sum`) or their maximum taken (`max`). clips_per_forward: clips that are computed together.
    """

    activation: str = "softmax"
    ensemble: str = "sum"
    clips_per_forward: int = 64

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores of logits, rows, K."""
        function: Callable[[torch.Tensor, int], torch.Tensor] = ACTIVATIONS[self.activation]
        return function(logits, 1)

    def join(self, scores_BVK: torch.Tensor) -> torch.Tensor:
        """B, K of the scores of V views each."""
        return scores_BVK.mean(1) if self.ensemble == "sum" else scores_BVK.amax(1)
