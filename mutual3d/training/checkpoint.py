"""Checkpoints of a training run, under PySlowFast's names: checkpoints/checkpoint_epoch_00010.pyth."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from mutual3d.utils import distributed
from mutual3d.utils.checkpoint import load_weights
from mutual3d.utils.files import DamagedFileError, check_tensors, load_tensors, save_tensors
from mutual3d.utils.logging import logger

from .averaging import WeightAverage
from .optimizer import load_optimizer_state


class Checkpoints:
    """Writes and finds the checkpoints of one output directory."""

    def __init__(self, output_dir: str | Path) -> None:
        self.directory = Path(output_dir) / "checkpoints"

    def path(self, epoch: int) -> Path:
        """The file of the checkpoint after `epoch` epochs."""
        return self.directory / f"checkpoint_epoch_{epoch:05d}.pyth"

    def found(self) -> list[Path]:
        """The checkpoints that are there, whole or not, the newest first."""
        paths = self.directory.glob("checkpoint_epoch_*.pyth")
        named = [path for path in paths if re.fullmatch(r"checkpoint_epoch_\d+", path.stem)]
        return sorted(named, key=lambda path: int(path.stem.rsplit("_", 1)[1]), reverse=True)

    def last(self) -> Path | None:
        """The newest whole checkpoint, or None when there is none at all.

        One that is damaged, which disks and copies do to files that were written whole, is stepped over with a warning.
        Raises DamagedFileError when there are checkpoints and none is whole.
        """
        found = self.found()
        for path in found:
            try:
                check_tensors(path)
                return path
            except DamagedFileError as error:
                logger.warning("%s: the checkpoint before it is taken", error)
        if found:
            raise DamagedFileError(
                f"none of the {len(found)} checkpoints in '{self.directory}' is whole: copy them here anew, or move them away "
                "and start again; TRAIN.CHECKPOINT_FILE_PATH starts from the weights of another file"
            )
        return None

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        epoch: int,
        config: str = "",
        scaler: Any = None,
        objective: Any = None,
        average: WeightAverage | None = None,
        training_set: str = "",
    ) -> None:
        """Write the state after `epoch` finished epochs, on the main process.

        config: the settings as text, and training_set: the fingerprint of what was trained on, for a run that goes on from
        here to compare its own with. scaler, objective: whose states go in as well; None for none. average: of the model's
        weights: whoever reads the file gets the averages, and `resume` the weights of training too.
        """
        if not distributed.is_main():
            return
        save_tensors(
            self.path(epoch),
            {
                "epoch": epoch,
                "model_state": model.state_dict() if average is None else average.weights(),
                "model_arguments": model.arguments,
                "optimizer_state": optimizer.state_dict(),
                "scaler_state": None if scaler is None else scaler.state_dict(),
                "objective_state": None if objective is None else objective.state_dict(),
                "average_state": None if average is None else average.state(),
                "cfg": config,
                "training_set": training_set,
            },
        )

    def resume(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        objective: torch.nn.Module | None = None,
        check: Callable[[Path, dict], None] = lambda path, state: None,
        path: Path | None = None,
        average: WeightAverage | None = None,
    ) -> int:
        """Load the newest whole checkpoint into model and optimizer; returns the number of finished epochs, 0 if none.

        The optimizer keeps its own settings and takes the saved momenta. check(path, state) is called before anything is
        loaded, with what `save` wrote, and raises where this run cannot go on from it. path: what `last` gave, where that was
        asked before: files are looked at, and damage is told, once. average: of the model's weights, which goes on too.
        """
        path = path or self.last()
        if path is None:
            return 0
        state = load_tensors(path)
        if not isinstance(state, dict) or not {"epoch", "model_state", "optimizer_state"} <= state.keys():
            raise ValueError(
                f"'{path}' is no training checkpoint of this project: choose another OUTPUT_DIR; given as "
                "TRAIN.CHECKPOINT_FILE_PATH it can be started from"
            )
        check(path, state)
        load_weights(model, state["model_state"], path)
        if average is not None:
            if not state.get("average_state"):
                raise ValueError(f"'{path}' holds no averaged weights: set MODEL.EMA False, or choose another OUTPUT_DIR")
            average.restore(state["model_state"], state["average_state"])
        load_optimizer_state(optimizer, state["optimizer_state"])
        if scaler is not None and state["scaler_state"]:
            scaler.load_state_dict(state["scaler_state"])
        if objective is not None and state.get("objective_state"):
            objective.load_state_dict(state["objective_state"])
        return state["epoch"]
