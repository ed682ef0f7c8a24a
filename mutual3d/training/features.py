"""Features that agree: what the classifier reads at each configuration is drawn to what it reads at the first one.

None of the papers has it. It is off unless MUTUAL.FEATURE_LOSS says so, for networks whose features are compared across
configurations: an index that is made at one is searched at another.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F


def feature_loss(features_BF: torch.Tensor, teacher_BF: torch.Tensor) -> torch.Tensor:
    """1 - the cosine similarity with the teacher's features, which get no gradient: mean over the batch."""
    return 1 - F.cosine_similarity(features_BF.float(), teacher_BF.detach().float()).mean()


class FeatureAgreement:
    """Watches what the classifier of a network reads, before dropout, in each forward of a step.

    model: an AdaptiveNetwork. weight: of each configuration's `feature_loss`, beside its other loss. Raises ValueError for a network
    whose classifier reads fewer features at smaller widths: these would not be compared with all of the teacher's.
    """

    def __init__(self, model: Any, weight: float) -> None:
        if not model.has_fixed_features:
            raise ValueError(
                f"MUTUAL.FEATURE_LOSS is {weight:g}, and the classifier of this network reads fewer features at smaller widths: set it 0, or "
                "take a network that keeps them, such as X3D or MobileNetV2"
            )
        self.weight = weight
        self._classifier: nn.Module = model.get_submodule(model.classifier_name)
        self._dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
        self._features: torch.Tensor | None = None
        self._teacher: torch.Tensor | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which a forward is run. Nothing stays at the network's layers after it, which may be traced or copied."""
        dropped: list[torch.Tensor] = []

        def keep(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            is_dropped = bool(dropped) and dropped[-1].shape == given[0].shape
            self._features = (dropped[-1] if is_dropped else given[0]).flatten(1)

        handles = [module.register_forward_pre_hook(lambda _, given: dropped.append(given[0])) for module in self._dropouts]
        handles.append(self._classifier.register_forward_pre_hook(keep))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def loss(self, is_first: bool) -> torch.Tensor:
        """What the last forward's features add to its loss. is_first: the features become the teacher of those that follow."""
        features, self._features = self._features, None
        assert features is not None, "a forward is watched before its loss is asked for"
        if is_first:
            self._teacher = features.detach()
            return features.new_zeros(())
        assert self._teacher is not None, "the first configuration comes first"
        return self.weight * feature_loss(features, self._teacher)
