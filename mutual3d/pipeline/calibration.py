"""Batch norm statistics of every configuration, kept in statistics.pyth."""

from collections.abc import Sequence
from pathlib import Path

from mutual3d.evaluation.calibration import statistics_from_dict, statistics_to_dict
from mutual3d.evaluation.resume import WRONG_CONTENT, describe
from mutual3d.layers import BNStatistics
from mutual3d.models import AdaptiveNetwork
from mutual3d.pipeline.plans import CalibrationPlan
from mutual3d.pipeline.workspace import Workspace
from mutual3d.sampling import Configuration
from mutual3d.utils import distributed
from mutual3d.utils.files import load_tensors, save_tensors
from mutual3d.utils.fingerprint import fingerprint
from mutual3d.utils.logging import logger


def calibrate(run: Workspace, plan: CalibrationPlan) -> None:
    """Statistics of every configuration that the run will measure, or an earlier run's of the same weights.

    A network without norms needs none. Those that training keeps running statistics of, with norms of their own, are left as their papers
    measure them unless the plan says otherwise.
    """
    wanted, own = _to_calibrate(run, plan, [*run.grid_configurations(), *run.test_configurations()])
    if own:
        logger.info(
            "%d of %d configurations have running statistics of their own from training, and keep them (CALIBRATION.OWN_STATISTICS False)",
            len(own), len(own) + len(wanted),
        )  # fmt: skip
    if not wanted:
        return
    loader = plan.loader()
    calibrated_under = run.fingerprint(loader, wanted, plan.average)
    partial = run.partial_result(".calibration", calibrated_under)
    if load_statistics(run, calibrated_under):
        partial.remove()
        return
    run.calibrate(loader, wanted, plan, partial)
    if distributed.is_main():
        statistics = statistics_to_dict(run.model.statistics)
        content = {"fingerprint": calibrated_under, "weights": fingerprint(run.model.state_dict()), "statistics": statistics}
        save_tensors(run.output / "statistics.pyth", content)
    distributed.barrier("the main process to save the statistics")
    partial.remove()


def check_batches(run: Workspace, plan: CalibrationPlan) -> None:
    """ValueError where calibration would see batches of a few samples, since those of several sizes share none.

    In its pass norms normalise by the batch, as in training: by a few samples they do so in another way than they learned to, and by one
    sample whose features are 1 x 1 not at all.
    """
    # Sizes between the trained ones are not there before training.
    wanted, _ = _to_calibrate(run, plan, run.grid_configurations())
    loader = plan.loader()
    if wanted and loader.mean_batch < min(loader.batch_size, loader.num_samples) / 2:
        noun = loader.dataset.noun
        raise ValueError(
            f"calibration has {loader.num_samples} {noun}s of several sizes, which share no batch: {loader.mean_batch:.1f} are in one on average, "
            f"where CALIBRATION.BATCH_SIZE is {loader.batch_size}, and norms compute by the batch; set CALIBRATION.TRANSFORM train, whose cuts have one size"
        )


def _to_calibrate(run: Workspace, plan: CalibrationPlan, asked: Sequence[Configuration]) -> tuple[list[Configuration], list[Configuration]]:
    """(those of `asked` that calibration is to give statistics, those that keep what training gave them), each once."""
    if not run.model.has_norms:
        return [], []
    every = list(dict.fromkeys(asked))
    own = [] if plan.with_own else [c for c in every if run.model.has_own_statistics(c)]
    return [c for c in every if c not in own], own


def load_statistics(run: Workspace, calibrated_under: str | None = None) -> bool:
    """Take statistics.pyth if it was computed under `calibrated_under`, or, without one, for the weights at hand."""
    path = run.output / "statistics.pyth"
    if not distributed.agree(path.is_file(), f"whether there is a '{path}'"):
        return False
    usable = _usable_statistics(path, run.model, calibrated_under)
    # All processes act alike, also when the disk shows one of them another file.
    if not all(found is not None for found in distributed.gather(usable and True)):
        return False
    assert usable is not None, "all processes have found some"
    run.model.set_statistics(usable)
    logger.info("calibrated statistics from '%s'", path)
    return True


def _usable_statistics(
    path: Path, model: AdaptiveNetwork, calibrated_under: str | None
) -> dict[Configuration, BNStatistics] | None:
    """What a file has for these weights, data and settings; None when it is another's, or damaged, which is said."""
    try:
        saved = load_tensors(path)
        key, wanted = ("fingerprint", calibrated_under) if calibrated_under else ("weights", fingerprint(model.state_dict()))
        if saved[key] != wanted:
            logger.info("'%s' belongs to other weights, data or settings: it is computed again", path)
            return None
        return statistics_from_dict(saved["statistics"], model)
    except WRONG_CONTENT as error:
        logger.warning("'%s' cannot be used (%s): it is computed again where CALIBRATION.ENABLE is True", path, describe(error, path))
        return None
