"""Features before the classifier, at any budget: an index made at one configuration is searched at another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn as nn
import torch.nn.functional as F

from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.decoding import Decoding
from mutual3d.deploy.gives import check_gives_classes
from mutual3d.deploy.predict import Reading, read_all
from mutual3d.deploy.sources import Array
from mutual3d.deploy.used_frames import used_frames
from mutual3d.sampling import Cascade, Configuration
from mutual3d.sampling.cascade import parse_any

if TYPE_CHECKING:  # whose method `embed` is what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel


@dataclass(frozen=True)
class Embeddings:
    """What the classifier reads of each clip, at one configuration.

    features_NF: float32 N, F, on the CPU. names: N, of the files, or `array`. configuration: that ran. num_active: how many of the F
    features it computes; the others are 0 (see `AdaptiveModel.embed`). bad: VideoError of each file that cannot be read.
    """

    features_NF: torch.Tensor
    names: tuple[str, ...]
    configuration: Configuration
    num_active: int
    bad: tuple[VideoError, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def cosine(self, others: "Embeddings") -> torch.Tensor:
        """Cosine similarities N, M, with the M of `others`, which may be of another configuration of the same model."""
        return F.normalize(self.features_NF, dim=1) @ F.normalize(others.features_NF, dim=1).T

    def nearest(self, index: "Embeddings", k: int = 5) -> list[list[tuple[str, float]]]:
        """For each the k most similar ones of an index, descending: [(name, cosine similarity)]."""
        values, places = self.cosine(index).topk(min(k, len(index)), dim=1)
        return [
            [(index.names[place], value) for place, value in zip(*row)] for row in zip(places.tolist(), values.tolist())
        ]


def embed(
    model: "AdaptiveModel",
    sources: Sequence[Path | Array],
    configuration: Configuration | Cascade | str,
    *,
    batch: int = 32,
    decoding: Decoding = Decoding(),
) -> Embeddings:
    """The Embeddings of files and arrays, a row for each, in PyTorch; thread-safe, whatever the model has active.

    batch: clips that the network computes together. Raises ValueError for a cascade, a model of boxes, and a network that does not
    say which layer its classifier is; NotCalibratedError.
    """
    chosen = parse_any(configuration)
    if isinstance(chosen, Cascade):
        raise ValueError(f"{chosen} is a cascade, whose configurations have features of their own: name one of them")
    check_gives_classes(model, "embedding")
    if model.network.takes_boxes:
        raise ValueError("this model classifies boxes: give one that classifies clips or images")
    chosen = model.network.space.check(chosen)
    positions, full = model.network.feature_positions(chosen)
    watched = _Watched(model, chosen)
    waiting, rows, names, bad = [], [], [], []
    for name, found in read_all(model, sources, Reading(decoding=decoding, used=tuple(used_frames(model.network, chosen)))):
        if isinstance(found, VideoError):
            bad.append(found)
            continue
        # Joined with what is normalised already, pixels would pass for that.
        if waiting and waiting[-1].dtype != found.parts[0].clips.clips_VCTHW.dtype:
            rows.append(watched.features(torch.cat(waiting)))
            waiting.clear()
        waiting += [part.clips.clips_VCTHW for part in found.parts]
        names += [name] * len(found.parts)
        if len(waiting) >= batch:
            rows.append(watched.features(torch.cat(waiting)))
            waiting.clear()
    if waiting:
        rows.append(watched.features(torch.cat(waiting)))
    active = torch.cat(rows) if rows else torch.zeros(0, len(positions))
    features_NF = torch.zeros(len(active), full)
    features_NF[:, positions] = active
    return Embeddings(features_NF, tuple(names), chosen, len(positions), tuple(bad))


class _Watched:
    """A model's network at one configuration, of its own, and what its classifier is given in a call."""

    def __init__(self, model: "AdaptiveModel", configuration: Configuration) -> None:
        self._model, self._configuration = model, configuration
        self._network = model.extract(configuration)
        assert model.network.classifier_name is not None
        self._network.get_submodule(model.network.classifier_name).register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._given = given[0]

    def features(self, clips_BCTHW: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self._network(self._model.inputs(clips_BCTHW, self._configuration))
        return self._given.flatten(1).float().cpu()
