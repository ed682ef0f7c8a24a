"""Scores of videos at one or many configurations, each video decoded once for all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from mutual3d.cost.latency import evaluation_mode
from mutual3d.metrics.metrics import Metric, TopK, naming
from mutual3d.sampling import ACTIVATIONS, Configuration
from mutual3d.utils import distributed
from mutual3d.utils.logging import progress_bar

from .resume import PartialResult
from .unreadable import UnreadableVideos


def measure(
    model: Any,
    batches_from: Callable[[int], Iterable],
    configurations: Sequence[Configuration],
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    metric: Callable[[], Metric] = TopK,
    ensemble: str = "sum",
    activation: str = "softmax",
    num_batches: int | None = None,
    max_unreadable: float = 0.0,
    num_videos: int | None = None,
    clips_per_forward: int = 64,
    partial: PartialResult | None = None,
    description: str = "measure",
) -> dict[Configuration, Metric]:
    """{configuration: metric} over all videos, on every process.

    batches_from: function of a number of batches to skip -> iterable of batches (clips uint8 B, V, C, T, H, W; labels;
    indices B; bad; boxes); each process is given its own share, no video twice. `metric()` makes an empty metric. The
    `activation` (softmax or sigmoid) of a video's V views is averaged (`sum`) or its maximum taken (`max`).
    Raises UnreadableVideosError when more than `max_unreadable` of `num_videos` cannot be read, and NotFiniteError, which
    names the configuration, when a score is NaN or infinite.
    """
    partial = partial or PartialResult()

    def restored(state):
        metrics = {c: metric() for c in configurations}
        for configuration, values in metrics.items() if state else ():
            values.load_state(state["metrics"][str(configuration)])
        return metrics, UnreadableVideos(max_unreadable, num_videos, known=state and state["bad"])

    done, (metrics, unreadable) = partial.load(restored, num_batches)

    def result_so_far():
        return {"metrics": {str(c): m.state() for c, m in metrics.items()}, "bad": unreadable.causes}

    with evaluation_mode(model):
        for batch in progress_bar(batches_from(done), description, num_batches, initial=done):
            unreadable.add(batch.bad)
            if len(batch.clips_BVCTHW):
                scored = score_batch(
                    model, batch, configurations, prepare, ensemble, ACTIVATIONS[activation], clips_per_forward
                )
                for configuration, scores in scored:
                    with naming(configuration):
                        metrics[configuration].update(scores, batch)
            done += 1
            partial.save(done, result_so_far)
    partial.save(done, result_so_far, force=True)
    unreadable.check_everywhere()
    return _joined(metrics, metric)


@torch.no_grad()
def score_batch(
    model: Any,
    batch: Any,
    configurations: Sequence[Configuration],
    prepare: Callable[[torch.Tensor], torch.Tensor],
    ensemble: str = "sum",
    activation: Callable = torch.softmax,
    clips_per_forward: int = 64,
) -> Iterator[tuple[Configuration, torch.Tensor]]:
    """Yield (configuration, scores B, K on the CPU) for a batch of videos of V views each; with boxes, N, K."""
    videos, views = batch.clips_BVCTHW.shape[:2]
    scores = {c: [] for c in configurations}
    # Boxes point into the batch, which is then run whole: their clips come one view each and few at a time.
    boxes = None if batch.boxes is None else batch.boxes.to(next(model.parameters()).device)
    for clips in batch.clips_BVCTHW.flatten(0, 1).split(clips_per_forward if boxes is None else videos * views):
        for configuration, pathways in model.fit_clips(prepare(clips), configurations):
            logits = model.activate(configuration)(pathways, boxes)
            scores[configuration].append(activation(logits.float(), 1).cpu())
    for configuration, parts in scores.items():
        joined = torch.cat(parts)
        by_view = joined.view(videos, views, -1) if boxes is None else joined[:, None]
        yield configuration, by_view.mean(1) if ensemble == "sum" else by_view.amax(1)


def _joined(metrics, metric):
    joined = {c: metric() for c in metrics}
    for part in distributed.gather(metrics):
        for configuration, values in part.items():
            joined[configuration].merge(values)
    return joined
