"""The page of a run with its csv and plots, and what it keeps so that they can be written again where the videos are not."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.deploy.adaptive_model import load
from mutual3d.models import AdaptiveNetwork
from mutual3d.pipeline.examples import read_examples
from mutual3d.pipeline.multi_view import TEST_RESULTS
from mutual3d.pipeline.predictions import left_out, load_candidates, load_per_class, load_predictions
from mutual3d.pipeline.workspace import Workspace, network_fingerprint
from mutual3d.report.classes import Example, Predictions, Seen
from mutual3d.report.page import Findings, MultiViewTest, write_report
from mutual3d.report.plots import plot_costs
from mutual3d.table.query_table import QueryTable
from mutual3d.utils.files import read_json, write_json
from mutual3d.utils.logging import logger, read_json_stats

KEPT = "report.json"


@dataclass(frozen=True)
class RunFacts:
    """What a page says of its run. command: its command line. settings: its config, as text. class_names: by label."""

    network: AdaptiveNetwork
    command: str = ""
    settings: str = ""
    class_names: Sequence[str] = ()

    @classmethod
    def of_run(cls, run: Workspace) -> "RunFacts":
        return cls(run.model, run.plan.command, run.plan.settings, run.plan.class_names or ())


def write_table_files(output: Path, table: QueryTable) -> None:
    """query_table.csv, and the plots of accuracy against each cost."""
    table.save_csv(output / "query_table.csv")
    plot_costs(table, output)


def write_page(output: Path, table: QueryTable | None, about: RunFacts, dataset: ClipDataset | None = None) -> None:
    """report.html, of what lies in the output directory: about `table`, or, without one, about training and test.

    dataset: frames of examples are read from it once for a table, and kept in report.json.
    """
    predictions = load_predictions(output, table) if table else ()
    kept = _load_kept(output, table)
    candidates = load_candidates(output, table, predictions, about.class_names) if table and dataset else []
    if kept is None or (candidates and not kept["examples"]):
        kept = {"left_out": left_out(dataset, predictions) if dataset else [], "examples": []}
        if dataset:
            kept["examples"] = [_to_dict(one) for one in read_examples(dataset, candidates)]
    kept |= {"command": about.command, "settings": about.settings}
    write_json(output / KEPT, {"fingerprint": _fingerprint(table), **kept})
    _write(output, table, predictions, kept, about)


def write_page_without_data(output: Path) -> Path:
    """Write csv, plots and report.html of a finished run once more, such as by a newer version, from its output directory alone.

    Returns the page's path. The table is that in adaptive.pyth. Raises FileNotFoundError and ValueError where adaptive.pyth is
    missing or damaged.
    """
    model = load(output / "adaptive.pyth")
    table = model.table
    if table:
        write_table_files(output, table)
    kept = _load_kept(output, table) or {"command": "", "settings": "", "left_out": [], "examples": []}
    about = RunFacts(model.network, kept["command"], kept["settings"], model.class_names or ())
    _write(output, table, load_predictions(output, table) if table else (), kept, about)
    return output / "report.html"


def _write(output: Path, table: QueryTable | None, predictions: Sequence[Predictions], kept: dict[str, Any], about: RunFacts) -> None:
    findings = Findings(
        command=about.command,
        config=about.settings,
        predictions=predictions,
        per_class=load_per_class(output, table, about.class_names) if table else (),
        examples=[_from_dict(one) for one in kept["examples"]],
        test=_load_test(output, network_fingerprint(about.network)),
        class_names=about.class_names,
        left_out=kept["left_out"],
        norms=about.network.private_norm_means(),
        has_boxes=about.network.takes_boxes,
        takes_images=about.network.takes == "images",
        gives=about.network.gives,
    )
    stats = read_json_stats(output / "stdout.log")
    history = [entry for entry in stats if entry.get("_type") in ("train_epoch", "val_epoch", "val_smallest_epoch")]
    title = "" if table else str((about.network.arguments or {}).get("name", ""))
    write_report(table, output / "report.html", history=history, title=title, findings=findings)


def _load_test(output: Path, of_network: str) -> MultiViewTest | None:
    """What test_results.json says of this network; None where it is missing, damaged, or of another one."""
    path = output / TEST_RESULTS
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        return MultiViewTest.from_dict(content) if content.get("network") == of_network else None
    except (ValueError, AttributeError, OSError) as error:
        logger.warning("'%s' is not shown in the report: %s", path, error)
        return None


def _fingerprint(table: QueryTable | None) -> Any:
    return table.provenance.get("fingerprint") if table else None


def _load_kept(output: Path, table: QueryTable | None) -> dict[str, Any] | None:
    """What report.json holds of this very table; None where it is missing, damaged, or of another."""
    if not (output / KEPT).is_file():
        return None
    try:
        content = read_json(output / KEPT)
        if content["fingerprint"] != _fingerprint(table):
            return None
        for one in content["examples"]:
            _from_dict(one)
        words = {name: str(content[name]) for name in ("command", "settings")}
        return {**words, "left_out": list(map(str, content["left_out"])), "examples": content["examples"]}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, binascii.Error) as error:
        logger.warning("'%s' is not used in the report: %s", output / KEPT, error)
        return None


def _to_dict(one: Example) -> dict[str, Any]:
    video = one.video.encode("utf-8", "replace").decode("utf-8")
    strip = base64.b64encode(one.strip_JPEG).decode("ascii")
    return {"video": video, "is_right": one.is_right, "seen": [seen.to_dict() for seen in one.seen], "strip_JPEG": strip}


def _from_dict(entry: dict[str, Any]) -> Example:
    strip = base64.b64decode(entry["strip_JPEG"], validate=True)
    return Example(str(entry["video"]), bool(entry["is_right"]), tuple(map(Seen.from_dict, entry["seen"])), strip)
