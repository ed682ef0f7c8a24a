"""Checkpoints of a training run, under PySlowFast's names: checkpoints/checkpoint_epoch_00010.pyth.

One inside an epoch is checkpoints/unfinished_epoch_00011_batch_0000250.pyth: PySlowFast's tools take every name in that folder
that holds the word checkpoint for one of a finished epoch.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from mutual3d.evaluation.calibration import statistics_from_dict, statistics_to_dict
from mutual3d.layers import BNStatistics
from mutual3d.sampling import Configuration
from mutual3d.utils import distributed
from mutual3d.utils.checkpoint import load_weights
from mutual3d.utils.files import DamagedFileError, check_tensors, load_tensors, save_tensors, state_of
from mutual3d.utils.logging import logger

from .averaging import WeightAverage
from .optimizer import load_optimizer_state

# A file as it is now.
_Version = tuple[Path, tuple[int, int] | None]
_FINISHED, _UNFINISHED = re.compile(r"checkpoint_epoch_(\d+)"), re.compile(r"unfinished_epoch_(\d+)_batch_(\d+)")


@dataclass(frozen=True)
class Progress:
    """How far a training is: `epoch` finished epochs and `iteration` batches of the next one.

    parts: what each process had of that epoch, as `Trainer.train` takes it. validation_is_due: the last finished epoch was to be
    validated and is not. tracked: running statistics of other configurations than the largest (`AdaptiveNetwork.tracked`).
    """

    epoch: int = 0
    iteration: int = 0
    parts: Sequence[dict] = ()
    validation_is_due: bool = False
    tracked: Mapping[Configuration, BNStatistics] = field(default_factory=dict)


class Checkpoints:
    """Writes and finds the checkpoints of one output directory.

    keep: checkpoints of finished epochs that stay, of those that this run wrote; 0 and less keeps all.
    """

    def __init__(self, output_dir: str | Path, keep: int = 0) -> None:
        self.directory, self.keep = Path(output_dir) / "checkpoints", keep
        # Which run wrote a file: in every checkpoint, and taken over from the one that a run goes on from.
        self._run = uuid.uuid4().hex
        self._runs: dict[_Version, str | None] = {}

    def path(self, epoch: int, iteration: int | None = None) -> Path:
        """The file of the checkpoint after `epoch` epochs, or after `iteration` batches more."""
        if iteration is None:
            return self.directory / f"checkpoint_epoch_{epoch:05d}.pyth"
        return self.directory / f"unfinished_epoch_{epoch + 1:05d}_batch_{iteration:07d}.pyth"

    def found(self) -> list[Path]:
        """The checkpoints that are there, whole or not, the newest first."""
        return [path for _, path in sorted(self._places(), reverse=True)]

    def _places(self) -> list[tuple[tuple[int, int], Path]]:
        """((epochs, batches), path) of each checkpoint; an unfinished epoch's is newer than the last finished one's."""
        places = []
        for path in self.directory.glob("*.pyth"):
            if match := _FINISHED.fullmatch(path.stem):
                places.append(((int(match[1]), -1), path))
            elif match := _UNFINISHED.fullmatch(path.stem):
                places.append(((int(match[1]) - 1, int(match[2])), path))
        return places

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
        teacher: str = "",
        inside: Progress | None = None,
        tracked: Mapping[Configuration, BNStatistics] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Write the state after `epoch` finished epochs, on the main process, and delete the checkpoints that it makes needless.

        config: the settings as text, training_set: the fingerprint of what was trained on, and teacher: that of stored logits that taught
        it, "" for none, for a run that goes on from here to compare its own with. scaler, objective: whose states go in as well; None for none. average: of the model's
        weights: whoever reads the file gets the averages, and `resume` the weights of training too. inside: where in the next
        epoch this is, for one that is not finished. tracked: see `Progress`.
        class_names: by label, for whoever measures these weights to compare its own with; None where nothing names them.
        """
        if not distributed.is_main():
            return
        path = self.path(epoch, None if inside is None else inside.iteration)
        begun = {} if inside is None else {
            "iteration": inside.iteration, "parts": list(inside.parts), "validation_is_due": inside.validation_is_due,
        }  # fmt: skip
        save_tensors(
            path,
            {
                "epoch": epoch,
                **begun,
                "model_state": model.state_dict() if average is None else average.weights(),
                "model_arguments": model.arguments,
                "optimizer_state": optimizer.state_dict(),
                "scaler_state": None if scaler is None else scaler.state_dict(),
                "objective_state": None if objective is None else objective.state_dict(),
                "average_state": None if average is None else average.state(),
                "cfg": config,
                "training_set": training_set,
                "teacher": teacher,
                "tracked_state": statistics_to_dict(tracked or {}),
                "class_names": None if class_names is None else list(class_names),
                "run": self._run,
            },
        )
        self._runs[_version(path)] = self._run
        self._delete_needless(path)

    def _delete_needless(self, newest: Path) -> None:
        """Delete what the checkpoint that was just written makes needless: unfinished epochs before it, and all but `keep`."""
        places = sorted(self._places(), reverse=True)
        now = next(place for place, path in places if path == newest)
        needless = [path for place, path in places if place < now and place[1] >= 0]
        if self.keep > 0 and now[1] < 0:
            own = [path for place, path in places if place <= now and place[1] < 0 and self._is_own(path)]
            needless += own[self.keep :]
        if needless:
            try:
                check_tensors(newest)  # by the disk's word, before what a resume would else go on from is gone
            except DamagedFileError as error:
                logger.warning("%s: no older checkpoint is deleted", error)
                return
        for path in needless:
            path.unlink(missing_ok=True)

    def _is_own(self, path: Path) -> bool:
        """Whether this run, or an earlier process of it, wrote a file. Each is read once."""
        key = _version(path)
        if key not in self._runs:
            try:
                state = load_tensors(path)
                self._runs[key] = state.get("run") if isinstance(state, dict) else None
            except (ValueError, OSError):
                self._runs[key] = None
        return self._runs[key] == self._run

    def delete_unfinished(self) -> None:
        """Delete what there is of unfinished epochs: a training that is finished goes on from its last epoch's checkpoint."""
        for (_, batches), path in self._places() if distributed.is_main() else ():
            if batches >= 0:
                path.unlink(missing_ok=True)

    def resume(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        objective: torch.nn.Module | None = None,
        check: Callable[[Path, dict], None] = lambda path, state: None,
        path: Path | None = None,
        average: WeightAverage | None = None,
    ) -> Progress:
        """Load the newest whole checkpoint into model and optimizer; returns how far it is, Progress() if there is none.

        The optimizer keeps its own settings and takes the saved momenta. check(path, state) is called before anything is
        loaded, with what `save` wrote, and raises where this run cannot go on from it. path: what `last` gave, where that was
        asked before: files are looked at, and damage is told, once. average: of the model's weights, which goes on too.
        """
        path = path or self.last()
        if path is None:
            return Progress()
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
        self._run = state.get("run") or self._run
        return Progress(
            state["epoch"], state.get("iteration", 0), state.get("parts", ()), state.get("validation_is_due", False),
            statistics_from_dict(state.get("tracked_state", {})),
        )  # fmt: skip


def _version(path: Path) -> _Version:
    return path, state_of(path)
