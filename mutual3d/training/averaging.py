"""The exponential moving average of a network's weights (timm's model EMA), which is what is evaluated and kept."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """The moving average of every weight and running statistic of `model`, which `update` takes after each step.

    decay: what stays of the average at each step; at first less, (1 + n) / (10 + n) after n steps, so that the weights that
    training began with are soon forgotten. Raises ValueError for one outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of averaged weights is {decay}: it must be 0 or more and below 1 (MODEL.EMA_DECAY)")
        self.model, self.decay = model, decay
        self._average = AveragedModel(model, multi_avg_fn=self._decayed, use_buffers=True)

    def _decayed(self, averages: Any, weights: Any, num_averaged: Any) -> None:
        n = int(num_averaged)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averages, weights, num_averaged)

    def update(self) -> None:
        """Take the model's weights of now."""
        self._average.update_parameters(self.model)

    @property
    def network(self) -> Any:
        """The network that has the averages: of the model's class."""
        return self._average.module

    def weights(self) -> dict[str, torch.Tensor]:
        """The averages, by the model's names."""
        return self._average.module.state_dict()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While open, the model has the averages; afterwards its own weights again, to the bit."""
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights())
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def finish(self) -> None:
        """Give the model the averages for good."""
        self.model.load_state_dict(self.weights())

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the averages, which are its `model_state`: the weights that training goes on from."""
        return {"num_averaged": int(self._average.n_averaged), "training_weights": self.model.state_dict()}

    def restore(self, averages: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: its averages, and what `state` gave. The model gets the weights of training.

        Raises ValueError or RuntimeError for what another network or none wrote.
        """
        self._average.module.load_state_dict(averages)
        self._average.n_averaged.fill_(int(state["num_averaged"]))
        self.model.load_state_dict(state["training_weights"])
