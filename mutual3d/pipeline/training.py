"""Training: from the newest checkpoint to the last epoch, saved and validated on the way."""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mutual3d.evaluation import VideoPass
from mutual3d.evaluation.calibration import compute_statistics
from mutual3d.models.adaptive.extraction import load_statistics
from mutual3d.pipeline.plans import TrainingPlan
from mutual3d.pipeline.workspace import Workspace
from mutual3d.sampling import smallest_of_every_step
from mutual3d.training import Progress, StepProfile, Trainer, WeightAverage
from mutual3d.utils import distributed
from mutual3d.utils.logging import log_json_stats, logger
from mutual3d.utils.stopping import StopRequestedError, deferred, stop_reason
from mutual3d.utils.threads import computing_threads

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def train(run: Workspace, plan: TrainingPlan) -> None:
    """Train to the plan's last epoch, going on from the newest checkpoint of the output directory.

    Raises StopRequestedError, with all of it saved, where the run is asked to stop.
    """
    try:
        _Training(run, plan).run_epochs()
    finally:
        # Whoever evaluates from here on has calibrated statistics, or none.
        run.model.track_statistics(None)


class _Training:
    """The parts of a training that its epochs share."""

    def __init__(self, run: Workspace, plan: TrainingPlan) -> None:
        self.run, self.plan = run, plan
        self.step = plan.make_step(run.model, run.device)
        self.optimizer = plan.make_optimizer(run.model, self.step.objective)
        self.average: WeightAverage | None = None
        self.loader = plan.loader(run.model)
        self.training_set = distributed.from_main(self.loader.dataset.fingerprint)
        self.teacher = plan.make_teacher(self.loader.dataset)
        self.taught_by = "" if self.teacher is None else distributed.from_main(self.teacher.fingerprint)
        self.writer: SummaryWriter | None = None

    def run_epochs(self) -> None:
        plan, run = self.plan, self.run
        start = self._starting_point()
        self._track(start)
        if start.epoch >= plan.course.max_epoch:
            if start.validation_is_due:
                self._make_up(start.epoch)
                run.checkpoints.delete_unfinished()
            logger.info("training is finished: %d epochs", start.epoch)
            if plan.trace:
                logger.warning("--profile has nothing to tell: it times steps of a training, and this one is finished")
            self._take_average()
            return
        self.writer = self._open_writer()
        self._tell_of_largest_alone(start)
        if plan.trace and distributed.is_main():
            self.step.parts = StepProfile(plan.trace, run.device)
        trainer = Trainer(
            self.step, self.optimizer, self.loader, plan.schedule, plan.course,
            device=run.device, after_epoch=self._after_epoch, inside_epoch=self._save_inside, writer=self.writer,
            transforms=plan.transforms, after_step=self.average.update if self.average else None,
            teacher=self.teacher,
        )  # fmt: skip
        try:
            with deferred(), computing_threads(run.plan.num_threads):
                if start.validation_is_due:
                    self._make_up(start.epoch)
                # With another training set (TRAIN.ALLOW_OTHER_DATA) an epoch may be shorter.
                trainer.train(start.epoch, min(start.iteration, len(self.loader) - 1), start.parts)
        finally:
            if self.writer:
                self.writer.close()
        self._take_average()
        distributed.broadcast_buffers(run.model)

    def _tell_of_largest_alone(self, start: Progress) -> None:
        """What is timed of the first steps, which cost less, does not hold for those that follow."""
        end = self.plan.course.subnets_start_epoch
        if start.epoch + start.iteration / len(self.loader) >= end or not self.step.method.subnets:
            return
        logger.info(
            "the largest configuration trains alone before epoch %g (MUTUAL.SUBNETS_START_EPOCH): until then `eta` is too early, since it "
            "takes all steps for as short as these", end,
        )  # fmt: skip
        if self.plan.trace:
            logger.warning(
                "--profile times the first steps, in which the largest configuration trains alone: with MUTUAL.SUBNETS_START_EPOCH 0 in "
                "another OUTPUT_DIR it times those with sub-networks"
            )

    def _track(self, start: Progress) -> None:
        """Keep running statistics of the smallest configuration too, from those of the checkpoint on."""
        model = self.run.model
        smallest = smallest_of_every_step(model.space, self.step.method.subnets) if self.plan.tracks_smallest else None
        if smallest is not None:
            model.track_statistics(smallest)
            model.load_tracked(start.tracked)

    def _take_average(self) -> None:
        """From here on the network is its averaged one, where there is one."""
        if self.average:
            self.average.finish()

    def _starting_point(self) -> Progress:
        plan, run = self.plan, self.run
        newest = distributed.agree(run.checkpoints.last(), "the newest checkpoint")
        if newest is None and plan.weights:
            run.load(plan.weights, plan.reset_head, plan.weights_kind, plan.inflate)
        self.average = plan.make_average(run.model)
        return Progress() if newest is None else self._resume(newest)

    def _resume(self, newest: Path) -> Progress:
        run = self.run
        if not self.plan.auto_resume:
            # Two runs in one directory would be taken for each other, by a resume and by every later stage.
            raise ValueError(
                f"TRAIN.AUTO_RESUME is False and '{newest}' is there: choose another OUTPUT_DIR to start anew, move the "
                "checkpoints away, or set TRAIN.AUTO_RESUME True to go on"
            )
        if self.plan.weights:
            logger.warning("TRAIN.CHECKPOINT_FILE_PATH is not read: this run goes on from its own '%s'", newest)
        progress = run.checkpoints.resume(
            run.model, self.optimizer, self.step.scaler, self.step.objective, self._check_checkpoint, newest, self.average
        )
        run.checkpoint_name = run.checkpoints.path(progress.epoch).name
        logger.info("going on from '%s'", newest)
        return progress

    def _check_checkpoint(self, path: Path, state: dict) -> None:
        """Refuse, or tell, whatever this run has otherwise than the one that wrote a checkpoint."""
        if not state.get("cfg"):
            logger.warning("'%s' holds no settings to compare this run's with", path)
            return
        try:
            changes = self.plan.changed_settings(state["cfg"])
        except ValueError as error:
            raise ValueError(f"'{path}': {error}; choose another OUTPUT_DIR") from None
        if changes.are_refused:
            raise ValueError(
                f"'{path}' belongs to another run ({'; '.join(changes.are_refused)}): set them back to go on; or choose another "
                f"OUTPUT_DIR to start anew, from its weights with TRAIN.CHECKPOINT_FILE_PATH '{path}' where the network is the "
                "same; or set TRAIN.ENABLE False to use it as it is"
            )
        if changes.take_effect:
            is_finished = state["epoch"] >= self.plan.course.max_epoch
            when = "too late for what belongs to training, which is finished" if is_finished else "in effect from here on"
            logger.info("changed since '%s', and %s: %s", path.name, when, "; ".join(changes.take_effect))
        if changes.are_told:
            logger.warning(
                "the finished epochs (%d) of '%s' were made otherwise: %s", state["epoch"], path.name, "; ".join(changes.are_told)
            )
        self._check_training_set(path, state.get("training_set"))
        self._check_teacher(path, state.get("teacher", ""))

    def _check_teacher(self, path: Path, taught_by: str) -> None:
        """Logits of another network, or in another order, are another teacher, wherever their file lies."""
        if taught_by == self.taught_by:
            return
        if not taught_by:
            what, fix = "learned from labels alone, and TRAIN.TEACHER_LOGITS names stored logits to learn from too", "leave it empty to go on"
        elif not self.taught_by:
            what, fix = "learned from stored logits too, and TRAIN.TEACHER_LOGITS is empty", "name their file to go on"
        else:
            what = "learned from other stored logits than TRAIN.TEACHER_LOGITS names now: the file changed, or the training list did"
            fix = "name a file of the same logits to go on, set TRAIN.ALLOW_OTHER_DATA True to go on with these"
            if self.plan.allow_other_data:
                logger.warning("'%s' %s; going on, since TRAIN.ALLOW_OTHER_DATA is True", path, what)
                return
        raise ValueError(f"'{path}' {what}: {fix}, or choose another OUTPUT_DIR to start anew")

    def _check_training_set(self, path: Path, trained_on: str | None) -> None:
        if not trained_on:
            logger.warning("'%s' does not say what it was trained on: it cannot be compared", path)
        elif trained_on != self.training_set:
            what = f"'{path}' was trained on another training set: lists, labels or files changed, or lie elsewhere"
            if not self.plan.allow_other_data:
                raise ValueError(
                    f"{what}; set TRAIN.ALLOW_OTHER_DATA True to go on with these, choose another OUTPUT_DIR to start anew, or set "
                    "TRAIN.ENABLE False to calibrate, measure and test what was trained"
                )
            logger.warning("%s; going on, since TRAIN.ALLOW_OTHER_DATA is True", what)

    def _after_epoch(self, epoch: int) -> None:
        last = epoch == self.plan.course.max_epoch
        is_saved = self._finish_epoch(epoch)
        # Once an epoch all processes agree: a signal after its last step may have come to one of them alone.
        if not last and distributed.any_process(stop_reason(), self.run.device):
            if not is_saved:
                self._save(epoch, Progress(epoch))
            distributed.barrier("the main process to save")
            raise StopRequestedError(stop_reason() or "another process of the run was asked to stop")

    def _finish_epoch(self, epoch: int) -> bool:
        """What is due after an epoch: precise statistics, a checkpoint, validation, in PySlowFast's order. Whether it is saved."""
        last = epoch == self.plan.course.max_epoch
        is_saved = last or epoch % self.plan.checkpoint_period == 0
        is_validated = last or epoch % self.plan.eval_period == 0
        if self.plan.precise_batches and (is_saved or is_validated):
            self._make_precise_or_owe(epoch)
        if is_saved:
            self._save(epoch)
        if is_validated:
            self._validate_or_owe(epoch)
        return is_saved

    def _make_up(self, epoch: int) -> None:
        """What a stop kept an earlier process from after an epoch."""
        if self.plan.precise_batches:
            self._finish_epoch(epoch)
        else:
            self._validate_or_owe(epoch)

    def _make_precise_or_owe(self, epoch: int) -> None:
        """The running statistics become those of training clips of the epoch, exactly; where the run is asked to stop in the midst
        of it, save that this is still to be done."""
        run, count = self.run, min(self.plan.precise_batches, len(self.loader))
        network = self.average.network if self.average else run.model
        if not network.has_norms:
            return
        videos = VideoPass(count, self.loader.num_samples, self.plan.course.max_unreadable)
        try:
            found = compute_statistics(
                network, lambda done: itertools.islice(self.loader.batches(epoch=epoch - 1), count), [network.space.largest],
                prepare=run.prepare, videos=videos,
            )  # fmt: skip
        except StopRequestedError:
            self._save(epoch, Progress(epoch, validation_is_due=True))
            raise
        load_statistics(network, found[network.space.largest])

    def _save(self, epoch: int, inside: Progress | None = None) -> None:
        run = self.run
        run.checkpoints.save(
            run.model, self.optimizer, epoch=epoch, config=self.plan.settings, scaler=self.step.scaler,
            objective=self.step.objective, average=self.average, training_set=self.training_set, teacher=self.taught_by, inside=inside,
            tracked=run.model.tracked, class_names=run.plan.class_names,
        )  # fmt: skip
        run.checkpoint_name = run.checkpoints.path(epoch).name

    def _save_inside(self, epoch: int, iteration: int, parts: list[dict]) -> None:
        self._save(epoch, Progress(epoch, iteration, parts))

    def _validate_or_owe(self, epoch: int) -> None:
        """Validate; where the run is asked to stop in the midst of it, save that this is still to be done."""
        try:
            self._validate(epoch)
        except StopRequestedError:
            self._save(epoch, Progress(epoch, validation_is_due=True))
            raise

    def _validate(self, epoch: int) -> None:
        """Accuracy of the largest configuration, of averaged weights where there are such; afterwards those of training are back."""
        with self.average.in_place() if self.average else contextlib.nullcontext():
            self._validate_as_it_is(epoch)

    def _validate_as_it_is(self, epoch: int) -> None:
        """Accuracy of the largest configuration, and of the tracked one, on the validation split, with their running statistics."""
        run, largest = self.run, self.run.model.space.largest
        try:
            loader = self.plan.validation()
        except FileNotFoundError as error:
            logger.warning("validation after epoch %d is skipped: %s", epoch, error)
            return
        if not run.model.can_evaluate(largest):
            logger.warning("validation after epoch %d is skipped: %s is not trained in every step", epoch, largest)
            return
        distributed.broadcast_buffers(run.model)
        # Before the first of its steps its statistics are those of nothing.
        tracked = run.model.tracked if epoch > self.plan.course.subnets_start_epoch else {}
        for statistics in tracked.values():
            distributed.broadcast([*statistics.mean.values(), *statistics.variance.values()], "the tracked statistics")
        start = time.perf_counter()
        # A time limit that is shorter than a validation would else never get past it.
        partial = run.partial_result(".validation", run.fingerprint(loader, epoch, *map(str, tracked)))
        found = run.measure(loader, [largest, *tracked], f"validate {epoch}", partial)
        stats = as_errors(found[largest].values())
        partial.remove()
        epochs = f"{epoch}/{self.plan.course.max_epoch}"
        log_json_stats({"_type": "val_epoch", "epoch": epochs, "time_diff": time.perf_counter() - start, **stats})
        for configuration in tracked:
            told = {"_type": "val_smallest_epoch", "epoch": epochs, "configuration": str(configuration)}
            log_json_stats({**told, **as_errors(found[configuration].values())})
        if self.writer:
            for key, value in stats.items():
                self.writer.add_scalar(f"Val/{key}", value, epoch)

    def _open_writer(self) -> SummaryWriter | None:
        if self.plan.tensorboard is None or not distributed.is_main():
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError("TENSORBOARD.ENABLE needs tensorboard: pip install -e .[tensorboard]") from None
        return SummaryWriter(str(self.plan.tensorboard))


def as_errors(values: dict[str, float]) -> dict[str, float]:
    """A metric's values as PySlowFast's users know them: accuracies turned into errors, the rest as it is."""
    return {
        name.replace("_acc", "_err"): 100 - value if name.endswith("_acc") else value for name, value in values.items()
    }
