"""Scores of videos at one or many configurations, each video decoded once for all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from mutual3d.cost.latency import evaluation_mode
from mutual3d.metrics.metrics import Metric, TopK, naming
from mutual3d.sampling import Configuration
from mutual3d.utils import distributed
from mutual3d.utils.logging import progress_bar
from mutual3d.utils.stopping import deferred
from mutual3d.utils.targets import map_tensors

from .resume import PartialResult
from .unreadable import UnreadableVideos
from .video_pass import Scoring, VideoPass

# From a batch and a network at one configuration to what a metric takes.
Play = Callable[[Any, Callable[[torch.Tensor], Any]], Any]


def measure(
    model: Any,
    batches_from: Callable[[int], Iterable],
    configurations: Sequence[Configuration],
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    metric: Callable[[], Metric] = TopK,
    scoring: Scoring = Scoring(),
    videos: VideoPass = VideoPass(),
    description: str = "measure",
    play: Play | None = None,
) -> dict[Configuration, Metric]:
    """{configuration: metric} over all videos, on every process.

    batches_from: function of a number of batches to skip -> iterable of batches (clips uint8 B, V, C, T, H, W; labels;
    indices B; bad; boxes); each process is given its own share, no video twice. prepare: clips on the device as float B, C,
    T, H, W. `metric()` makes an empty metric. Raises UnreadableVideosError when more videos cannot be read than `videos`
    tolerates, and NotFiniteError, which names the configuration, when a score is NaN or infinite. model: the adaptive
    network. description: the words of the progress bar. play: what becomes of a batch where its samples go on by what the network gives,
    such as games; None where clips are all there is.
    """
    partial = videos.partial or PartialResult()

    def restored(state: Any) -> tuple[dict[Configuration, Metric], UnreadableVideos]:
        metrics = {c: metric() for c in configurations}
        for configuration, values in metrics.items() if state else ():
            values.load_state(state["metrics"][str(configuration)])
        return metrics, videos.unreadable("DATA_LOADER.MAX_UNREADABLE_TEST", state and state["bad"])

    done, (metrics, unreadable) = partial.load(restored, videos.num_batches)

    def result_so_far() -> dict[str, Any]:
        return {"metrics": {str(c): m.state() for c, m in metrics.items()}, "bad": unreadable.causes}

    begun_at = done
    with evaluation_mode(model), deferred():
        for batch in progress_bar(batches_from(done), description, videos.num_batches, initial=done):
            unreadable.add(batch.bad)
            if len(batch.clips_BVCTHW):
                scored = score_batch(model, batch, configurations, prepare, scoring)
                if play is not None:
                    scored = play_batch(model, batch, configurations, prepare, scoring, play)
                for configuration, scores in scored:
                    with naming(configuration):
                        metrics[configuration].update(scores, batch)
            done += 1
            partial.save(done, result_so_far)
        # Where nothing was left to do it is saved already, and whoever asks for a stop lets it end.
        if done > begun_at:
            partial.save(done, result_so_far, force=True)
    unreadable.check_everywhere()
    return _joined(metrics, metric)


@torch.no_grad()
def score_batch(
    model: Any,
    batch: Any,
    configurations: Sequence[Configuration],
    prepare: Callable[[torch.Tensor], torch.Tensor],
    scoring: Scoring = Scoring(),
) -> Iterator[tuple[Configuration, Any]]:
    """Yield (configuration, scores B, K on the CPU) for a batch of videos of V views each; with boxes, N, K; or what a task's network gives.

    model: the adaptive network.
    """
    videos, views = batch.clips_BVCTHW.shape[:2]
    scores: dict[Configuration, list[Any]] = {c: [] for c in configurations}
    # Boxes point into the batch, which is then run whole: their clips come one view each and few at a time.
    boxes = None if batch.boxes is None else batch.boxes.to(next(model.parameters()).device)
    for clips in batch.clips_BVCTHW.flatten(0, 1).split(scoring.clips_per_forward if boxes is None else videos * views):
        for configuration, pathways in model.fit_clips(prepare(clips), configurations):
            scores[configuration].append(scoring.activate(model.activate(configuration)(pathways, boxes)))
    for configuration, parts in scores.items():
        yield configuration, scoring.join(parts, views if boxes is None else 1)


@torch.no_grad()
def play_batch(
    model: Any,
    batch: Any,
    configurations: Sequence[Configuration],
    prepare: Callable[[torch.Tensor], torch.Tensor],
    scoring: Scoring,
    play: Play,
) -> Iterator[tuple[Configuration, Any]]:
    """Yield (configuration, what `play` gives) for a batch whose samples go on by what the network gives, as games do.

    model: the adaptive network, which `play` is given at each configuration: uint8 clips N, C, T, H, W -> scores on the CPU.
    """
    for configuration in configurations:

        def network(clips_NCTHW: torch.Tensor, configuration: Configuration = configuration) -> Any:
            pathways = model.fit_clip(prepare(clips_NCTHW), configuration)
            return map_tensors(torch.Tensor.cpu, scoring.activate(model.activate(configuration)(pathways)))

        with naming(configuration):
            found = play(batch, network)
        yield configuration, found


def _joined(metrics: dict[Configuration, Metric], metric: Callable[[], Metric]) -> dict[Configuration, Metric]:
    joined = {c: metric() for c in metrics}
    for part in distributed.gather(metrics):
        for configuration, values in part.items():
            joined[configuration].merge(values)
    return joined
