"""Exact batch norm statistics of every configuration, in one pass over the clips (paper, 3.4; US-Net, 3.3)."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn

from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.sampling import Configuration
from mutual3d.utils import distributed
from mutual3d.utils.logging import progress_bar
from mutual3d.utils.stopping import deferred

from .resume import PartialResult
from .unreadable import UnreadableVideos
from .video_pass import VideoPass

# Values a channel, their mean, and the sum of their squared deviations (of a moving average 1, mean and variance).
Moments = tuple[int, torch.Tensor, torch.Tensor]


class Population:
    """Exact statistics: mean and sum of squared deviations of every channel of every norm, over all that it has seen, in float64."""

    def __init__(self, moments: dict[str, Moments] | None = None) -> None:
        self.moments = moments or {}

    def add(self, name: str, count: int, mean: torch.Tensor, squares: torch.Tensor) -> None:
        """Join another group: `count` values a channel with this mean and sum of squared deviations (Chan et al.)."""
        if name in self.moments:
            n, m, s = self.moments[name]
            delta, total = mean - m, n + count
            mean = m + delta * (count / total)
            squares = s + squares + delta * delta * (n * count / total)
            count = total
        self.moments[name] = (count, mean, squares)

    def merge(self, other: "Population") -> None:
        """Add the sums of another one."""
        for name, moments in other.moments.items():
            self.add(name, *moments)

    def statistics(self) -> BNStatistics:
        """Mean and biased variance, float32."""
        mean = {name: m.float() for name, (_, m, _) in self.moments.items()}
        return BNStatistics(mean, {name: (s / n).float() for name, (n, _, s) in self.moments.items()})


class MovingPopulation(Population):
    """PyTorch's moving average over batches instead, from mean 0 and variance 1 (US-Net, Eq. 5): for comparison.

    Moments are (1, mean, variance) here; those of several processes join as groups of equal size.
    """

    momentum = 0.1

    def add(self, name: str, count: int, mean: torch.Tensor, squares: torch.Tensor) -> None:
        """count: how many values each channel had."""
        _, m, v = self.moments.get(name, (1, torch.zeros_like(mean), torch.ones_like(mean)))
        self.moments[name] = (1, torch.lerp(m, mean, self.momentum), torch.lerp(v, squares / count, self.momentum))


AVERAGES = {"exact": Population, "moving": MovingPopulation}


def calibrate(
    model: Any,
    batches_from: Callable[[int], Iterable],
    configurations: Sequence[Configuration],
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    average: str = "exact",
    videos: VideoPass = VideoPass(),
) -> None:
    """Give the model the statistics of each configuration; weights, running statistics and other configurations stay.

    batches_from, prepare, average, videos, and the errors, are those of `compute_statistics`. model: the adaptive network.
    """
    model.set_statistics(
        compute_statistics(model, batches_from, configurations, prepare=prepare, average=average, videos=videos)
    )


def compute_statistics(
    model: Any,
    batches_from: Callable[[int], Iterable],
    configurations: Sequence[Configuration],
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    average: str = "exact",
    videos: VideoPass = VideoPass(),
) -> dict[Configuration, BNStatistics]:
    """The batch norm statistics of each configuration over all clips; nothing of the model changes.

    batches_from: function of a number of batches to skip -> iterable of batches (clips uint8 B, V, C, T, H, W); each
    process is given its own share. prepare: clips on the device as float B, C, T, H, W. In the pass every norm
    normalises by the batch, as in training, and the moments of what it saw are joined over the whole population; the
    processes' moments are joined at the end, so that any number of them gives the same statistics. average: `exact` or,
    for comparison, `moving`. Raises UnreadableVideosError when more videos cannot be read than `videos` tolerates. model:
    the adaptive network, which is left in the mode that it was in. One without norms has nothing to calibrate, and no clip is read.
    """
    if not model.has_norms:
        return {}
    partial = videos.partial or PartialResult()

    def restored(state: Any) -> tuple[dict[Configuration, Population], UnreadableVideos]:
        moments = state["moments"] if state else {}
        populations = {c: AVERAGES[average](_checked_moments(model, moments[str(c)]) if state else None) for c in configurations}
        return populations, videos.unreadable("DATA_LOADER.MAX_UNREADABLE_TRAIN", state and state["bad"])

    done, (populations, unreadable) = partial.load(restored, videos.num_batches)

    def result_so_far() -> dict[str, Any]:
        return {"moments": {str(c): p.moments for c, p in populations.items()}, "bad": unreadable.causes}

    batches = progress_bar(batches_from(done), "calibrate", videos.num_batches, initial=done)
    with _batch_statistics(model), deferred():
        for batch in batches:
            unreadable.add(batch.bad)
            if len(batch.clips_BVCTHW):
                _see(model, prepare(batch.clips_BVCTHW.flatten(0, 1)), batch.boxes, populations)
            done += 1
            partial.save(done, result_so_far)
    unreadable.check_everywhere()
    return {c: _joined(p) for c, p in populations.items()}


def _checked_moments(model: Any, moments: dict[str, Moments]) -> dict[str, Moments]:
    """Moments of a file, when they can be those of the norms of `model`; ValueError, or what wrong types raise, if not."""
    norms = slimmable_norms(model)
    for name, (count, mean, squares) in moments.items():
        _check_channels(name, norms[name], mean, squares)
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} has seen {count!r} values")
    return moments


def _check_channels(name: str, norm: Any, mean: torch.Tensor, spread: torch.Tensor) -> None:
    """ValueError for what cannot be a mean and a variance, or sum of squares, of a norm's channels."""
    if not mean.shape == spread.shape or mean.ndim != 1 or not 0 < len(mean) <= norm.rule.full:
        raise ValueError(f"{name} has {norm.rule.full} channels, not {tuple(mean.shape)} and {tuple(spread.shape)}")
    if not (mean.isfinite().all() and spread.isfinite().all() and (spread >= 0).all()):
        raise ValueError(f"{name} has a mean or variance that is not finite, or below 0")


@torch.no_grad()
def _see(
    model: Any, clip_BCTHW: torch.Tensor, boxes: torch.Tensor | None, populations: Mapping[Configuration, Population]
) -> None:
    boxes = None if boxes is None else boxes.to(clip_BCTHW.device)
    for configuration, pathways in model.fit_clips(clip_BCTHW, list(populations)):
        model.activate(configuration)
        with _collect(model, populations[configuration]):
            model(pathways, boxes)


@contextlib.contextmanager
def _collect(model: Any, population: Population) -> Iterator[None]:
    """While open, every norm normalises by the batch; at the end the moments of their inputs are added to `population`."""
    norms, seen = slimmable_norms(model), list[tuple[str, int, torch.Tensor]]()
    for name, norm in norms.items():
        norm.observer = _observer(name, seen)
    try:
        yield
    finally:
        for norm in norms.values():
            norm.observer = None
    if seen:
        # In one piece, so that a GPU is waited for once and not at every norm.
        values = torch.cat([moments.flatten() for _, _, moments in seen]).double().cpu()
        parts = values.split([moments.numel() for _, _, moments in seen])
        for (name, count, _), part in zip(seen, parts):
            mean, variance = part.view(2, -1)
            # A tensor of its own: a view would take all the values with it into files.
            population.add(name, count, mean.clone(), variance * count)


def _observer(name: str, seen: list[tuple[str, int, torch.Tensor]]) -> Callable[[int, torch.Tensor, torch.Tensor], None]:
    return lambda count, mean, variance: seen.append((name, count, torch.stack([mean, variance])))


@contextlib.contextmanager
def _batch_statistics(model: Any) -> Iterator[None]:
    """Training mode for norms, evaluation mode for dropout; what was active and the mode come back afterwards."""
    was_training, was_active = model.training, model.active
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        yield
    finally:
        model.train(was_training)
        model.activate(was_active)


def _joined(population: Population) -> BNStatistics:
    joined = Population()
    for part in distributed.gather(population):
        joined.merge(part)
    if not joined.moments:
        raise ValueError("no clip could be read for calibration: check CALIBRATION.SPLIT and CALIBRATION.NUM_CLIPS")
    return joined.statistics()


def statistics_to_dict(statistics: Mapping[Configuration, BNStatistics]) -> dict[str, dict]:
    """{configuration: BNStatistics} as plain containers, for a file."""
    return {str(configuration): s.to_dict() for configuration, s in statistics.items()}


def statistics_from_dict(state: Mapping[str, Mapping], model: Any = None) -> dict[Configuration, BNStatistics]:
    """The reverse of `statistics_to_dict`.

    model: the network that they are for; ValueError when they cannot be its own (`AdaptiveNetwork.check_statistics`).
    state: what `statistics_to_dict` gave.
    """
    statistics = {Configuration.parse(text): BNStatistics.from_dict(s) for text, s in state.items()}
    if model is not None:
        model.check_statistics(statistics)
    return statistics
