"""Scores of videos at one or many configurations, each video decoded once for all of them."""

import torch

from mutual3d.utils import distributed
from mutual3d.utils.logging import logger, progress_bar

from .metrics import TopK
from .resume import PartialResult


class UnreadableVideosError(RuntimeError):
    """More videos could not be read than the evaluation tolerates."""


def measure(
    model, batches_from, configurations, *, prepare, metric=TopK, ensemble="sum", num_batches=None,
    max_unreadable=0.0, num_videos=None, clips_per_forward=64, partial=None, description="measure", on_scores=None,
):  # fmt: skip
    """{configuration: metric} over all videos, on every process.

    batches_from: function of a number of batches to skip -> iterable of batches (clips uint8 B, V, C, T, H, W; labels
    B; indices B; bad); each process is given its own share, no video twice. The softmax of a video's V views is
    averaged (`sum`) or its maximum taken (`max`). on_scores(configuration, indices, scores B, K) sees every score.
    Raises UnreadableVideosError when more than `max_unreadable` of `num_videos` cannot be read.
    """
    partial = partial or PartialResult()
    done, state = partial.load()
    metrics = {c: metric() for c in configurations}
    bad = dict(state["bad"]) if state else {}
    for configuration, values in metrics.items():
        if state:
            values.load_state(state["metrics"][str(configuration)])
    model.eval()
    was_active = model.active
    for batch in progress_bar(batches_from(done), description, num_batches, initial=done):
        bad.update({video.path: str(video.cause) for video in batch.bad})
        if len(batch.clips_BVCTHW):
            clips = batch.clips_BVCTHW
            for c, scores in score_batch(model, clips, configurations, prepare, ensemble, clips_per_forward):
                metrics[c].update(scores, batch.labels)
                if on_scores is not None:
                    on_scores(c, batch.indices, scores)
        done += 1
        partial.save(done, lambda: {"metrics": {str(c): m.state() for c, m in metrics.items()}, "bad": bad})
    model.activate(was_active)
    _report_unreadable(bad, max_unreadable, num_videos)
    return _joined(metrics, metric)


@torch.no_grad()
def score_batch(model, clips_BVCTHW, configurations, prepare, ensemble="sum", clips_per_forward=64):
    """Yield (configuration, scores B, K on the CPU) for a batch of videos of V views each."""
    batch, views = clips_BVCTHW.shape[:2]
    scores = {c: [] for c in configurations}
    for clips in clips_BVCTHW.flatten(0, 1).split(clips_per_forward):
        for configuration, pathways in model.fit_clips(prepare(clips), configurations):
            logits = model.activate(configuration)(pathways)
            scores[configuration].append(logits.float().softmax(1).cpu())
    for configuration, parts in scores.items():
        by_view = torch.cat(parts).view(batch, views, -1)
        yield configuration, by_view.mean(1) if ensemble == "sum" else by_view.amax(1)


def _report_unreadable(bad, max_unreadable, num_videos):
    bad = {path: cause for part in distributed.gather(bad) for path, cause in part.items()}
    if not bad:
        return
    listed = "\n".join(f"  {path}: {cause}" for path, cause in list(bad.items())[:10])
    message = f"{len(bad)} of {num_videos or 'the'} videos cannot be read:\n{listed}"
    if not num_videos or len(bad) > max_unreadable * num_videos:
        raise UnreadableVideosError(
            f"{message}\nmend or remove them (`python tools/check_data.py --csv ...` lists all), or tolerate a share "
            f"with DATA_LOADER.MAX_UNREADABLE_TEST (now {max_unreadable:g})"
        )
    logger.warning("%s\nthey are left out of the accuracy", message)


def _joined(metrics, metric):
    joined = {c: metric() for c in metrics}
    for part in distributed.gather(metrics):
        for configuration, values in part.items():
            joined[configuration].merge(values)
    return joined
