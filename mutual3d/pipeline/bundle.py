"""The one file that is deployed."""

from pathlib import Path

from mutual3d.deploy import AdaptiveModel
from mutual3d.deploy.adaptive_model import load
from mutual3d.evaluation.resume import WRONG_CONTENT
from mutual3d.pipeline.workspace import Workspace, network_fingerprint
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import load_tensors
from mutual3d.utils.fingerprint import fingerprint


def save_adaptive(run: Workspace, table: QueryTable | None) -> None:
    """Write adaptive.pyth: weights, statistics and table, for mutual3d.load.

    Without a table, a file that is there stays in a run that only tests, and where it holds the same network: it may
    have one.
    """
    path, plan = run.output / "adaptive.pyth", run.plan
    only_tests = plan.training is plan.calibration is plan.grid is None
    if table is None and path.is_file() and (only_tests or _holds_this_network(path, run)):
        return
    names = None if plan.class_names is None else list(plan.class_names)
    AdaptiveModel(run.model, preprocessing=run.preprocessing, table=table, class_names=names).save(path)


def saved_model(run: Workspace) -> AdaptiveModel | None:
    """What adaptive.pyth loads to; None where it is of another network than the run's, such as one that the run only tests."""
    path = run.output / "adaptive.pyth"
    return load(path) if path.is_file() and _holds_this_network(path, run) else None


def _holds_this_network(path: Path, run: Workspace) -> bool:
    try:
        saved = load_tensors(path)
        return fingerprint(saved["model_state"], saved["statistics"]) == network_fingerprint(run.model)
    except WRONG_CONTENT:
        return False
